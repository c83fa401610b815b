package vacancy;

import java.io.IOException;
import java.util.Arrays;
import java.util.Collection;
import java.util.List;
import java.util.stream.Collectors;
import org.apache.flink.avro.shaded.org.apache.avro.Schema;
import org.apache.flink.avro.shaded.org.apache.avro.generic.GenericDatumReader;
import org.apache.flink.avro.shaded.org.apache.avro.generic.GenericRecord;
import org.apache.flink.avro.shaded.org.apache.avro.util.Utf8;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.TimestampData;
import org.apache.flink.table.data.binary.BinaryRowData;
import org.apache.flink.table.data.binary.BinaryStringData;
import org.apache.flink.table.data.writer.BinaryRowWriter;
import org.apache.flink.table.functions.FunctionContext;
import org.apache.flink.table.functions.ScalarFunction;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.InputTypeStrategies;
import org.apache.flink.table.types.inference.TypeInference;
import org.apache.flink.table.types.inference.TypeStrategies;

/**
 * What the two decoders share: a payload in, a row out whose first field is the reason why it is bad, or NULL.
 *
 * <p>What always holds: a bad payload gives a row of its own with a reason, whatever its bytes are, and all else in it
 * NULL; no payload ever fails the job. A registry that does not answer does.
 */
public abstract class EventDecoder extends ScalarFunction {

    private static final long serialVersionUID = 1L;

    /** The field that says why a payload is bad. */
    static final int REASON = 0;

    private static final int MAX_REASON = 500;

    /** Room for a row at first; it grows. */
    private static final int ROW_BYTES = 512;

    private final String[] versions;
    private final String registryUrl;
    private final String registryCredentials;

    private transient Framing framing;
    private transient Bounds ofTime;
    private transient DatumDecoder datum;
    private transient StringData key;

    // All rows are the same one: who wants to keep one copies it, as Flink's operators do.
    private transient BinaryRowData row;
    private transient BinaryRowWriter writer;

    /**
     * Decodes some versions of an event.
     *
     * @param versions their schemas, the newest last: what is read into
     * @param registryUrl the base URL of the schema registry that knows Confluent's ids; null where none is configured
     * @param registryCredentials user:password for it; null if it asks for none
     */
    EventDecoder(String[] versions, String registryUrl, String registryCredentials) {
        this.versions = versions.clone();
        this.registryUrl = registryUrl;
        this.registryCredentials = registryCredentials;
    }

    /** The fields of a row behind the reason. */
    abstract List<DataTypes.Field> fields();

    /** The schema to read into: what is wanted of the newest version. */
    abstract Schema wanted(Schema newest);

    /** Writes the fields behind the reason, of an event in which nothing has been looked at. */
    abstract void write(BinaryRowWriter row, GenericRecord event) throws BadPayloadException;

    @Override
    public void open(FunctionContext context) {
        List<Schema> known = Arrays.stream(versions).map(text -> new Schema.Parser().parse(text)).toList();
        Schema newest = known.get(known.size() - 1);
        SchemaRegistry registry = registryUrl == null ? null : new SchemaRegistry(registryUrl, registryCredentials);
        framing = new Framing(known, wanted(newest), registry);
        ofTime = Bounds.of(newest.getField("agent_time"));
        datum = new DatumDecoder();
        row = new BinaryRowData(1 + fields().size());
        writer = new BinaryRowWriter(row, ROW_BYTES);
    }

    /** Says to the planner that the function takes key, payload, header and time, and returns a row of the fields. */
    final TypeInference inference() {
        DataType[] arguments = {
            DataTypes.STRING().bridgedTo(StringData.class),
            DataTypes.BYTES(),
            DataTypes.BYTES(),
            DataTypes.TIMESTAMP_LTZ(3).bridgedTo(TimestampData.class)
        };
        DataTypes.Field[] fields = new DataTypes.Field[1 + fields().size()];
        fields[0] = DataTypes.FIELD("reason", DataTypes.STRING());
        for (int index = 1; index < fields.length; index++) {
            fields[index] = fields().get(index - 1);
        }
        return TypeInference.newBuilder()
                .inputTypeStrategy(InputTypeStrategies.explicitSequence(arguments))
                .outputTypeStrategy(TypeStrategies.explicit(DataTypes.ROW(fields).bridgedTo(RowData.class)))
                .build();
    }

    /**
     * The row of a record whose time is beyond what events may hold; null if it is not. It is the broker's time, but where a
     * topic takes its producers' times it is anybody's, and one in the year 10000 would hold the host's row there.
     */
    final RowData refusedFor(TimestampData appendTime) {
        long appendMs = appendTime.getMillisecond();
        return ofTime.hold(appendMs) ? null : bad(ofTime.outside("append_time", appendMs).getMessage());
    }

    /** The row of a payload. */
    final RowData decode(byte[] payload, byte[] readsAs) throws IOException {
        try {
            GenericRecord event = event(payload, readsAs);
            BinaryRowWriter writer = start();
            writer.setNullAt(REASON);
            write(writer, event);
            return finish(1 + fields().size());
        } catch (BadPayloadException bad) {
            return bad(bad.getMessage());
        } catch (RuntimeException error) {
            // Nothing should get here; if it does, it would each time again.
            return bad("undecodable: " + why(error));
        }
    }

    /** Begins a row. */
    final BinaryRowWriter start() {
        writer.reset();
        return writer;
    }

    /** Ends a row of which so many fields have been written; the others are NULL. */
    final RowData finish(int written) {
        for (int field = written; field < row.getArity(); field++) {
            writer.setNullAt(field);
        }
        writer.complete();
        return row;
    }

    /** Texts as a PostgreSQL array literal. */
    static String arrayLiteral(Collection<?> texts) {
        return texts.stream()
                .map(text -> '"' + text.toString().replace("\\", "\\\\").replace("\"", "\\\"") + '"')
                .collect(Collectors.joining(",", "{", "}"));
    }

    private GenericRecord event(byte[] payload, byte[] readsAs) throws IOException {
        GenericDatumReader<GenericRecord> reader = framing.unframe(payload, readsAs, datum);
        GenericRecord event;
        try {
            event = reader.read(null, datum);
        } catch (RuntimeException | StackOverflowError error) {
            // What Avro throws for bytes that are no datum of the schema, which may be one that holds itself.
            throw new BadPayloadException("undecodable: " + why(error));
        }
        datum.requireEnd();
        return event;
    }

    private static String why(Throwable error) {
        String said = error.getMessage() == null ? error.getClass().getSimpleName() : error.getMessage();
        return said.length() > MAX_REASON ? said.substring(0, MAX_REASON) : said;
    }

    /** The row of a bad payload. */
    final RowData bad(String reason) {
        start().writeString(REASON, StringData.fromString(reason));
        return finish(REASON + 1);
    }

    /** Keeps the key of the record whose payload comes next; null if it has none. */
    final void expectKey(StringData hostKey) {
        key = hostKey;
    }

    /** Refuses an event whose host_id is not the record's key: by that its partition, and so its order, is chosen. */
    final BinaryStringData requireKey(Utf8 hostId) throws BadPayloadException {
        BinaryStringData id = BinaryStringData.fromBytes(hostId.getBytes(), 0, hostId.getByteLength());
        if (!id.equals(key)) {
            String what = key == null ? "there is no key" : "the key is " + Bounds.shown(key.toString());
            throw Bounds.invalid("host_id is " + Bounds.shown(hostId) + ", but " + what);
        }
        return id;
    }
}
