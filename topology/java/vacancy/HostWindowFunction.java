package vacancy;

import org.apache.flink.metrics.Counter;
import org.apache.flink.table.annotation.DataTypeHint;
import org.apache.flink.table.annotation.FunctionHint;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.TimestampData;
import org.apache.flink.table.functions.AggregateFunction;
import org.apache.flink.table.functions.FunctionContext;

/**
 * The SQL function {@code host_window}: what a host's window holds once an event has come in.
 *
 * <p>It is called for each event of a host, in the order of its partition, over all events so far: it forgets by
 * itself those that have left the window. The result is NULL for an event that is late or repeated, whose monotonic clock
 * is not above all before it of its boot; the metric {@code numLateEvents} counts those. A sum is NULL where no step
 * in the window has the figure.
 */
@FunctionHint(
        accumulator =
                @DataTypeHint(
                        value = "RAW",
                        bridgedTo = HostWindow.class,
                        rawSerializer = HostWindowSerializer.class),
        output =
                @DataTypeHint(
                        value =
                                "ROW<append_time TIMESTAMP_LTZ(3), samples BIGINT,"
                                        + " vcpus_free_min BIGINT, memory_mb_free_min BIGINT, disk_gb_free_min BIGINT,"
                                        + " elapsed_ns BIGINT, cpu_time_us BIGINT,"
                                        + " cpu_busy_ns BIGINT, cpu_iowait_ns BIGINT, cpu_steal_ns BIGINT,"
                                        + " disk_read_bytes BIGINT, disk_write_bytes BIGINT,"
                                        + " net_rx_bytes BIGINT, net_tx_bytes BIGINT,"
                                        + " cpu_pressure_us BIGINT, memory_pressure_us BIGINT, io_pressure_us BIGINT>",
                        bridgedTo = RowData.class))
public final class HostWindowFunction extends AggregateFunction<RowData, HostWindow> {

    private static final long serialVersionUID = 1L;

    /** Whether the event of the last call was taken; Flink asks for the value of each before it hands over the next. */
    private transient boolean taken;

    private transient Counter late;

    @Override
    public void open(FunctionContext context) {
        late = context.getMetricGroup().counter("numLateEvents");
    }

    @Override
    public HostWindow createAccumulator() {
        return new HostWindow();
    }

    /** Takes an event; the parameters are what their names say in the usage event, a counter -1 where it is absent. */
    public void accumulate(
            HostWindow window,
            @DataTypeHint(value = "TIMESTAMP_LTZ(3)", bridgedTo = TimestampData.class) TimestampData appendTime,
            Long windowMs,
            Long vcpusFree,
            Long memoryMbFree,
            Long diskGbFree,
            @DataTypeHint(value = "STRING", bridgedTo = StringData.class) StringData bootId,
            Long monotonicNs,
            Long cpuCount,
            Long cpuBusyNs,
            Long cpuIowaitNs,
            Long cpuStealNs,
            Long diskReadBytes,
            Long diskWriteBytes,
            Long netRxBytes,
            Long netTxBytes,
            Long cpuPressureUs,
            Long memoryPressureUs,
            Long ioPressureUs) {
        taken =
                window.add(
                        appendTime.getMillisecond(),
                        windowMs,
                        new long[] {vcpusFree, memoryMbFree, diskGbFree},
                        bootId,
                        monotonicNs,
                        cpuCount,
                        new long[] {
                            cpuBusyNs,
                            cpuIowaitNs,
                            cpuStealNs,
                            diskReadBytes,
                            diskWriteBytes,
                            netRxBytes,
                            netTxBytes,
                            cpuPressureUs,
                            memoryPressureUs,
                            ioPressureUs
                        });
        if (!taken) {
            late.inc();
        }
    }

    @Override
    public RowData getValue(HostWindow window) {
        if (!taken) {
            return null;
        }
        GenericRowData row = new GenericRowData(2 + HostWindow.RESOURCES + HostWindow.FIGURES);
        int field = 0;
        row.setField(field++, TimestampData.fromEpochMillis(window.appendMs()));
        row.setField(field++, (long) window.size());
        for (int resource = 0; resource < HostWindow.RESOURCES; resource++) {
            row.setField(field++, window.least(resource));
        }
        for (int figure = 0; figure < HostWindow.FIGURES; figure++) {
            row.setField(field++, window.sum(figure));
        }
        return row;
    }
}
