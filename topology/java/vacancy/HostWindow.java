package vacancy;

import java.io.IOException;
import java.util.Arrays;

/**
 * What the job remembers of a host: how far its boots have got, and the events of the window.
 *
 * <p>An event costs O(1) amortised, however many the window holds. Sums are kept running. The minima are those of a
 * queue made of two stacks that share one ring: the older entries are <em>folded</em>, each holding the least of
 * itself and the folded ones after it, so that the oldest knows the least of them all; of the later ones one running
 * minimum is kept. When the last folded entry leaves, the later ones are folded in turn, each once.
 *
 * <p>What always holds between calls:
 *
 * <ul>
 *   <li>append times never fall from one entry to the next, and lie within the window that ends with the newest;
 *   <li>sums are those of the entries, exact whatever the counters do, so neither they nor the later minima need to be
 *       stored;
 *   <li>nothing that changes is shared with another instance.
 * </ul>
 */
public final class HostWindow {

    /** What became of an event. */
    enum Outcome {
        /** It changes no figure: it is late or repeated. */
        LATE,
        /** It is the newest one. */
        TAKEN,
        /** It is the newest one of a boot that has gone on from an earlier clock. */
        CLOCK_WENT_BACK
    }

    /** What a counter is that the node does not have; every other is 0 or more. */
    static final long ABSENT = -1;

    /** How many resources have free figures. */
    static final int RESOURCES = UsageColumns.RESOURCES.size();

    /** How many counters an event has. */
    static final int COUNTERS = UsageColumns.COUNTERS.size();

    /** Anomaly: more than one node reports under the host's id. */
    static final int CLONED_ID = 1;

    /** Anomaly: the monotonic clock has gone back for good since the host has booted. */
    static final int CLOCK_WENT_BACK = 2;

    /** Anomaly: a fraction in the row was above 1 and is shown as 1. */
    static final int FRACTION_BOUNDED = 4;

    /** What a counter has grown by in a step that is void for it. */
    private static final long VOID = Long.MIN_VALUE;

    /** No time. */
    private static final long NEVER = -1;

    private static final int NO_PARTITION = -1;

    // The figures of a step: what it took on the node's clock; the same times the CPUs; what each counter grew by.
    private static final int ELAPSED_NS = 0;
    private static final int CPU_TIME_NS = 1;
    private static final int GROWTH = 2;
    private static final int FIGURES = GROWTH + COUNTERS;

    // An entry's columns in the ring. Without a step it took no time.
    private static final int APPEND_MS = 0;
    private static final int FREE = 1;
    private static final int STEP = FREE + RESOURCES;
    private static final int WIDTH = STEP + FIGURES;

    // What stands where in the totals. A sum takes two longs: what stands above 2^32, and the rest.
    private static final int NEWEST = 0;
    private static final int LATER_LEAST = NEWEST + COUNTERS;
    private static final int SUM = LATER_LEAST + RESOURCES;
    private static final int VOID_TIME = SUM + 2 * FIGURES;
    private static final int TOTALS = VOID_TIME + 2 * COUNTERS;

    /** By counter, the figure that is its time. */
    private static final int[] TIME =
            UsageColumns.COUNTERS.stream()
                    .mapToInt(counter -> counter.per() == UsageColumns.Per.CPU_TIME ? CPU_TIME_NS : ELAPSED_NS)
                    .toArray();

    private static final double[] SCALE =
            UsageColumns.COUNTERS.stream().mapToDouble(UsageColumns.Counter::scale).toArray();

    private static final int LEAST_CAPACITY = 8;
    private static final long NS_PER_MS = 1_000_000;
    private static final int HALF_BITS = 32;
    private static final long LOW_HALF = 0xFFFF_FFFFL;
    private static final double HIGH_UNIT = 0x1p32;

    /** Events of one boot, each later than the one before on a clock that is behind the boot's. */
    private record Behind(int boot, long firstMs, long firstNs, long lastNs) {}

    private BootClocks clocks = new BootClocks();

    /** Whether there was an event since it was last asked. */
    private boolean active;

