package vacancy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import org.apache.flink.avro.shaded.com.fasterxml.jackson.core.JsonProcessingException;
import org.apache.flink.avro.shaded.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.avro.shaded.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.avro.shaded.com.fasterxml.jackson.databind.node.ArrayNode;
import org.apache.flink.avro.shaded.org.apache.avro.Schema;
import org.apache.flink.avro.shaded.org.apache.avro.SchemaNormalization;
import org.apache.flink.avro.shaded.org.apache.avro.generic.GenericData;
import org.apache.flink.avro.shaded.org.apache.avro.generic.GenericDatumReader;
import org.apache.flink.avro.shaded.org.apache.avro.generic.GenericRecord;

/** What stands around a datum: which writer's schema it was written with, and where it starts. */
final class Framing {

    /** As schemas/bounds.py has it, and the schemas say: what is larger is no event. */
    private static final int MAX_PAYLOAD_BYTES = 65_536;

    private static final int MAX_SYMBOLS = 128;

    /** So many former versions a header may name. */
    private static final int MAX_FORMER = 64;

    private static final ObjectMapper JSON = new ObjectMapper();

    // The single-object encoding: C3 01, then the fingerprint of the writer's schema.
    private static final byte[] MARKER = {(byte) 0xC3, 0x01};
    private static final int HEADER_BYTES = MARKER.length + Long.BYTES;

    // Confluent's wire format: 00, then the schema's id in the registry.
    private static final byte CONFLUENT_MARKER = 0x00;
    private static final int CONFLUENT_HEADER_BYTES = 1 + Integer.BYTES;

    private final Schema into;
    private final SchemaRegistry registry;
    private final Map<Long, GenericDatumReader<GenericRecord>> byFingerprint = new HashMap<>();
    private final Map<Integer, GenericDatumReader<GenericRecord>> bySchemaId = new HashMap<>();

    /**
     * Knows some versions of a schema.
     *
     * @param versions these
     * @param into the schema that all data are read into
     * @param registry knows Confluent's schema ids; null where none is configured
     */
    Framing(List<Schema> versions, Schema into, SchemaRegistry registry) {
        this.into = into;
        this.registry = registry;
        versions.forEach(
                version -> byFingerprint.put(SchemaNormalization.parsingFingerprint64(version), reader(version)));
    }

    /**
     * Finds the reader for a payload, and sets a decoder to its datum.
     *
     * @param readsAs fingerprints, 8 bytes each: of versions whose data the payload's begins with; null if it has none
     * @throws BadPayloadException it is empty or too large, or its header is not one of ours
     * @throws IOException the registry fails, so that nothing can be said of the payload
     */
    GenericDatumReader<GenericRecord> unframe(byte[] payload, byte[] readsAs, DatumDecoder datum)
            throws IOException {
        if (payload == null || payload.length == 0) {
            throw new BadPayloadException("empty payload");
        }
        if (payload.length > MAX_PAYLOAD_BYTES) {
            throw new BadPayloadException("payload of more than " + MAX_PAYLOAD_BYTES + " bytes");
        }
        if (payload[0] == MARKER[0] && payload.length > 1 && payload[1] == MARKER[1]) {
            requireHeader(payload, HEADER_BYTES);
            GenericDatumReader<GenericRecord> reader = byFingerprint.get(fingerprint(payload, MARKER.length));
            boolean known = reader != null;
            if (!known) {
                reader = former(readsAs);
            }
            if (reader == null) {
                String hex = HexFormat.of().formatHex(payload, MARKER.length, HEADER_BYTES);
                throw new BadPayloadException("unknown schema fingerprint " + hex);
            }
            datum.set(payload, HEADER_BYTES, !known);
            return reader;
        }
        if (registry != null && payload[0] == CONFLUENT_MARKER) {
            requireHeader(payload, CONFLUENT_HEADER_BYTES);
            int schemaId = ByteBuffer.wrap(payload).getInt(1);
            GenericDatumReader<GenericRecord> reader = bySchemaId.get(schemaId);
            if (reader == null) {
                reader = reader(registry.schema(schemaId));
                bySchemaId.put(schemaId, reader);
            }
            datum.set(payload, CONFLUENT_HEADER_BYTES, false);
            return reader;
        }
        String start = HexFormat.of().formatHex(payload, 0, Math.min(2, payload.length));
        throw new BadPayloadException("not an Avro single-object encoding: starts with " + start);
    }

    /** The reader of the first version that is known; null if none is. */
    private GenericDatumReader<GenericRecord> former(byte[] readsAs) {
        GenericDatumReader<GenericRecord> reader = null;
        int end = readsAs == null ? 0 : Math.min(readsAs.length, MAX_FORMER * Long.BYTES);
        for (int at = 0; reader == null && at + Long.BYTES <= end; at += Long.BYTES) {
            reader = byFingerprint.get(fingerprint(readsAs, at));
        }
        return reader;
    }

    private static long fingerprint(byte[] bytes, int start) {
        return ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).getLong(start);
    }

    private GenericDatumReader<GenericRecord> reader(Schema writer) {
        GenericData data = new GenericData();
        data.setFastReaderEnabled(true);
        return new GenericDatumReader<>(withMoreSymbols(writer), into, data);
    }

    /**
     * A writer's schema whose enums have symbols that nobody knows behind their own: a later writer's, of whom we know
     * no more than that its data begin as these. Avro reads them as the default of our enum.
     */
    private static Schema withMoreSymbols(Schema writer) {
        try {
            JsonNode schema = JSON.readTree(writer.toString());
            for (JsonNode symbols : schema.findValues("symbols")) {
                for (int number = symbols.size(); number < MAX_SYMBOLS; number++) {
                    ((ArrayNode) symbols).add("UNKNOWN_TO_VACANCY_" + number);
                }
            }
            return new Schema.Parser().parse(schema.toString());
        } catch (JsonProcessingException error) {
            throw new IllegalStateException(error); // it is what Avro has just written
        }
    }

    private static void requireHeader(byte[] payload, int length) throws BadPayloadException {
        if (payload.length < length) {
            throw new BadPayloadException("header cut short after " + payload.length + " bytes");
        }
    }
}
