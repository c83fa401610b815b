package vacancy;

import java.io.IOException;
import java.io.InterruptedIOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Base64;
import java.util.HashMap;
import java.util.Map;
import org.apache.flink.avro.shaded.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.avro.shaded.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.avro.shaded.org.apache.avro.AvroRuntimeException;
import org.apache.flink.avro.shaded.org.apache.avro.Schema;

/**
 * Looks up schemas in a Confluent schema registry by their id.
 *
 * <p>What is not known is told from what cannot be said: a registry that is away makes no record bad. It is asked a few
 * times; then the job fails, and starts again from its checkpoint.
 */
final class SchemaRegistry {

    private static final Duration TIMEOUT = Duration.ofSeconds(5);
    private static final int TRIES = 3;
    private static final Duration PAUSE = Duration.ofMillis(500);
    private static final int FOUND = 200;
    private static final int NOT_FOUND = 404;

    /** Confluent's error code for an id without a schema; another 404 comes from what is no registry. */
    private static final int NO_SUCH_SCHEMA = 40403;

    /** An unknown id is not asked for again for this long, so that a flood of bad records costs the registry nothing. */
    private static final Duration UNKNOWN_FOR = Duration.ofSeconds(30);

    private static final int MAX_UNKNOWN = 10_000;

    private final HttpClient client =
            HttpClient.newBuilder().connectTimeout(TIMEOUT).followRedirects(HttpClient.Redirect.NORMAL).build();
    private final ObjectMapper json = new ObjectMapper();
    private final String url;
    private final String credentials;

    /** By schema id, until when (System.nanoTime) it counts as unknown. */
    private final Map<Integer, Long> unknownUntil = new HashMap<>();

    /**
     * Asks one registry.
     *
     * @param url its base URL, without a password
     * @param credentials user:password; null if it asks for none
     */
    SchemaRegistry(String url, String credentials) {
        this.url = url;
        this.credentials = credentials;
    }

    /**
     * The schema with an id.
     *
     * @throws BadPayloadException the registry does not have it, or it is none of Avro's
     * @throws IOException the registry does not answer as one does
     */
    Schema schema(int id) throws IOException {
        Long until = unknownUntil.get(id);
        if (until != null && until - System.nanoTime() > 0) {
            throw unknown(id);
        }
        String text = text(id);
        if (text == null) {
            if (unknownUntil.size() >= MAX_UNKNOWN) {
                unknownUntil.clear();
            }
            unknownUntil.put(id, System.nanoTime() + UNKNOWN_FOR.toNanos());
            throw unknown(id);
        }
        try {
            return new Schema.Parser().parse(text);
        } catch (AvroRuntimeException error) {
            throw new BadPayloadException("undecodable: schema " + id + " of the schema registry is none of Avro's");
        }
    }

    private static BadPayloadException unknown(int id) {
        return new BadPayloadException("the schema registry has no schema " + id);
    }

    /** The text of a schema; null if the registry does not have it. */
    private String text(int id) throws IOException {
        HttpRequest.Builder request =
                HttpRequest.newBuilder(URI.create(url + "/schemas/ids/" + Integer.toUnsignedString(id)))
                        .timeout(TIMEOUT)
                        .header("Accept", "application/vnd.schemaregistry.v1+json, application/json");
        if (credentials != null) {
            byte[] bytes = credentials.getBytes(StandardCharsets.UTF_8);
            request.header("Authorization", "Basic " + Base64.getEncoder().encodeToString(bytes));
        }
        String reason = null;
        for (int attempt = 0; attempt < TRIES; attempt++) {
            try {
                if (attempt > 0) {
                    Thread.sleep(PAUSE.toMillis());
                }
                HttpResponse<byte[]> answer = client.send(request.build(), HttpResponse.BodyHandlers.ofByteArray());
                JsonNode body = answer.statusCode() == FOUND || answer.statusCode() == NOT_FOUND
                        ? json.readTree(answer.body())
                        : json.nullNode();
                if (body.path("schema").isTextual()) {
                    return body.path("schema").textValue();
                }
                if (body.path("error_code").intValue() == NO_SUCH_SCHEMA) {
                    return null;
                }
                reason = "status " + answer.statusCode();
            } catch (InterruptedException error) {
                Thread.currentThread().interrupt();
                throw new InterruptedIOException("stopped while the schema registry was asked");
            } catch (IOException error) {
                reason = error.getMessage() == null ? error.getClass().getSimpleName() : error.getMessage();
            }
        }
        throw new IOException(
                "the schema registry at " + url + " fails: " + reason + "; see kafka.schema_registry_url");
    }
}
