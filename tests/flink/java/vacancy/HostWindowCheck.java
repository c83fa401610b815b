package vacancy;

import java.io.IOException;
import java.math.BigDecimal;
import java.math.MathContext;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Random;
import org.apache.flink.core.memory.DataInputDeserializer;
import org.apache.flink.core.memory.DataOutputSerializer;

/**
 * Holds a {@link HostWindow} to a list of events that is looked through at each event, over many random hosts.
 *
 * <p>On the way it goes through the serializer, or is replaced by a copy; what it was then must stay as it was. Now and
 * then the length of the window changes, as it may between a savepoint and the job that is started from it: once the new
 * length has passed, all is as if it had never been another.
 */
public final class HostWindowCheck {

    private static final HostWindowSerializer SERIALIZER = new HostWindowSerializer();
    private static final MathContext EXACT = MathContext.DECIMAL128;

    /**
     * An event. By counter: what it grew by in the step to it, or -1 where it has none; where it had been before it fell in
     * that step, or -1; and whether it is back from where it fell in the step before.
     */
    private record Event(
            long appendMs,
            long[] free,
            long[] growth,
            long[] fellFrom,
            boolean[] back,
            long clockNs,
            long elapsedNs,
            long cpuCount) {}

    /** Of one boot, and behind its clock. */
    private record Behind(String boot, long appendMs, long clockNs) {}

    private final Random random;
    private long windowMs;

    /** A window that ends here or before may still show what another length has left. */
    private long inexactUntilMs = Long.MIN_VALUE;

    private final List<Event> events = new ArrayList<>();
    private final List<Behind> behind = new ArrayList<>();
    private boolean wentBack;
    private long observedMs = -1;
    private int partition;
    private long clonedMs = -1;
    private HostWindow window = new HostWindow();
    private long appendMs = 1_700_000_000_000L;
    private String boot;

    /** How far each boot has got that is remembered, the present one last. */
    private final Map<String, Long> clocksNs = new LinkedHashMap<>();

    private long[] counters;

    private HostWindowCheck(Random random) {
        this.random = random;
        windowMs = random.nextInt(1, 60_000);
    }

    /** Takes a seed and how many hosts to check. */
    public static void main(String[] arguments) throws IOException {
        long seed = Long.parseLong(arguments[0]);
        for (int host = 0; host < Integer.parseInt(arguments[1]); host++) {
            try {
                new HostWindowCheck(new Random(seed + host)).check();
            } catch (AssertionError error) {
                throw new AssertionError("seed " + (seed + host) + ": " + error.getMessage(), error);
            }
        }
    }

    private void check() throws IOException {
        int count = random.nextInt(1, 400);
        int longestGapMs = random.nextInt(1, 3000);
        HostWindow former = new HostWindow();
        byte[] asItWas = bytes(former);
        for (int number = 0; number < count; number++) {
            if (random.nextInt(60) == 0) {
                windowMs = random.nextInt(1, 60_000);
                inexactUntilMs = appendMs + windowMs;
            }
            addOne(longestGapMs);
            compare();
            if (random.nextInt(20) == 0) {
                equal(Arrays.equals(bytes(former), asItWas), true, "what was copied: as it was");
                former = window;
                asItWas = bytes(window);
                window = random.nextBoolean() ? SERIALIZER.copy(window) : deserialized(asItWas);
                equal(Arrays.equals(bytes(window), asItWas), true, "a copy: equal");
                compare();
            }
        }
    }

