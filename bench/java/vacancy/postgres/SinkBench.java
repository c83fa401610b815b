package vacancy.postgres;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.stream.IntStream;
import org.apache.flink.table.types.logical.BigIntType;
import org.apache.flink.table.types.logical.DoubleType;
import org.apache.flink.table.types.logical.IntType;
import org.apache.flink.table.types.logical.LocalZonedTimestampType;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.VarCharType;

/** Rewrites all rows of vacancy.host over and over, in one of two ways. */
public final class SinkBench {

    private static final long START_MS = 1_700_000_000_000L;
    private static final int WARM_UP_ROUNDS = 20;

    private SinkBench() {}

    private interface Way {
        void write(List<Object[]> rows) throws SQLException, InterruptedException;
    }

    /**
     * Takes the URL, user, password, a way ("arrays" or "batch"), how many hosts and rounds, the columns' names, and
     * the type of each: time, text, int8, int4 or float8. Says "ready" when it has warmed up, waits for a line,
     * and prints the seconds that the rounds took, in all and of CPU time.
     */
    public static void main(String[] arguments) throws Exception {
        Database database = new Database(arguments[0], arguments[1], arguments[2]);
        int hosts = Integer.parseInt(arguments[4]);
        int rounds = Integer.parseInt(arguments[5]);
        String[] columns = arguments[6].split(",");
        String[] types = arguments[7].split(",");
        Way way = arguments[3].equals("arrays") ? arrays(database, columns, types) : batch(database, columns, types);
        Random random = new Random(0);
        long atMs = START_MS;
        for (int round = 0; round < WARM_UP_ROUNDS; round++) {
            way.write(rows(types, hosts, atMs += 1000, random));
        }
        System.out.println("ready");
        new BufferedReader(new InputStreamReader(System.in)).readLine();
        long startNs = System.nanoTime();
        long startCpuNs = cpuNs();
        for (int round = 0; round < rounds; round++) {
            way.write(rows(types, hosts, atMs += 1000, random));
        }
        System.out.println((System.nanoTime() - startNs) / 1e9 + " " + (cpuNs() - startCpuNs) / 1e9);
    }

    private static long cpuNs() {
        return ((com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean())
                .getProcessCpuTime();
    }

    private static List<Object[]> rows(String[] types, int hosts, long atMs, Random random) {
        List<Object[]> rows = new ArrayList<>(hosts);
        for (int host = 0; host < hosts; host++) {
            Object[] row = new Object[types.length];
            for (int column = 0; column < types.length; column++) {
                row[column] =
                        switch (types[column]) {
                            case "time" -> (Object) atMs;
                            case "int8" -> (long) random.nextInt(1_000_000);
                            case "int4" -> random.nextInt(100);
                            case "float8" -> random.nextDouble();
                            default -> column == 0 ? "host-%07d".formatted(host) : "{}";
                        };
            }
            rows.add(row);
        }
        return rows;
    }

    private static Way arrays(Database database, String[] columns, String[] types) {
        LogicalType[] logical =
                IntStream.range(0, types.length)
                        .mapToObj(
                                column ->
                                        switch (types[column]) {
                                            case "time" -> new LocalZonedTimestampType(3);
                                            case "int8" -> new BigIntType();
                                            case "int4" -> new IntType();
                                            case "float8" -> new DoubleType();
                                            default -> new VarCharType(VarCharType.MAX_LENGTH);
                                        })
                        .toArray(LogicalType[]::new);
        Upsert upsert = new Upsert("vacancy.host", columns, logical, "host_id");
        Session session = new Session(database, upsert);
        return rows -> session.write(rows, (row, error) -> {
            throw new IllegalStateException(error);
        });
    }

    /** As Flink's JDBC connector does it: a statement a row, which the driver puts together by up to 128. */
    private static Way batch(Database database, String[] columns, String[] types) throws SQLException {
        Connection connection = database.connect();
        connection.setAutoCommit(false);
        List<String> assignments = new ArrayList<>();
        for (String column : columns) {
            if (!column.equals("host_id")) {
                assignments.add(column + "=EXCLUDED." + column);
            }
        }
        PreparedStatement statement =
                connection.prepareStatement(
                        "INSERT INTO vacancy.host(%s) VALUES (%s) ON CONFLICT (host_id) DO UPDATE SET %s"
                                .formatted(
                                        String.join(", ", columns),
                                        String.join(", ", Collections.nCopies(columns.length, "?")),
                                        String.join(", ", assignments)));
        return rows -> {
            for (Object[] row : rows) {
                for (int column = 0; column < types.length; column++) {
                    switch (types[column]) {
                        case "time" -> statement.setString(
                                column + 1, java.time.Instant.ofEpochMilli((Long) row[column]).toString());
                        case "int8" -> statement.setLong(column + 1, (Long) row[column]);
                        case "int4" -> statement.setInt(column + 1, (Integer) row[column]);
                        case "float8" -> statement.setDouble(column + 1, (Double) row[column]);
                        default -> statement.setString(column + 1, (String) row[column]);
                    }
                }
                statement.addBatch();
            }
            statement.executeBatch();
            connection.commit();
        };
    }
}
