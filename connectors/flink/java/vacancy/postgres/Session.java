package vacancy.postgres;

import java.lang.reflect.Array;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.BiConsumer;
import org.postgresql.PGConnection;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** A connection that writes rows, and is made anew where it has broken. One thread at a time. */
final class Session implements AutoCloseable {

    private static final Logger LOG = LoggerFactory.getLogger(Session.class);

    /** What the server works through in memory; and no row is locked for longer than these take. */
    private static final int ROWS_PER_STATEMENT = 4096;

    /** A statement takes no more text than this, but for a row that has more: the protocol ends at 1 GiB. */
    private static final int CHARACTERS_PER_STATEMENT = 16 << 20;

    /** So a server that restarts, whose standby is promoted or whose network is cut costs no restart of the job on top. */
    private static final Duration RETRY_FOR = Duration.ofMinutes(1);

    private static final long RETRY_MS = 500;

    /**
     * SQLSTATEs, or their classes, that may go away by themselves: connection, rollback, resources, an operator at work,
     * a server that has become a standby, so that its successor is to be found, and a table that is locked.
     */
    private static final Set<String> PASSING = Set.of("08", "40", "53", "57", "25006", "55P03");

    /** Less than the driver waits for an answer (edges.py), so that an abandoned statement holds no lock. */
    private static final String LIMIT = "statement_timeout = '8 s'";

    /**
     * By index, also in triggers: what is planned while a table is empty, as at the start of a fleet, would else read all of
     * it each time until the first ANALYZE a minute later, when it has all hosts.
     */
    private static final String BY_INDEX = "enable_seqscan = off";

    /**
     * Classes of SQLSTATE that are about a row's content, which is refused again next time: cardinality, data, integrity,
     * a view's check, the server's limits, what a trigger raises. All others, as a missing right or table, are about us.
     */
    private static final Set<String> REFUSING = Set.of("21", "22", "23", "44", "54", "P0");

    private static final Map<String, Class<?>> JAVA_TYPES =
            Map.of(
                    "int8", Long.class,
                    "int4", Integer.class,
                    "float8", Double.class,
                    "bool", Boolean.class,
                    "text", String.class);

    private final Database database;
    private final Upsert upsert;
    private volatile Connection connection;
    private volatile boolean closed;

    /** Whether a pooler, such as PgBouncer, may give each transaction another server process. */
    private boolean pooled;

    private PreparedStatement update;
    private PreparedStatement insert;

    Session(Database database, Upsert upsert) {
        this.database = database;
        this.upsert = upsert;
    }

    /** Connects, if it is not; so that a database that cannot be had shows at once. */
    void open() throws SQLException {
        if (connection == null) {
            connection = database.connect();
            try {
                if (closed) {
                    throw new SQLException("closed");
                }
                prepare();
            } catch (SQLException error) {
                disconnect();
                throw error;
            }
        }
    }

    private void prepare() throws SQLException {
        PGConnection ours = connection.unwrap(PGConnection.class);
        Map<String, String> types = new HashMap<>();
        try (Statement statement = connection.createStatement();
                ResultSet process = statement.executeQuery("SELECT pg_backend_pid()")) {
            process.next();
            // A pooler gives its clients numbers of its own, by which it knows them when they cancel a statement.
            pooled = process.getInt(1) != ours.getBackendPID();
        }
        if (pooled) {
            // What is prepared by name stays with a server process, where the next client of that meets it.
            ours.setPrepareThreshold(0);
        } else {
            try (Statement statement = connection.createStatement()) {
                // Planned once: each row is looked up in the index, however many there are.
                statement.execute(
                        "SET plan_cache_mode = force_generic_plan; SET enable_hashjoin = off; SET enable_mergejoin = off;"
                                + " SET tcp_keepalives_idle = 10;"
                                + " SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;"
                                + " SET client_connection_check_interval = '2 s'; SET "
                                + LIMIT
                                + "; SET "
                                + BY_INDEX);
            }
        }
        try (PreparedStatement query =
                connection.prepareStatement(
                        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
                                + " WHERE attrelid = ?::regclass AND attnum > 0 AND NOT attisdropped")) {
            query.setString(1, upsert.table());
            ResultSet columns = query.executeQuery();
            while (columns.next()) {
                types.put(columns.getString(1), columns.getString(2));
            }
        }
        update = connection.prepareStatement(upsert.update(types));
        insert = connection.prepareStatement(upsert.insert(types));
        connection.setAutoCommit(!pooled);
    }

