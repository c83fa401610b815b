package vacancy;

import java.io.BufferedInputStream;
import java.io.DataInputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.TimestampData;

/** Decodes payloads over and over on one core; prints how many a second, a line a round. */
public final class DecodeBench {

    private DecodeBench() {}

    /** Takes a file of the schema, one of records (a count; keys and payloads, each a length and bytes), and the rounds. */
    public static void main(String[] arguments) throws IOException {
        DecodeUsage decoder = new DecodeUsage(new String[] {Files.readString(Path.of(arguments[0]))}, null, null);
        decoder.open(null);
        byte[][] records = records(Path.of(arguments[1]));
        StringData[] keys = new StringData[records.length / 2];
        for (int index = 0; index < keys.length; index++) {
            keys[index] = StringData.fromBytes(records[2 * index]);
        }
        TimestampData time = TimestampData.fromEpochMillis(1_700_000_000_000L);
        for (int round = 0; round < Integer.parseInt(arguments[2]); round++) {
            long start = System.nanoTime();
            int decoded = 0;
            while (decoded < 1_000_000) {
                for (int index = 0; index < keys.length; index++) {
                    decoder.eval(keys[index], records[2 * index + 1], null, time);
                }
                decoded += keys.length;
            }
            System.out.println(Math.round(decoded * 1e9 / (System.nanoTime() - start)));
        }
    }

    /** Keys and payloads in turn. */
    private static byte[][] records(Path file) throws IOException {
        try (DataInputStream in = new DataInputStream(new BufferedInputStream(Files.newInputStream(file)))) {
            byte[][] records = new byte[2 * in.readInt()][];
            for (int index = 0; index < records.length; index++) {
                records[index] = in.readNBytes(in.readInt());
            }
            return records;
        }
    }
}
