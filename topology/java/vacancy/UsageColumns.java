package vacancy;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.function.Function;
import org.apache.flink.avro.shaded.org.apache.avro.Schema;

/**
 * What the job reads of a usage event, by the newest schema of HostUsage, which lies in the jar beside this class.
 *
 * <p>A pair {@code <resource>_capacity} and {@code <resource>_allocated} is a resource; a field with {@code column} is a
 * gauge, and that is its column in table {@code host}; a field with {@code rate} and {@code per} is a counter, and the
 * rate is its column. schemas/usage.py reads the same schema by the same rules.
 */
final class UsageColumns {

    private static final String SCHEMA = "host_usage.avsc";
    private static final String CAPACITY = "_capacity";
    private static final String ALLOCATED = "_allocated";

    private static final List<Schema.Field> FIELDS = fields();

    static final List<String> IDS = List.of("host_id", "boot_id");
    static final String CPU_COUNT = "cpu_count";
    static final String CONSUMERS = "recent_consumers";

    /** The names of fields that cannot be told, and of those that are what they were earlier; the column has both. */
    static final String UNKNOWN = "unknown";

    static final String UNCERTAIN = "uncertain";

    /** The resources that are promised, without a suffix. */
    static final List<String> RESOURCES =
            FIELDS.stream()
                    .map(Schema.Field::name)
                    .filter(name -> name.endsWith(CAPACITY))
                    .map(name -> name.substring(0, name.length() - CAPACITY.length()))
                    .toList();

    static final List<Gauge> GAUGES = each("column", Gauge::new);

    /** In the order in which the window's state has them: a new one goes behind the last. */
    static final List<Counter> COUNTERS = each("rate", Counter::new);

    /** The whole numbers of an event, in their order in its row; the counters are the last of them. */
    static final List<String> AMOUNTS = amounts();

    /** A figure that is shown as it stands: its field, its column, and whether that is an INT. */
    record Gauge(String name, String column, boolean isInt) {
        private Gauge(Schema.Field field) {
            this(field.name(), field.getProp("column"), field.schema().getType() == Schema.Type.INT);
        }
    }

    /** A counter: its field, its column, and what its growth is divided by. */
    record Counter(String name, String rate, Per per) {
        private Counter(Schema.Field field) {
            this(field.name(), field.getProp("rate"), Per.valueOf(field.getProp("per").toUpperCase(Locale.ROOT)));
        }

        /** Whether its rate is one of 0 to 1. */
        boolean isFraction() {
            return per != Per.SECOND;
        }

        /** What a growth of 1 in 1 ns is as a rate. */
        double scale() {
            return per == Per.SECOND ? 1e9 : name.endsWith("_us") ? 1e3 : 1;
        }
    }

    /** What a counter's growth is divided by. */
    enum Per {
        /** Seconds: an amount a second. */
        SECOND,
        /** The time that has passed: a fraction. The counter is in us or ns. */
        TIME,
        /** The time that has passed, times the CPUs: a fraction. The counter is in us or ns. */
        CPU_TIME
    }

    private UsageColumns() {}

    private static List<Schema.Field> fields() {
        try (InputStream text = UsageColumns.class.getResourceAsStream(SCHEMA)) {
            return new Schema.Parser().parse(text).getFields();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private static <T> List<T> each(String property, Function<Schema.Field, T> made) {
        return FIELDS.stream().filter(field -> field.getProp(property) != null).map(made).toList();
    }

    private static List<String> amounts() {
        List<String> amounts = new ArrayList<>(List.of("monotonic_ns", CPU_COUNT));
        RESOURCES.forEach(name -> amounts.addAll(List.of(name + CAPACITY, name + ALLOCATED)));
        GAUGES.forEach(gauge -> amounts.add(gauge.name()));
        COUNTERS.forEach(counter -> amounts.add(counter.name()));
        return List.copyOf(amounts);
    }
}
