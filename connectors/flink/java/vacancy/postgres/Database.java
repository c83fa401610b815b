package vacancy.postgres;

import java.io.Serializable;
import java.sql.Connection;
import java.sql.SQLException;
import java.util.Properties;
import org.postgresql.Driver;

/** Where the database is and who we are there. */
final class Database implements Serializable {

    private static final long serialVersionUID = 1L;

    private final String url;
    private final String username;
    private final String password;

    Database(String url, String username, String password) {
        this.url = url;
        this.username = username;
        this.password = password;
    }

    /** A new connection, each of whose statements is a transaction. */
    Connection connect() throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", username);
        properties.setProperty("password", password);
        // Not through DriverManager, which would hold on to the class loader of a job that has ended.
        Connection connection = new Driver().connect(url, properties);
        if (connection == null) {
            throw new SQLException("not a URL of PostgreSQL: " + url);
        }
        return connection;
    }
}
