package vacancy;

import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import org.apache.flink.avro.shaded.org.apache.avro.JsonProperties;
import org.apache.flink.avro.shaded.org.apache.avro.Schema;
import org.apache.flink.avro.shaded.org.apache.avro.generic.GenericRecord;
import org.apache.flink.avro.shaded.org.apache.avro.util.Utf8;

/**
 * What a schema says of a value beyond its type; schemas/bounds.py describes the words that it is said in.
 *
 * <p>A value that is out of bounds makes its event a bad one, with the value's name and the value in the reason.
 */
final class Bounds {

    private static final int SHOWN_CHARACTERS = 64;
    private static final int UUID_LENGTH = 36;

    /** What characters a text is made of. */
    private enum Format {
        ANY("characters other than NUL", "[^\\x00]"),
        PRINTABLE_ASCII("printable ASCII characters without blanks", "[!-~]"),
        RESOURCE_CLASS("upper-case letters, digits and underscores", "[A-Z0-9_]"),
        PCI_ID("lower-case hex digits", "[0-9a-f]"),
        UUID("characters of a UUID", "[0-9a-fA-F-]");

        private final String meaning;
        private final boolean[] allowed = new boolean[1 << Byte.SIZE];

        Format(String meaning, String allowed) {
            this.meaning = meaning;
            for (int character = 0; character < this.allowed.length; character++) {
                this.allowed[character] = Character.toString(character).matches(allowed);
            }
        }

        private static Format of(Object name) {
            return name == null ? ANY : valueOf(name.toString().toUpperCase(Locale.ROOT).replace('-', '_'));
        }

        private boolean has(byte[] bytes, int length) {
            for (int index = 0; index < length; index++) {
                if (!allowed[bytes[index] & 0xFF]) {
                    return false;
                }
            }
            return this != UUID || isUuid(bytes, length);
        }

        private static boolean isUuid(byte[] bytes, int length) {
            for (int index = 0; index < length; index++) {
                boolean hyphen = index == 8 || index == 13 || index == 18 || index == 23;
                if (hyphen != (bytes[index] == '-')) {
                    return false;
                }
            }
            return true;
        }
    }

    private final Schema.Type type;

    // Of a number; in its type.
    private final long minimum;
    private final long maximum;
    private final double least;
    private final double most;

    // Of a text, and of how many items or entries.
    private final Format format;
    private final int minLength;
    private final int maxLength;
    private final int maxCount;

    // Of what is in it.
    private final Bounds items;
    private final Bounds keys;
    private final boolean uniqueItems;
    private final List<String> uniqueBy;
    private final String notAbove;
    private final String subsetOf;
    private final List<Schema.Field> fields = new ArrayList<>();
    private final List<Bounds> ofFields = new ArrayList<>();

    /** Those of a field. */
    static Bounds of(Schema.Field field) {
        return new Bounds(field, withoutNull(field.schema()));
    }

    /** Those of all the fields of a record. */
    static Bounds of(Schema record) {
        return new Bounds(record, record);
    }

    private Bounds(JsonProperties said, Schema schema) {
        type = schema.getType();
        least = number(said, "minimum", Double.NEGATIVE_INFINITY).doubleValue();
        most = number(said, "maximum", Double.POSITIVE_INFINITY).doubleValue();
        minimum = number(said, "minimum", Long.MIN_VALUE).longValue();
        maximum = number(said, "maximum", Long.MAX_VALUE).longValue();
        format = Format.of(said.getObjectProp("format"));
        int length = format == Format.UUID ? UUID_LENGTH : format == Format.PCI_ID ? 4 : -1;
        minLength = number(said, "minLength", Math.max(0, length)).intValue();
        maxLength = number(said, "maxLength", length < 0 ? Integer.MAX_VALUE : length).intValue();
        String count = type == Schema.Type.MAP ? "maxProperties" : "maxItems";
        maxCount = number(said, count, Integer.MAX_VALUE).intValue();
        uniqueItems = Boolean.TRUE.equals(said.getObjectProp("uniqueItems"));
        uniqueBy = texts(said.getObjectProp("uniqueBy"));
        notAbove = said.getProp("notAbove");
        subsetOf = said.getProp("subsetOf");
        Schema inner =
                type == Schema.Type.ARRAY
                        ? schema.getElementType()
                        : type == Schema.Type.MAP ? schema.getValueType() : null;
        items = inner == null ? null : new Bounds(inner, withoutNull(inner));
        keys = type == Schema.Type.MAP ? ofKeys(said) : null;
        if (type == Schema.Type.RECORD) {
            for (Schema.Field field : schema.getFields()) {
                fields.add(field);
                ofFields.add(of(field));
            }
        }
    }

    private static Bounds ofKeys(JsonProperties map) {
        Schema key = Schema.create(Schema.Type.STRING);
        if (map.getObjectProp("propertyNames") instanceof Map<?, ?> names) {
            names.forEach((name, value) -> key.addProp(name.toString(), value));
        }
        return new Bounds(key, key);
    }

    private static Number number(JsonProperties said, String name, Number otherwise) {
        return said.getObjectProp(name) instanceof Number number ? number : otherwise;
    }

    private static List<String> texts(Object list) {
        return list instanceof Collection<?> names ? names.stream().map(Object::toString).toList() : List.of();
    }

    /** A type of which null is none. */
    static Schema withoutNull(Schema schema) {
        return schema.getType() != Schema.Type.UNION
                ? schema
                : schema.getTypes().stream().filter(each -> each.getType() != Schema.Type.NULL).findFirst().orElseThrow();
    }

