package vacancy;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import org.apache.flink.core.memory.DataInputDeserializer;
import org.apache.flink.core.memory.DataOutputSerializer;

/**
 * A window as a job of some release stored it: {@code write FILE} stores one that has a bit of everything, {@code show
 * FILE} restores one and prints what it holds, before and after it has gone on.
 */
public final class HostWindowState {

    private static final HostWindowSerializer SERIALIZER = new HostWindowSerializer();
    private static final long START_MS = 1_790_000_000_000L;
    private static final long WINDOW_MS = 60_000;
    private static final long S = 1_000_000_000;

    private HostWindowState() {}

    /** Takes what to do, and the file. */
    public static void main(String[] arguments) throws IOException {
        Path file = Path.of(arguments[1]);
        if (arguments[0].equals("write")) {
            DataOutputSerializer target = new DataOutputSerializer(64);
            SERIALIZER.serialize(window(), target);
            Files.write(file, target.getCopyOfBuffer());
            return;
        }
        HostWindow window = SERIALIZER.deserialize(new DataInputDeserializer(Files.readAllBytes(file)));
        show("restored", window);
        // Goes on from an earlier clock, as it had begun to; in between an event that is late.
        show(add(window, 100, "boot-2", 20) + " late", window);
        show(add(window, 130, "boot-2", 51) + " on", window);
        show(add(window, 131, "boot-2", 52) + " and on", window);
    }

    /** Three boots, one of which goes on; steps that are void for a counter; entries that have left; a clock behind. */
    private static HostWindow window() {
        HostWindow window = new HostWindow();
        add(window, 0, "boot-0", 500);
        add(window, 1, "boot-1", 10);
        add(window, 2, "boot-0", 502);
        add(window, 3, "boot-2", 1);
        for (int second = 4; second < 90; second++) {
            add(window, second, "boot-2", second);
        }
        add(window, 92, "boot-2", 15);
        add(window, 97, "boot-2", 21);
        return window;
    }

    private static HostWindow.Outcome add(HostWindow window, long second, String boot, long clockS) {
        long[] free = new long[HostWindow.RESOURCES];
        Arrays.setAll(free, resource -> 100 * resource - second % 7);
        long[] counters = new long[HostWindow.COUNTERS];
        // Each grows by another amount; one is not there now and then, one begins anew.
        Arrays.setAll(counters, counter -> 1_000 + (counter + 1) * 1_000_000L * second);
        if (second % 10 == 0) {
            counters[indexOf("io_pressure")] = HostWindow.ABSENT;
        }
        if (second >= 70) {
            counters[indexOf("memory_pressure")] = second;
        }
        byte[] bootId = boot.getBytes(StandardCharsets.UTF_8);
        return window.add(START_MS + second * 1000, 0, Long.MAX_VALUE, WINDOW_MS, free, bootId, clockS * S, 4, counters);
    }

    private static int indexOf(String rate) {
        return UsageColumns.COUNTERS.stream().map(UsageColumns.Counter::rate).toList().indexOf(rate);
    }

    private static void show(String when, HostWindow window) {
        System.out.println(when);
        System.out.println("  observed_ms " + window.observedMs() + " samples " + window.size());
        System.out.println("  anomalies " + window.anomalies(WINDOW_MS) + " idle " + window.copy().isIdle());
        System.out.println("  anomalies_of_ten_windows " + window.anomalies(10 * WINDOW_MS));
        for (int resource = 0; resource < HostWindow.RESOURCES; resource++) {
            System.out.println("  " + UsageColumns.RESOURCES.get(resource) + "_free_min " + window.least(resource));
        }
        double[] rates = new double[HostWindow.COUNTERS];
        window.rates(WINDOW_MS, rates);
        for (int counter = 0; counter < HostWindow.COUNTERS; counter++) {
            System.out.println("  " + UsageColumns.COUNTERS.get(counter).rate() + " " + rates[counter]);
        }
    }
}
