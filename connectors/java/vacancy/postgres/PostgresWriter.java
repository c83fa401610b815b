package vacancy.postgres;

import java.io.IOException;
import java.sql.SQLException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.apache.flink.api.common.operators.ProcessingTimeService;
import org.apache.flink.api.connector.sink2.SinkWriter;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.apache.flink.metrics.Counter;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.binary.BinaryStringData;

/**
 * Gathers rows by key and writes the last of each, every flush interval, in a thread of its own.
 *
 * <p>Only one batch is written at a time, and meanwhile the next gathers: where the database is slow, rows of a key
 * replace each other for longer, and neither memory nor the events before them pile up. A checkpoint waits until all that
 * came before it is committed, so what is lost with a task comes again from the topic.
 */
final class PostgresWriter implements SinkWriter<RowData> {

    private final Session session;
    private final Upsert upsert;
    private final RowData.FieldGetter[] getters;
    private final long flushIntervalMs;
    private final ProcessingTimeService clock;
    private final Counter sent;
    private final ExecutorService thread;

    private Map<StringData, Object[]> gathered = new HashMap<>();
    private Future<Integer> writing;
    private volatile long lastWriteMs;
    private boolean closed;

    PostgresWriter(Session session, Upsert upsert, Duration flushInterval, WriterInitContext context) throws IOException {
        this.session = session;
        this.upsert = upsert;
        getters = upsert.getters();
        flushIntervalMs = flushInterval.toMillis();
        clock = context.getProcessingTimeService();
        sent = context.metricGroup().getNumRecordsSendCounter();
        context.metricGroup().setCurrentSendTimeGauge(() -> lastWriteMs);
        thread = Executors.newSingleThreadExecutor(task -> new Thread(task, "writes " + upsert.table()));
        try {
            session.open();
        } catch (SQLException error) {
            close();
            throw failure(error);
        }
        wake();
    }

    @Override
    public void write(RowData row, Context context) {
        StringData key = row.getString(upsert.key());
        Object[] values = gathered.get(key);
        if (values == null) {
            values = new Object[getters.length];
            // The row's memory is used again for the next one.
            gathered.put(((BinaryStringData) key).copy(), values);
        }
        for (int column = 0; column < values.length; column++) {
            values[column] = Upsert.value(getters[column].getFieldOrNull(row));
        }
    }

    /** Returns when all that was gathered is committed. */
    @Override
    public void flush(boolean endOfInput) throws IOException, InterruptedException {
        finish();
        start();
        finish();
    }

    @Override
    public void close() {
        closed = true;
        thread.shutdownNow();
        session.close();
    }

    private void wake() {
        clock.registerTimer(clock.getCurrentProcessingTime() + flushIntervalMs, time -> {
            if (!closed) {
                if (writing == null || writing.isDone()) {
                    finish();
                    start();
                }
                wake();
            }
        });
    }

    /** Hands over what was gathered; nothing may be under way. */
    private void start() {
        if (gathered.isEmpty()) {
            return;
        }
        Map<StringData, Object[]> batch = gathered;
        gathered = new HashMap<>(batch.size() * 2);
        writing = thread.submit(() -> {
            long startNs = System.nanoTime();
            List<Object[]> rows = new ArrayList<>(batch.values());
            // Whoever else writes rows of these keys, as a job that is about to end, takes them in the same order.
            rows.sort(Comparator.comparing(row -> (String) row[upsert.key()]));
            session.write(rows);
            lastWriteMs = (System.nanoTime() - startNs) / 1_000_000;
            return rows.size();
        });
    }

    /** Waits for what is under way. */
    private void finish() throws IOException, InterruptedException {
        if (writing != null) {
            try {
                sent.inc(writing.get());
            } catch (ExecutionException error) {
                throw failure(error.getCause());
            } finally {
                writing = null;
            }
        }
    }

    private IOException failure(Throwable cause) {
        return new IOException(upsert.table() + " cannot be written: " + cause.getMessage(), cause);
    }
}