    /** Whether the present boot's clock has gone back for good. */
    private boolean clockWentBack;

    /** When the newest event was appended, as the broker said. */
    private long observedMs = NEVER;

    /** In which partition the newest event stands; NO_PARTITION if that is not known. */
    private int partition = NO_PARTITION;

    /** The append time with which an event counted when a former boot last went on. */
    private long clonedMs = NEVER;

    /** What has come since the newest event and may be a clock that has gone back; null if nothing has. */
    private Behind behind;

    /** The entries, one after the other, in a ring whose capacity is a power of two. */
    private long[] ring = new long[LEAST_CAPACITY * WIDTH];

    private int oldest;
    private int size;

    /** How many of the oldest entries are folded. */
    private int folded;

    /**
     * All else, in one array, since each object more is memory to wait for where there are many hosts: the newest event's
     * counters; by resource, the least free of the entries that are not folded; by figure, its sum over the steps; by
     * counter, the time of the steps that are void for it, which is mostly none.
     */
    private final long[] totals = new long[TOTALS];

    HostWindow() {
        forgetLaterLeast();
    }

    /**
     * Takes the host's next event, in the order of its partition.
     *
     * <p>With another boot than the event before it had, the window begins anew.
     *
     * <p>Should append times go back, as a change of the partition's leader may make them do, the event counts as
     * appended with the newest one before it. By more than a window they go back for good: the window begins anew,
     * lest it grow until the clock has caught up.
     *
     * <p>A host whose key has moved has events in two partitions, between which nothing keeps an order when both are read
     * from their beginnings. The node's clock tells it within a boot. An event of another boot, from another partition,
     * that was appended before the newest one is late, unless the newest one is from the future.
     *
     * <p>An event that is behind its boot's clock is late or repeated. Where such events go on, each later than the one
     * before, for half a window by the broker's clock and by the node's, the node's clock has gone back for good: the
     * window begins anew with the one that shows it.
     *
     * @param appendMs when the broker appended it, in ms since 1970
     * @param inPartition where it stands
     * @param nowMs no clock that is right says more
     * @param windowMs how far the window reaches back
     * @param free what is free, by resource
     * @param boot which boot of the host it is of; it is kept
     * @param monotonicNs the node's clock
     * @param cpuCount its CPUs
     * @param newCounters its counters, 0 or more, or ABSENT
     */
    Outcome add(
            long appendMs,
            int inPartition,
            long nowMs,
            long windowMs,
            long[] free,
            byte[] boot,
            long monotonicNs,
            long cpuCount,
            long[] newCounters) {
        active = true;
        int bootIndex = clocks.find(boot);
        if (bootIndex != 0
                && size > 0
                && inPartition != partition
                && partition != NO_PARTITION
                && appendMs < observedMs
                && observedMs <= nowMs) {
            return Outcome.LATE;
        }
        boolean back = !clocks.isAhead(bootIndex, monotonicNs);
        if (back && !goesOnBehind(bootIndex, appendMs, monotonicNs, windowMs)) {
            return Outcome.LATE;
        }
        behind = null;
        observedMs = appendMs;
        partition = inPartition;
        boolean rebooted = bootIndex != 0;
        clockWentBack = back || clockWentBack && !rebooted;
        if (size > 0 && appendMs < appendMs()) {
            if (appendMs < appendMs() - windowMs) {
                clonedMs = Math.min(clonedMs, appendMs);
                clear();
            } else {
                appendMs = appendMs();
            }
        }
        if (rebooted && bootIndex < BootClocks.BOOTS && !back) {
            clonedMs = appendMs;
        }
        if (rebooted || back) {
            clear();
        }
        while (size > 0 && ring[at(0) + APPEND_MS] < appendMs - windowMs) {
            removeOldest();
        }
        int entry = append(appendMs, free);
        if (!rebooted && !back) {
            long elapsedNs = monotonicNs - clocks.presentNs();
            if (elapsedNs <= windowMs * NS_PER_MS) {
                step(entry, elapsedNs, cpuCount, newCounters);
            }
        }
        clocks.set(bootIndex, boot, monotonicNs);
        System.arraycopy(newCounters, 0, totals, NEWEST, COUNTERS);
        return back ? Outcome.CLOCK_WENT_BACK : Outcome.TAKEN;
    }

