package vacancy.postgres;

import java.io.IOException;
import java.time.Duration;
import java.util.Collection;
import java.util.List;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.api.connector.sink2.StatefulSinkWriter;
import org.apache.flink.api.connector.sink2.SupportsWriterState;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.apache.flink.core.io.SimpleVersionedSerializer;
import org.apache.flink.metrics.SimpleCounter;
import org.apache.flink.table.data.RowData;
import vacancy.kafka.DeadLetter;
import vacancy.kafka.DeadLetterSender;
import vacancy.kafka.DeadLetterTopic;

/** Keeps the newest row of each key in a table of PostgreSQL; what that refuses goes to a topic of dead letters. */
final class PostgresSink implements Sink<RowData>, SupportsWriterState<RowData, DeadLetter> {

    private static final long serialVersionUID = 1L;

    private final Database database;
    private final Upsert upsert;
    private final Duration interval;
    private final DeadLetterTopic deadLetters;

    PostgresSink(Database database, Upsert upsert, Duration interval, DeadLetterTopic deadLetters) {
        this.database = database;
        this.upsert = upsert;
        this.interval = interval;
        this.deadLetters = deadLetters;
    }

    @Override
    public StatefulSinkWriter<RowData, DeadLetter> createWriter(WriterInitContext context) throws IOException {
        return restoreWriter(context, List.of());
    }

    @Override
    public StatefulSinkWriter<RowData, DeadLetter> restoreWriter(
            WriterInitContext context, Collection<DeadLetter> waiting) throws IOException {
        // The sink's own counters are of rows: those that it has written, and those that are refused.
        DeadLetterSender letters =
                new DeadLetterSender(
                        deadLetters, waiting, context.metricGroup(), new SimpleCounter(), new SimpleCounter());
        return new PostgresWriter(
                new Session(database, upsert),
                upsert,
                interval,
                context,
                new Refused(upsert, deadLetters.maxPayloadBytes()),
                letters);
    }

    @Override
    public SimpleVersionedSerializer<DeadLetter> getWriterStateSerializer() {
        return new DeadLetter.Serializer();
    }
}
