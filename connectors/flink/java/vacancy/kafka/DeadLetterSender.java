package vacancy.kafka;

import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Deque;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.producer.Producer;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.errors.InterruptException;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.flink.metrics.Counter;
import org.apache.flink.metrics.ThreadSafeSimpleCounter;
import org.apache.flink.metrics.groups.SinkWriterMetricGroup;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Sends dead letters in a thread of its own.
 *
 * <p>What always holds: whatever is wrong with the topic, nobody fails for it. A letter waits here until the broker has
 * it, and a checkpoint keeps those that wait; one that is too large for the topic is sent again with half of its
 * payload. While the topic takes nothing, letters wait up to {@link #MAX_WAITING_BYTES}; those beyond are given up,
 * each counted and in the log. Each try that fails is counted as well.
 */
public final class DeadLetterSender implements AutoCloseable {

    private static final Logger LOG = LoggerFactory.getLogger(DeadLetterSender.class);

    private static final int MAX_WAITING_BYTES = 16 << 20;

    /** How many are under way at once. */
    private static final int BATCH = 1000;

    private static final long PAUSE_MS = 1000;

    /** How long a full queue holds up who adds to it since the topic last took letters. */
    private static final long ROOM_MS = 5000;

    private static final long COMPLAIN_EVERY_NS = Duration.ofMinutes(1).toNanos();
    private static final long CLOSE_MS = 5000;

    private final DeadLetterTopic topic;
    private final Counter sent;
    private final Counter errors;
    private final Counter lost = new ThreadSafeSimpleCounter();
    private final Thread thread;

    // Guarded by this.
    private final Deque<DeadLetter> waiting = new ArrayDeque<>();
    private long waitingBytes;
    private boolean failing;
    private boolean closed;
    private long takenNs = System.nanoTime();

    private long complainedNs = System.nanoTime() - COMPLAIN_EVERY_NS;

    /**
     * Starts the thread.
     *
     * @param waiting those that a checkpoint has kept
     * @param metrics where it counts: deadLettersLost and deadLettersWaiting beside what is given
     * @param sent counts those that the broker has
     * @param errors counts the tries that failed
     */
    public DeadLetterSender(
            DeadLetterTopic topic,
            Collection<DeadLetter> waiting,
            SinkWriterMetricGroup metrics,
            Counter sent,
            Counter errors) {
        this.topic = topic;
        this.sent = sent;
        this.errors = errors;
        metrics.counter("deadLettersLost", lost);
        metrics.gauge("deadLettersWaiting", this::count);
        waiting.forEach(this::keep);
        thread = new Thread(this::run, "sends to " + topic.name());
        thread.setDaemon(true);
        thread.start();
    }

    /** Takes a letter; waits for room where there are too many, for as long as the topic takes letters. */
    public synchronized void add(DeadLetter letter) throws InterruptedException {
        long startNs = System.nanoTime();
        while (waitingBytes > MAX_WAITING_BYTES) {
            long idleMs = (System.nanoTime() - Math.max(startNs, takenNs)) / 1_000_000;
            long leftMs = ROOM_MS - idleMs;
            if (failing || leftMs <= 0) {
                giveUp(letter, "too many wait");
                return;
            }
            wait(leftMs);
        }
        keep(letter);
    }

    /** Those that no broker has acknowledged. */
    public synchronized List<DeadLetter> waiting() {
        return List.copyOf(waiting);
    }

    /** Waits until the broker has all, for at most so long; what is left then is lost. */
    public synchronized void finish(Duration limit) throws InterruptedException {
        long deadlineNs = System.nanoTime() + limit.toNanos();
        while (!waiting.isEmpty()) {
            long leftMs = (deadlineNs - System.nanoTime()) / 1_000_000;
            if (leftMs <= 0) {
                waiting.forEach(letter -> giveUp(letter, "the job ends"));
                return;
            }
            wait(leftMs);
        }
    }

    @Override
    public void close() {
        synchronized (this) {
            closed = true;
            notifyAll();
        }
        thread.interrupt();
        try {
            thread.join(CLOSE_MS);
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        }
    }

    private synchronized int count() {
        return waiting.size();
    }

    private synchronized void keep(DeadLetter letter) {
        waiting.add(letter);
        waitingBytes += letter.size();
        notifyAll();
    }

    private void giveUp(DeadLetter letter, String why) {
        lost.inc();
        LOG.error("{}: a dead letter is lost, {}: {}", topic.name(), why, letter);
    }

    private void run() {
        Producer<byte[], byte[]> producer = null;
        try {
            for (List<DeadLetter> batch = next(); batch != null; batch = next()) {
                try {
                    if (producer == null) {
                        producer = topic.producer();
                    }
                    send(producer, batch);
                } catch (InterruptException error) {
                    return;
                } catch (RuntimeException error) {
                    // Such as a client that cannot be made.
                    pause(batch.size(), error);
                }
            }
        } catch (InterruptedException error) {
            LOG.debug("{}: stopped", topic.name());
        } finally {
            close(producer);
        }
    }

    /** The longest waiting letters, once there are some; null when it is closed. */
    private synchronized List<DeadLetter> next() throws InterruptedException {
        while (waiting.isEmpty() && !closed) {
            wait();
        }
        return closed ? null : waiting.stream().limit(BATCH).toList();
    }

    private void send(Producer<byte[], byte[]> producer, List<DeadLetter> batch) throws InterruptedException {
        List<Future<RecordMetadata>> answers = new ArrayList<>(batch.size());
        for (DeadLetter letter : batch) {
            ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(topic.name(), null, letter.payload());
            letter.headers().forEach((name, value) -> record.headers().add(name, value));
            Future<RecordMetadata> answer = producer.send(record);
            answers.add(answer);
            Throwable failed = answer.isDone() ? failureOf(answer) : null;
            if (failed != null && !(failed instanceof RecordTooLargeException)) {
                // Such as a topic that is gone: the client has waited for it, and would wait as long for each of the others.
                break;
            }
        }
        producer.flush();
        List<DeadLetter> again = new ArrayList<>();
        Throwable failure = null;
        int acknowledged = 0;
        for (int index = 0; index < answers.size(); index++) {
            DeadLetter letter = batch.get(index);
            Throwable failed = failureOf(answers.get(index));
            if (failed == null) {
                acknowledged++;
            } else if (failed instanceof RecordTooLargeException) {
                DeadLetter shorter = letter.shorter();
                if (shorter == null) {
                    errors.inc();
                    giveUp(letter, "the topic takes no record of this size");
                } else {
                    again.add(shorter);
                }
            } else {
                failure = failed;
                again.add(letter);
            }
        }
        again.addAll(batch.subList(answers.size(), batch.size()));
        sent.inc(acknowledged);
        replace(batch, again);
        if (failure != null) {
            pause(again.size(), failure);
        }
    }

    /** Why a record was not written, once that is known; null if it was. */
    private static Throwable failureOf(Future<RecordMetadata> answer) throws InterruptedException {
        try {
            answer.get();
            return null;
        } catch (ExecutionException error) {
            return error.getCause();
        }
    }

    /** Puts what has to be sent again in the place of a batch. */
    private synchronized void replace(List<DeadLetter> batch, List<DeadLetter> again) {
        for (DeadLetter letter : batch) {
            waiting.remove();
            waitingBytes -= letter.size();
        }
        for (int index = again.size() - 1; index >= 0; index--) {
            waiting.addFirst(again.get(index));
            waitingBytes += again.get(index).size();
        }
        failing = false;
        takenNs = again.size() < batch.size() ? System.nanoTime() : takenNs;
        notifyAll();
    }

    private void pause(int letters, Throwable failure) throws InterruptedException {
        errors.inc(letters);
        synchronized (this) {
            failing = true;
            notifyAll();
        }
        long nowNs = System.nanoTime();
        if (nowNs - complainedNs >= COMPLAIN_EVERY_NS) {
            complainedNs = nowNs;
            LOG.warn("{}: {} dead letters not written, tried again each second", topic.name(), letters, failure);
        }
        Thread.sleep(PAUSE_MS);
    }

    private void close(Producer<byte[], byte[]> producer) {
        if (producer != null) {
            Thread.interrupted(); // or it would not close
            try {
                producer.close(Duration.ZERO);
            } catch (RuntimeException error) {
                LOG.debug("{}: the client did not close", topic.name(), error);
            }
        }
    }
}
