package vacancy.kafka;

import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import org.apache.flink.configuration.ConfigOption;
import org.apache.flink.configuration.ConfigOptions;
import org.apache.flink.table.connector.ChangelogMode;
import org.apache.flink.table.connector.sink.DynamicTableSink;
import org.apache.flink.table.connector.sink.SinkV2Provider;
import org.apache.flink.table.factories.DynamicTableSinkFactory;
import org.apache.flink.table.factories.FactoryUtil;

/**
 * Makes the sink of a table {@code WITH ('connector' = 'dead-letters')} of two columns: payload BYTES, headers
 * MAP&lt;STRING, BYTES&gt;.
 */
public final class DeadLetterSinkFactory implements DynamicTableSinkFactory {

    /** Before the properties of Kafka's client. */
    public static final String PROPERTIES = "properties.";

    private static final ConfigOption<String> TOPIC =
            ConfigOptions.key("topic").stringType().noDefaultValue().withDescription("The dead-letter topic.");

    @Override
    public String factoryIdentifier() {
        return "dead-letters";
    }

    @Override
    public Set<ConfigOption<?>> requiredOptions() {
        return Set.of(TOPIC);
    }

    @Override
    public Set<ConfigOption<?>> optionalOptions() {
        return Set.of();
    }

    @Override
    public DynamicTableSink createDynamicTableSink(Context context) {
        FactoryUtil.TableFactoryHelper helper = FactoryUtil.createTableFactoryHelper(this, context);
        helper.validateExcept(PROPERTIES);
        Map<String, String> options = context.getCatalogTable().getOptions();
        return new DeadLetterTableSink(
                new DeadLetterSink(new DeadLetterTopic(helper.getOptions().get(TOPIC), under(PROPERTIES, options))));
    }

    /** The options whose names begin so, by what follows. */
    public static Map<String, String> under(String prefix, Map<String, String> options) {
        return options.entrySet().stream()
                .filter(option -> option.getKey().startsWith(prefix))
                .collect(Collectors.toMap(option -> option.getKey().substring(prefix.length()), Map.Entry::getValue));
    }

    private record DeadLetterTableSink(DeadLetterSink sink) implements DynamicTableSink {

        @Override
        public ChangelogMode getChangelogMode(ChangelogMode requestedMode) {
            return ChangelogMode.insertOnly();
        }

        @Override
        public SinkRuntimeProvider getSinkRuntimeProvider(Context context) {
            return SinkV2Provider.of(sink);
        }

        @Override
        public DynamicTableSink copy() {
            return this;
        }

        @Override
        public String asSummaryString() {
            return "dead letters";
        }
    }
}
