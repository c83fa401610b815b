package vacancy;

import java.io.BufferedOutputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.SplittableRandom;
import org.apache.flink.avro.shaded.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.avro.shaded.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.avro.shaded.org.apache.avro.Schema;
import org.apache.flink.avro.shaded.org.apache.avro.SchemaNormalization;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;

/**
 * Structured fuzzing of both decoders: events that are drawn from the schema's text, on and beyond its bounds, and then
 * damaged in their bytes. Whatever comes, a decoder throws nothing; a row has a reason and nothing else, or no reason and
 * only what is within the schema's bounds.
 *
 * <p>It shares no code with the decoders but Avro's parser: the bytes are written here, and rows are held to the JSON text.
 */
public final class DecoderFuzz {

    private static final ObjectMapper JSON = new ObjectMapper();
    private static final int MAX_REASON_CHARACTERS = 1200;
    private static final int GOOD_EVERY = 1000;

    private final SplittableRandom random;
    private final JsonNode schema;
    private final boolean isUsage;
    private final byte[] header;
    private final List<String> columns = new ArrayList<>();
    private final EventDecoder decoder;

    /** How likely a value is out of bounds, in this event. */
    private double wild;

    private String hostId;
    private long taken;
    private long refused;

    private DecoderFuzz(String text, boolean isUsage, long seed) throws IOException {
        random = new SplittableRandom(seed);
        schema = JSON.readTree(text);
        this.isUsage = isUsage;
        long fingerprint = SchemaNormalization.parsingFingerprint64(new Schema.Parser().parse(text));
        header = ByteBuffer.allocate(10).order(ByteOrder.LITTLE_ENDIAN).put((byte) 0xC3).put((byte) 1)
                .putLong(fingerprint).array();
        String[] versions = {text};
        decoder = isUsage ? new DecodeUsage(versions, null, null) : new DecodeInventory(versions, null, null);
        decoder.open(null);
        decoder.fields().forEach(field -> columns.add(field.getName()));
    }

    /**
     * Takes a seed, how many records, the two schemas' files, and perhaps a file for the records and how many of them.
     * Prints how many were taken and refused of each event. A file's records are: the event (0 usage), key and payload,
     * each of these with its length before it.
     */
    public static void main(String[] arguments) throws IOException {
        long seed = Long.parseLong(arguments[0]);
        long records = Long.parseLong(arguments[1]);
        DecoderFuzz usage = new DecoderFuzz(Files.readString(Path.of(arguments[2])), true, seed);
        DecoderFuzz inventory = new DecoderFuzz(Files.readString(Path.of(arguments[3])), false, seed);
        long kept = arguments.length > 5 ? Long.parseLong(arguments[5]) : 0;
        try (DataOutputStream out =
                kept == 0 ? null : new DataOutputStream(new BufferedOutputStream(Files.newOutputStream(Path.of(arguments[4]))))) {
            for (long number = 0; number < records; number++) {
                (number % 2 == 0 ? usage : inventory).check(number, number < kept ? out : null);
            }
        }
        System.out.println("usage: " + usage.taken + " taken, " + usage.refused + " refused");
        System.out.println("inventory: " + inventory.taken + " taken, " + inventory.refused + " refused");
    }

    private void check(long number, DataOutputStream out) throws IOException {
        wild = number % GOOD_EVERY < 2 ? 0 : random.nextInt(3) == 0 ? 0 : random.nextDouble() * 0.1;
        hostId = "host-" + random.nextInt(1000);
        byte[] payload = damaged(event(), number);
        String key = random.nextInt(50) == 0 ? random.nextBoolean() ? null : text(null) : hostId;
        byte[] readsAs = random.nextInt(20) == 0 ? bytes(random.nextInt(20)) : null;
        if (out != null) {
            out.writeByte(isUsage ? 0 : 1);
            write(out, key == null ? new byte[0] : key.getBytes(StandardCharsets.UTF_8));
            write(out, payload);
        }
        StringData hostKey = key == null ? null : StringData.fromString(key);
        try {
            RowData row =
                    isUsage
                            ? ((DecodeUsage) decoder).eval(hostKey, payload, readsAs)
                            : ((DecodeInventory) decoder).eval(hostKey, payload, readsAs);
            String reason = row.isNullAt(0) ? null : row.getString(0).toString();
            if (reason != null) {
                refused++;
                require(reason.length() <= MAX_REASON_CHARACTERS, "a reason of " + reason.length() + " characters");
                require(reason.chars().allMatch(each -> each >= ' ' && each != 0x7F), "a reason that is not safe");
                for (int column = 1; column <= columns.size(); column++) {
                    require(row.isNullAt(column), "a reason, and " + columns.get(column - 1));
                }
            } else {
                taken++;
                require(hostId.equals(key), "another's key");
                checkRow(row);
            }
            require(wild > 0 || number % GOOD_EVERY >= 2 || key == null || !key.equals(hostId) || reason == null,
                    "a good event is refused: " + reason);
        } catch (RuntimeException | Error | IOException error) {
            throw new IllegalStateException(
                    "record " + number + " " + java.util.HexFormat.of().formatHex(payload), error);
        }
    }

