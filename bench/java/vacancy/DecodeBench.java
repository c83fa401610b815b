package vacancy;

import java.io.BufferedInputStream;
import java.io.DataInputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** Decodes payloads over and over on one core; prints how many a second, a line a round. */
public final class DecodeBench {

    private DecodeBench() {}

    /** Takes the file of the schema, one of payloads (a count, then a length and bytes each), and how many rounds. */
    public static void main(String[] arguments) throws IOException {
        DecodeUsage decoder = new DecodeUsage(new String[] {Files.readString(Path.of(arguments[0]))}, null, null);
        decoder.open(null);
        byte[][] payloads = payloads(Path.of(arguments[1]));
        for (int round = 0; round < Integer.parseInt(arguments[2]); round++) {
            long start = System.nanoTime();
            int decoded = 0;
            while (decoded < 1_000_000) {
                for (byte[] payload : payloads) {
                    decoder.eval(payload, null);
                }
                decoded += payloads.length;
            }
            System.out.println(Math.round(decoded * 1e9 / (System.nanoTime() - start)));
        }
    }

    private static byte[][] payloads(Path file) throws IOException {
        try (DataInputStream in = new DataInputStream(new BufferedInputStream(Files.newInputStream(file)))) {
            byte[][] payloads = new byte[in.readInt()][];
            for (int index = 0; index < payloads.length; index++) {
                payloads[index] = in.readNBytes(in.readInt());
            }
            return payloads;
        }
    }
}
