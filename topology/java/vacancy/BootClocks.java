package vacancy;

import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.binary.BinaryStringData;

/**
 * How far the last few boots of a host have got on their monotonic clocks, the present boot first.
 *
 * <p>Their number is bounded, so that a host that reboots for ever takes no more room than another.
 */
final class BootClocks {

    /** How many boots are remembered, the present one among them. */
    static final int BOOTS = 4;

    private final BinaryStringData[] boots = new BinaryStringData[BOOTS];
    private final long[] clocksNs = new long[BOOTS];
    private int size;

    /** Where a boot stands, 0 for the present one; {@code BOOTS} if it is not remembered. */
    int find(StringData boot) {
        for (int index = 0; index < size; index++) {
            if (boots[index].equals(boot)) {
                return index;
            }
        }
        return BOOTS;
    }

    /** Whether a clock is above all before it of the boot that stands there. */
    boolean isAhead(int index, long clockNs) {
        return index == BOOTS || clockNs > clocksNs[index];
    }

    /** The clock of the present boot, in ns; there must be one. */
    long presentNs() {
        return clocksNs[0];
    }

    /** Makes a boot, found at an index, the present one, with this clock; the longest ago may be forgotten for it. */
    void set(int index, StringData boot, long clockNs) {
        if (index > 0) {
            if (index == BOOTS) {
                size = Math.min(size + 1, BOOTS);
            }
            int before = Math.min(index, size - 1);
            System.arraycopy(boots, 0, boots, 1, before);
            System.arraycopy(clocksNs, 0, clocksNs, 1, before);
            // The event's memory is used again for the next one.
            boots[0] = ((BinaryStringData) boot).copy();
        }
        clocksNs[0] = clockNs;
    }

    BootClocks copy() {
        BootClocks copy = new BootClocks();
        System.arraycopy(boots, 0, copy.boots, 0, size);
        System.arraycopy(clocksNs, 0, copy.clocksNs, 0, size);
        copy.size = size;
        return copy;
    }

    void write(VarLongWriter out) {
        out.write(size);
        for (int index = 0; index < size; index++) {
            out.writeBytes(boots[index].toBytes());
            out.write(clocksNs[index]);
        }
    }

    /** Reads what {@link #write} has written. */
    static BootClocks read(VarLongReader in) {
        BootClocks clocks = new BootClocks();
        clocks.size = (int) in.read();
        for (int index = 0; index < clocks.size; index++) {
            clocks.boots[index] = BinaryStringData.fromBytes(in.readBytes());
            clocks.clocksNs[index] = in.read();
        }
        return clocks;
    }
}
