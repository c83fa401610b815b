package vacancy.kafka;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.Map;
import org.apache.flink.core.io.SimpleVersionedSerializer;

/**
 * A record of the dead-letter topic: what was put aside, and headers that say where it stood and why.
 *
 * <p>What always holds: the headers say how long the payload was and its SHA-256, and each of them is at most
 * {@link #MAX_HEADER_BYTES} long; of the payload as much is there as fits.
 */
public final class DeadLetter {

    static final int MAX_HEADER_BYTES = 2048;

    /** What the headers, their names and the record itself add to a payload at most. */
    static final int MAX_OVERHEAD_BYTES = 24 * 1024;

    private static final String BYTES = "vacancy.payload_bytes";
    private static final String DIGEST = "vacancy.payload_sha256";

    private final byte[] payload;
    private final Map<String, byte[]> headers;

    private DeadLetter(byte[] payload, Map<String, byte[]> headers) {
        this.payload = payload;
        this.headers = headers;
    }

    /**
     * Of a payload, which may be null, the first so many bytes.
     *
     * @param headers those that a value is known for
     */
    public static DeadLetter of(byte[] payload, Map<String, byte[]> headers, int maxPayloadBytes) {
        Map<String, byte[]> all = new LinkedHashMap<>();
        headers.forEach((name, value) -> {
            if (value != null) {
                all.put(name, value.length > MAX_HEADER_BYTES ? Arrays.copyOf(value, MAX_HEADER_BYTES) : value);
            }
        });
        if (payload != null) {
            all.put(BYTES, text(Integer.toString(payload.length)));
            all.put(DIGEST, text(HexFormat.of().formatHex(sha256().digest(payload))));
        }
        return new DeadLetter(payload, all).cutTo(maxPayloadBytes);
    }

    private DeadLetter cutTo(int maxPayloadBytes) {
        boolean fits = payload == null || payload.length <= maxPayloadBytes;
        return fits ? this : new DeadLetter(Arrays.copyOf(payload, maxPayloadBytes), headers);
    }

    /** With half of its payload; null if there is none to leave out. */
    DeadLetter shorter() {
        return payload == null || payload.length == 0 ? null : cutTo(payload.length / 2);
    }

    byte[] payload() {
        return payload;
    }

    Map<String, byte[]> headers() {
        return headers;
    }

    /** About what it takes in memory. */
    int size() {
        return (payload == null ? 0 : payload.length) + 1024;
    }

    /** Where it stood, for people. */
    @Override
    public String toString() {
        StringBuilder where = new StringBuilder();
        headers.forEach((name, value) -> {
            if (!name.equals(DIGEST)) {
                where.append(where.length() == 0 ? "" : ", ").append(name.substring(name.indexOf('.') + 1)).append(' ');
                where.append(new String(value, StandardCharsets.UTF_8).replaceAll("\\P{Print}", "?"));
            }
        });
        return where.toString();
    }

    private static byte[] text(String text) {
        return text.getBytes(StandardCharsets.US_ASCII);
    }

    private static MessageDigest sha256() {
        try {
            return MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException(error); // every Java has it
        }
    }

    /** How those that wait are kept in a checkpoint. */
    public static final class Serializer implements SimpleVersionedSerializer<DeadLetter> {

        private static final int NO_PAYLOAD = -1;

        @Override
        public int getVersion() {
            return 1;
        }

        @Override
        public byte[] serialize(DeadLetter letter) throws IOException {
            ByteArrayOutputStream bytes = new ByteArrayOutputStream();
            DataOutputStream out = new DataOutputStream(bytes);
            out.writeInt(letter.payload == null ? NO_PAYLOAD : letter.payload.length);
            out.write(letter.payload == null ? new byte[0] : letter.payload);
            out.writeInt(letter.headers.size());
            for (Map.Entry<String, byte[]> header : letter.headers.entrySet()) {
                out.writeUTF(header.getKey());
                out.writeInt(header.getValue().length);
                out.write(header.getValue());
            }
            return bytes.toByteArray();
        }

        @Override
        public DeadLetter deserialize(int version, byte[] serialized) throws IOException {
            DataInputStream in = new DataInputStream(new ByteArrayInputStream(serialized));
            int length = in.readInt();
            byte[] payload = length == NO_PAYLOAD ? null : in.readNBytes(length);
            Map<String, byte[]> headers = new LinkedHashMap<>();
            for (int left = in.readInt(); left > 0; left--) {
                String name = in.readUTF();
                headers.put(name, in.readNBytes(in.readInt()));
            }
            return new DeadLetter(payload, headers);
        }
    }
}