    private static void write(DataOutputStream out, byte[] bytes) throws IOException {
        out.writeInt(bytes.length);
        out.write(bytes);
    }

    // What the rows are held to.

    private void checkRow(RowData row) throws IOException {
        for (int index = 0; index < columns.size(); index++) {
            String name = columns.get(index);
            JsonNode field = field(schema, name);
            if (field == null || row.isNullAt(index + 1)) {
                continue;
            }
            String type = type(field.get("type"));
            if (type.equals("int") || type.equals("long")) {
                long value = row.getLong(index + 1);
                require(value == -1 && isNullable(field.get("type")) || within(field, value), name + " of " + value);
            } else if (type.equals("string")) {
                requireText(field, row.getString(index + 1).toString(), name);
            } else if (isUsage || name.equals("traits") || name.equals("aggregates")) {
                String literal = row.getString(index + 1).toString();
                require(literal.startsWith("{") && literal.endsWith("}") && literal.indexOf(0) < 0, name + " is no array");
            } else if (!type.equals("enum")) {
                checkJson(name, field, field.get("type"), JSON.readTree(row.getString(index + 1).toString()));
            }
        }
    }

    private void checkJson(String name, JsonNode said, JsonNode of, JsonNode value) {
        JsonNode kind = withoutNull(of);
        if (value.isNull()) {
            require(isNullable(of), name + " is null");
            return;
        }
        switch (type(kind)) {
            case "int", "long" -> require(within(said, value.longValue()), name + " of " + value);
            case "double" -> require(value.doubleValue() >= said.get("minimum").doubleValue()
                    && value.doubleValue() <= said.get("maximum").doubleValue(), name + " of " + value);
            case "string" -> requireText(said, value.textValue(), name);
            case "array" -> {
                require(value.size() <= said.get("maxItems").intValue(), name + " of " + value.size());
                Set<Object> seen = new HashSet<>();
                for (JsonNode item : value) {
                    checkJson(name, kind.get("items"), kind.get("items"), item);
                    require(!said.has("uniqueItems") || seen.add(item), name + " twice");
                    if (said.has("uniqueBy")) {
                        List<JsonNode> key = new ArrayList<>();
                        said.get("uniqueBy").forEach(each -> key.add(item.get(each.textValue())));
                        require(seen.add(key), name + " twice by " + key);
                    }
                }
            }
            case "map" -> {
                require(value.size() <= said.get("maxProperties").intValue(), name + " of " + value.size());
                value.fields().forEachRemaining(entry -> {
                    requireText(said.get("propertyNames"), entry.getKey(), name + " key");
                    checkJson(name, kind.get("values"), kind.get("values"), entry.getValue());
                });
            }
            case "record" -> {
                for (JsonNode field : kind.get("fields")) {
                    String inner = field.get("name").textValue();
                    checkJson(name + "." + inner, field, field.get("type"), value.get(inner));
                    if (field.has("notAbove")) {
                        long other = value.get(field.get("notAbove").textValue()).longValue();
                        require(value.get(inner).longValue() <= other, name + "." + inner + " above");
                    }
                    if (field.has("subsetOf")) {
                        Set<JsonNode> all = new HashSet<>();
                        value.get(field.get("subsetOf").textValue()).forEach(all::add);
                        value.get(inner).forEach(item -> require(all.contains(item), name + "." + inner + " more"));
                    }
                }
            }
            default -> throw new IllegalStateException(kind.toString());
        }
    }

    private static boolean within(JsonNode said, long value) {
        return value >= said.get("minimum").longValue() && value <= said.get("maximum").longValue();
    }

    private static void requireText(JsonNode said, String text, String name) {
        int characters = text.codePointCount(0, text.length());
        require(!said.has("maxLength") || characters <= said.get("maxLength").intValue(), name + " is too long");
        require(!said.has("minLength") || characters >= said.get("minLength").intValue(), name + " is too short");
        String allowed =
                switch (said.path("format").asText()) {
                    case "printable-ascii" -> "[!-~]*";
                    case "resource-class" -> "[A-Z0-9_]*";
                    case "pci-id" -> "[0-9a-f]{4}";
                    case "uuid" -> "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}";
                    default -> "(?s)[^\\x00]*";
                };
        require(text.matches(allowed), name + " has what its format has not");
    }

