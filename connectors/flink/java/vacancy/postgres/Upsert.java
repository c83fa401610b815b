package vacancy.postgres;

import java.io.Serializable;
import java.sql.SQLException;
import java.util.Arrays;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.TimestampData;
import org.apache.flink.table.types.logical.LogicalType;

/**
 * The statements that put the newest rows into a table, what a row is for them, and which of a key's rows is the newest.
 *
 * <p>A row comes from a Kafka record, and says where that stands ({@code topic_partition}, {@code topic_offset}) and when it
 * was appended ({@code observed_at}). It replaces one
 *
 * <ol>
 *   <li>of the same partition that stands before it, whatever the times are;
 *   <li>any other, if it was appended after all that the table has seen of the key ({@code latest_at}) and is not from the
 *       future: the key has moved to another partition, or the topic was made anew.
 * </ol>
 *
 * <p>A row is from the future if it was appended more than {@link #AHEAD_MS} after the server's time when it is written
 * ({@code clock_ahead}); then its time counts for nothing, and {@code latest_at} stays as it was. docs/semantics.md has the
 * proof. {@code latest_at} and {@code clock_ahead} are the table's alone: the statements compute them.
 *
 * <p>They take an array a column: one statement for many rows, planned once. Nearly all rows are there already, and an
 * UPDATE costs the server much less than INSERT ... ON CONFLICT, which locks each row before it updates it. So the
 * INSERT follows only where the UPDATE has met fewer rows than there were.
 */
final class Upsert implements Serializable {

    private static final long serialVersionUID = 1L;

    /** How far the broker's clock may be ahead of the server's; vacancy.max_clock_ahead() says the same of rows in the table. */
    static final long AHEAD_MS = 5000;

    private static final String OBSERVED_AT = "observed_at";
    private static final String PARTITION = "topic_partition";
    private static final String OFFSET = "topic_offset";

    private final String table;
    private final String[] columns;
    private final LogicalType[] types;
    private final int key;
    private final int observedAt;
    private final int partition;

    /** Takes the columns' names and types, and the name of the key. */
    Upsert(String table, String[] columns, LogicalType[] types, String key) {
        this.table = table;
        this.columns = columns;
        this.types = types;
        this.key = Arrays.asList(columns).indexOf(key);
        observedAt = indexOf(OBSERVED_AT);
        partition = indexOf(PARTITION);
        indexOf(OFFSET);
        for (LogicalType type : types) {
            elementType(type);
        }
    }

    private int indexOf(String column) {
        int index = Arrays.asList(columns).indexOf(column);
        if (index < 0) {
            throw new ValidationException("connector postgres: " + table + " has no column " + column);
        }
        return index;
    }

    /**
     * Whether a row that comes takes the place of one of another partition that waits to be written: the one that was
     * appended later stays, unless it is from the future. Rows of one partition come in its order.
     */
    boolean replaces(Object[] waiting, Object[] next, long nowMs) {
        long latestMs = nowMs + AHEAD_MS;
        long waitingMs = (Long) waiting[observedAt];
        long nextMs = (Long) next[observedAt];
        return nextMs <= latestMs && (nextMs > waitingMs || waitingMs > latestMs);
    }

    String table() {
        return table;
    }

    int key() {
        return key;
    }

    /** When the record was appended. */
    int observedAt() {
        return observedAt;
    }

    /** Where the record stands. */
    int partition() {
        return partition;
    }

    String column(int column) {
        return columns[column];
    }

    int width() {
        return columns.length;
    }

    RowData.FieldGetter[] getters() {
        return IntStream.range(0, columns.length)
                .mapToObj(column -> RowData.createFieldGetter(types[column], column))
                .toArray(RowData.FieldGetter[]::new);
    }

    /** A value of Flink's as the driver wants it; it shares nothing with the row. */
    static Object value(Object field) {
        if (field instanceof TimestampData time) {
            return time.getMillisecond();
        }
        return field instanceof Number || field instanceof Boolean || field == null ? field : field.toString();
    }

    /** PostgreSQL's type of the elements of a column's array. */
    String elementType(int column) {
        return elementType(types[column]);
    }

    private static String elementType(LogicalType type) {
        return switch (type.getTypeRoot()) {
            case BIGINT, TIMESTAMP_WITH_LOCAL_TIME_ZONE -> "int8";
            case INTEGER -> "int4";
            case DOUBLE -> "float8";
            case BOOLEAN -> "bool";
            case VARCHAR -> "text";
            default -> throw new ValidationException("connector postgres knows no " + type);
        };
    }

    /** Updates the rows that are there. {@code serverTypes}: of the table, by column. */
    String update(Map<String, String> serverTypes) throws SQLException {
        return "UPDATE %s AS t SET %s FROM (%s) AS n WHERE t.%s = n.%s AND %s"
                .formatted(table, assignments("n"), rows(serverTypes), columns[key], columns[key], isNewer("n"));
    }

    /** Inserts the rows that are not there, updates the others. */
    String insert(Map<String, String> serverTypes) throws SQLException {
        return "INSERT INTO %s AS t (%s, latest_at, clock_ahead) %s ON CONFLICT (%s) DO UPDATE SET %s WHERE %s"
                .formatted(
                        table,
                        String.join(", ", columns),
                        rows(serverTypes),
                        columns[key],
                        assignments("EXCLUDED"),
                        isNewer("EXCLUDED"));
    }

    /** All columns but the key, from a row of that name. */
    private String assignments(String row) {
        return Arrays.stream(columns)
                        .filter(column -> !column.equals(columns[key]))
                        .map(column -> column + " = " + row + "." + column)
                        .collect(Collectors.joining(", "))
                + ", latest_at = greatest(t.latest_at, " + row + ".latest_at), clock_ahead = " + row + ".clock_ahead";
    }

    /** Whether a row of that name is newer than the table's. Rows of a release without latest_at were never from the future. */
    private static String isNewer(String row) {
        return ("(t.topic_partition = %1$s.topic_partition AND t.topic_offset < %1$s.topic_offset"
                        + " OR NOT %1$s.clock_ahead AND %1$s.observed_at > coalesce(t.latest_at, t.observed_at))")
                .formatted(row);
    }

    private String rows(Map<String, String> serverTypes) throws SQLException {
        StringBuilder values = new StringBuilder();
        StringBuilder arrays = new StringBuilder();
        for (int column = 0; column < columns.length; column++) {
            String name = columns[column];
            String serverType = serverTypes.get(name);
            if (serverType == null) {
                throw new SQLException("table " + table + " has no column " + name);
            }
            String separator = column == 0 ? "" : ", ";
            String value = "u." + name;
            if (types[column].getTypeRoot().name().startsWith("TIMESTAMP")) {
                value = "to_timestamp(" + value + " / 1e3::float8)";
            } else if (elementType(column).equals("text")) {
                value += "::" + serverType;
            }
            values.append(separator).append(value).append(" AS ").append(name);
            arrays.append(separator).append("?::").append(elementType(column)).append("[]");
        }
        // A row from the future says nothing of when its key was last heard: that is as long ago as can be.
        return ("SELECT r.*, CASE WHEN a.is_ahead THEN 'epoch' ELSE r.observed_at END AS latest_at, a.is_ahead AS clock_ahead"
                        + " FROM (SELECT %s FROM unnest(%s) AS u (%s)) AS r"
                        + " CROSS JOIN LATERAL (SELECT r.observed_at > statement_timestamp() + interval '%d ms' AS is_ahead) AS a")
                .formatted(values, arrays, String.join(", ", columns), AHEAD_MS);
    }
}
