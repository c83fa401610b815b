package vacancy.postgres;

import java.time.Duration;
import java.util.List;
import java.util.Set;
import org.apache.flink.configuration.ConfigOption;
import org.apache.flink.configuration.ConfigOptions;
import org.apache.flink.configuration.ReadableConfig;
import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.catalog.ResolvedSchema;
import org.apache.flink.table.catalog.UniqueConstraint;
import org.apache.flink.table.connector.ChangelogMode;
import org.apache.flink.table.connector.sink.DynamicTableSink;
import org.apache.flink.table.connector.sink.SinkV2Provider;
import org.apache.flink.table.factories.DynamicTableSinkFactory;
import org.apache.flink.table.factories.FactoryUtil;
import org.apache.flink.table.types.logical.LogicalType;
import vacancy.kafka.DeadLetterSinkFactory;
import vacancy.kafka.DeadLetterTopic;

/**
 * Makes the sink of a table {@code WITH ('connector' = 'postgres')}, which keeps the newest row of each key.
 *
 * <p>The table has a primary key of one column, and {@code observed_at}, {@code topic_partition} and {@code topic_offset},
 * which say which row is the newest ({@link Upsert}). Its columns are named as PostgreSQL's; STRING goes into a column of
 * any type, as that type's text. The table in PostgreSQL has {@code latest_at} and {@code clock_ahead} as well.
 */
public final class PostgresSinkFactory implements DynamicTableSinkFactory {

    private static final ConfigOption<String> URL =
            ConfigOptions.key("url").stringType().noDefaultValue().withDescription("The database, as a JDBC URL.");
    private static final ConfigOption<String> USERNAME =
            ConfigOptions.key("username").stringType().noDefaultValue().withDescription("The role.");
    private static final ConfigOption<String> PASSWORD =
            ConfigOptions.key("password").stringType().defaultValue("").withDescription("Its password.");
    private static final ConfigOption<String> TABLE_NAME =
            ConfigOptions.key("table-name").stringType().noDefaultValue().withDescription("schema.table");
    private static final ConfigOption<Duration> INTERVAL =
            ConfigOptions.key("interval")
                    .durationType()
                    .noDefaultValue()
                    .withDescription("How long after a row of a key the next one may be written; the newest is.");

    private static final ConfigOption<String> DEAD_LETTER_TOPIC =
            ConfigOptions.key("dead-letters.topic")
                    .stringType()
                    .noDefaultValue()
                    .withDescription("The topic for the rows that the database refuses.");
    private static final String DEAD_LETTER_PROPERTIES = "dead-letters.properties.";

    @Override
    public String factoryIdentifier() {
        return "postgres";
    }

    @Override
    public Set<ConfigOption<?>> requiredOptions() {
        return Set.of(URL, USERNAME, TABLE_NAME, INTERVAL, DEAD_LETTER_TOPIC);
    }

    @Override
    public Set<ConfigOption<?>> optionalOptions() {
        return Set.of(PASSWORD);
    }

    @Override
    public DynamicTableSink createDynamicTableSink(Context context) {
        FactoryUtil.TableFactoryHelper helper = FactoryUtil.createTableFactoryHelper(this, context);
        helper.validateExcept(DEAD_LETTER_PROPERTIES);
        ReadableConfig options = helper.getOptions();
        ResolvedSchema schema = context.getCatalogTable().getResolvedSchema();
        List<String> key = schema.getPrimaryKey().map(UniqueConstraint::getColumns).orElse(List.of());
        if (key.size() != 1) {
            throw new ValidationException("a table of connector postgres has a primary key of one column");
        }
        LogicalType[] types = context.getPhysicalRowDataType().getLogicalType().getChildren().toArray(LogicalType[]::new);
        Upsert upsert =
                new Upsert(
                        options.get(TABLE_NAME),
                        schema.getColumnNames().toArray(String[]::new),
                        types,
                        key.get(0));
        Database database = new Database(options.get(URL), options.get(USERNAME), options.get(PASSWORD));
        DeadLetterTopic deadLetters =
                new DeadLetterTopic(
                        options.get(DEAD_LETTER_TOPIC),
                        DeadLetterSinkFactory.under(DEAD_LETTER_PROPERTIES, context.getCatalogTable().getOptions()));
        return new PostgresTableSink(new PostgresSink(database, upsert, options.get(INTERVAL), deadLetters));
    }

    private record PostgresTableSink(PostgresSink sink) implements DynamicTableSink {

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
            return "PostgreSQL";
        }
    }
}
