package vacancy;

import java.time.Duration;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.function.Predicate;
import org.apache.flink.metrics.Counter;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.api.dataview.MapView;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.TimestampData;
import org.apache.flink.table.data.binary.BinaryRowData;
import org.apache.flink.table.data.binary.NestedRowData;
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
 * gives a row {@code host} an event, but none for one that is late or repeated, whose monotonic clock is not above all
 * before it of its boot; the metric {@code numLateEvents} counts those. A rate is NULL where it is not known, and a fraction never above 1.
 * The metric {@code numClocksBack} counts how often a node has gone on from an earlier clock.
 *
 * <p>A host is forgotten once it has been silent for a day and for a window, within twice that. A timer each, which asks
 * that often whether there was an event, does it; Flink's time to live would look at ten other hosts at each event.
 */
public final class HostWindowFunction extends ProcessTableFunction<RowData> {

    private static final long serialVersionUID = 1L;

    private static final DataTypes.Field CONSUMERS =
            DataTypes.FIELD(UsageColumns.CONSUMERS, DataTypes.STRING());
    private static final DataTypes.Field PARTITION = DataTypes.FIELD("topic_partition", DataTypes.INT());
    private static final DataTypes.Field OFFSET = DataTypes.FIELD("topic_offset", DataTypes.BIGINT());

    // The table's columns: these, and behind them what is free of each resource.
    private static final int APPEND_TIME = 1;
    private static final int TOPIC_PARTITION = 2;
    private static final int TOPIC_OFFSET = 3;
    private static final int EVENT = 4;
    private static final int FIRST_FREE = 5;

    private static final DataTypes.Field UNCERTAIN =
            DataTypes.FIELD(UsageColumns.UNCERTAIN, DataTypes.STRING());

    // Where an event's columns stand behind its reason.
    private static final int EVENT_FIELDS = 1 + UsageColumns.IDS.size() + UsageColumns.AMOUNTS.size() + 2;
    private static final int BOOT_ID = 1 + UsageColumns.IDS.indexOf("boot_id");
    private static final int MONOTONIC_NS = amount("monotonic_ns");
    private static final int CPU_COUNT = amount(UsageColumns.CPU_COUNT);
    private static final int[] CAPACITIES =
            UsageColumns.RESOURCES.stream().mapToInt(name -> amount(name + "_capacity")).toArray();
    private static final int[] GAUGES = UsageColumns.GAUGES.stream().mapToInt(gauge -> amount(gauge.name())).toArray();
    private static final boolean[] IS_INT = booleans(UsageColumns.GAUGES, UsageColumns.Gauge::isInt);
    private static final boolean[] IS_FRACTION = booleans(UsageColumns.COUNTERS, UsageColumns.Counter::isFraction);
    private static final int FIRST_COUNTER = amount(UsageColumns.COUNTERS.get(0).name());
    private static final int RECENT_CONSUMERS = EVENT_FIELDS - 2;
    private static final int NOT_CERTAIN = EVENT_FIELDS - 1;

    /** How many columns a row has beside the host and its time. */
    private static final int WIDTH =
            6 + 3 * HostWindow.RESOURCES + GAUGES.length + HostWindow.COUNTERS + 3;

    /** Room for a row at first; it grows. */
    private static final int ROW_BYTES = 512;

    private static final String EVENTS = "events";

    /** The only column of the output beside the host and its time: a row, which is read in a third of the time of columns. */
    private static final String HOST = "host";

    /** Key of the one entry in a host's state. Were it no map, Flink would copy and compare all of it at each event. */
    private static final Byte WINDOW = 0;

    private static final long DAY_MS = 86_400_000;

    /** A fraction that is above 1 by less is 1: a step that counts in part was rounded. */
    private static final double ROUNDING = 0x1p-50;

    private final long windowMs;

    private transient Counter late;
    private transient Counter clocksBack;

