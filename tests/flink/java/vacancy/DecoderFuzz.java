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
import java.util.Arrays;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.UUID;
import java.util.function.IntSupplier;
import java.util.regex.Pattern;
import org.apache.flink.avro.shaded.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.avro.shaded.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.avro.shaded.com.fasterxml.jackson.databind.node.TextNode;
import org.apache.flink.avro.shaded.org.apache.avro.Schema;
import org.apache.flink.avro.shaded.org.apache.avro.SchemaNormalization;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.TimestampData;

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

    /** What a reason may hold: no control character, and none that changes a line's direction. */
    private static final Pattern SAFE = Pattern.compile("[^\\p{Cntrl}\\p{Cf}\\x80-\\x9f]*");

    private static final int[] ODD_CHARACTERS =
            {0, 0x1B, 0x9B, 0x202E, 0x2028, 0x7F, '\n', '"', '\\', '{', '}', ',', 0x1F600, 0xFFFF, 0xE9};

    /** A lone surrogate, NUL in two bytes, a slash in three, what is beyond Unicode, and half a character. */
    private static final byte[][] NO_UTF8 = {
        {(byte) 0xED, (byte) 0xA0, (byte) 0x80},
        {'x', (byte) 0xC0, (byte) 0x80},
        {(byte) 0xE0, (byte) 0x80, (byte) 0xAF},
        {(byte) 0xF7, (byte) 0xBF, (byte) 0xBF},
        {'x', 'x', (byte) 0xC3}
    };

    private static final String RESOURCE_CLASS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
    private static final int POOL_CHARACTERS = 100_000;

    private final SplittableRandom random;
    private final Shape schema;
    private final boolean isUsage;
    private final byte[] header;
    private final EventDecoder decoder;
    private final Map<String, String> pools;

    /** By column of a row behind the reason: its name, and what the schema says of it; null where it says nothing. */
    private final String[] names;

    private final Shape[] shapes;

    /** How likely a value is out of bounds, in this event. */
    private double wild;

    private String hostId;
    private long taken;
    private long refused;

    private DecoderFuzz(String text, boolean isUsage, long seed) throws IOException {
        random = new SplittableRandom(seed);
        pools = pools();
        schema = Shape.ofRecord(JSON.readTree(text));
        this.isUsage = isUsage;
        long fingerprint = SchemaNormalization.parsingFingerprint64(new Schema.Parser().parse(text));
        header = ByteBuffer.allocate(10).order(ByteOrder.LITTLE_ENDIAN).put((byte) 0xC3).put((byte) 1)
                .putLong(fingerprint).array();
        String[] versions = {text};
        decoder = isUsage ? new DecodeUsage(versions, null, null) : new DecodeInventory(versions, null, null);
        decoder.open(null);
        names = decoder.fields().stream().map(DataTypes.Field::getName).toArray(String[]::new);
        shapes = Arrays.stream(names).map(schema::field).toArray(Shape[]::new);
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
        // What is kept goes to a broker, which gives it the time.
        long appendMs = out != null || random.nextInt(100) > 0 ? 1_700_000_000_000L : random.nextLong();
        TimestampData time = TimestampData.fromEpochMillis(appendMs);
        StringData hostKey = key == null ? null : StringData.fromString(key);
        try {
            RowData row =
                    isUsage
                            ? ((DecodeUsage) decoder).eval(hostKey, payload, readsAs, time)
                            : ((DecodeInventory) decoder).eval(hostKey, payload, readsAs, time);
            String reason = row.isNullAt(0) ? null : row.getString(0).toString();
            if (reason != null) {
                refused++;
                require(reason.length() <= MAX_REASON_CHARACTERS, "a reason that is too long", reason);
                require(SAFE.matcher(reason).matches(), "a reason that is not safe", reason);
                for (int column = 1; column <= names.length; column++) {
                    require(row.isNullAt(column), names[column - 1], reason);
                }
            } else {
                taken++;
                require(hostId.equals(key), "another's key", key);
                checkRow(row);
            }
            boolean isTime = appendMs >= 0 && appendMs <= schema.field("agent_time").most;
            require(isTime || reason != null, "a time beyond all events", appendMs);
            boolean isGood = number % GOOD_EVERY < 2 && hostId.equals(key) && isTime;
            require(!isGood || reason == null, "a good event is refused", reason);
        } catch (RuntimeException | Error | IOException error) {
            throw new IllegalStateException(
                    "record " + number + " " + HexFormat.of().formatHex(payload), error);
        }
    }

    private static void write(DataOutputStream out, byte[] bytes) throws IOException {
        out.writeInt(bytes.length);
        out.write(bytes);
    }

    // What the rows are held to.

    private void checkRow(RowData row) throws IOException {
        for (int index = 0; index < names.length; index++) {
            Shape shape = shapes[index];
            if (shape == null || row.isNullAt(index + 1)) {
                continue;
            }
            switch (shape.type) {
                case "int", "long" -> {
                    long value = row.getLong(index + 1);
                    require(value == -1 && (shape.nullable || shape.isCounter) || shape.holds(value), shape.name, value);
                }
                case "string" -> shape.requireText(row.getString(index + 1).toString());
                case "enum" -> { }
                default -> {
                    String text = row.getString(index + 1).toString();
                    if (isUsage || shape.type.equals("array") && shape.items.type.equals("string")) {
                        require(text.startsWith("{") && text.endsWith("}") && text.indexOf(0) < 0, shape.name, text);
                    } else {
                        checkJson(shape, JSON.readTree(text));
                    }
                }
            }
        }
    }

    private void checkJson(Shape shape, JsonNode value) {
        if (value.isNull()) {
            require(shape.nullable, shape.name, value);
            return;
        }
        switch (shape.type) {
            case "int", "long" -> require(value.canConvertToLong() && shape.holds(value.longValue()), shape.name, value);
            case "double" -> require(
                    value.doubleValue() >= shape.lowest && value.doubleValue() <= shape.highest, shape.name, value);
            case "string" -> shape.requireText(value.textValue());
            case "array" -> {
                require(value.size() <= shape.maxCount, shape.name, value.size());
                Set<Object> seen = new HashSet<>();
                for (JsonNode item : value) {
                    checkJson(shape.items, item);
                    require(!shape.unique || seen.add(item), shape.name, item);
                    if (!shape.uniqueBy.isEmpty()) {
                        List<JsonNode> key = shape.uniqueBy.stream().map(item::get).toList();
                        require(seen.add(key), shape.name, key);
                    }
                }
            }
            case "map" -> {
                require(value.size() <= shape.maxCount, shape.name, value.size());
                value.fields().forEachRemaining(entry -> {
                    shape.keys.requireText(entry.getKey());
                    checkJson(shape.items, entry.getValue());
                });
            }
            case "record" -> {
                for (Shape field : shape.fields) {
                    JsonNode inner = value.get(field.name);
                    checkJson(field, inner);
                    if (field.notAbove != null) {
                        require(inner.longValue() <= value.get(field.notAbove).longValue(), field.name, value);
                    }
                    if (field.subsetOf != null) {
                        Set<JsonNode> all = new HashSet<>();
                        value.get(field.subsetOf).forEach(all::add);
                        inner.forEach(item -> require(all.contains(item), field.name, value));
                    }
                }
            }
            default -> throw new IllegalStateException(shape.type);
        }
    }

    private static void require(boolean holds, String name, Object found) {
        if (!holds) {
            throw new IllegalStateException(name + ": " + found);
        }
    }

    /** What a schema's JSON says of a value, read once. */
    private static final class Shape {

        private static final Map<String, Pattern> ALLOWED = Map.of(
                "printable-ascii", Pattern.compile("[!-~]*"),
                "resource-class", Pattern.compile("[A-Z0-9_]*"),
                "pci-id", Pattern.compile("[0-9a-f]{4}"),
                "uuid", Pattern.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"));

        private final String name;
        private final String type;
        private final boolean nullable;
        private final boolean nullFirst;
        private final long least;
        private final long most;
        private final double lowest;
        private final double highest;
        private final int minLength;
        private final int maxLength;
        private final String format;
        private final Pattern allowed;
        private final int maxCount;
        private final boolean unique;
        private final List<String> uniqueBy = new ArrayList<>();
        private final String notAbove;
        private final String subsetOf;
        private final Shape keys;
        private final Shape items;
        private final List<Shape> fields = new ArrayList<>();

        /** Whether an event may say that it is not known. */
        private final boolean isCounter;

        /** Whether a figure has to go with others: it is the least, or small. */
        private final boolean isLeast;

        private final boolean isSmall;

        private static Shape ofRecord(JsonNode record) {
            return new Shape("", record, record, "");
        }

        private Shape(String name, JsonNode said, JsonNode of, String path) {
            this.name = name;
            nullable = of.isArray();
            nullFirst = nullable && of.get(0).asText().equals("null");
            JsonNode kind = nullable ? of.get(nullFirst ? 1 : 0) : of;
            type = kind.isTextual() ? kind.textValue() : kind.get("type").textValue();
            least = said.path("minimum").longValue();
            most = said.path("maximum").longValue();
            lowest = said.path("minimum").doubleValue();
            highest = said.path("maximum").doubleValue();
            minLength = said.path("minLength").asInt(0);
            maxLength = said.path("maxLength").asInt(Integer.MAX_VALUE);
            format = said.path("format").asText();
            allowed = ALLOWED.get(format);
            maxCount = said.path(type.equals("map") ? "maxProperties" : "maxItems").asInt(Integer.MAX_VALUE);
            unique = said.has("uniqueItems");
            said.path("uniqueBy").forEach(each -> uniqueBy.add(each.textValue()));
            notAbove = said.path("notAbove").textValue();
            subsetOf = said.path("subsetOf").textValue();
            JsonNode inner = type.equals("map") ? kind.get("values") : kind.path("items");
            items = inner.isMissingNode() ? null : new Shape(name + "[]", inner, inner, path + "[]");
            keys = type.equals("map")
                    ? new Shape(name + " key", said.get("propertyNames"), TextNode.valueOf("string"), path)
                    : null;
            for (JsonNode field : kind.path("fields")) {
                String inside = field.get("name").textValue();
                fields.add(new Shape(inside, field, field.get("type"), path + "." + inside));
            }
            isCounter = said.has("rate");
            isLeast = notAbove != null || name.equals("size_kb") || name.equals("reserved");
            isSmall = path.contains(".inventories") || path.contains(".pages");
        }

        private Shape field(String wanted) {
            return fields.stream().filter(field -> field.name.equals(wanted)).findFirst().orElse(null);
        }

        private boolean holds(long value) {
            return value >= least && value <= most;
        }

        private void requireText(String text) {
            int characters = text.codePointCount(0, text.length());
            require(characters >= minLength && characters <= maxLength, name, text);
            require(text.indexOf(0) < 0 && (allowed == null || allowed.matcher(text).matches()), name, text);
        }
    }

    // What the events are made of.

    private byte[] event() {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        out.writeBytes(header);
        writeRecord(out, schema);
        return out.toByteArray();
    }

    private boolean isWild() {
        return wild > 0 && random.nextDouble() < wild;
    }

    private void writeRecord(ByteArrayOutputStream out, Shape record) {
        for (Shape field : record.fields) {
            if (record == schema && field.name.equals("host_id") && !isWild()) {
                writeText(out, hostId);
            } else {
                writeValue(out, field);
            }
        }
    }

    private void writeValue(ByteArrayOutputStream out, Shape shape) {
        if (shape.nullable) {
            boolean isNull = random.nextInt(4) == 0;
            boolean isOdd = wild > 0 && random.nextDouble() < wild / 20;
            writeLong(out, isOdd ? random.nextInt(-3, 5) : isNull == shape.nullFirst ? 0 : 1);
            if (isNull) {
                return;
            }
        }
        switch (shape.type) {
            case "int", "long" -> writeLong(out, number(shape));
            case "double" -> writeDouble(out, ratio(shape));
            case "string" -> writeText(out, text(shape));
            case "enum" -> writeLong(out, isWild() ? random.nextInt(-2, 200) : random.nextInt(2));
            case "array", "map" -> writeItems(out, shape);
            case "record" -> writeRecord(out, shape);
            default -> throw new IllegalStateException(shape.type);
        }
    }

    private long number(Shape shape) {
        if (isWild()) {
            return switch (random.nextInt(6)) {
                case 0 -> shape.least - 1;
                case 1 -> shape.most + 1;
                case 2 -> Long.MIN_VALUE;
                case 3 -> Long.MAX_VALUE;
                case 4 -> Integer.MAX_VALUE + 1L;
                default -> random.nextLong();
            };
        }
        if (shape.isLeast) {
            return shape.least;
        }
        return switch (shape.isSmall ? 3 : random.nextInt(8)) {
            case 0 -> shape.least;
            case 1 -> shape.most;
            case 2 -> random.nextLong(shape.least, shape.most + 1);
            default -> Math.min(shape.most, shape.least + random.nextInt(1000));
        };
    }

    private double ratio(Shape shape) {
        if (isWild()) {
            double[] odd = {0, -1, Double.NaN, Double.MIN_VALUE, 1e308, Double.POSITIVE_INFINITY, -0.0, shape.highest};
            return odd[random.nextInt(odd.length)];
        }
        return random.nextBoolean() ? shape.lowest : random.nextDouble(0.5, 16);
    }

    /** A text that fits, or one of anything; without a shape, one of anything. */
    private String text(Shape shape) {
        boolean fits = shape != null && !isWild();
        String format = shape == null ? "" : shape.format;
        if (fits && format.equals("uuid")) {
            return new UUID(random.nextLong(), random.nextLong()).toString();
        }
        if (fits && format.equals("pci-id")) {
            return HexFormat.of().toHexDigits((short) random.nextInt(65_536));
        }
        if (fits && shape.name.equals("unknown[]") && random.nextBoolean()) {
            return schema.fields.get(random.nextInt(schema.fields.size())).name;
        }
        int least = shape == null ? 0 : shape.minLength;
        int most = shape == null ? 300 : Math.min(shape.maxLength, 2000);
        int length = fits ? Math.min(most, least + random.nextInt(random.nextInt(20) == 0 ? most : 12)) : random.nextInt(most + 3);
        String pool = pools.get(!fits ? "anything" : format.isEmpty() ? "any" : format);
        int start = random.nextInt(pool.length() - length);
        return pool.substring(start, start + length);
    }

    /** By what a text is made of, a long one, of which others are parts: to draw each character takes long. */
    private Map<String, String> pools() {
        return Map.of(
                "printable-ascii", pool(() -> random.nextInt('!', '~' + 1)),
                "resource-class", pool(() -> RESOURCE_CLASS.charAt(random.nextInt(RESOURCE_CLASS.length()))),
                "any", pool(() -> random.nextInt(3) > 0 ? random.nextInt(' ', 127) : odd(1)),
                "anything", pool(() -> random.nextInt(3) > 0 ? random.nextInt(' ', 127) : odd(0)));
    }

    private int odd(int from) {
        return ODD_CHARACTERS[random.nextInt(from, ODD_CHARACTERS.length)];
    }

    private static String pool(IntSupplier character) {
        StringBuilder pool = new StringBuilder();
        while (pool.length() < POOL_CHARACTERS) {
            pool.appendCodePoint(character.getAsInt());
        }
        return pool.toString();
    }

    private void writeItems(ByteArrayOutputStream out, Shape shape) {
        // Two of what has to be unlike in more than chance tells apart would not be good.
        boolean apart = shape.unique || !shape.uniqueBy.isEmpty();
        int count = isWild()
                ? random.nextInt(50) == 0 ? shape.maxCount + random.nextInt(2) : random.nextInt(6)
                : random.nextInt(apart ? 2 : 4);
        if (shape.subsetOf != null && !isWild()) {
            count = 0;
        }
        for (int left = count; left > 0; ) {
            int block = random.nextInt(1, left + 1);
            ByteArrayOutputStream inner = new ByteArrayOutputStream();
            for (int item = 0; item < block; item++) {
                if (shape.keys != null) {
                    writeText(inner, text(shape.keys));
                }
                writeValue(inner, shape.items);
            }
            if (random.nextInt(4) == 0) { // a block that says how long it is
                writeLong(out, -block);
                writeLong(out, wild > 0 && random.nextDouble() < wild / 20 ? random.nextLong() : inner.size());
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
                    switch (random.nextInt(8)) {
                        case 0 -> joined(bytes, at, bytes(1), at + 1);
                        case 1 -> joined(bytes, at, new byte[0], bytes.length);
                        case 2 -> joined(bytes, at, bytes(random.nextInt(1, 12)), at);
                        case 3 -> joined(bytes, at, new byte[0], Math.min(bytes.length, at + random.nextInt(1, 30)));
                        case 4 -> joined(bytes, at, new byte[] {-1, -1, -1, -1, -1, -1, -1, -1, -1, 1}, at + 1);
                        case 5 -> joined(bytes, at, NO_UTF8[random.nextInt(NO_UTF8.length)], at + 3);
                        case 6 -> joined(bytes, bytes.length, bytes(random.nextInt(1, 20)), bytes.length);
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
