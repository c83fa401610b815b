package vacancy;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.StringJoiner;
import java.util.regex.Pattern;
import org.apache.flink.avro.shaded.org.apache.avro.Schema;
import org.apache.flink.avro.shaded.org.apache.avro.generic.GenericRecord;
import org.apache.flink.avro.shaded.org.apache.avro.util.Utf8;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.binary.BinaryStringData;
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

    private static final List<String> IDS = List.of("host_id", "boot_id");
    private static final List<String> AMOUNTS =
            List.of(
                    "cpu_count",
                    "monotonic_ns",
                    "vcpus_capacity",
                    "vcpus_allocated",
                    "memory_mb_capacity",
                    "memory_mb_allocated",
                    "disk_gb_capacity",
                    "disk_gb_allocated",
                    "memory_mb_available",
                    "disk_gb_available",
                    "cpu_busy_ns",
                    "instances");
    private static final List<String> COUNTERS =
            List.of(
                    "cpu_iowait_ns",
                    "cpu_steal_ns",
                    "disk_read_bytes",
                    "disk_write_bytes",
                    "net_rx_bytes",
                    "net_tx_bytes",
                    "cpu_pressure_us",
                    "memory_pressure_us",
                    "io_pressure_us");
    private static final String CONSUMERS = "recent_consumers";

    private static final Pattern UUID = Pattern.compile("\\p{XDigit}{8}(-\\p{XDigit}{4}){3}-\\p{XDigit}{12}");
    private static final BinaryStringData NO_CONSUMERS = BinaryStringData.fromString("{}");

    private static final List<DataTypes.Field> FIELDS = new ArrayList<>();

    static {
        IDS.forEach(name -> FIELDS.add(DataTypes.FIELD(name, DataTypes.STRING())));
        AMOUNTS.forEach(name -> FIELDS.add(DataTypes.FIELD(name, DataTypes.BIGINT())));
        COUNTERS.forEach(name -> FIELDS.add(DataTypes.FIELD(name, DataTypes.BIGINT())));
        FIELDS.add(DataTypes.FIELD(CONSUMERS, DataTypes.STRING()));
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
        IDS.forEach(name -> columns.add(column(newest, name, text)));
        AMOUNTS.forEach(name -> columns.add(column(newest, name, amount)));
        COUNTERS.forEach(name -> columns.add(column(newest, name, counter)));
        columns.add(column(newest, CONSUMERS, Schema.createArray(text)));
        return Schema.createRecord(newest.getName(), null, newest.getNamespace(), false, columns);
    }

    private static Schema.Field column(Schema newest, String name, Schema type) {
        Schema.Field field = newest.getField(name);
        return new Schema.Field(name, type, null, field.hasDefaultValue() ? field.defaultVal() : null);
    }

    @Override
    void fill(GenericRowData row, GenericRecord event) throws BadPayloadException {
        for (Schema.Field field : event.getSchema().getFields()) {
            row.setField(1 + field.pos(), value(field.name(), event.get(field.pos())));
        }
    }

    private static Object value(String name, Object value) throws BadPayloadException {
        if (value == null) {
            return HostWindow.ABSENT;
        }
        if (value instanceof Long number) {
            int least = name.equals("cpu_count") ? 1 : 0;
            if (number < least) {
                throw invalid(name + " is less than " + least);
            }
            return number;
        }
        if (value instanceof Utf8 id) {
            if (!isId(id)) {
                throw invalid(name + " is not printable ASCII");
            }
            return BinaryStringData.fromBytes(id.getBytes(), 0, id.getByteLength());
        }
        List<?> consumers = (List<?>) value;
        return consumers.isEmpty() ? NO_CONSUMERS : BinaryStringData.fromString(uuidLiteral(name, consumers));
    }

    /** UUIDs as a PostgreSQL array literal. */
    private static String uuidLiteral(String name, List<?> uuids) throws BadPayloadException {
        StringJoiner literal = new StringJoiner(",", "{", "}");
        for (Object uuid : uuids) {
            if (!UUID.matcher(uuid.toString()).matches()) {
                throw invalid(name + " holds what is not a UUID");
            }
            literal.add(uuid.toString());
        }
        return literal.toString();
    }
}
