package vacancy.kafka;

import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.api.connector.sink2.StatefulSinkWriter;
import org.apache.flink.api.connector.sink2.SupportsWriterState;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.apache.flink.core.io.SimpleVersionedSerializer;
import org.apache.flink.metrics.groups.SinkWriterMetricGroup;
import org.apache.flink.table.data.ArrayData;
import org.apache.flink.table.data.MapData;
import org.apache.flink.table.data.RowData;

/** Writes dead letters to their topic: rows of a payload and a map of headers. It fails for none of them. */
final class DeadLetterSink implements Sink<RowData>, SupportsWriterState<RowData, DeadLetter> {

    private static final long serialVersionUID = 1L;

    private static final Duration END_LIMIT = Duration.ofMinutes(1);

    private final DeadLetterTopic topic;

    DeadLetterSink(DeadLetterTopic topic) {
        this.topic = topic;
    }

    @Override
    public StatefulSinkWriter<RowData, DeadLetter> createWriter(WriterInitContext context) {
        return restoreWriter(context, List.of());
    }

    @Override
    public StatefulSinkWriter<RowData, DeadLetter> restoreWriter(
            WriterInitContext context, Collection<DeadLetter> waiting) {
        SinkWriterMetricGroup metrics = context.metricGroup();
        return new Writer(
                new DeadLetterSender(
                        topic,
                        waiting,
                        metrics,
                        metrics.getNumRecordsSendCounter(),
                        metrics.getNumRecordsSendErrorsCounter()),
                topic.maxPayloadBytes());
    }

    @Override
    public SimpleVersionedSerializer<DeadLetter> getWriterStateSerializer() {
        return new DeadLetter.Serializer();
    }

    private record Writer(DeadLetterSender sender, int maxPayloadBytes)
            implements StatefulSinkWriter<RowData, DeadLetter> {

        private static final int PAYLOAD = 0;
        private static final int HEADERS = 1;

        @Override
        public void write(RowData row, Context context) throws InterruptedException {
            byte[] payload = row.isNullAt(PAYLOAD) ? null : row.getBinary(PAYLOAD);
            sender.add(DeadLetter.of(payload, headers(row.getMap(HEADERS)), maxPayloadBytes));
        }

        private static Map<String, byte[]> headers(MapData map) {
            Map<String, byte[]> headers = new HashMap<>();
            ArrayData names = map.keyArray();
            ArrayData values = map.valueArray();
            for (int index = 0; index < map.size(); index++) {
                if (!values.isNullAt(index)) {
                    headers.put(names.getString(index).toString(), values.getBinary(index));
                }
            }
            return headers;
        }

        @Override
        public List<DeadLetter> snapshotState(long checkpointId) {
            return sender.waiting();
        }

        @Override
        public void flush(boolean endOfInput) throws InterruptedException {
            if (endOfInput) {
                sender.finish(END_LIMIT);
            }
        }

        @Override
        public void close() {
            sender.close();
        }
    }
}
