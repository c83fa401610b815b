package vacancy;

import java.io.IOException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import org.apache.flink.avro.shaded.org.apache.avro.Schema;
import org.apache.flink.avro.shaded.org.apache.avro.generic.GenericRecord;
import org.apache.flink.avro.shaded.org.apache.avro.util.Utf8;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.TimestampData;
import org.apache.flink.table.data.binary.BinaryStringData;
import org.apache.flink.table.data.writer.BinaryRowWriter;
import org.apache.flink.table.types.inference.TypeInference;

/**
 * The SQL function {@code decode_usage}: host_key STRING, payload BYTES, reads_as BYTES, append_time to ROW(reason, the columns of a usage event).
 *
 * <p>What comes out fits the tables: all is within the bounds that the schema says, but for a counter that the writer's
 * kernel does not have or cannot tell now: that is -1.
 *
 * <p>Avro reads what a writer wrote into a schema of these columns alone, so that nothing is made that nobody wants. A
 * field that the writer does not know has the newest version's default.
 */
public final class DecodeUsage extends EventDecoder {

    private static final long serialVersionUID = 1L;

    private static final int HOST_ID = UsageColumns.IDS.indexOf("host_id");
    private static final int BOOT_ID = UsageColumns.IDS.indexOf("boot_id");
    private static final int FIRST_AMOUNT = UsageColumns.IDS.size();
    private static final int CONSUMERS = FIRST_AMOUNT + UsageColumns.AMOUNTS.size();
    private static final int UNKNOWN = CONSUMERS + 1;
    private static final int UNCERTAIN = CONSUMERS + 2;
    private static final int FIRST_OTHER = CONSUMERS + 3;
    private static final int UUID_LENGTH = 36;
    private static final Set<Schema.Type> NUMBERS = Set.of(Schema.Type.INT, Schema.Type.LONG);
    private static final BinaryStringData NO_CONSUMERS = BinaryStringData.fromString("{}");

    private static final Map<String, Integer> COUNTERS = new HashMap<>();

    private static final List<DataTypes.Field> FIELDS = new ArrayList<>();

    static {
        for (UsageColumns.Counter counter : UsageColumns.COUNTERS) {
            COUNTERS.put(counter.name(), FIRST_AMOUNT + UsageColumns.AMOUNTS.indexOf(counter.name()));
        }
        UsageColumns.IDS.forEach(name -> FIELDS.add(DataTypes.FIELD(name, DataTypes.STRING())));
        UsageColumns.AMOUNTS.forEach(name -> FIELDS.add(DataTypes.FIELD(name, DataTypes.BIGINT())));
        FIELDS.add(DataTypes.FIELD(UsageColumns.CONSUMERS, DataTypes.STRING()));
        FIELDS.add(DataTypes.FIELD(UsageColumns.UNCERTAIN, DataTypes.STRING()));
    }

    // Of what is read of an event: the columns, then the others, by position.
    private transient Bounds[] bounds;
    private transient String[] names;

    /** As an {@link EventDecoder}. */
    public DecodeUsage(String[] versions, String registryUrl, String registryCredentials) {
        super(versions, registryUrl, registryCredentials);
    }

    @Override
    public TypeInference getTypeInference(DataTypeFactory types) {
        return inference();
    }

    /** The row of a record: its key, its payload, what its header says that it may be read as, or null, and its time. */
    public RowData eval(StringData hostKey, byte[] payload, byte[] readsAs, TimestampData appendTime)
            throws IOException {
        RowData refused = refusedFor(appendTime);
        if (refused != null) {
            return refused;
        }
        expectKey(hostKey);
        return decode(payload, readsAs);
    }

    @Override
    List<DataTypes.Field> fields() {
        return FIELDS;
    }

    @Override
    Schema wanted(Schema newest) {
        Schema text = Schema.create(Schema.Type.STRING);
        Schema amount = Schema.create(Schema.Type.LONG);
        Schema counter = Schema.createUnion(Schema.create(Schema.Type.NULL), amount);
        List<Schema.Field> columns = new ArrayList<>();
        UsageColumns.IDS.forEach(name -> columns.add(column(newest, name, text)));
        for (String name : UsageColumns.AMOUNTS) {
            columns.add(column(newest, name, newest.getField(name).schema().isNullable() ? counter : amount));
        }
        columns.add(column(newest, UsageColumns.CONSUMERS, Schema.createArray(text)));
        Schema fields = Schema.createUnion(Schema.create(Schema.Type.NULL), Schema.createArray(text));
        columns.add(column(newest, UsageColumns.UNKNOWN, fields));
        columns.add(column(newest, UsageColumns.UNCERTAIN, fields));
        // The numbers that no column shows are read as well, to be looked at.
        for (Schema.Field field : newest.getFields()) {
            boolean isNumber = NUMBERS.contains(Bounds.withoutNull(field.schema()).getType());
            if (isNumber && columns.stream().noneMatch(column -> column.name().equals(field.name()))) {
                columns.add(column(newest, field.name(), field.schema().isNullable() ? counter : amount));
            }
        }
        bounds = columns.stream().map(column -> Bounds.of(newest.getField(column.name()))).toArray(Bounds[]::new);
        names = columns.stream().map(Schema.Field::name).toArray(String[]::new);
        return Schema.createRecord(newest.getName(), null, newest.getNamespace(), false, columns);
    }