    // All rows are the same one: who wants to keep one copies it, as Flink's operators do.
    private transient BinaryRowData row;
    private transient BinaryRowWriter writer;
    private transient RowData output;

    // Of the event at hand.
    private transient BinaryRowData piece;
    private transient long[] free;
    private transient long[] counters;
    private transient double[] rates;

    /** Takes how far a window reaches back, in ms. */
    public HostWindowFunction(long windowMs) {
        this.windowMs = windowMs;
    }

    @Override
    public void open(FunctionContext context) {
        late = context.getMetricGroup().counter("numLateEvents");
        clocksBack = context.getMetricGroup().counter("numClocksBack");
        row = new BinaryRowData(WIDTH);
        writer = new BinaryRowWriter(row, ROW_BYTES);
        output = GenericRowData.of(row);
        piece = new BinaryRowData(EVENT_FIELDS);
        free = new long[HostWindow.RESOURCES];
        counters = new long[HostWindow.COUNTERS];
        rates = new double[HostWindow.COUNTERS];
    }

    @Override
    public TypeInference getTypeInference(DataTypeFactory types) {
        List<DataTypes.Field> event = new ArrayList<>();
        event.add(DataTypes.FIELD("reason", DataTypes.STRING()));
        UsageColumns.IDS.forEach(name -> event.add(DataTypes.FIELD(name, DataTypes.STRING())));
        UsageColumns.AMOUNTS.forEach(name -> event.add(DataTypes.FIELD(name, DataTypes.BIGINT())));
        event.add(CONSUMERS);
        event.add(UNCERTAIN);

        List<DataTypes.Field> events = new ArrayList<>();
        events.add(DataTypes.FIELD("host_id", DataTypes.STRING()));
        events.add(DataTypes.FIELD("append_time", DataTypes.TIMESTAMP_LTZ(3)));
        events.add(PARTITION);
        events.add(OFFSET);
        events.add(DataTypes.FIELD("event", row(event)));
        UsageColumns.RESOURCES.forEach(name -> events.add(DataTypes.FIELD(name + "_free", DataTypes.BIGINT())));

        List<DataTypes.Field> rows = new ArrayList<>();
        for (String time : List.of("observed_at", "window_start", "window_end")) {
            rows.add(DataTypes.FIELD(time, DataTypes.TIMESTAMP_LTZ(3)));
        }
        rows.add(DataTypes.FIELD("samples", DataTypes.BIGINT()));
        for (String name : UsageColumns.RESOURCES) {
            for (String suffix : List.of("_capacity", "_free", "_free_min")) {
                rows.add(DataTypes.FIELD(name + suffix, DataTypes.BIGINT()));
            }
        }
        UsageColumns.GAUGES.forEach(
                gauge ->
                        rows.add(
                                DataTypes.FIELD(gauge.column(), gauge.isInt() ? DataTypes.INT() : DataTypes.BIGINT())));
        UsageColumns.COUNTERS.forEach(counter -> rows.add(DataTypes.FIELD(counter.rate(), DataTypes.DOUBLE())));
        rows.add(DataTypes.FIELD("anomalies", DataTypes.INT()));
        rows.add(PARTITION);
        rows.add(OFFSET);
        rows.add(CONSUMERS);
        rows.add(UNCERTAIN);

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
                .outputTypeStrategy(TypeStrategies.explicit(row(List.of(DataTypes.FIELD(HOST, row(rows))))))
                .build();
    }

    /** Where a whole number stands in an event. */
    private static int amount(String name) {
        return 1 + UsageColumns.IDS.size() + UsageColumns.AMOUNTS.indexOf(name);
    }

    private static <T> boolean[] booleans(List<T> columns, Predicate<T> is) {
        boolean[] found = new boolean[columns.size()];
        for (int index = 0; index < found.length; index++) {
            found[index] = is.test(columns.get(index));
        }
        return found;
    }

    private static DataType row(List<DataTypes.Field> fields) {
        return DataTypes.ROW(fields).bridgedTo(RowData.class);
    }

