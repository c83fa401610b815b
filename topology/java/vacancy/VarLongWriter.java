package vacancy;

import java.util.Arrays;

/** Writes longs in as few bytes as they need: seven bits a byte, the lowest first, the top bit set but in the last. */
final class VarLongWriter {

    private static final int LONGEST = 10;

    private byte[] bytes;
    private int length;

    /** Starts with room for so many bytes; it grows. */
    VarLongWriter(int room) {
        bytes = new byte[Math.max(LONGEST, room)];
    }

    /** Writes any long; small ones that are not negative are short. */
    void write(long value) {
        reserve(LONGEST);
        long rest = value;
        while ((rest & ~0x7FL) != 0) {
            bytes[length++] = (byte) ((rest & 0x7F) | 0x80);
            rest >>>= 7;
        }
        bytes[length++] = (byte) rest;
    }

    /** Writes any long; those near 0 are short. */
    void writeSigned(long value) {
        write((value << 1) ^ (value >> 63));
    }

    /** Writes how many bytes there are, and the bytes. */
    void writeBytes(byte[] value) {
        write(value.length);
        reserve(value.length);
        System.arraycopy(value, 0, bytes, length, value.length);
        length += value.length;
    }

    /** What has been written, from 0 to {@link #length}; not a copy. */
    byte[] bytes() {
        return bytes;
    }

    int length() {
        return length;
    }

    private void reserve(int room) {
        if (bytes.length - length < room) {
            bytes = Arrays.copyOf(bytes, 2 * bytes.length + room);
        }
    }
}
