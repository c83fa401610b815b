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
 * The statements that put the newest rows into a table, and what a row is for them.
 *
 * <p>They take an array a column: one statement for many rows, planned once. Nearly all rows are there already, and an
 * UPDATE costs the server much less than INSERT ... ON CONFLICT, which locks each row before it updates it. So the
 * INSERT follows only where the UPDATE has met fewer rows than there were.
 */
final class Upsert implements Serializable {

    private static final long serialVersionUID = 1L;

    private final String table;
    private final String[] columns;
    private final LogicalType[] types;
    private final int key;
    private final int newestBy;

    /** Takes the columns' names and types, and the names of two of them. */
    Upsert(String table, String[] columns, LogicalType[] types, String key, String newestBy) {
        this.table = table;
        this.columns = columns;
        this.types = types;
        this.key = Arrays.asList(columns).indexOf(key);
        this.newestBy = Arrays.asList(columns).indexOf(newestBy);
        if (this.newestBy < 0) {
            throw new ValidationException("newest-by: " + table + " has no column " + newestBy);
        }
        for (LogicalType type : types) {
            elementType(type);
        }
    }

    String table() {
        return table;
    }

    int key() {
        return key;
    }

    int newestBy() {
        return newestBy;
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
        return "UPDATE %s AS t SET %s FROM (%s) AS n WHERE t.%s = n.%s AND t.%s <= n.%s"
                .formatted(
                        table,
                        assignments("n"),
                        rows(serverTypes),
                        columns[key],
                        columns[key],
                        columns[newestBy],
                        columns[newestBy]);
    }

    /** Inserts the rows that are not there, updates the others. */
    String insert(Map<String, String> serverTypes) throws SQLException {
        return "INSERT INTO %s AS t (%s) %s ON CONFLICT (%s) DO UPDATE SET %s WHERE t.%s <= EXCLUDED.%s"
                .formatted(
                        table,
                        String.join(", ", columns),
                        rows(serverTypes),
                        columns[key],
                        assignments("EXCLUDED"),
                        columns[newestBy],
                        columns[newestBy]);
    }

    /** All columns but the key, from a row of that name. */
    private String assignments(String row) {
        return Arrays.stream(columns)
                .filter(column -> !column.equals(columns[key]))
                .map(column -> column + " = " + row + "." + column)
                .collect(Collectors.joining(", "));
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
        return "SELECT %s FROM unnest(%s) AS u (%s)".formatted(values, arrays, String.join(", ", columns));
    }
}