    /** Whether an event that is behind its boot's clock shows, with those before it, that the clock has gone back. */
    private boolean goesOnBehind(int boot, long appendMs, long clockNs, long windowMs) {
        if (behind == null || behind.boot != boot || clockNs < behind.firstNs) {
            behind = new Behind(boot, appendMs, clockNs, clockNs);
            return false;
        }
        if (clockNs <= behind.lastNs) {
            return false;
        }
        // Where append times go back, half a window is counted from there.
        behind = new Behind(boot, Math.min(behind.firstMs, appendMs), behind.firstNs, clockNs);
        return appendMs - behind.firstMs >= windowMs / 2 && clockNs - behind.firstNs >= windowMs * NS_PER_MS / 2;
    }

    /** Whether there was no event since this was last called. */
    boolean isIdle() {
        boolean idle = !active;
        active = false;
        return idle;
    }

    /** When the newest event was appended, in ms since 1970: as the broker said, so it may go back. */
    long observedMs() {
        return observedMs;
    }

    /** How many events the window holds. */
    int size() {
        return size;
    }

    /** The anomalies of the host, as bits, but for those of figures. */
    int anomalies(long windowMs) {
        boolean cloned = clonedMs != NEVER && appendMs() - clonedMs <= windowMs;
        return (cloned ? CLONED_ID : 0) | (clockWentBack ? CLOCK_WENT_BACK : 0);
    }

    /** The least that was free of a resource in the window. */
    long least(int resource) {
        long later = totals[LATER_LEAST + resource];
        return folded == 0 ? later : Math.min(ring[at(0) + FREE + resource], later);
    }

    /**
     * A counter's rate: what it grew by in the steps that have it, over their time.
     *
     * @return 0 or more; NaN where the newest event lacks the counter, no step has it, or it went back on balance
     */
    double rate(int counter) {
        int growth = SUM + 2 * (GROWTH + counter);
        int time = SUM + 2 * TIME[counter];
        int without = VOID_TIME + 2 * counter;
        double grown = totals[growth] * HIGH_UNIT + totals[growth + 1];
        double ns = (totals[time] - totals[without]) * HIGH_UNIT + (totals[time + 1] - totals[without + 1]);
        return totals[NEWEST + counter] == ABSENT || ns == 0 || grown < 0 ? Double.NaN : grown * SCALE[counter] / ns;
    }

    /** One that equals this and shares nothing with it: what a checkpoint under way makes of each host that reports. */
    HostWindow copy() {
        HostWindow copy = new HostWindow();
        copy.active = active;
        copy.clockWentBack = clockWentBack;
        copy.observedMs = observedMs;
        copy.partition = partition;
        copy.clonedMs = clonedMs;
        copy.behind = behind;
        copy.clocks = clocks.copy();
        copy.ring = ring.clone();
        copy.oldest = oldest;
        copy.size = size;
        copy.folded = folded;
        System.arraycopy(totals, 0, copy.totals, 0, TOTALS);
        return copy;
    }

    /** Writes all that cannot be derived. */
    void write(VarLongWriter out) {
        out.write(RESOURCES);
        out.write(COUNTERS);
        out.write(
                (active ? 1 : 0)
                        | (clockWentBack ? 2 : 0)
                        | (behind != null ? 4 : 0)
                        | (partition != NO_PARTITION ? 8 : 0));
        if (partition != NO_PARTITION) {
            out.write(partition);
        }
        out.writeSigned(observedMs);
        out.write(clonedMs == NEVER ? 0 : appendMs() - clonedMs + 1);
        if (behind != null) {
            out.write(behind.boot);
            out.writeSigned(behind.firstMs);
            out.write(behind.firstNs);
            out.write(behind.lastNs - behind.firstNs);
        }
        clocks.write(out);
        for (int i = 0; i < COUNTERS; i++) {
            out.write(totals[NEWEST + i] + 1);
        }
        out.write(size);
        out.write(folded);
        long[] before = new long[STEP];
        for (int index = 0; index < size; index++) {
            int entry = at(index);
            for (int column = 0; column < STEP; column++) {
                out.writeSigned(ring[entry + column] - before[column]);
                before[column] = ring[entry + column];
            }
            writeStep(out, entry + STEP);
        }
    }