    /** Takes an event. */
    public void eval(Context context, MapView<Byte, HostWindow> windows, RowData arrived) throws Exception {
        long appendMs = arrived.getTimestamp(APPEND_TIME, 3).getMillisecond();
        RowData event = inOnePiece(arrived.getRow(EVENT, EVENT_FIELDS));
        HostWindow window = windows.get(WINDOW);
        if (window == null) {
            window = new HostWindow();
            askLater(context, appendMs);
        }
        HostWindow.Outcome outcome =
                window.add(
                        appendMs,
                        arrived.getInt(TOPIC_PARTITION),
                        System.currentTimeMillis(),
                        windowMs,
                        amounts(free, arrived, FIRST_FREE),
                        event.getString(BOOT_ID).toBytes(),
                        event.getLong(MONOTONIC_NS),
                        event.getLong(CPU_COUNT),
                        amounts(counters, event, FIRST_COUNTER));
        windows.put(WINDOW, window);
        switch (outcome) {
            case LATE -> late.inc();
            case CLOCK_WENT_BACK -> clocksBack.inc();
            default -> { }
        }
        if (outcome != HostWindow.Outcome.LATE) {
            collect(row(arrived, event, window));
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

    private static long[] amounts(long[] into, RowData row, int first) {
        for (int index = 0; index < into.length; index++) {
            into[index] = row.getLong(first + index);
        }
        return into;
    }

    /** A row of a row, which may lie in several pieces of memory, as one in a single piece: that is read much faster. */
    private RowData inOnePiece(RowData inner) {
        if (inner instanceof NestedRowData nested && nested.getSegments().length == 1) {
            piece.pointTo(nested.getSegments(), nested.getOffset(), nested.getSizeInBytes());
            return piece;
        }
        return inner;
    }

    /** The row of an event, until the next call. */
    private RowData row(RowData arrived, RowData event, HostWindow window) {
        writer.reset();
        int column = 0;
        TimestampData observedAt = TimestampData.fromEpochMillis(window.observedMs());
        writer.writeTimestamp(column++, observedAt, 3);
        writer.writeTimestamp(column++, TimestampData.fromEpochMillis(window.observedMs() - windowMs), 3);
        writer.writeTimestamp(column++, observedAt, 3);
        writer.writeLong(column++, window.size());
        for (int resource = 0; resource < HostWindow.RESOURCES; resource++) {
            writer.writeLong(column++, event.getLong(CAPACITIES[resource]));
            writer.writeLong(column++, arrived.getLong(FIRST_FREE + resource));
            writer.writeLong(column++, window.least(resource));
        }
        for (int gauge = 0; gauge < GAUGES.length; gauge++) {
            long value = event.getLong(GAUGES[gauge]);
            if (IS_INT[gauge]) {
                writer.writeInt(column++, (int) value);
            } else {
                writer.writeLong(column++, value);
            }
        }
        int anomalies = window.anomalies(windowMs);
        window.rates(windowMs, rates);
        for (int counter = 0; counter < HostWindow.COUNTERS; counter++) {
            double rate = rates[counter];
            if (IS_FRACTION[counter] && rate > 1) {
                anomalies |= rate > 1 + ROUNDING ? HostWindow.FRACTION_BOUNDED : 0;
                rate = 1;
            }
            if (Double.isNaN(rate)) {
                writer.setNullAt(column++);
            } else {
                writer.writeDouble(column++, rate);
            }
        }
        writer.writeInt(column++, anomalies);
        writer.writeInt(column++, arrived.getInt(TOPIC_PARTITION));
        writer.writeLong(column++, arrived.getLong(TOPIC_OFFSET));
        writer.writeString(column++, event.getString(RECENT_CONSUMERS));
        if (event.isNullAt(NOT_CERTAIN)) {
            writer.setNullAt(column++);
        } else {
            writer.writeString(column++, event.getString(NOT_CERTAIN));
        }
        writer.complete();
        return output;
    }
}