    /** Whether a whole number is within them. */
    boolean hold(long value) {
        return value >= minimum && value <= maximum;
    }

    /** Whether a text is within them. */
    boolean hold(Utf8 text) {
        int length = text.getByteLength();
        byte[] bytes = text.getBytes();
        if (format == Format.ANY && length > maxLength) {
            length = characters(bytes, length);
        }
        return length >= minLength && length <= maxLength && format.has(bytes, text.getByteLength());
    }

    /** Whether so many items or entries are within them. */
    boolean holdCount(int count) {
        return count <= maxCount;
    }

    /** Those of an item of a list. */
    Bounds items() {
        return items;
    }

    /** The characters of UTF-8: all bytes but those that go on with one. */
    private static int characters(byte[] bytes, int length) {
        int characters = 0;
        for (int index = 0; index < length; index++) {
            characters += (bytes[index] & 0xC0) == 0x80 ? 0 : 1;
        }
        return characters;
    }

    /**
     * Looks whether a value and all that is in it is within them; null always is.
     *
     * @param name what the value is called in a reason
     */
    void check(String name, Object value) throws BadPayloadException {
        if (value instanceof Utf8 text) {
            if (!hold(text)) {
                throw outside(name, value);
            }
        } else if (value instanceof Long || value instanceof Integer) {
            if (!hold(((Number) value).longValue())) {
                throw outside(name, value);
            }
        } else if (value instanceof Double number) {
            if (!(number >= least && number <= most)) {
                throw outside(name, value);
            }
        } else if (value instanceof List<?> list) {
            checkList(name, list);
        } else if (value instanceof Map<?, ?> map) {
            checkMap(name, map);
        } else if (value instanceof GenericRecord record) {
            checkRecord(name, record);
        }
    }

    private void checkList(String name, List<?> list) throws BadPayloadException {
        checkCount(name, list.size());
        Set<Object> seen = new HashSet<>();
        for (Object item : list) {
            items.check(name, item);
            if (uniqueItems && !seen.add(item)) {
                throw invalid(name + " has " + shown(item) + " twice");
            }
            if (!uniqueBy.isEmpty()) {
                List<Object> key = new ArrayList<>();
                uniqueBy.forEach(each -> key.add(((GenericRecord) item).get(each)));
                if (!seen.add(key)) {
                    throw invalid(name + " has " + String.join(", ", uniqueBy) + " " + shown(key) + " twice");
                }
            }
        }
    }

    private void checkMap(String name, Map<?, ?> map) throws BadPayloadException {
        checkCount(name, map.size());
        for (Map.Entry<?, ?> entry : map.entrySet()) {
            keys.check("a key of " + name, entry.getKey());
            items.check(name + "." + shown(entry.getKey()), entry.getValue());
        }
    }

    /** Looks whether so many items or entries are within them. */
    void checkCount(String name, int count) throws BadPayloadException {
        if (!holdCount(count)) {
            throw invalid(name + " has " + count + " items, more than " + maxCount);
        }
    }

    private void checkRecord(String name, GenericRecord record) throws BadPayloadException {
        String prefix = name.isEmpty() ? "" : name + ".";
        for (int index = 0; index < fields.size(); index++) {
            String field = fields.get(index).name();
            Object value = record.get(index);
            Bounds bounds = ofFields.get(index);
            bounds.check(prefix + field, value);
            if (bounds.notAbove != null) {
                Object other = record.get(bounds.notAbove);
                if (((Number) value).longValue() > ((Number) other).longValue()) {
                    throw invalid(prefix + field + " is " + value + ", above " + bounds.notAbove + ", " + other);
                }
            }
            if (bounds.subsetOf != null) {
                Set<Object> all = new HashSet<>((Collection<?>) record.get(bounds.subsetOf));
                for (Object item : (Collection<?>) value) {
                    if (!all.contains(item)) {
                        throw invalid(prefix + field + " has " + shown(item) + ", which is not in " + bounds.subsetOf);
                    }
                }
            }
        }
    }

    /** What an event is refused with whose value of that name is out of bounds. */
    BadPayloadException outside(String name, Object value) {
        String range =
                switch (type) {
                    case INT, LONG -> minimum + " to " + maximum;
                    case FLOAT, DOUBLE -> least + " to " + most;
                    default -> minLength == maxLength
                            ? minLength + " " + format.meaning
                            : minLength + " to " + maxLength + " " + format.meaning;
                };
        return invalid(name + " is " + shown(value) + ", not " + range);
    }

    /** What an event is refused with that decodes, but makes no sense. */
    static BadPayloadException invalid(String why) {
        return new BadPayloadException("invalid: " + why);
    }

    /** A value as a reason may hold it: printable ASCII, and not long. */
    static String shown(Object value) {
        if (value instanceof Collection<?> values) {
            return values.stream().map(Bounds::shown).collect(Collectors.joining(", "));
        }
        if (!(value instanceof CharSequence)) {
            return value instanceof Map<?, ?> ? shown(value.toString()) : String.valueOf(value);
        }
        String text = value.toString();
        StringBuilder safe = new StringBuilder("\"");
        for (int index = 0; index < Math.min(text.length(), SHOWN_CHARACTERS); index++) {
            char character = text.charAt(index);
            if (character >= ' ' && character <= '~' && character != '"' && character != '\\') {
                safe.append(character);
            } else {
                safe.append("\\u").append(HexFormat.of().toHexDigits(character));
            }
        }
        return safe.append(text.length() > SHOWN_CHARACTERS ? "…\"" : "\"").toString();
    }
}
