package vacancy;

import java.io.IOException;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.apache.flink.avro.shaded.org.apache.avro.Schema;
import org.apache.flink.avro.shaded.org.apache.avro.generic.GenericData;
import org.apache.flink.avro.shaded.org.apache.avro.generic.GenericRecord;
import org.apache.flink.avro.shaded.org.apache.avro.util.Utf8;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.writer.BinaryRowWriter;
import org.apache.flink.table.types.inference.TypeInference;

/**
 * The SQL function {@code decode_inventory}: host_key STRING, payload BYTES to ROW(reason, host_id, retired, the columns
 * of an inventory event). A null payload retires the host that its key names.
 *
 * <p>What comes out fits the tables: texts without NUL, amounts that make sense; traits and aggregates are PostgreSQL
 * array literals, inventories, numa_cells, pci_pools and allocated are JSON.
 */
public final class DecodeInventory extends EventDecoder {

    private static final long serialVersionUID = 1L;

    private static final List<DataTypes.Field> FIELDS =
            List.of(
                    DataTypes.FIELD("host_id", DataTypes.STRING()),
                    DataTypes.FIELD("retired", DataTypes.BOOLEAN()),
                    DataTypes.FIELD("boot_id", DataTypes.STRING()),
                    DataTypes.FIELD("name", DataTypes.STRING()),
                    DataTypes.FIELD("zone", DataTypes.STRING()),
                    DataTypes.FIELD("status", DataTypes.STRING()),
                    DataTypes.FIELD("status_reason", DataTypes.STRING()),
                    DataTypes.FIELD("inventories", DataTypes.STRING()),
                    DataTypes.FIELD("traits", DataTypes.STRING()),
                    DataTypes.FIELD("aggregates", DataTypes.STRING()),
                    DataTypes.FIELD("numa_cells", DataTypes.STRING()),
                    DataTypes.FIELD("pci_pools", DataTypes.STRING()),
                    DataTypes.FIELD("reporting_interval_ms", DataTypes.BIGINT()),
                    DataTypes.FIELD("agent_version", DataTypes.STRING()),
                    DataTypes.FIELD("allocated", DataTypes.STRING()),
                    DataTypes.FIELD("source", DataTypes.STRING()));
    private static final List<String> ARRAYS = List.of("traits", "aggregates");
    private static final int HOST_ID = 1;
    private static final int RETIRED = 2;

    private static final Pattern RESOURCE_CLASS = Pattern.compile("[A-Z0-9_]{1,255}");

    /** The least that each amount of a resource class may be. */
    private static final Map<String, Integer> LEAST =
            Map.of("total", 0, "reserved", 0, "min_unit", 1, "max_unit", 1, "step_size", 1);

    /** The key of the record under way. */
    private transient String key;

    /** As an {@link EventDecoder}. */
    public DecodeInventory(String[] versions, String registryUrl, String registryCredentials) {
        super(versions, registryUrl, registryCredentials);
    }

    @Override
    public TypeInference getTypeInference(DataTypeFactory types) {
        return inference(DataTypes.STRING().bridgedTo(StringData.class), DataTypes.BYTES(), DataTypes.BYTES());
    }

    /** A record's row; beside it what its header says that it may be read as, or null. */
    public RowData eval(StringData hostKey, byte[] payload, byte[] readsAs) throws IOException {
        if (hostKey == null || !isId(new Utf8(hostKey.toBytes()))) {
            return bad("invalid: the key is not printable ASCII");
        }
        if (payload == null) {
            BinaryRowWriter row = start();
            row.setNullAt(REASON);
            row.writeString(HOST_ID, hostKey);
            row.writeBoolean(RETIRED, true);
            return finish(RETIRED + 1);
        }
        key = hostKey.toString();
        return decode(payload, readsAs);
    }

    @Override
    List<DataTypes.Field> fields() {
        return FIELDS;
    }

    @Override
    Schema wanted(Schema newest) {
        return newest;
    }

    @Override
    void write(BinaryRowWriter row, GenericRecord event) throws BadPayloadException {
        require(event.get("host_id").toString().equals(key), "host_id is not the record's key");
        require(isId((Utf8) event.get("boot_id")), "boot_id is not printable ASCII");
        require(isId((Utf8) event.get("source")), "source is not printable ASCII");
        require((long) event.get("reporting_interval_ms") >= 1, "reporting_interval_ms is less than 1");
        require(!sawNul(), "a text holds a NUL character");
        checkInventories(event);
        if (event.get("allocated") != null) {
            checkAllocated((Map<?, ?>) event.get("allocated"));
        }
        for (int index = 0; index < FIELDS.size(); index++) {
            String name = FIELDS.get(index).getName();
            if (name.equals("retired")) {
                row.writeBoolean(1 + index, false);
            } else {
                write(row, 1 + index, name, event.get(name));
            }
        }
    }

    /** Writes a field as its column wants it. */
    private static void write(BinaryRowWriter row, int column, String name, Object field) {
        if (field == null) {
            row.setNullAt(column);
        } else if (field instanceof Long) {
            row.writeLong(column, (long) field);
        } else {
            row.writeString(column, StringData.fromString(text(name, field)));
        }
    }

    private static void checkInventories(GenericRecord event) throws BadPayloadException {
        for (Map.Entry<?, ?> entry : ((Map<?, ?>) event.get("inventories")).entrySet()) {
            String resourceClass = entry.getKey().toString();
            require(
                    RESOURCE_CLASS.matcher(resourceClass).matches(),
                    "a resource class is not upper-case letters, digits and underscores");
            GenericRecord inventory = (GenericRecord) entry.getValue();
            for (Map.Entry<String, Integer> least : LEAST.entrySet()) {
                require(
                        (long) inventory.get(least.getKey()) >= least.getValue(),
                        least.getKey() + " of " + resourceClass + " is less than " + least.getValue());
            }
            double ratio = (double) inventory.get("allocation_ratio");
            require(Double.isFinite(ratio) && ratio > 0, "allocation_ratio of " + resourceClass + " is not above 0");
        }
    }

    private static void checkAllocated(Map<?, ?> allocated) throws BadPayloadException {
        for (Map.Entry<?, ?> entry : allocated.entrySet()) {
            require((long) entry.getValue() >= 0, "allocated of " + entry.getKey() + " is less than 0");
        }
    }

    private static void require(boolean holds, String otherwise) throws BadPayloadException {
        if (!holds) {
            throw invalid(otherwise);
        }
    }

    /** Of a list or a map Avro's text is JSON; of all else it is what it holds. */
    private static String text(String name, Object field) {
        if (ARRAYS.contains(name)) {
            return arrayLiteral((List<?>) field);
        }
        return field instanceof List || field instanceof Map ? GenericData.get().toString(field) : field.toString();
    }

    /** Texts as a PostgreSQL array literal. */
    private static String arrayLiteral(List<?> texts) {
        return texts.stream()
                .map(text -> '"' + text.toString().replace("\\", "\\\\").replace("\"", "\\\"") + '"')
                .collect(Collectors.joining(",", "{", "}"));
    }
}
