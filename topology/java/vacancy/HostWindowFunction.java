package vacancy;

import java.time.Duration;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.LinkedHashMap;
import java.util.List;
import org.apache.flink.metrics.Counter;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.api.dataview.MapView;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.TimestampData;
import org.apache.flink.table.data.binary.BinaryRowData;
import org.apache.flink.table.data.writer.BinaryRowWriter;
import org.apache.flink.table.functions.FunctionContext;
import org.apache.flink.table.functions.ProcessTableFunction;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.StateTypeStrategy;
import org.apache.flink.table.types.inference.StaticArgument;
import org.apache.flink.table.types.inference.StaticArgumentTrait;
import org.apache.flink.table.types.inference.TypeInference;
import org.apache.flink.table.types.inference.TypeStrategies;

/**
 * The SQL function {@code host_window}: an event of a host, and what its window holds once it has come in.
 *
 * <p>It takes a table of events that is partitioned by host and has a host's in the order of their Kafka partition, and
 * gives a row an event, but none for one that is late or repeated, whose monotonic clock is not above all before it of its
 * boot; the metric {@code numLateEvents} counts those. A sum is NULL where no step in the window has the figure.
 *
 * <p>A host is forgotten once it has been silent for a day and for a window, within twice that. A timer each, which asks
 * that often whether there was an event, does it; Flink's time to live would look at ten other hosts at each event.
 */
public final class HostWindowFunction extends ProcessTableFunction<RowData> {

    private static final long serialVersionUID = 1L;

    // The table's columns, in their order.
    private static final List<String> CLOCK = List.of("monotonic_ns", "cpu_count");
    private static final List<String> COUNTERS =
            List.of(
                    "cpu_busy_ns",
                    "cpu_iowait_ns",
                    "cpu_steal_ns",
                    "disk_read_bytes",
                    "disk_write_bytes",
                    "net_rx_bytes",
                    "net_tx_bytes",
                    "cpu_pressure_us",
                    "memory_pressure_us",
                    "io_pressure_us");
    private static final List<String> FREE = List.of("vcpus_free", "memory_mb_free", "disk_gb_free");
    private static final List<String> OTHERS =
            List.of(
                    "vcpus_capacity",
                    "memory_mb_capacity",
                    "disk_gb_capacity",
                    "memory_mb_available",
                    "disk_gb_available",
                    "instances");
    private static final DataTypes.Field CONSUMERS = DataTypes.FIELD("recent_consumers", DataTypes.STRING());

    // Where they stand: host_id, append_time, boot_id, CLOCK, COUNTERS, FREE, OTHERS, CONSUMERS.
    private static final int APPEND_TIME = 1;
    private static final int BOOT_ID = 2;
    private static final int MONOTONIC_NS = 3;
    private static final int CPU_COUNT = 4;
    private static final int FIRST_COUNTER = 5;
    private static final int FIRST_FREE = FIRST_COUNTER + HostWindow.COUNTERS;
    private static final int RECENT_CONSUMERS = FIRST_FREE + HostWindow.RESOURCES + OTHERS.size();

    /** How many columns a row has: those from FREE on, when the window ends, its samples, and its figures. */
    private static final int WIDTH =
            RECENT_CONSUMERS + 1 - FIRST_FREE + 2 + HostWindow.RESOURCES + HostWindow.FIGURES;

    /** Room for a row at first; it grows. */
    private static final int ROW_BYTES = 512;

    private static final String EVENTS = "events";

    /** Key of the one entry in a host's state. Were it no map, Flink would copy and compare all of it at each event. */
    private static final Byte WINDOW = 0;

    private static final long DAY_MS = 86_400_000;

    private final long windowMs;

    private transient Counter late;

    // All rows are the same one: who wants to keep one copies it, as Flink's operators do.
    private transient BinaryRowData row;
    private transient BinaryRowWriter writer;

    /** Takes how far a window reaches back, in ms. */
    public HostWindowFunction(long windowMs) {
        this.windowMs = windowMs;
    }

    @Override
    public void open(FunctionContext context) {
        late = context.getMetricGroup().counter("numLateEvents");
        row = new BinaryRowData(WIDTH);
        writer = new BinaryRowWriter(row, ROW_BYTES);
    }