    private static void require(boolean holds, String otherwise) {
        if (!holds) {
            throw new IllegalStateException(otherwise);
        }
    }

    private static JsonNode field(JsonNode record, String name) {
        for (JsonNode field : record.get("fields")) {
            if (field.get("name").textValue().equals(name)) {
                return field;
            }
        }
        return null;
    }

    private static JsonNode withoutNull(JsonNode type) {
        if (type.isArray()) {
            for (JsonNode each : type) {
                if (!each.asText().equals("null")) {
                    return each;
                }
            }
        }
        return type;
    }

    private static boolean isNullable(JsonNode type) {
        return type.isArray();
    }

    private static String type(JsonNode type) {
        JsonNode kind = withoutNull(type);
        return kind.isTextual() ? kind.textValue() : kind.get("type").textValue();
    }

    // What the events are made of.

    private byte[] event() {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        out.writeBytes(header);
        writeRecord(out, schema, "");
        return out.toByteArray();
    }

    private void writeRecord(ByteArrayOutputStream out, JsonNode record, String path) {
        for (JsonNode field : record.get("fields")) {
            String name = field.get("name").textValue();
            if (path.isEmpty() && name.equals("host_id") && random.nextDouble() >= wild) {
                writeText(out, hostId);
            } else {
                writeValue(out, field, field.get("type"), path + "." + name);
            }
        }
    }

    private void writeValue(ByteArrayOutputStream out, JsonNode said, JsonNode of, String path) {
        JsonNode kind = withoutNull(of);
        if (isNullable(of)) {
            boolean isNull = random.nextInt(4) == 0;
            boolean nullFirst = of.get(0).asText().equals("null");
            writeLong(out, random.nextDouble() < wild / 20 ? random.nextInt(-3, 5) : isNull == nullFirst ? 0 : 1);
            if (isNull) {
                return;
            }
        }
        switch (type(kind)) {
            case "int", "long" -> writeLong(out, number(said, path));
            case "double" -> writeDouble(out, ratio(said));
            case "string" -> writeText(out, text(said));
            case "enum" -> writeLong(out, random.nextDouble() < wild ? random.nextInt(-2, 200) : random.nextInt(2));
            case "array", "map" -> writeItems(out, said, kind, path);
            case "record" -> writeRecord(out, kind, path);
            default -> throw new IllegalStateException(kind.toString());
        }
    }

    private long number(JsonNode said, String path) {
        long least = said.get("minimum").longValue();
        long most = said.get("maximum").longValue();
        if (random.nextDouble() < wild) {
            return switch (random.nextInt(6)) {
                case 0 -> least - 1;
                case 1 -> most + 1;
                case 2 -> Long.MIN_VALUE;
                case 3 -> Long.MAX_VALUE;
                case 4 -> Integer.MAX_VALUE + 1L;
                default -> random.nextLong();
            };
        }
        if (path.endsWith(".free") || path.endsWith(".size_kb") || path.endsWith(".reserved")) {
            return least; // what has to go with other figures
        }
        return switch (path.contains(".inventories") || path.contains(".pages") ? 3 : random.nextInt(8)) {
            case 0 -> least;
            case 1 -> most;
            case 2 -> random.nextLong(least, most + 1);
            default -> Math.min(most, least + random.nextInt(1000));
        };
    }

    private double ratio(JsonNode said) {
        if (random.nextDouble() < wild) {
            double[] odd = {0, -1, Double.NaN, Double.MIN_VALUE, 1e308, Double.POSITIVE_INFINITY, -0.0};
            return odd[random.nextInt(odd.length)];
        }
        return random.nextBoolean() ? said.get("minimum").doubleValue() : random.nextDouble(0.5, 16);
    }

    /** A text that fits, or one of anything. */
    private String text(JsonNode said) {
        boolean fits = said != null && random.nextDouble() >= wild;
        String format = said == null ? "" : said.path("format").asText();
        if (fits && format.equals("uuid")) {
            return new java.util.UUID(random.nextLong(), random.nextLong()).toString();
        }
        if (fits && format.equals("pci-id")) {
            return "%04x".formatted(random.nextInt(65_536));
        }
        int least = said == null ? 0 : said.path("minLength").asInt();
        int most = said == null ? 300 : said.path("maxLength").asInt(40);
        int length = fits ? Math.min(most, least + random.nextInt(random.nextInt(20) == 0 ? most : 12)) : random.nextInt(most + 3);
        StringBuilder text = new StringBuilder();
        while (text.codePointCount(0, text.length()) < length) {
            if (fits && format.equals("resource-class")) {
                text.append((char) ('A' + random.nextInt(26)));
            } else if (fits && format.equals("printable-ascii")) {
                text.append((char) random.nextInt('!', '~' + 1));
            } else if (random.nextInt(3) == 0) {
                int[] odd = {0x1B, 0x9B, 0x202E, 0x7F, '\n', '"', '\\', '{', '}', ',', 0x1F600, 0xFFFF, 0xE9, fits ? 'x' : 0};
                text.appendCodePoint(odd[random.nextInt(odd.length)]);
            } else {
                text.append((char) random.nextInt(' ', 127));
            }
        }
        return text.toString();
    }