    /**
     * Writes rows, of each key one, in the order of their keys; all are committed when it returns, but for those that the
     * server refuses for what they hold.
     *
     * @param refused takes each of these, and why
     */
    void write(List<Object[]> rows, BiConsumer<Object[], SQLException> refused)
            throws SQLException, InterruptedException {
        for (int from = 0, to; from < rows.size(); from = to) {
            long characters = characters(rows.get(from));
            for (to = from + 1; to < rows.size() && to - from < ROWS_PER_STATEMENT; to++) {
                characters += characters(rows.get(to));
                if (characters > CHARACTERS_PER_STATEMENT) {
                    break;
                }
            }
            writePart(rows.subList(from, to), refused);
        }
    }

    private static long characters(Object[] row) {
        long characters = 0;
        for (Object value : row) {
            if (value instanceof String text) {
                characters += text.length();
            }
        }
        return characters;
    }

    /** Writes rows in one statement; if it is refused in two, each with half of them, and so on down to the row. */
    private void writePart(List<Object[]> part, BiConsumer<Object[], SQLException> refused)
            throws SQLException, InterruptedException {
        long endNs = System.nanoTime() + RETRY_FOR.toNanos();
        while (true) {
            try {
                open();
                if (pooled) {
                    try (Statement statement = connection.createStatement()) {
                        statement.execute("SET LOCAL " + LIMIT + "; SET LOCAL " + BY_INDEX);
                    }
                }
                if (execute(update, part) < part.size()) {
                    execute(insert, part);
                }
                if (pooled) {
                    connection.commit();
                }
                return;
            } catch (SQLException error) {
                if (isOf(REFUSING, error)) {
                    if (pooled) {
                        connection.rollback();
                    }
                    if (part.size() == 1) {
                        refused.accept(part.get(0), error);
                    } else {
                        writePart(part.subList(0, part.size() / 2), refused);
                        writePart(part.subList(part.size() / 2, part.size()), refused);
                    }
                    return;
                }
                if (System.nanoTime() - endNs >= 0 || !isOf(PASSING, error)) {
                    throw error;
                }
                LOG.warn("{}: {} rows not written, next try in {} ms", upsert.table(), part.size(), RETRY_MS, error);
                disconnect();
                Thread.sleep(RETRY_MS);
            }
        }
    }

    private static boolean isOf(Set<String> states, SQLException error) {
        String state = error.getSQLState();
        return state != null && state.length() == 5 && states.stream().anyMatch(state::startsWith);
    }

    private int execute(PreparedStatement statement, List<Object[]> rows) throws SQLException {
        for (int column = 0; column < upsert.width(); column++) {
            String type = upsert.elementType(column);
            Object[] values = (Object[]) Array.newInstance(JAVA_TYPES.get(type), rows.size());
            for (int row = 0; row < values.length; row++) {
                values[row] = rows.get(row)[column];
            }
            statement.setArray(column + 1, connection.createArrayOf(type, values));
        }
        return statement.executeUpdate();
    }

    /** Ends it for good, also for a thread that waits for an answer or connects just now. */
    @Override
    public void close() {
        closed = true;
        disconnect();
    }

    private void disconnect() {
        Connection former = connection;
        connection = null;
        if (former != null) {
            try {
                former.abort(Runnable::run);
            } catch (SQLException error) {
                LOG.debug("{}: the connection did not close", upsert.table(), error);
            }
        }
    }
}
