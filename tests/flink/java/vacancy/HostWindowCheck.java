package vacancy;

import java.io.IOException;
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

    private record Event(long appendMs, long[] free, long[] figures) {}

    private final Random random;
    private long windowMs;

    /** A window that ends here or before may still show what another length has left. */
    private long inexactUntilMs = Long.MIN_VALUE;

    private final List<Event> events = new ArrayList<>();
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
        long cpuCount = random.nextInt(1, 9);
        long[] free = random.longs(HostWindow.RESOURCES, -5, 100).toArray();
        long[] next = counters == null ? new long[HostWindow.COUNTERS] : counters.clone();
        for (int i = 0; i < next.length; i++) {
            long most = Math.min(Long.MAX_VALUE - Math.max(0, next[i]), kind == 5 ? Long.MAX_VALUE : 2_000_000_000);
            next[i] += next[i] == -1 ? 0 : random.nextLong(most / 2 + 1);
        }
        if (kind == 6) {
            next[random.nextInt(next.length)] = random.nextInt(-1, 1000);
        }
        boolean taken =
                window.add(
                        now,
                        windowMs,
                        free,
                        nextBoot.getBytes(StandardCharsets.UTF_8),
                        clockNs,
                        cpuCount,
                        next.clone());
        equal(taken, clockNs > boundNs, "taken");
        if (!taken) {
            return;
        }
        if (now < appendMs - windowMs) {
            events.clear();
            inexactUntilMs = Long.MIN_VALUE;
        } else if (!events.isEmpty()) {
            now = Math.max(now, appendMs);
        }
        if (!nextBoot.equals(boot)) {
            events.clear();
            counters = null;
        }
        events.add(new Event(now, free, step(clockNs - boundNs, cpuCount, next)));
        appendMs = now;
        boot = nextBoot;
        clocksNs.remove(boot);
        clocksNs.put(boot, clockNs);
        if (clocksNs.size() > BootClocks.BOOTS) {
            clocksNs.remove(clocksNs.keySet().iterator().next());
        }
        counters = next;
    }

    private long[] step(long elapsedNs, long cpuCount, long[] next) {
        if (counters == null || elapsedNs > windowMs * 1_000_000) {
            return null;
        }
        long[] figures = new long[HostWindow.FIGURES];
        figures[HostWindow.ELAPSED_NS] = elapsedNs;
        figures[HostWindow.CPU_TIME_US] = elapsedNs / 1000 * cpuCount;
        for (int i = 0; i < next.length; i++) {
            boolean present = next[i] != -1;
            if (present != (counters[i] != -1) || next[i] < counters[i]) {
                return null;
            }
            figures[HostWindow.GROWTH + i] = present ? next[i] - counters[i] : -1;
        }
        return figures;
    }

    private void compare() {
        if (appendMs <= inexactUntilMs) {
            return;
        }
        List<Event> expected = events.stream().filter(event -> event.appendMs() >= appendMs - windowMs).toList();
        equal(window.size(), expected.size(), "size");
        if (expected.isEmpty()) {
            return;
        }
        equal(window.appendMs(), appendMs, "append time");
        for (int resource = 0; resource < HostWindow.RESOURCES; resource++) {
            int which = resource;
            long least = expected.stream().mapToLong(event -> event.free()[which]).min().getAsLong();
            equal(window.least(resource), least, "least free of resource " + resource);
        }
        for (int figure = 0; figure < HostWindow.FIGURES; figure++) {
            Long sum = null;
            for (Event event : expected) {
                if (event.figures() != null && event.figures()[figure] != -1) {
                    sum = (sum == null ? 0 : sum) + event.figures()[figure];
                }
            }
            equal(window.has(figure) ? window.sum(figure) : null, sum, "sum of figure " + figure);
        }
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