    private void writeItems(ByteArrayOutputStream out, JsonNode said, JsonNode kind, String path) {
        boolean isMap = kind.has("values");
        int most = said.get(isMap ? "maxProperties" : "maxItems").intValue();
        // Two of what has to be unlike in more than chance tells apart would not be good.
        boolean apart = said.has("uniqueItems") || said.has("uniqueBy");
        int count = random.nextDouble() < wild
                ? random.nextInt(10) == 0 ? most + random.nextInt(2) : random.nextInt(6)
                : random.nextInt(apart ? 2 : 4);
        if (path.endsWith(".free_cpus") && random.nextDouble() >= wild) {
            count = 0;
        }
        JsonNode items = kind.get(isMap ? "values" : "items");
        for (int left = count; left > 0; ) {
            int block = random.nextInt(1, left + 1);
            ByteArrayOutputStream inner = new ByteArrayOutputStream();
            for (int item = 0; item < block; item++) {
                if (isMap) {
                    writeText(inner, text(said.get("propertyNames")));
                }
                writeValue(inner, items, items, path);
            }
            if (random.nextInt(4) == 0) { // a block that says how long it is
                writeLong(out, -block);
                writeLong(out, random.nextDouble() < wild / 20 ? random.nextLong() : inner.size());
            } else {
                writeLong(out, block);
            }
            out.writeBytes(inner.toByteArray());
            left -= block;
        }
        writeLong(out, 0);
    }

    private byte[] damaged(byte[] event, long number) {
        if (wild == 0 || random.nextInt(3) > 0) {
            return event;
        }
        byte[] bytes = event;
        for (int times = random.nextInt(1, 4); times > 0 && bytes.length > 0; times--) {
            int at = random.nextInt(bytes.length);
            bytes =
                    switch (random.nextInt(7)) {
                        case 0 -> joined(bytes, at, bytes(1), at + 1);
                        case 1 -> joined(bytes, at, new byte[0], bytes.length);
                        case 2 -> joined(bytes, at, bytes(random.nextInt(1, 12)), at);
                        case 3 -> joined(bytes, at, new byte[0], Math.min(bytes.length, at + random.nextInt(1, 30)));
                        case 4 -> joined(bytes, at, new byte[] {-1, -1, -1, -1, -1, -1, -1, -1, -1, 1}, at + 1);
                        case 5 -> joined(bytes, bytes.length, bytes(random.nextInt(1, 20)), bytes.length);
                        default -> random.nextInt(100) == 0 ? bytes(random.nextInt(70_000)) : bytes(random.nextInt(60));
                    };
        }
        return bytes;
    }

    /** What is before one place, something else, and what is from another place on. */
    private static byte[] joined(byte[] bytes, int to, byte[] between, int from) {
        ByteBuffer all = ByteBuffer.allocate(to + between.length + Math.max(0, bytes.length - from));
        return all.put(bytes, 0, to).put(between).put(bytes, Math.min(from, bytes.length), Math.max(0, bytes.length - from)).array();
    }

    private byte[] bytes(int length) {
        byte[] bytes = new byte[length];
        for (int index = 0; index < length; index++) {
            bytes[index] = (byte) random.nextInt(256);
        }
        return bytes;
    }

    private static void writeText(ByteArrayOutputStream out, String text) {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        writeLong(out, bytes.length);
        out.writeBytes(bytes);
    }

    private static void writeDouble(ByteArrayOutputStream out, double value) {
        out.writeBytes(ByteBuffer.allocate(Double.BYTES).order(ByteOrder.LITTLE_ENDIAN).putDouble(value).array());
    }

    private static void writeLong(ByteArrayOutputStream out, long value) {
        long rest = (value << 1) ^ (value >> 63);
        while ((rest & ~0x7FL) != 0) {
            out.write((int) (rest & 0x7F | 0x80));
            rest >>>= 7;
        }
        out.write((int) rest);
    }
}
