package vacancy;

import java.io.IOException;

/** Why one payload is not an event: a few words, to be stored with it. Cheap, since it may come a thousand times a second. */
final class BadPayloadException extends IOException {

    private static final long serialVersionUID = 1L;

    BadPayloadException(String reason) {
        super(reason);
    }

    /** Leaves the stack trace out: nobody looks at it, and it is what costs. */
    @Override
    public synchronized Throwable fillInStackTrace() {
        return this;
    }
}