    /** Writes the step that stands there: its time, which counters it is void for, and what the others grew by. */
    private void writeStep(VarLongWriter out, int step) {
        out.write(ring[step + ELAPSED_NS]);
        if (ring[step + ELAPSED_NS] == 0) {
            return;
        }
        out.write(ring[step + CPU_TIME_NS]);
        long lacking = 0;
        for (int i = 0; i < COUNTERS; i++) {
            lacking |= ring[step + GROWTH + i] == VOID ? 1L << i : 0;
        }
        out.write(lacking);
        for (int i = 0; i < COUNTERS; i++) {
            if (ring[step + GROWTH + i] != VOID) {
                out.writeSigned(ring[step + GROWTH + i]);
            }
        }
    }

    /**
     * Reads what {@link #write} has written, in this release or in another: of counters that are new since no step has
     * anything, those that are not known are passed over.
     *
     * @throws IOException if it has other resources
     */
    static HostWindow read(VarLongReader in) throws IOException {
        long resources = in.read();
        if (resources != RESOURCES) {
            throw new IOException("a host's window of " + resources + " resources; this release has " + RESOURCES);
        }
        int counters = (int) in.read();
        HostWindow window = new HostWindow();
        long flags = in.read();
        window.active = (flags & 1) != 0;
        window.clockWentBack = (flags & 2) != 0;
        if ((flags & 8) != 0) {
            window.partition = (int) in.read();
        }
        window.observedMs = in.readSigned();
        long clonedAgo = in.read() - 1;
        if ((flags & 4) != 0) {
            int boot = (int) in.read();
            long firstMs = in.readSigned();
            long firstNs = in.read();
            window.behind = new Behind(boot, firstMs, firstNs, firstNs + in.read());
        }
        window.clocks = BootClocks.read(in);
        Arrays.fill(window.totals, NEWEST, NEWEST + COUNTERS, ABSENT);
        for (int i = 0; i < counters; i++) {
            long newest = in.read() - 1;
            if (i < COUNTERS) {
                window.totals[NEWEST + i] = newest;
            }
        }
        int size = (int) in.read();
        int folded = (int) in.read();
        long appendMs = 0;
        long[] free = new long[RESOURCES];
        for (int index = 0; index < size; index++) {
            if (index == folded) {
                // What was read until here stays folded.
                window.forgetLaterLeast();
            }
            appendMs += in.readSigned();
            for (int resource = 0; resource < RESOURCES; resource++) {
                free[resource] += in.readSigned();
            }
            int entry = window.append(appendMs, free);
            window.readStep(in, entry + STEP, counters);
            window.count(entry, 1);
        }
        if (folded == size) {
            window.forgetLaterLeast();
        }
        window.folded = folded;
        window.clonedMs = clonedAgo < 0 ? NEVER : window.appendMs() - clonedAgo;
        return window;
    }

    /** Reads a step of so many counters to where it stands. */
    private void readStep(VarLongReader in, int step, int counters) {
        ring[step + ELAPSED_NS] = in.read();
        if (ring[step + ELAPSED_NS] == 0) {
            return;
        }
        ring[step + CPU_TIME_NS] = in.read();
        long lacking = in.read();
        Arrays.fill(ring, step + GROWTH, step + FIGURES, VOID);
        for (int i = 0; i < counters; i++) {
            if ((lacking & 1L << i) == 0) {
                long growth = in.readSigned();
                if (i < COUNTERS) {
                    ring[step + GROWTH + i] = growth;
                }
            }
        }
    }

