package vacancy;

import java.io.IOException;
import org.apache.flink.api.common.typeutils.SimpleTypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.base.TypeSerializerSingleton;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;

/**
 * How a {@link HostWindow} is stored: a byte that says in which version, an int that says how many bytes follow, and
 * these.
 *
 * <p>The version is that of the bytes alone. A later one is written anew and read beside this one, so that state of
 * either is restored; a state of a version that is not known fails the restore, and says so. The class is part of
 * Flink's description of the state: it keeps its name and its {@code serialVersionUID}.
 */
public final class HostWindowSerializer extends TypeSerializerSingleton<HostWindow> {

    private static final long serialVersionUID = 1L;

    private static final byte VERSION = 1;

    /** About what an event takes. */
    private static final int BYTES_PER_EVENT = 48;

    @Override
    public boolean isImmutableType() {
        return false;
    }

    @Override
    public HostWindow createInstance() {
        return new HostWindow();
    }

    @Override
    public HostWindow copy(HostWindow from) {
        return from.copy();
    }

    @Override
    public HostWindow copy(HostWindow from, HostWindow reuse) {
        return from.copy();
    }

    @Override
    public int getLength() {
        return -1;
    }

    @Override
    public void serialize(HostWindow window, DataOutputView target) throws IOException {
        VarLongWriter writer = new VarLongWriter((window.size() + 2) * BYTES_PER_EVENT);
        window.write(writer);
        target.writeByte(VERSION);
        target.writeInt(writer.length());
        target.write(writer.bytes(), 0, writer.length());
    }

    @Override
    public HostWindow deserialize(DataInputView source) throws IOException {
        byte version = source.readByte();
        if (version != VERSION) {
            throw new IOException("a host's window of version " + version + ", which this release does not know");
        }
        byte[] bytes = new byte[source.readInt()];
        source.readFully(bytes);
        return HostWindow.read(new VarLongReader(bytes));
    }

    @Override
    public HostWindow deserialize(HostWindow reuse, DataInputView source) throws IOException {
        return deserialize(source);
    }

    @Override
    public void copy(DataInputView source, DataOutputView target) throws IOException {
        target.writeByte(source.readByte());
        int length = source.readInt();
        target.writeInt(length);
        target.write(source, length);
    }

    @Override
    public TypeSerializerSnapshot<HostWindow> snapshotConfiguration() {
        return new Snapshot();
    }

    /** Says that this serializer reads all versions. */
    public static final class Snapshot extends SimpleTypeSerializerSnapshot<HostWindow> {

        /** Flink makes one when it restores. */
        public Snapshot() {
            super(HostWindowSerializer::new);
        }
    }
}
