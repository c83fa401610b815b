package vacancy.postgres;

import java.nio.charset.StandardCharsets;
import java.sql.SQLException;
import java.time.Instant;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonProcessingException;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import vacancy.kafka.DeadLetter;

/**
 * Makes dead letters of the rows that the database refuses: the row as JSON, the table and key that it was for, its time,
 * and the database's reason.
 */
final class Refused {

    private static final ObjectMapper JSON = new ObjectMapper();

    private final Upsert upsert;
    private final int maxPayloadBytes;

    Refused(Upsert upsert, int maxPayloadBytes) {
        this.upsert = upsert;
        this.maxPayloadBytes = maxPayloadBytes;
    }

    DeadLetter letter(Object[] row, SQLException error) {
        Map<String, Object> fields = new LinkedHashMap<>();
        for (int column = 0; column < row.length; column++) {
            fields.put(upsert.column(column), row[column]);
        }
        Map<String, byte[]> headers = new HashMap<>();
        headers.put("vacancy.table", text(upsert.table()));
        headers.put("vacancy.key", text((String) row[upsert.key()]));
        headers.put("vacancy.append_time", text(Instant.ofEpochMilli((Long) row[upsert.observedAt()]).toString()));
        headers.put("vacancy.reason", text("refused: " + error.getMessage().replaceAll("\\P{Print}+", " ")));
        return DeadLetter.of(json(fields), headers, maxPayloadBytes);
    }

    private static byte[] text(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static byte[] json(Map<String, Object> fields) {
        try {
            return JSON.writeValueAsBytes(fields);
        } catch (JsonProcessingException error) {
            throw new IllegalStateException(error); // texts and numbers have a form
        }
    }
}
