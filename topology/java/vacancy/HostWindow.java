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
 *   <li>sums are those of the steps that lie within the window by the node's clock too, as a whole, exact whatever the
 *       counters do, so neither they nor the later minima need to be stored;
 *   <li>the step before these, which mostly crosses the window's beginning, is kept but not in the sums;
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

    /** No time. */
    private static final long NEVER = -1;

    private static final int NO_PARTITION = -1;

    // The figures of a step: what it took on the node's clock; the same times the CPUs; what each counter grew by.
    private static final int ELAPSED_NS = 0;
    private static final int CPU_TIME_NS = 1;
    private static final int GROWTH = 2;
    private static final int FIGURES = GROWTH + COUNTERS;

    // A step's columns in the ring: its figures, and as bits the counters that it is void for, which have grown by 0.
    private static final int VOID = FIGURES;
    private static final int STEP = FIGURES + 1;

    // An entry's columns in the ring, but for its step's. Without a step it took no time.
    private static final int APPEND_MS = 0;
    private static final int FREE = 1;
    private static final int HEAD = FREE + RESOURCES;
    private static final int WIDTH = HEAD + STEP;

    // What stands where in the totals. A sum is that of what stands at its place and 2^64 times what stands SUMS later.
    private static final int NEWEST = 0;
    private static final int LATER_LEAST = NEWEST + COUNTERS;
    private static final int SUM = LATER_LEAST + RESOURCES;
    private static final int VOID_TIME = SUM + FIGURES;
    private static final int SUMS = FIGURES + COUNTERS;
    private static final int TOTALS = SUM + 2 * SUMS;

    private static final long ALL_COUNTERS = (1L << COUNTERS) - 1;

    /** By counter, the figure that is its time. */
    private static final int[] TIME =
            UsageColumns.COUNTERS.stream()
                    .mapToInt(counter -> counter.per() == UsageColumns.Per.CPU_TIME ? CPU_TIME_NS : ELAPSED_NS)
                    .toArray();

    private static final double[] SCALE =
            UsageColumns.COUNTERS.stream().mapToDouble(UsageColumns.Counter::scale).toArray();

    private static final int LEAST_CAPACITY = 8;
    private static final long NS_PER_MS = 1_000_000;
    private static final double HIGH_UNIT = 0x1p64;

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

    /**
     * The entries, in a ring whose capacity is a power of two: the heads of all, one after the other, and behind them their
     * steps. Minima need the heads alone, so that they are found with less memory to wait for.
     */
    private long[] ring = new long[LEAST_CAPACITY * WIDTH];

    private int oldest;
    private int size;

    /** How many of the oldest entries are folded. */
    private int folded;

    /** How many of the oldest entries have no step in the sums. The step of the last of these counts in part. */
    private int uncounted;

    /**
     * All else, in one array, since each object more is memory to wait for where there are many hosts: the newest event's
     * counters; by resource, the least free of the entries that are not folded; by figure, its sum over the steps; by
     * counter, the time of the steps that are void for it, which is mostly none.
     */
    private final long[] totals = new long[TOTALS];

    /** By counter, where it had been before it fell in the newest step; NEVER if it did not fall. Null if none did. */
    private long[] fallenFrom;

    /** Since when new boots are counted, by append time, and how many there were. Not stored: soon it is known again. */
    private long newBootsSinceMs = NEVER;

    private int newBoots;

    /** Whether a sum has needed more than a long since the window began; else none has. */
    private boolean isWide;

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
        if (rebooted && !back && (bootIndex < BootClocks.BOOTS || isOneOfManyBoots(appendMs, windowMs))) {
            clonedMs = appendMs;
        }
        if (rebooted || back) {
            clear();
        }
        while (size > 0 && ring[head(0) + APPEND_MS] < appendMs - windowMs) {
            removeOldest();
        }
        int step = append(appendMs, free);
        if (!rebooted && !back) {
            long elapsedNs = monotonicNs - clocks.presentNs();
            if (elapsedNs <= windowMs * NS_PER_MS) {
                takeStep(step, elapsedNs, cpuCount, newCounters);
                keepWithin(windowMs);
            } else {
                // What is before such a step is before the window.
                forgetSums();
                fallenFrom = null;
                uncounted = size;
            }
        }
        clocks.set(bootIndex, boot, monotonicNs);
        System.arraycopy(newCounters, 0, totals, NEWEST, COUNTERS);
        return back ? Outcome.CLOCK_WENT_BACK : Outcome.TAKEN;
    }

    /** Whether more boots than are remembered were new within a window: no node boots so often, they are several nodes. */
    private boolean isOneOfManyBoots(long appendMs, long windowMs) {
        if (appendMs < newBootsSinceMs || appendMs - newBootsSinceMs > windowMs) {
            newBootsSinceMs = appendMs;
            newBoots = 0;
        }
        newBoots++;
        return newBoots > BootClocks.BOOTS;
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
        return folded == 0 ? later : Math.min(ring[head(0) + FREE + resource], later);
    }

    /**
     * The counters' rates: what each grew by in the steps that have it, over their time. A step that crosses the window's
     * beginning, by the node's clock, counts with the part that is within.
     *
     * @param rates gets the rates: 0 or more; NaN where the newest event lacks the counter, or no step has it
     */
    void rates(long windowMs, double[] rates) {
        int crossing = step(Math.max(0, uncounted - 1));
        long elapsedNs = uncounted == 0 ? 0 : ring[crossing + ELAPSED_NS];
        long withinNs = Math.min(windowMs * NS_PER_MS - totals[SUM + ELAPSED_NS], elapsedNs);
        long inPart = withinNs > 0 ? ~ring[crossing + VOID] : 0;
        for (int counter = 0; counter < COUNTERS; counter++) {
            double grown = sum(SUM + GROWTH + counter);
            double ns = ns(counter);
            if ((inPart & 1L << counter) != 0) {
                // Both are multiplied by elapsedNs, which saves a division.
                grown = grown * elapsedNs + (double) ring[crossing + GROWTH + counter] * withinNs;
                ns = ns * elapsedNs + (double) ring[crossing + TIME[counter]] * withinNs;
            }
            boolean isKnown = totals[NEWEST + counter] != ABSENT && ns != 0 && grown >= 0;
            rates[counter] = isKnown ? grown * SCALE[counter] / ns : Double.NaN;
        }
    }

    private double sum(int index) {
        return isWide ? totals[index] + totals[index + SUMS] * HIGH_UNIT : totals[index];
    }

    /** The time of the steps that are in the sums and not void for a counter. */
    private double ns(int counter) {
        int time = SUM + TIME[counter];
        int without = VOID_TIME + counter;
        long left = totals[time] - totals[without];
        if (!isWide) {
            return left;
        }
        long high = totals[time + SUMS] - totals[without + SUMS];
        if (((totals[time] ^ totals[without]) & (totals[time] ^ left)) < 0) {
            high += totals[time] < 0 ? -1 : 1;
        }
        return left + high * HIGH_UNIT;
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
        copy.uncounted = uncounted;
        copy.fallenFrom = fallenFrom; // it is replaced, never changed
        copy.newBootsSinceMs = newBootsSinceMs;
        copy.newBoots = newBoots;
        System.arraycopy(totals, 0, copy.totals, 0, TOTALS);
        copy.isWide = isWide;
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
                        | (partition != NO_PARTITION ? 8 : 0)
                        | (hasCrossing() ? 16 : 0)
                        | (fallenFrom != null ? 32 : 0));
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
        for (int i = 0; fallenFrom != null && i < COUNTERS; i++) {
            out.write(fallenFrom[i] + 1);
        }
        out.write(size);
        out.write(folded);
        long[] before = new long[HEAD];
        for (int index = 0; index < size; index++) {
            int head = head(index);
            for (int column = 0; column < HEAD; column++) {
                out.writeSigned(ring[head + column] - before[column]);
                before[column] = ring[head + column];
            }
            if (index < uncounted - 1) {
                out.write(0);
            } else {
                writeStep(out, step(index));
            }
        }
    }

    /** Whether there is a step before those in the sums. */
    private boolean hasCrossing() {
        return uncounted > 0 && ring[step(uncounted - 1) + ELAPSED_NS] > 0;
    }

    /** Writes the step that stands there: its time, which counters it is void for, and what the others grew by. */
    private void writeStep(VarLongWriter out, int step) {
        out.write(ring[step + ELAPSED_NS]);
        if (ring[step + ELAPSED_NS] == 0) {
            return;
        }
        out.write(ring[step + CPU_TIME_NS]);
        out.write(ring[step + VOID]);
        for (int i = 0; i < COUNTERS; i++) {
            if ((ring[step + VOID] & 1L << i) == 0) {
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
        if ((flags & 32) != 0) {
            window.fallenFrom = filled(COUNTERS, NEVER);
            for (int i = 0; i < counters; i++) {
                long from = in.read() - 1;
                if (i < COUNTERS) {
                    window.fallenFrom[i] = from;
                }
            }
        }
        int size = (int) in.read();
        int folded = (int) in.read();
        // Releases that counted each step whole have stored none; the next event takes from the sums what is outside.
        boolean crosses = (flags & 16) != 0;
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
            int step = window.append(appendMs, free);
            window.readStep(in, step, counters);
            if (crosses && window.ring[step + ELAPSED_NS] > 0) {
                window.uncounted = index + 1;
                crosses = false;
            } else {
                window.count(step, 1);
            }
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
        // A counter that is new since is in no step.
        long isVoid = in.read() | -1L << counters;
        for (int i = 0; i < Math.max(counters, COUNTERS); i++) {
            long growth = (isVoid & 1L << i) == 0 ? in.readSigned() : 0;
            if (i < COUNTERS) {
                ring[step + GROWTH + i] = growth;
            }
        }
        ring[step + VOID] = isVoid & ALL_COUNTERS;
    }

    /** Gives the entry whose step stands there one from the newest event, of which the counters are known. */
    private void takeStep(int step, long elapsedNs, long cpuCount, long[] counters) {
        ring[step + ELAPSED_NS] = elapsedNs;
        // More than 292 years of CPU time are that long.
        ring[step + CPU_TIME_NS] = elapsedNs > Long.MAX_VALUE / cpuCount ? Long.MAX_VALUE : elapsedNs * cpuCount;
        long[] formerlyFallen = fallenFrom;
        fallenFrom = null;
        long isVoid = 0;
        for (int i = 0; i < COUNTERS; i++) {
            long before = totals[NEWEST + i];
            long after = counters[i];
            long reached = formerlyFallen == null ? before : Math.max(before, formerlyFallen[i]);
            boolean has = before != ABSENT && after >= before;
            boolean isBack = has && reached > before && after >= reached;
            ring[step + GROWTH + i] = has ? after - (isBack ? reached : before) : 0;
            isVoid |= has ? 0 : 1L << i;
            if (isBack) {
                countAfterAll(size - 2, i);
            } else if (!has && after != ABSENT && before != ABSENT) {
                fallenFrom = fallenFrom == null ? filled(COUNTERS, NEVER) : fallenFrom;
                fallenFrom[i] = reached;
            }
        }
        ring[step + VOID] = isVoid;
        count(step, 1);
    }

    /** Has an entry's step count for a counter that fell in it and is back: then it is one in which it grew by nothing. */
    private void countAfterAll(int index, int counter) {
        if (index < 0) {
            return;
        }
        int step = step(index);
        ring[step + VOID] &= ~(1L << counter);
        if (index >= uncounted) {
            int sum = VOID_TIME + counter;
            long value = -ring[step + TIME[counter]];
            totals[sum] += value;
            countTheEnd(sum, value);
        }
    }

    private static long[] filled(int length, long value) {
        long[] array = new long[length];
        Arrays.fill(array, value);
        return array;
    }

    private int capacity() {
        return ring.length / WIDTH;
    }

    /** Where the head of an entry stands in the ring; entries are counted from the oldest. */
    private int head(int index) {
        return place(index) * HEAD;
    }

    /** Where the step of an entry stands in the ring. */
    private int step(int index) {
        return capacity() * HEAD + place(index) * STEP;
    }

    private int place(int index) {
        return (oldest + index) & (capacity() - 1);
    }

    /** Adds an entry without a step; where that stands. */
    private int append(long appendMs, long[] free) {
        if (size == capacity()) {
            resize(2 * size);
        }
        int head = head(size);
        int step = step(size);
        size++;
        ring[head + APPEND_MS] = appendMs;
        for (int resource = 0; resource < RESOURCES; resource++) {
            ring[head + FREE + resource] = free[resource];
            totals[LATER_LEAST + resource] = Math.min(totals[LATER_LEAST + resource], free[resource]);
        }
        ring[step + ELAPSED_NS] = 0;
        return step;
    }

    private void removeOldest() {
        if (folded == 0) {
            fold();
        }
        if (uncounted > 0) {
            uncounted--;
        } else {
            count(step(0), -1);
        }
        oldest = place(1);
        size--;
        folded--;
        // A burst, as of a fleet that catches up, does not take room for ever.
        if (capacity() > LEAST_CAPACITY && size < capacity() / 4) {
            resize(capacity() / 2);
        }
    }

    /** Gives each entry the least of itself and those after it. */
    private void fold() {
        int next = head(size - 1);
        for (int index = size - 2; index >= 0; index--) {
            int head = head(index);
            for (int column = FREE; column < HEAD; column++) {
                ring[head + column] = Math.min(ring[head + column], ring[next + column]);
            }
            next = head;
        }
        folded = size;
        forgetLaterLeast();
    }

    private void clear() {
        size = 0;
        folded = 0;
        uncounted = 0;
        fallenFrom = null;
        forgetLaterLeast();
        forgetSums();
    }

    private void forgetSums() {
        Arrays.fill(totals, SUM, TOTALS, 0);
        isWide = false;
    }

    /** Takes the oldest steps from the sums until these are of no longer time than the window, by the node's clock. */
    private void keepWithin(long windowMs) {
        // None of these steps is longer than a window, and before each there was at most a window: a long has room.
        while (totals[SUM + ELAPSED_NS] > windowMs * NS_PER_MS) {
            count(step(uncounted++), -1);
        }
    }

    private void forgetLaterLeast() {
        Arrays.fill(totals, LATER_LEAST, LATER_LEAST + RESOURCES, Long.MAX_VALUE);
    }

    /** The newest entry's append time, in ms since 1970. */
    private long appendMs() {
        return ring[head(size - 1) + APPEND_MS];
    }

    /** Adds the figures of the step that stands there to the sums (sign 1), or takes them away again (sign -1). */
    private void count(int step, int sign) {
        if (ring[step + ELAPSED_NS] == 0) {
            return;
        }
        long over = 0;
        for (int figure = 0; figure < FIGURES; figure++) {
            long before = totals[SUM + figure];
            long value = sign * ring[step + figure];
            long sum = before + value;
            totals[SUM + figure] = sum;
            over |= (before ^ sum) & (value ^ sum);
        }
        if (over < 0) {
            countTheEnds(step, sign);
        }
        for (long left = ring[step + VOID]; left != 0; left &= left - 1) {
            int counter = Long.numberOfTrailingZeros(left);
            int sum = VOID_TIME + counter;
            long value = sign * ring[step + TIME[counter]];
            totals[sum] += value;
            countTheEnd(sum, value);
        }
    }

    /** Notes of the sums that a step was just added to which of them went over the end of a long. */
    private void countTheEnds(int step, int sign) {
        for (int figure = 0; figure < FIGURES; figure++) {
            countTheEnd(SUM + figure, sign * ring[step + figure]);
        }
    }

    /** Notes whether a sum, to which a value was just added, went over the end of a long. */
    private void countTheEnd(int sum, long added) {
        long before = totals[sum] - added;
        if (((before ^ totals[sum]) & (added ^ totals[sum])) < 0) {
            totals[sum + SUMS] += added < 0 ? -1 : 1;
            isWide = true;
        }
    }

    private void resize(int capacity) {
        long[] resized = new long[capacity * WIDTH];
        copyRing(0, HEAD, resized, 0);
        copyRing(capacity() * HEAD, STEP, resized, capacity * HEAD);
        ring = resized;
        oldest = 0;
    }

    /** Copies the heads or the steps, which begin there and are so wide, to the start of those of another ring. */
    private void copyRing(int from, int width, long[] resized, int to) {
        int untilEnd = Math.min(size, capacity() - oldest) * width;
        System.arraycopy(ring, from + oldest * width, resized, to, untilEnd);
        System.arraycopy(ring, from, resized, to + untilEnd, size * width - untilEnd);
    }
}