    @Override
    public TypeInference getTypeInference(DataTypeFactory types) {
        List<DataTypes.Field> events = new ArrayList<>();
        events.add(DataTypes.FIELD("host_id", DataTypes.STRING()));
        events.add(DataTypes.FIELD("append_time", DataTypes.TIMESTAMP_LTZ(3)));
        events.add(DataTypes.FIELD("boot_id", DataTypes.STRING()));
        addAmounts(events, CLOCK, "");
        addAmounts(events, COUNTERS, "");
        addAmounts(events, FREE, "");
        addAmounts(events, OTHERS, "");
        events.add(CONSUMERS);

        List<DataTypes.Field> rows = new ArrayList<>(events.subList(FIRST_FREE, events.size()));
        rows.add(DataTypes.FIELD("window_end", DataTypes.TIMESTAMP_LTZ(3)));
        addAmounts(rows, List.of("samples"), "");
        addAmounts(rows, FREE, "_min");
        addAmounts(rows, List.of("elapsed_ns", "cpu_time_us"), "_sum");
        addAmounts(rows, COUNTERS, "_sum");

        DataType windows =
                MapView.newMapViewDataType(
                        DataTypes.TINYINT(), DataTypes.RAW(HostWindow.class, new HostWindowSerializer()));
        LinkedHashMap<String, StateTypeStrategy> state = new LinkedHashMap<>();
        state.put("windows", StateTypeStrategy.of(TypeStrategies.explicit(windows), Duration.ZERO));
        return TypeInference.newBuilder()
                .staticArguments(
                        StaticArgument.table(
                                EVENTS,
                                row(events),
                                false,
                                EnumSet.of(
                                        StaticArgumentTrait.TABLE,
                                        StaticArgumentTrait.SET_SEMANTIC_TABLE,
                                        StaticArgumentTrait.REQUIRE_ON_TIME)))
                .stateTypeStrategies(state)
                .outputTypeStrategy(TypeStrategies.explicit(row(rows)))
                .build();
    }

    private static void addAmounts(List<DataTypes.Field> fields, List<String> names, String suffix) {
        names.forEach(name -> fields.add(DataTypes.FIELD(name + suffix, DataTypes.BIGINT())));
    }

    private static DataType row(List<DataTypes.Field> fields) {
        return DataTypes.ROW(fields).bridgedTo(RowData.class);
    }

    /** Takes an event. */
    public void eval(Context context, MapView<Byte, HostWindow> windows, RowData event) throws Exception {
        long appendMs = event.getTimestamp(APPEND_TIME, 3).getMillisecond();
        HostWindow window = windows.get(WINDOW);
        if (window == null) {
            window = new HostWindow();
            askLater(context, appendMs);
        }
        boolean taken =
                window.add(
                        appendMs,
                        windowMs,
                        amounts(event, FIRST_FREE, HostWindow.RESOURCES),
                        event.getString(BOOT_ID).toBytes(),
                        event.getLong(MONOTONIC_NS),
                        event.getLong(CPU_COUNT),
                        amounts(event, FIRST_COUNTER, HostWindow.COUNTERS));
        windows.put(WINDOW, window);
        if (taken) {
            collect(row(event, window));
        } else {
            late.inc();
        }
    }

    /** Forgets the host, unless there was an event since it was last asked. */
    public void onTimer(OnTimerContext context, MapView<Byte, HostWindow> windows) throws Exception {
        HostWindow window = windows.get(WINDOW);
        if (window.isIdle()) {
            windows.clear();
        } else {
            windows.put(WINDOW, window);
            askLater(context, 0);
        }
    }

    /** Asks again after a while, counted from a time or from the watermark, whichever is later: append times may go back. */
    private void askLater(Context context, long fromMs) {
        TimeContext<Long> time = context.timeContext(Long.class);
        Long watermarkMs = time.currentWatermark();
        time.registerOnTime(Math.max(fromMs, watermarkMs == null ? 0 : watermarkMs) + Math.max(DAY_MS, windowMs));
    }

    private static long[] amounts(RowData event, int first, int count) {
        long[] amounts = new long[count];
        for (int index = 0; index < count; index++) {
            amounts[index] = event.getLong(first + index);
        }
        return amounts;
    }

    /** The row of an event, until the next call. */
    private RowData row(RowData event, HostWindow window) {
        writer.reset();
        int column = 0;
        for (int from = FIRST_FREE; from < RECENT_CONSUMERS; from++) {
            writer.writeLong(column++, event.getLong(from));
        }
        writer.writeString(column++, event.getString(RECENT_CONSUMERS));
        writer.writeTimestamp(column++, TimestampData.fromEpochMillis(window.appendMs()), 3);
        writer.writeLong(column++, window.size());
        for (int resource = 0; resource < HostWindow.RESOURCES; resource++) {
            writer.writeLong(column++, window.least(resource));
        }
        for (int figure = 0; figure < HostWindow.FIGURES; figure++) {
            if (window.has(figure)) {
                writer.writeLong(column++, window.sum(figure));
            } else {
                writer.setNullAt(column++);
            }
        }
        writer.complete();
        return row;
    }
}