    private void addOne(int longestGapMs) {
        int kind = random.nextInt(20);
        long now = appendMs + (kind == 0 ? 0 : random.nextInt(longestGapMs));
        if (kind == 1) {
            now = appendMs - random.nextLong(windowMs + 1);
        } else if (kind == 2) {
            now = appendMs - windowMs - random.nextInt(1, 1000);
        } else if (kind == 3) {
            now += windowMs;
        }
        String nextBoot = boot == null || random.nextInt(40) == 0 ? "boot-" + random.nextInt(7) : boot;
        long boundNs = clocksNs.getOrDefault(nextBoot, -1L);
        long clockNs = Math.max(0, boundNs + (kind == 4 ? -random.nextInt(2) : random.nextLong(1, 2_000_000_000)));
        if (!behind.isEmpty() && random.nextInt(4) > 0) {
            // What has begun behind its clock mostly goes on there.
            nextBoot = behind.get(0).boot();
            boundNs = clocksNs.get(nextBoot);
            clockNs = behind.get(behind.size() - 1).clockNs() + random.nextLong(-500_000_000, 2_000_000_000);
        } else if (kind == 7) {
            clockNs = Math.max(0, boundNs - random.nextLong(100_000_000_000L));
        }
        clockNs = Math.max(0, clockNs);
        long cpuCount = random.nextInt(1, 9);
        long[] free = random.longs(HostWindow.RESOURCES, -5, 100).toArray();
        long[] next = counters == null ? new long[HostWindow.COUNTERS] : counters.clone();
        for (int i = 0; i < next.length; i++) {
            long most = Math.min(Long.MAX_VALUE - Math.max(0, next[i]), kind == 5 ? Long.MAX_VALUE : 2_000_000_000);
            next[i] += next[i] == -1 ? 0 : random.nextLong(most / 2 + 1);
        }
        for (int i = 0; kind == 6 && i < next.length; i++) {
            next[i] = random.nextBoolean() ? random.nextInt(-1, 1000) : next[i] - random.nextLong(Math.max(1, next[i]));
        }
        int inPartition = random.nextInt(8) == 0 ? random.nextInt(3) : partition;
        // Mostly no time is in the future.
        long nowMs = random.nextInt(4) == 0 ? now : Long.MAX_VALUE;
        HostWindow.Outcome outcome =
                window.add(
                        now,
                        inPartition,
                        nowMs,
                        windowMs,
                        free,
                        nextBoot.getBytes(StandardCharsets.UTF_8),
                        clockNs,
                        cpuCount,
                        next.clone());
        boolean moved = boot != null && inPartition != partition && !nextBoot.equals(boot);
        if (moved && now < observedMs && observedMs <= nowMs) {
            equal(outcome, HostWindow.Outcome.LATE, "outcome");
            return;
        }
        boolean back = clockNs <= boundNs;
        if (back && !goesOnBehind(new Behind(nextBoot, now, clockNs))) {
            equal(outcome, HostWindow.Outcome.LATE, "outcome");
            return;
        }
        equal(outcome, back ? HostWindow.Outcome.CLOCK_WENT_BACK : HostWindow.Outcome.TAKEN, "outcome");
        behind.clear();
        observedMs = now;
        partition = inPartition;
        boolean rebooted = !nextBoot.equals(boot);
        wentBack = back || wentBack && !rebooted;
        if (now < appendMs - windowMs) {
            events.clear();
            inexactUntilMs = Long.MIN_VALUE;
            clonedMs = Math.min(clonedMs, now);
        } else if (boot != null) {
            now = Math.max(now, appendMs);
        }
        if (rebooted && !back && clocksNs.containsKey(nextBoot)) {
            clonedMs = now;
        }
        boolean anew = rebooted || back;
        if (anew) {
            events.clear();
        }
        boolean step = !anew && clockNs - boundNs <= windowMs * 1_000_000;
        events.add(event(now, free, step, next, clockNs, clockNs - boundNs, cpuCount));
        appendMs = now;
        boot = nextBoot;
        clocksNs.remove(boot);
        clocksNs.put(boot, clockNs);
        if (clocksNs.size() > BootClocks.BOOTS) {
            clocksNs.remove(clocksNs.keySet().iterator().next());
        }
        counters = next;
    }

    private Event event(
            long now, long[] free, boolean step, long[] next, long clockNs, long elapsedNs, long cpuCount) {
        Event last = events.isEmpty() ? null : events.get(events.size() - 1);
        long[] growth = new long[next.length];
        long[] fellFrom = new long[next.length];
        boolean[] back = new boolean[next.length];
        for (int i = 0; i < next.length; i++) {
            growth[i] = -1;
            fellFrom[i] = -1;
            if (!step || counters[i] < 0 || next[i] < 0) {
                continue;
            }
            boolean fell = last != null && last.fellFrom[i] >= 0;
            long reached = fell ? Math.max(last.fellFrom[i], counters[i]) : counters[i];
            back[i] = fell && next[i] >= reached;
            if (next[i] < counters[i]) {
                fellFrom[i] = reached;
            } else {
                growth[i] = next[i] - (back[i] ? reached : counters[i]);
            }
        }
        return new Event(now, free, growth, fellFrom, back, clockNs, elapsedNs, cpuCount);
    }