    private static Schema.Field column(Schema newest, String name, Schema type) {
        Schema.Field field = newest.getField(name);
        return new Schema.Field(name, type, null, field.hasDefaultValue() ? field.defaultVal() : null);
    }

    @Override
    void write(BinaryRowWriter row, GenericRecord event) throws BadPayloadException {
        row.writeString(HOST_ID + 1, requireKey(text(event, HOST_ID)));
        Utf8 bootId = text(event, BOOT_ID);
        row.writeString(BOOT_ID + 1, BinaryStringData.fromBytes(bootId.getBytes(), 0, bootId.getByteLength()));
        for (int position = FIRST_AMOUNT; position < CONSUMERS; position++) {
            row.writeLong(position + 1, amount(event, position));
        }
        row.writeString(CONSUMERS + 1, uuidLiteral((List<?>) event.get(CONSUMERS)));
        List<?> unknown = (List<?>) event.get(UNKNOWN);
        List<?> uncertain = (List<?>) event.get(UNCERTAIN);
        if (unknown == null && uncertain == null) {
            row.setNullAt(CONSUMERS + 2);
        } else {
            row.writeString(CONSUMERS + 2, doubts(row, unknown, uncertain));
        }
        for (int position = FIRST_OTHER; position < bounds.length; position++) {
            amount(event, position);
        }
    }

    /** Takes from an event the counters that are not known, and names all that is not certain, as a PostgreSQL array. */
    private StringData doubts(BinaryRowWriter row, List<?> unknown, List<?> uncertain) throws BadPayloadException {
        Set<String> doubted = new TreeSet<>();
        for (Utf8 name : texts(unknown, UNKNOWN)) {
            doubted.add(name.toString());
            Integer counter = COUNTERS.get(name.toString());
            if (counter != null) {
                row.writeLong(counter + 1, HostWindow.ABSENT);
            }
        }
        for (Utf8 name : texts(uncertain, UNCERTAIN)) {
            doubted.add(name.toString());
        }
        return StringData.fromString(arrayLiteral(doubted));
    }

    private List<Utf8> texts(List<?> list, int position) throws BadPayloadException {
        if (list == null) {
            return List.of();
        }
        bounds[position].checkCount(names[position], list.size());
        List<Utf8> texts = new ArrayList<>();
        for (Object item : list) {
            Utf8 text = (Utf8) item;
            if (!bounds[position].items().hold(text)) {
                throw bounds[position].items().outside(names[position], text);
            }
            texts.add(text);
        }
        return texts;
    }

    private Utf8 text(GenericRecord event, int position) throws BadPayloadException {
        Utf8 text = (Utf8) event.get(position);
        if (!bounds[position].hold(text)) {
            throw bounds[position].outside(names[position], text);
        }
        return text;
    }

    private long amount(GenericRecord event, int position) throws BadPayloadException {
        Object value = event.get(position);
        if (value == null) {
            return HostWindow.ABSENT;
        }
        if (!bounds[position].hold((long) value)) {
            throw bounds[position].outside(names[position], value);
        }
        return (long) value;
    }

    /** UUIDs as a PostgreSQL array literal. */
    private BinaryStringData uuidLiteral(List<?> uuids) throws BadPayloadException {
        if (uuids.isEmpty()) {
            return NO_CONSUMERS;
        }
        bounds[CONSUMERS].checkCount(names[CONSUMERS], uuids.size());
        Bounds ofUuid = bounds[CONSUMERS].items();
        byte[] literal = new byte[1 + uuids.size() * (UUID_LENGTH + 1)];
        int end = 0;
        for (Object uuid : uuids) {
            literal[end] = (byte) (end == 0 ? '{' : ',');
            end++;
            Utf8 text = (Utf8) uuid;
            if (!ofUuid.hold(text)) {
                throw ofUuid.outside(names[CONSUMERS], text);
            }
            System.arraycopy(text.getBytes(), 0, literal, end, UUID_LENGTH);
            end += UUID_LENGTH;
        }
        literal[end] = '}';
        return BinaryStringData.fromBytes(literal);
    }
}
