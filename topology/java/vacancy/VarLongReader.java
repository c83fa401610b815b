package vacancy;

import java.util.Arrays;

/** Reads what {@link VarLongWriter} has written. */
final class VarLongReader {

    private final byte[] bytes;
    private int position;

    VarLongReader(byte[] bytes) {
        this.bytes = bytes;
    }

    long read() {
        long value = 0;
        int shift = 0;
        byte next;
        do {
            next = bytes[position++];
            value |= (next & 0x7FL) << shift;
            shift += 7;
        } while (next < 0);
        return value;
    }

    byte[] readBytes() {
        int length = (int) read();
        position += length;
        return Arrays.copyOfRange(bytes, position - length, position);
    }

    long readSigned() {
        long value = read();
        return (value >>> 1) ^ -(value & 1);
    }
}
