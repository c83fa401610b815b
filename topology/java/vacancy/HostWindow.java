package vacancy;

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
 *   <li>sums and counts are those of the entries, so neither they nor the later minima need to be stored;
 *   <li>nothing that changes is shared with another instance.
 * </ul>
 */
public final class HostWindow {

    /** What a counter, or a figure of a step, is where there is none; every other is 0 or more. */
    static final long ABSENT = -1;

    /** How many resources have free figures. */
    static final int RESOURCES = 3;

    /** How many counters an event has. */
    static final int COUNTERS = 10;

    /** Figure of a step: what it took on the node's clock, in ns. Present if there is a step. */
    static final int ELAPSED_NS = 0;

    /** Figure of a step: what it took, times the CPUs, in us. */
    static final int CPU_TIME_US = 1;

    /** The first of the figures of a step that say what each counter grew by. */
    static final int GROWTH = 2;

    /** How many figures a step has. */
    static final int FIGURES = GROWTH + COUNTERS;

    // An entry's columns in the ring.
    private static final int APPEND_MS = 0;
    private static final int FREE = 1;
    private static final int STEP = FREE + RESOURCES;
    private static final int WIDTH = STEP + FIGURES;

    // What stands where in the totals.
    private static final int NEWEST = 0;
    private static final int LATER_LEAST = NEWEST + COUNTERS;
    private static final int SUM = LATER_LEAST + RESOURCES;
    private static final int COUNT = SUM + FIGURES;
    private static final int TOTALS = COUNT + FIGURES;

    private static final int LEAST_CAPACITY = 8;
    private static final long NS_PER_MS = 1_000_000;

    private BootClocks clocks = new BootClocks();

    /** Whether there was an event since it was last asked. */
    private boolean active;

    /** The entries, one after the other, in a ring whose capacity is a power of two. */
    private long[] ring = new long[LEAST_CAPACITY * WIDTH];

    private int oldest;
    private int size;

    /** How many of the oldest entries are folded. */
    private int folded;

    /**
     * All else, in one array, since each object more is memory to wait for where there are many hosts: the newest event's
     * counters; by resource, the least free of the entries that are not folded; by figure, its sum over the entries that
     * have it, and how many have it.
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
     * @param appendMs when the broker appended it, in ms since 1970
     * @param windowMs how far the window reaches back
     * @param free what is free, by resource
     * @param boot which boot of the host it is of; it is kept
     * @param monotonicNs the node's clock
     * @param cpuCount its CPUs
     * @param newCounters its counters, 0 or more, or ABSENT
     * @return false if the event is late or repeated, and changes no figure
     */
    boolean add(
            long appendMs,
            long windowMs,
            long[] free,
            byte[] boot,
            long monotonicNs,
            long cpuCount,
            long[] newCounters) {
        active = true;
        int bootIndex = clocks.find(boot);
        if (!clocks.isAhead(bootIndex, monotonicNs)) {
            return false;
        }
        if (size > 0 && appendMs < appendMs()) {
            if (appendMs < appendMs() - windowMs) {
                clear();
            } else {
                appendMs = appendMs();
            }
        }
        boolean rebooted = bootIndex != 0;
        if (rebooted) {
            clear();
        }
        while (size > 0 && ring[at(0) + APPEND_MS] < appendMs - windowMs) {
            removeOldest();
        }
        int entry = append(appendMs, free);
        if (!rebooted && isStep(newCounters)) {
            long elapsedNs = monotonicNs - clocks.presentNs();
            if (elapsedNs <= windowMs * NS_PER_MS) {
                ring[entry + STEP + ELAPSED_NS] = elapsedNs;
                ring[entry + STEP + CPU_TIME_US] = elapsedNs / 1000 * cpuCount;
                for (int i = 0; i < COUNTERS; i++) {
                    ring[entry + STEP + GROWTH + i] =
                            newCounters[i] == ABSENT ? ABSENT : newCounters[i] - totals[NEWEST + i];
                }
                count(entry, 1);
            }
        }
        clocks.set(bootIndex, boot, monotonicNs);
        System.arraycopy(newCounters, 0, totals, NEWEST, COUNTERS);
        return true;
    }

    /** Whether there was no event since this was last called. */
    boolean isIdle() {
        boolean idle = !active;
        active = false;
        return idle;
    }

    /** The newest entry's append time, in ms since 1970. */
    long appendMs() {
        return ring[at(size - 1) + APPEND_MS];
    }

    /** How many events the window holds. */
    int size() {
        return size;
    }

    /** The least that was free of a resource in the window. */
    long least(int resource) {
        long later = totals[LATER_LEAST + resource];
        return folded == 0 ? later : Math.min(ring[at(0) + FREE + resource], later);
    }

    /** Whether a step of the window has a figure. */
    boolean has(int figure) {
        return totals[COUNT + figure] > 0;
    }

    /** The sum of a figure over the steps of the window that have it. */
    long sum(int figure) {
        return totals[SUM + figure];
    }

    /** One that equals this and shares nothing with it: what a checkpoint under way makes of each host that reports. */
    HostWindow copy() {
        HostWindow copy = new HostWindow();
        copy.active = active;
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
        out.write(active ? 1 : 0);
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
            boolean step = ring[entry + STEP + ELAPSED_NS] != ABSENT;
            for (int figure = 0; figure < (step ? FIGURES : 1); figure++) {
                out.write(ring[entry + STEP + figure] + 1);
            }
        }
    }

    /** Reads what {@link #write} has written. */
    static HostWindow read(VarLongReader in) {
        HostWindow window = new HostWindow();
        window.active = in.read() == 1;
        window.clocks = BootClocks.read(in);
        for (int i = 0; i < COUNTERS; i++) {
            window.totals[NEWEST + i] = in.read() - 1;
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
            long elapsed = in.read() - 1;
            if (elapsed != ABSENT) {
                window.ring[entry + STEP + ELAPSED_NS] = elapsed;
                for (int figure = 1; figure < FIGURES; figure++) {
                    window.ring[entry + STEP + figure] = in.read() - 1;
                }
                window.count(entry, 1);
            }
        }
        if (folded == size) {
            window.forgetLaterLeast();
        }
        window.folded = folded;
        return window;
    }

    /** Whether a step leads from the newest event's counters to the next ones: none of them went back, came or went. */
    private boolean isStep(long[] after) {
        for (int i = 0; i < COUNTERS; i++) {
            long before = totals[NEWEST + i];
            if (after[i] < before || (before == ABSENT) != (after[i] == ABSENT)) {
                return false;
            }
        }
        return true;
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
        Arrays.fill(ring, entry + STEP, entry + WIDTH, ABSENT);
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

    /** Adds the figures of an entry's step to the sums (sign 1), or takes them away again (sign -1). */
    private void count(int entry, int sign) {
        for (int figure = 0; figure < FIGURES; figure++) {
            long value = ring[entry + STEP + figure];
            if (value != ABSENT) {
                totals[SUM + figure] += sign * value;
                totals[COUNT + figure] += sign;
            }
        }
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
