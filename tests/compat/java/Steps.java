import com.fasterxml.jackson.databind.ObjectMapper;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.function.Supplier;
import org.apache.kafka.common.utils.AppInfoParser;

/** What the Java programs share: where the broker is, and how a step is told. See `steps.py`. */
final class Steps {
    static final String BOOTSTRAP = System.getenv("COMPAT_BOOTSTRAP");
    private static final ObjectMapper JSON = new ObjectMapper();

    private Steps() {}

    static void client(String name) {
        print(Map.of("client", name, "version", AppInfoParser.getVersion()));
    }

    /** Reports what an action returns, or the name of what it throws. */
    static <T> T step(String name, Callable<T> action) {
        Object outcome;
        T returned = null;
        try {
            returned = action.call();
            outcome = returned;
        } catch (Throwable error) {
            if (System.getenv("COMPAT_TRACE") != null) {
                error.printStackTrace();
            }
            outcome = Map.of("error", name(error));
        }
        Map<String, Object> line = new LinkedHashMap<>();
        line.put("step", name);
        line.put("outcome", outcome);
        print(line);
        return returned;
    }

    /** The class of an exception; of one that only wraps another, the other's, too. */
    static String name(Throwable error) {
        if (error instanceof ExecutionException && error.getCause() != null) {
            return name(error.getCause());
        }
        String own = error.getClass().getSimpleName();
        boolean wraps = own.equals("KafkaException") && error.getCause() != null;
        return wraps ? own + " of " + name(error.getCause()) : own;
    }

    /** A name, or `done`. */
    static String said(Action action) {
        try {
            action.run();
            return "done";
        } catch (Throwable error) {
            return name(error);
        }
    }

    static void until(String what, Duration within, Supplier<Boolean> condition) throws InterruptedException {
        long deadline = System.nanoTime() + within.toNanos();
        while (!condition.get()) {
            if (System.nanoTime() > deadline) {
                throw new IllegalStateException(what + ": not within " + within);
            }
            Thread.sleep(20);
        }
    }

    interface Action {
        void run() throws Exception;
    }

    private static synchronized void print(Map<String, ?> line) {
        try {
            System.out.println(JSON.writeValueAsString(line));
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
    }
}