    /** Gives an entry its step from the newest event, of which the counters are known. */
    private void step(int entry, long elapsedNs, long cpuCount, long[] counters) {
        int step = entry + STEP;
        ring[step + ELAPSED_NS] = elapsedNs;
        // More than 292 years of CPU time are that long.
        ring[step + CPU_TIME_NS] = elapsedNs > Long.MAX_VALUE / cpuCount ? Long.MAX_VALUE : elapsedNs * cpuCount;
        for (int i = 0; i < COUNTERS; i++) {
            long before = totals[NEWEST + i];
            long after = counters[i];
            // What falls to less than half begins anew; a smaller fall is taken off what the counter has grown by.
            boolean has = before != ABSENT && after != ABSENT && after >= before - after;
            ring[step + GROWTH + i] = has ? after - before : VOID;
        }
        count(entry, 1);
    }

    private int capacity() {
        return ring.length / WIDTH;
    }

    /** Where an entry stands in the ring, counted from the oldest. */
    private int at(int index) {
        return ((oldest + index) & (capacity() - 1)) * WIDTH;
    }

    /** Adds an entry without a step; where it stands. */
    private int append(long appendMs, long[] free) {
        if (size == capacity()) {
            resize(2 * size);
        }
        int entry = at(size++);
        ring[entry + APPEND_MS] = appendMs;
        for (int resource = 0; resource < RESOURCES; resource++) {
            ring[entry + FREE + resource] = free[resource];
            totals[LATER_LEAST + resource] = Math.min(totals[LATER_LEAST + resource], free[resource]);
        }
        ring[entry + STEP + ELAPSED_NS] = 0;
        return entry;
    }

    private void removeOldest() {
        if (folded == 0) {
            fold();
        }
        count(at(0), -1);
        oldest = (oldest + 1) & (capacity() - 1);
        size--;
        folded--;
        // A burst, as of a fleet that catches up, does not take room for ever.
        if (capacity() > LEAST_CAPACITY && size < capacity() / 4) {
            resize(capacity() / 2);
        }
    }

    /** Gives each entry the least of itself and those after it. */
    private void fold() {
        for (int index = size - 2; index >= 0; index--) {
            int entry = at(index);
            int next = at(index + 1);
            for (int column = FREE; column < STEP; column++) {
                ring[entry + column] = Math.min(ring[entry + column], ring[next + column]);
            }
        }
        folded = size;
        forgetLaterLeast();
    }

    private void clear() {
        size = 0;
        folded = 0;
        forgetLaterLeast();
        Arrays.fill(totals, SUM, TOTALS, 0);
    }

    private void forgetLaterLeast() {
        Arrays.fill(totals, LATER_LEAST, LATER_LEAST + RESOURCES, Long.MAX_VALUE);
    }

    /** The newest entry's append time, in ms since 1970. */
    private long appendMs() {
        return ring[at(size - 1) + APPEND_MS];
    }

    /** Adds the figures of an entry's step to the sums (sign 1), or takes them away again (sign -1). */
    private void count(int entry, int sign) {
        int step = entry + STEP;
        if (ring[step + ELAPSED_NS] == 0) {
            return;
        }
        for (int figure = 0; figure < FIGURES; figure++) {
            long value = ring[step + figure];
            if (value == VOID) {
                int counter = figure - GROWTH;
                addTo(VOID_TIME + 2 * counter, ring[step + TIME[counter]], sign);
            } else {
                addTo(SUM + 2 * figure, value, sign);
            }
        }
    }

    private void addTo(int sum, long value, int sign) {
        totals[sum] += sign * (value >> HALF_BITS);
        totals[sum + 1] += sign * (value & LOW_HALF);
    }

    private void resize(int capacity) {
        long[] resized = new long[capacity * WIDTH];
        int untilEnd = Math.min(size * WIDTH, ring.length - at(0));
        System.arraycopy(ring, at(0), resized, 0, untilEnd);
        System.arraycopy(ring, 0, resized, untilEnd, size * WIDTH - untilEnd);
        ring = resized;
        oldest = 0;
    }
}
