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
import org.apache.flink.api.connector.sink2.StatefulSinkWriter;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.apache.flink.metrics.Counter;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.binary.BinaryStringData;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import vacancy.kafka.DeadLetter;
import vacancy.kafka.DeadLetterSender;

/**
 * Writes the newest row of each key, at most one each interval, in a thread of its own.
 *
 * <p>A row goes out at the next tick unless one of its key did so within the interval; then it waits until that is over,
 * and those that come meanwhile replace it. Only one batch is written at a time, and meanwhile the next gathers: where
 * the database is slow, rows of a key replace each other for longer, and neither memory nor the events before them pile up.
 * A checkpoint waits until all that came before it is committed, so what is lost with a task comes again from the topic.
 *
 * <p>A row that the database refuses for what it holds becomes a dead letter, is counted, and holds up no other.
 */
final class PostgresWriter implements StatefulSinkWriter<RowData, DeadLetter> {

    private static final Logger LOG = LoggerFactory.getLogger(PostgresWriter.class);

    /** How often within the interval rows go out. */
    private static final int TICKS = 10;

    private static final int SWEEP_INTERVALS = 60;

    private static final Duration END_LIMIT = Duration.ofMinutes(1);

    private final Session session;
    private final Upsert upsert;
    private final RowData.FieldGetter[] getters;
    private final long intervalNs;
    private final long tickMs;
    private final ProcessingTimeService clock;
    private final Counter sent;
    private final Counter errors;
    private final Refused refused;
    private final DeadLetterSender letters;
    private final ExecutorService thread;

    private final Map<StringData, Slot> slots = new HashMap<>();
    private long sweptNs = System.nanoTime();

    /** Those that hold a row. */
    private List<Slot> waiting = new ArrayList<>();

    private Future<Written> writing;
    private volatile long lastWriteMs;
    private boolean closed;

    /** How many rows of a batch are in the table, and how many were refused. */
    private record Written(int rows, int refused) {}

    /** What is known of a key. What each row asks for is here: to look into the one that waits takes longer. */
    private static final class Slot {

        /** The key, as the driver wants it. */
        final String key;

        /** The row that waits; null if none does. */
        Object[] row;

        /** The partition of the one that waits. */
        int partition;

        /** When it came. */
        long arrivedNs;

        /** When it may go out. */
        long dueNs = System.nanoTime();

        Slot(String key) {
            this.key = key;
        }
    }

    /** Starts; {@code letters} is closed with it. */
    PostgresWriter(
            Session session,
            Upsert upsert,
            Duration interval,
            WriterInitContext context,
            Refused refused,
            DeadLetterSender letters)
            throws IOException {
        this.session = session;
        this.upsert = upsert;
        getters = upsert.getters();
        intervalNs = interval.toNanos();
        tickMs = Math.max(1, interval.toMillis() / TICKS);
        clock = context.getProcessingTimeService();
        sent = context.metricGroup().getNumRecordsSendCounter();
        errors = context.metricGroup().getNumRecordsSendErrorsCounter();
        this.refused = refused;
        this.letters = letters;
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
        Slot slot = slots.get(key);
        if (slot == null) {
            slot = new Slot(key.toString());
            // The row's memory is used again for the next one.
            slots.put(((BinaryStringData) key).copy(), slot);
        }
        Object[] next = new Object[getters.length];
        for (int column = 0; column < getters.length; column++) {
            next[column] =
                    column == upsert.key() ? slot.key : Upsert.value(getters[column].getFieldOrNull(row));
        }
        int partition = row.getInt(upsert.partition());
        if (slot.row == null) {
            waiting.add(slot);
        } else if (partition != slot.partition && !upsert.replaces(slot.row, next, System.currentTimeMillis())) {
            return;
        }
        slot.row = next;
        slot.partition = partition;
        slot.arrivedNs = System.nanoTime();
    }

    /** Returns when all that was gathered is committed. */
    @Override
    public void flush(boolean endOfInput) throws IOException, InterruptedException {
        finish();
        start(true);
        finish();
        if (endOfInput) {
            letters.finish(END_LIMIT);
        }
    }

    @Override
    public List<DeadLetter> snapshotState(long checkpointId) {
        return letters.waiting();
    }

    @Override
    public void close() {
        closed = true;
        thread.shutdownNow();
        session.close();
        letters.close();
    }

    private void wake() {
        clock.registerTimer(clock.getCurrentProcessingTime() + tickMs, time -> {
            if (!closed) {
                if (writing == null || writing.isDone()) {
                    finish();
                    start(false);
                }
                wake();
            }
        });
    }

    /** Hands over the rows whose time has come, or all of them; nothing may be under way. */
    private void start(boolean all) {
        long nowNs = System.nanoTime();
        List<Object[]> rows = new ArrayList<>(waiting.size());
        List<Slot> early = new ArrayList<>();
        for (Slot slot : waiting) {
            if (all || slot.dueNs - nowNs <= 0) {
                rows.add(slot.row);
                slot.row = null;
                // From when it came and not from now, or a key with a row each interval would stay as late as it once was.
                slot.dueNs = slot.arrivedNs + intervalNs;
            } else {
                early.add(slot);
            }
        }
        waiting = early;
        if (nowNs - sweptNs > SWEEP_INTERVALS * intervalNs) {
            // A key without a slot may go out at once, and so may these: what is gone for good leaves nothing behind.
            slots.values().removeIf(slot -> slot.row == null && slot.dueNs - nowNs <= 0);
            sweptNs = nowNs;
        }
        if (rows.isEmpty()) {
            return;
        }
        writing = thread.submit(() -> {
            long startNs = System.nanoTime();
            // Whoever else writes rows of these keys, as a job that is about to end, takes them in the same order.
            rows.sort(Comparator.comparing(row -> (String) row[upsert.key()]));
            List<DeadLetter> putAside = new ArrayList<>();
            session.write(rows, (row, error) -> putAside.add(refused.letter(row, error)));
            for (DeadLetter letter : putAside) {
                letters.add(letter);
            }
            if (!putAside.isEmpty()) {
                LOG.warn("{}: rows refused: {}, the first: {}", upsert.table(), putAside.size(), putAside.get(0));
            }
            lastWriteMs = (System.nanoTime() - startNs) / 1_000_000;
            return new Written(rows.size() - putAside.size(), putAside.size());
        });
    }

    /** Waits for what is under way. */
    private void finish() throws IOException, InterruptedException {
        if (writing != null) {
            try {
                Written written = writing.get();
                sent.inc(written.rows);
                errors.inc(written.refused);
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
