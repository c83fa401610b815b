package vacancy.postgres;

import java.io.IOException;
import java.time.Duration;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.api.connector.sink2.SinkWriter;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.apache.flink.table.data.RowData;

/** Keeps the newest row of each key in a table of PostgreSQL. */
final class PostgresSink implements Sink<RowData> {

    private static final long serialVersionUID = 1L;

    private final Database database;
    private final Upsert upsert;
    private final Duration interval;

    PostgresSink(Database database, Upsert upsert, Duration interval) {
        this.database = database;
        this.upsert = upsert;
        this.interval = interval;
    }

    @Override
    public SinkWriter<RowData> createWriter(WriterInitContext context) throws IOException {
        return new PostgresWriter(new Session(database, upsert), upsert, interval, context);
    }
}
