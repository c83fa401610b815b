package vacancy.kafka;

import java.io.Serializable;
import java.util.HashMap;
import java.util.Map;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.producer.Producer;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.serialization.ByteArraySerializer;

/** Where dead letters go: a topic, and a client's properties. They may hold passwords. */
public final class DeadLetterTopic implements Serializable {

    private static final long serialVersionUID = 1L;

    private static final int DEFAULT_REQUEST_BYTES = 1_048_576;

    private final String name;
    private final HashMap<String, String> properties;

    public DeadLetterTopic(String name, Map<String, String> properties) {
        this.name = name;
        this.properties = new HashMap<>(properties);
    }

    String name() {
        return name;
    }

    /** How long a payload may be so that a request takes it with all that stands around it. */
    public int maxPayloadBytes() {
        String most = properties.get(ProducerConfig.MAX_REQUEST_SIZE_CONFIG);
        int requestBytes = most == null ? DEFAULT_REQUEST_BYTES : Integer.parseInt(most);
        return Math.max(0, requestBytes - DeadLetter.MAX_OVERHEAD_BYTES);
    }

    /** A client that neither waits for long nor ends up in a state that it does not leave. */
    Producer<byte[], byte[]> producer() {
        Map<String, Object> all = new HashMap<>();
        all.put(ProducerConfig.MAX_BLOCK_MS_CONFIG, "10000");
        all.put(ProducerConfig.REQUEST_TIMEOUT_MS_CONFIG, "10000");
        all.put(ProducerConfig.DELIVERY_TIMEOUT_MS_CONFIG, "20000");
        all.putAll(properties);
        // A letter may be there twice; what is idempotent may fail for good.
        all.put(ProducerConfig.ENABLE_IDEMPOTENCE_CONFIG, "false");
        all.put(ProducerConfig.ACKS_CONFIG, "all");
        return new KafkaProducer<>(all, new ByteArraySerializer(), new ByteArraySerializer());
    }
}
