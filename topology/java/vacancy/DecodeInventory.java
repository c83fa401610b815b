package vacancy;

import java.io.IOException;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.avro.shaded.org.apache.avro.Schema;
import org.apache.flink.avro.shaded.org.apache.avro.generic.GenericData;
import org.apache.flink.avro.shaded.org.apache.avro.generic.GenericRecord;
import org.apache.flink.avro.shaded.org.apache.avro.util.Utf8;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.TimestampData;
import org.apache.flink.table.data.writer.BinaryRowWriter;
import org.apache.flink.table.types.inference.TypeInference;

/**
 * The SQL function {@code decode_inventory}: host_key STRING, payload BYTES, reads_as BYTES, append_time to ROW(reason, host_id,
 * retired, the columns of an inventory event). A null payload retires the host that its key names.
 *
 * <p>What comes out fits the tables: texts without NUL, all within the bounds that the schema says, and what one figure
 * says of another holds. Traits and aggregates are PostgreSQL array literals, inventories, numa_cells, pci_pools and
 * allocated are JSON.
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
                    DataTypes.FIELD("source", DataTypes.STRING()),
                    DataTypes.FIELD("disk_id", DataTypes.STRING()),
                    DataTypes.FIELD("disk_pool", DataTypes.STRING()));
    private static final List<String> ARRAYS = List.of("traits", "aggregates");
    private static final int HOST_ID = 1;
    private static final int RETIRED = 2;

    private transient Bounds bounds;
    private transient Bounds ofHostId;

    /** Those of an amount of a resource class, for what is made of it. */
    private transient Bounds ofTotal;

    private transient Bounds ofMemory;

    /** As an {@link EventDecoder}. */
    public DecodeInventory(String[] versions, String registryUrl, String registryCredentials) {
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
        if (hostKey == null) {
            return bad("invalid: there is no key");
        }
        if (!ofHostId.hold(new Utf8(hostKey.toBytes()))) {
            return bad(ofHostId.outside("the key", hostKey.toString()).getMessage());
        }
        if (payload == null) {
            BinaryRowWriter row = start();
            row.setNullAt(REASON);
            row.writeString(HOST_ID, hostKey);
            row.writeBoolean(RETIRED, true);
            return finish(RETIRED + 1);
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
        bounds = Bounds.of(newest);
        ofHostId = Bounds.of(newest.getField("host_id"));
        ofTotal = Bounds.of(newest.getField("inventories").schema().getValueType().getField("total"));
        ofMemory = Bounds.of(newest.getField("numa_cells").schema().getElementType().getField("memory_mb"));
        return newest;
    }

    @Override
    void write(BinaryRowWriter row, GenericRecord event) throws BadPayloadException {
        bounds.check("", event);
        requireKey((Utf8) event.get("host_id"));
        checkCapacities((Map<?, ?>) event.get("inventories"));
        checkCells((List<?>) event.get("numa_cells"));
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

    /** Looks whether what a class promises is an amount as well. */
    private void checkCapacities(Map<?, ?> inventories) throws BadPayloadException {
        for (Map.Entry<?, ?> entry : inventories.entrySet()) {
            GenericRecord inventory = (GenericRecord) entry.getValue();
            long unreserved = (long) inventory.get("total") - (long) inventory.get("reserved");
            double capacity = unreserved * (double) inventory.get("allocation_ratio");
            require(
                    capacity < 0 || ofTotal.hold((long) capacity),
                    "the capacity of inventories." + Bounds.shown(entry.getKey()) + " is " + capacity);
        }
    }

    /** Looks whether each CPU is in one cell, and whether pages are as much memory as there may be. */
    private void checkCells(List<?> cells) throws BadPayloadException {
        Map<Object, Object> cellOfCpu = new HashMap<>();
        for (Object each : cells) {
            GenericRecord cell = (GenericRecord) each;
            for (Object cpu : (List<?>) cell.get("cpus")) {
                Object other = cellOfCpu.put(cpu, cell.get("id"));
                require(other == null, "numa_cells.cpus has " + cpu + " in cells " + other + " and " + cell.get("id"));
            }
            for (Object of : (List<?>) cell.get("pages")) {
                GenericRecord pages = (GenericRecord) of;
                // Below 2^63: the schema's bounds have been looked at.
                double megabytes = (double) (long) pages.get("total") * (long) pages.get("size_kb") / 1024;
                require(ofMemory.hold((long) megabytes), "numa_cells.pages are " + megabytes + " MiB");
            }
        }
    }

    private static void require(boolean holds, String otherwise) throws BadPayloadException {
        if (!holds) {
            throw Bounds.invalid(otherwise);
        }
    }

    /** Of a list or a map Avro's text is JSON; of all else it is what it holds. */
    private static String text(String name, Object field) {
        if (ARRAYS.contains(name)) {
            return arrayLiteral((List<?>) field);
        }
        return field instanceof List || field instanceof Map ? GenericData.get().toString(field) : field.toString();
    }
}