    private boolean goesOnBehind(Behind next) {
        if (behind.isEmpty()
                || !behind.get(0).boot().equals(next.boot())
                || next.clockNs() < behind.get(0).clockNs()) {
            behind.clear();
            behind.add(next);
            return false;
        }
        if (next.clockNs() <= behind.get(behind.size() - 1).clockNs()) {
            return false;
        }
        behind.add(next);
        long firstMs = behind.stream().mapToLong(Behind::appendMs).min().getAsLong();
        return next.appendMs() - firstMs >= windowMs / 2
                && next.clockNs() - behind.get(0).clockNs() >= windowMs * 1_000_000 / 2;
    }

    private void compare() {
        if (boot == null || appendMs <= inexactUntilMs) {
            return;
        }
        List<Event> expected = events.stream().filter(event -> event.appendMs() >= appendMs - windowMs).toList();
        equal(window.size(), expected.size(), "size");
        equal(window.observedMs(), observedMs, "append time of the newest");
        int cloned = clonedMs >= 0 && appendMs - clonedMs <= windowMs ? HostWindow.CLONED_ID : 0;
        equal(window.anomalies(windowMs), cloned | (wentBack ? HostWindow.CLOCK_WENT_BACK : 0), "anomalies");
        for (int resource = 0; resource < HostWindow.RESOURCES; resource++) {
            int which = resource;
            long least = expected.stream().mapToLong(event -> event.free()[which]).min().getAsLong();
            equal(window.least(resource), least, "least free of resource " + resource);
        }
        double[] rates = new double[HostWindow.COUNTERS];
        window.rates(windowMs, rates);
        for (int counter = 0; counter < HostWindow.COUNTERS; counter++) {
            compareRate(counter, expected, rates[counter]);
        }
    }

    /** A counter's rate, to the last bits. A step counts with the part that is within the window by the node's clock. */
    private void compareRate(int counter, List<Event> expected, double found) {
        BigDecimal grown = BigDecimal.ZERO;
        BigDecimal timeNs = BigDecimal.ZERO;
        UsageColumns.Counter column = UsageColumns.COUNTERS.get(counter);
        long startNs = clocksNs.get(boot) - windowMs * 1_000_000;
        for (int index = 0; index < expected.size(); index++) {
            Event event = expected.get(index);
            boolean isBackNext = index + 1 < expected.size() && expected.get(index + 1).back[counter];
            long withinNs = Math.min(event.elapsedNs(), event.clockNs() - startNs);
            if ((event.growth[counter] >= 0 || isBackNext) && withinNs > 0) {
                BigDecimal part = new BigDecimal(withinNs).divide(new BigDecimal(event.elapsedNs()), EXACT);
                grown = grown.add(new BigDecimal(Math.max(0, event.growth[counter])).multiply(part));
                long cpus = column.per() == UsageColumns.Per.CPU_TIME ? event.cpuCount() : 1;
                timeNs = timeNs.add(new BigDecimal(withinNs).multiply(new BigDecimal(cpus)));
            }
        }
        if (counters[counter] < 0 || timeNs.signum() == 0) {
            equal(found, Double.NaN, "rate of counter " + counter);
            return;
        }
        double rate = grown.multiply(new BigDecimal(column.scale())).divide(timeNs, EXACT).doubleValue();
        boolean same = Math.abs(found - rate) <= 1e-14 * rate;
        equal(same, true, "rate of counter " + counter + ", " + found + " for " + rate);
    }

    private static void equal(Object found, Object expected, String what) {
        if (!Objects.equals(found, expected)) {
            throw new AssertionError(what + " is " + found + ", should be " + expected);
        }
    }

    private static byte[] bytes(HostWindow window) throws IOException {
        DataOutputSerializer target = new DataOutputSerializer(64);
        SERIALIZER.serialize(window, target);
        DataOutputSerializer copied = new DataOutputSerializer(target.length());
        SERIALIZER.copy(new DataInputDeserializer(target.getCopyOfBuffer()), copied);
        return copied.getCopyOfBuffer();
    }

    private static HostWindow deserialized(byte[] bytes) throws IOException {
        DataInputDeserializer source = new DataInputDeserializer(bytes);
        HostWindow window = SERIALIZER.deserialize(source);
        equal(source.available(), 0, "what is left over");
        return window;
    }
}
