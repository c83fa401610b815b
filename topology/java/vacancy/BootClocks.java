package vacancy;

import java.util.Arrays;

/**
 * How far the last few boots of a host have got on their monotonic clocks, the present boot first.
 *
 * <p>Their number is bounded, so that a host that reboots for ever takes no more room than another. The present boot is
 * what nearly every event is of: it stands by itself, and an array of the former ones is there once there are some.
 */
final class BootClocks {

    /** How many boots are remembered, the present one among them. */
    static final int BOOTS = 8;

    private static final Former[] NONE = {};

    /** A boot that is over. */
    private record Former(byte[] boot, long clockNs) {}

    /** The present boot; null before the first event. */
    private byte[] present;

    private long presentNs;

    /** The former boots, the latest first. */
    private Former[] former = NONE;

    /** Where a boot stands, 0 for the present one; {@code BOOTS} if it is not remembered. */
    int find(byte[] boot) {
        if (Arrays.equals(present, boot)) {
            return 0;
        }
        for (int index = 0; index < former.length; index++) {
            if (Arrays.equals(former[index].boot, boot)) {
                return 1 + index;
            }
        }
        return BOOTS;
    }

    /** Whether a clock is above all before it of the boot that stands there. */
    boolean isAhead(int index, long clockNs) {
        return index == BOOTS || clockNs > (index == 0 ? presentNs : former[index - 1].clockNs);
    }

    /** The clock of the present boot, in ns; there must be one. */
    long presentNs() {
        return presentNs;
    }

    /** Makes a boot, found at an index, the present one, with this clock; the longest ago may be forgotten for it. */
    void set(int index, byte[] boot, long clockNs) {
        if (index > 0 && present != null) {
            int length = Math.min(index == BOOTS ? former.length + 1 : former.length, BOOTS - 1);
            Former[] moved = new Former[length];
            moved[0] = new Former(present, presentNs);
            for (int from = 0, to = 1; to < length; from++) {
                if (from != index - 1) {
                    moved[to++] = former[from];
                }
            }
            former = moved;
        }
        if (index > 0) {
            present = boot;
        }
        presentNs = clockNs;
    }

    BootClocks copy() {
        BootClocks copy = new BootClocks();
        copy.present = present;
        copy.presentNs = presentNs;
        copy.former = former; // it is replaced, never changed
        return copy;
    }

    void write(VarLongWriter out) {
        out.write(present == null ? 0 : 1 + former.length);
        if (present != null) {
            write(out, present, presentNs);
        }
        for (Former each : former) {
            write(out, each.boot, each.clockNs);
        }
    }

    private static void write(VarLongWriter out, byte[] boot, long clockNs) {
        out.writeBytes(boot);
        out.write(clockNs);
    }

    /** Reads what {@link #write} has written. */
    static BootClocks read(VarLongReader in) {
        BootClocks clocks = new BootClocks();
        int size = (int) in.read();
        if (size > 0) {
            clocks.present = in.readBytes();
            clocks.presentNs = in.read();
            clocks.former = new Former[size - 1];
            for (int index = 0; index < size - 1; index++) {
                clocks.former[index] = new Former(in.readBytes(), in.read());
            }
        }
        return clocks;
    }
}
