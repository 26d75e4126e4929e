import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.LongDeserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;

/** Kafka Streams: a word count with exactly_once_v2, begun anew in the middle, its state thrown away once. */
public final class WordCount {
    private static final Duration WITHIN = Duration.ofSeconds(90);
    private static final String[] WORDS = "kelp holds fast to the rock and the sea to kelp".split(" ");
    private static final int LINES = 400;
    private static int sent;

    public static void main(String[] arguments) throws Exception {
        Steps.client("Kafka Streams");
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", Steps.BOOTSTRAP))) {
            admin.createTopics(List.of(new NewTopic("lines", 3, (short) 1), new NewTopic("counts", 2, (short) 1))).all().get();
            Map<String, Long> expected = new TreeMap<>();
            Steps.step("first half", () -> play("state-1", expected));
            Steps.step("second half, begun anew", () -> play("state-1", expected));
            Steps.step("third half, its state fetched back", () -> play("state-2", expected));
            Steps.step("counts go up by one, none twice", () -> steady(expected));
            Steps.step("topics of the application", () -> admin.listTopics().names().get().stream().filter(n -> n.startsWith("word-count")).sorted().toList());
            Steps.step("offsets of the application", () -> admin.listConsumerGroupOffsets("word-count").partitionsToOffsetAndMetadata().get().entrySet().stream()
                .filter(e -> e.getKey().topic().equals("lines")).mapToLong(e -> e.getValue().offset()).sum() > 0);
        }
    }

    private static String play(String state, Map<String, Long> expected) throws Exception {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, "word-count");
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, Steps.BOOTSTRAP);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, Path.of(System.getenv("COMPAT_WORK"), state).toString());
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 100);
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        settings.put(StreamsConfig.consumerPrefix("session.timeout.ms"), 6000);
        var builder = new StreamsBuilder();
        builder.stream("lines", org.apache.kafka.streams.kstream.Consumed.with(Serdes.String(), Serdes.String()))
            .flatMapValues(line -> Arrays.asList(line.split(" ")))
            .groupBy((key, word) -> word, Grouped.with(Serdes.String(), Serdes.String()))
            .count(Materialized.as("counted"))
            .toStream()
            .to("counts", Produced.with(Serdes.String(), Serdes.Long()));
        try (var streams = new KafkaStreams(builder.build(), settings)) {
            streams.start();
            try (var out = new KafkaProducer<>(Map.of("bootstrap.servers", Steps.BOOTSTRAP), new StringSerializer(), new StringSerializer())) {
                for (int n = 0; n < LINES; n++, sent++) {
                    String line = WORDS[sent % WORDS.length] + " " + WORDS[(sent * 3 + 1) % WORDS.length];
                    out.send(new ProducerRecord<>("lines", "" + sent, line));
                    for (String word : line.split(" ")) {
                        expected.merge(word, 1L, Long::sum);
                    }
                }
            }
            Steps.until("the counts", WITHIN, () -> last().equals(expected));
        }
        return "as sent";
    }

    /** The last count of each word that a reader of committed records sees. */
    private static Map<String, Long> last() {
        Map<String, Long> found = new TreeMap<>();
        read().forEach((word, counts) -> found.put(word, counts.get(counts.size() - 1)));
        return found;
    }

    private static boolean steady(Map<String, Long> expected) {
        var found = read();
        return found.keySet().equals(expected.keySet()) && found.entrySet().stream().allMatch(e -> {
            for (int n = 0; n < e.getValue().size(); n++) {
                if (e.getValue().get(n) != n + 1) {
                    return false;
                }
            }
            return e.getValue().size() == expected.get(e.getKey());
        });
    }

    private static Map<String, List<Long>> read() {
        Map<String, List<Long>> found = new TreeMap<>();
        var places = List.of(new TopicPartition("counts", 0), new TopicPartition("counts", 1));
        try (var reader = new KafkaConsumer<>(Map.of("bootstrap.servers", Steps.BOOTSTRAP, "isolation.level", "read_committed"), new StringDeserializer(), new LongDeserializer())) {
            reader.assign(places);
            reader.seekToBeginning(places);
            var ends = reader.endOffsets(places);
            long deadline = System.nanoTime() + Duration.ofSeconds(20).toNanos();
            while (places.stream().anyMatch(p -> reader.position(p) < ends.get(p)) && System.nanoTime() < deadline) {
                reader.poll(Duration.ofMillis(200)).forEach(r -> found.computeIfAbsent(r.key(), k -> new ArrayList<>()).add(r.value()));
            }
        }
        return found;
    }
}
