package vacancy;

import java.io.IOException;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import org.apache.flink.avro.shaded.org.apache.avro.Schema;
import org.apache.flink.avro.shaded.org.apache.avro.generic.GenericRecord;
import org.apache.flink.avro.shaded.org.apache.avro.util.Utf8;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.binary.BinaryStringData;
import org.apache.flink.table.data.writer.BinaryRowWriter;
import org.apache.flink.table.types.inference.TypeInference;

/**
 * The SQL function {@code decode_usage}: payload BYTES to ROW(reason, the columns of a usage event).
 *
 * <p>What comes out fits the tables: ids are printable ASCII, consumers are UUIDs, amounts and counters are never
 * negative, but for a counter that the writer's kernel does not have: that is -1.
 *
 * <p>Avro reads what a writer wrote into a schema of these columns alone, so that nothing is made that nobody wants. A
 * field that the writer does not know has the newest version's default.
 */
public final class DecodeUsage extends EventDecoder {

    private static final long serialVersionUID = 1L;

    private static final int CPU_COUNT = UsageColumns.IDS.size() + UsageColumns.AMOUNTS.indexOf(UsageColumns.CPU_COUNT);
    private static final int UUID_LENGTH = 36;
    private static final BinaryStringData NO_CONSUMERS = BinaryStringData.fromString("{}");

    private static final List<DataTypes.Field> FIELDS = new ArrayList<>();

    static {
        UsageColumns.IDS.forEach(name -> FIELDS.add(DataTypes.FIELD(name, DataTypes.STRING())));
        UsageColumns.AMOUNTS.forEach(name -> FIELDS.add(DataTypes.FIELD(name, DataTypes.BIGINT())));
        FIELDS.add(DataTypes.FIELD(UsageColumns.CONSUMERS, DataTypes.STRING()));
    }

    /** As an {@link EventDecoder}. */
    public DecodeUsage(String[] versions, String registryUrl, String registryCredentials) {
        super(versions, registryUrl, registryCredentials);
    }

    @Override
    public TypeInference getTypeInference(DataTypeFactory types) {
        return inference(DataTypes.BYTES(), DataTypes.BYTES());
    }

    /** A payload's row; beside it what its header says that it may be read as, or null. */
    public RowData eval(byte[] payload, byte[] readsAs) throws IOException {
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
        return Schema.createRecord(newest.getName(), null, newest.getNamespace(), false, columns);
    }

    private static Schema.Field column(Schema newest, String name, Schema type) {
        Schema.Field field = newest.getField(name);
        return new Schema.Field(name, type, null, field.hasDefaultValue() ? field.defaultVal() : null);
    }

    @Override
    void write(BinaryRowWriter row, GenericRecord event) throws BadPayloadException {
        int position = 0;
        for (String id : UsageColumns.IDS) {
            Utf8 text = (Utf8) event.get(position);
            if (!isId(text)) {
                throw invalid(id + " is not printable ASCII");
            }
            row.writeString(++position, BinaryStringData.fromBytes(text.getBytes(), 0, text.getByteLength()));
        }
        for (String amount : UsageColumns.AMOUNTS) {
            Object value = event.get(position);
            int least = position == CPU_COUNT ? 1 : 0;
            row.writeLong(++position, value == null ? HostWindow.ABSENT : atLeast(least, amount, value));
        }
        row.writeString(position + 1, uuidLiteral((List<?>) event.get(position)));
    }

    private static long atLeast(int least, String name, Object value) throws BadPayloadException {
        if ((long) value < least) {
            throw invalid(name + " is less than " + least);
        }
        return (long) value;
    }

    /** UUIDs as a PostgreSQL array literal. */
    private static BinaryStringData uuidLiteral(List<?> uuids) throws BadPayloadException {
        if (uuids.isEmpty()) {
            return NO_CONSUMERS;
        }
        byte[] literal = new byte[1 + uuids.size() * (UUID_LENGTH + 1)];
        int end = 0;
        for (Object uuid : uuids) {
            literal[end] = (byte) (end == 0 ? '{' : ',');
            end++;
            Utf8 text = (Utf8) uuid;
            if (!isUuid(text)) {
                throw invalid(UsageColumns.CONSUMERS + " holds what is not a UUID");
            }
            System.arraycopy(text.getBytes(), 0, literal, end, UUID_LENGTH);
            end += UUID_LENGTH;
        }
        literal[end] = '}';
        return BinaryStringData.fromBytes(literal);
    }

    private static boolean isUuid(Utf8 text) {
        byte[] bytes = text.getBytes();
        if (text.getByteLength() != UUID_LENGTH) {
            return false;
        }
        for (int index = 0; index < UUID_LENGTH; index++) {
            boolean hyphen = index == 8 || index == 13 || index == 18 || index == 23;
            if (hyphen ? bytes[index] != '-' : !HexFormat.isHexDigit(bytes[index])) {
                return false;
            }
        }
        return true;
    }
}
