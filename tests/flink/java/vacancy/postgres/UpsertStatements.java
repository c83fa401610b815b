package vacancy.postgres;

import java.sql.SQLException;
import java.util.Map;
import org.apache.flink.table.types.logical.BigIntType;
import org.apache.flink.table.types.logical.IntType;
import org.apache.flink.table.types.logical.LocalZonedTimestampType;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.VarCharType;

/** Prints the two statements with which the sink writes the table test.placed, a line each. */
public final class UpsertStatements {

    private UpsertStatements() {}

    /** Takes nothing. */
    public static void main(String[] arguments) throws SQLException {
        String[] columns = {"id", "observed_at", "topic_partition", "topic_offset", "event"};
        LogicalType[] types = {
            new VarCharType(VarCharType.MAX_LENGTH),
            new LocalZonedTimestampType(3),
            new IntType(),
            new BigIntType(),
            new BigIntType()
        };
        Map<String, String> serverTypes =
                Map.of("id", "text", "observed_at", "timestamptz", "topic_partition", "integer", "topic_offset", "bigint",
                        "event", "bigint");
        Upsert upsert = new Upsert("test.placed", columns, types, "id");
        System.out.println(upsert.update(serverTypes));
        System.out.println(upsert.insert(serverTypes));
    }
}
