package vacancy;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import org.apache.flink.avro.shaded.org.apache.avro.io.Decoder;
import org.apache.flink.avro.shaded.org.apache.avro.util.Utf8;

/**
 * Reads Avro's binary encoding from bytes that nobody vouches for; Avro's resolving decoder reads through it.
 *
 * <p>Avro's own decoder makes room for whatever length or count it reads before it looks for the bytes, passes over
 * negative ones, and makes text of what is no UTF-8. This one refuses what does not fit into the bytes that are left,
 * so that a datum never costs more than its size. For this an item of an array or map counts as one byte or more.
 */
final class DatumDecoder extends Decoder {

    private static final int LONGEST_NUMBER = 10;
    private static final int KEPT_TEXTS = 64;

    /** Texts of this datum, and then of the next one: who wants to keep one copies it. */
    private final Utf8[] texts = new Utf8[KEPT_TEXTS];

    private int usedTexts;
    private byte[] bytes;
    private int position;
    private boolean goesOn;

    /**
     * Goes to the start of a datum.
     *
     * @param more whether there may be bytes behind it
     */
    void set(byte[] payload, int start, boolean more) {
        bytes = payload;
        position = start;
        goesOn = more;
        usedTexts = 0;
    }

    /** Refuses bytes behind the datum, unless there may be some. */
    void requireEnd() throws BadPayloadException {
        if (left() > 0 && !goesOn) {
            throw undecodable(left() + " bytes left over");
        }
    }

    @Override
    public void readNull() {}

    @Override
    public boolean readBoolean() throws BadPayloadException {
        return bytes[take(1)] != 0;
    }

    @Override
    public int readInt() throws BadPayloadException {
        long value = readLong();
        if (value != (int) value) {
            throw undecodable("an int of " + value);
        }
        return (int) value;
    }

    @Override
    public long readLong() throws BadPayloadException {
        long value = 0;
        for (int number = 0; number < LONGEST_NUMBER; number++) {
            byte next = bytes[take(1)];
            value |= (next & 0x7FL) << (7 * number);
            if (next >= 0) {
                return (value >>> 1) ^ -(value & 1);
            }
        }
        throw undecodable("a number of more than " + LONGEST_NUMBER + " bytes");
    }

    @Override
    public float readFloat() throws BadPayloadException {
        return littleEndian(Float.BYTES).getFloat();
    }

    @Override
    public double readDouble() throws BadPayloadException {
        return littleEndian(Double.BYTES).getDouble();
    }

    @Override
    public Utf8 readString(Utf8 old) throws BadPayloadException {
        int length = readLength();
        int start = take(length);
        checkText(start, length);
        Utf8 text = nextText();
        text.setByteLength(length);
        System.arraycopy(bytes, start, text.getBytes(), 0, length);
        return text;
    }

    private Utf8 nextText() {
        if (usedTexts == texts.length) {
            return new Utf8();
        }
        if (texts[usedTexts] == null) {
            texts[usedTexts] = new Utf8();
        }
        return texts[usedTexts++];
    }

    @Override
    public String readString() throws BadPayloadException {
        return readString(null).toString();
    }

    @Override
    public void skipString() throws BadPayloadException {
        take(readLength());
    }

    @Override
    public ByteBuffer readBytes(ByteBuffer old) throws BadPayloadException {
        byte[] read = new byte[readLength()];
        readFixed(read, 0, read.length);
        return ByteBuffer.wrap(read);
    }

    @Override
    public void skipBytes() throws BadPayloadException {
        take(readLength());
    }

    @Override
    public void readFixed(byte[] target, int start, int length) throws BadPayloadException {
        System.arraycopy(bytes, take(length), target, start, length);
    }

    @Override
    public void skipFixed(int length) throws BadPayloadException {
        take(length);
    }

    @Override
    public int readEnum() throws BadPayloadException {
        return readInt();
    }

    @Override
    public int readIndex() throws BadPayloadException {
        return readInt();
    }

    @Override
    public long readArrayStart() throws BadPayloadException {
        return readCount();
    }

    @Override
    public long arrayNext() throws BadPayloadException {
        return readCount();
    }

    @Override
    public long skipArray() throws BadPayloadException {
        return skipBlocks();
    }

    @Override
    public long readMapStart() throws BadPayloadException {
        return readCount();
    }

    @Override
    public long mapNext() throws BadPayloadException {
        return readCount();
    }

    @Override
    public long skipMap() throws BadPayloadException {
        return skipBlocks();
    }

    /** Passes over so many bytes, and tells where they begin. */
    private int take(int length) throws BadPayloadException {
        if (length > left()) {
            throw undecodable("ends after " + bytes.length + " bytes, within a value");
        }
        int start = position;
        position += length;
        return start;
    }

    private int left() {
        return bytes.length - position;
    }

    private int readLength() throws BadPayloadException {
        return fitting(readLong(), "bytes");
    }

    /** The number of items in a block of an array or map; 0 ends it. */
    private int readCount() throws BadPayloadException {
        long count = readLong();
        if (count < 0) {
            readLength(); // of the block, for those who skip it
            count = -count;
        }
        return fitting(count, "items");
    }

    /** Passes over the blocks that say how long they are; the number of items of one that does not, 0 at the end. */
    private int skipBlocks() throws BadPayloadException {
        long count = readLong();
        while (count < 0) {
            take(readLength());
            count = readLong();
        }
        return fitting(count, "items");
    }

    private int fitting(long count, String what) throws BadPayloadException {
        if (count < 0 || count > left()) {
            throw undecodable(count + " " + what + " where " + left() + " bytes are left");
        }
        return (int) count;
    }

    private ByteBuffer littleEndian(int length) throws BadPayloadException {
        return ByteBuffer.wrap(bytes, take(length), length).order(ByteOrder.LITTLE_ENDIAN);
    }

    /** Looks whether bytes are UTF-8, at once where they are ASCII. */
    private void checkText(int start, int length) throws BadPayloadException {
        int end = start + length;
        int at = start;
        while (at < end && bytes[at] >= 0) {
            at++;
        }
        if (at == end) {
            return;
        }
        try {
            StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes, at, end - at));
        } catch (CharacterCodingException error) {
            throw undecodable("text that is not UTF-8");
        }
    }

    private static BadPayloadException undecodable(String why) {
        return new BadPayloadException("undecodable: " + why);
    }
}
