import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** The Java client: producers, transactions, and consumers with every assignor. Arguments choose parts. */
public final class Clients {
    private static final Duration WITHIN = Duration.ofSeconds(40);
    private static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    private static Admin admin;

    public static void main(String[] arguments) throws Exception {
        Steps.client("Java client");
        Set<String> chosen = new HashSet<>(Arrays.asList(arguments));
        try (Admin opened = Admin.create(Map.of("bootstrap.servers", Steps.BOOTSTRAP))) {
            admin = opened;
            if (chosen.isEmpty() || chosen.contains("plain")) {
                producers();
                consumers();
            }
            if (chosen.isEmpty() || chosen.contains("transactions")) {
                transactions();
            }
        }
    }

    // --- what the parts share -----------------------------------------------------------------

    private static String create(String topic, int partitions, Map<String, String> configs) throws Exception {
        admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1).configs(configs))).all().get();
        Steps.until("topic " + topic, WITHIN, () -> {
            try {
                return admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size() == partitions;
            } catch (Exception error) {
                return false;
            }
        });
        return topic;
    }

    private static String create(String topic, int partitions) throws Exception {
        return create(topic, partitions, Map.of());
    }

    private static Producer<String, String> producer(Map<String, Object> more) {
        Map<String, Object> settings = new HashMap<>(Map.of("bootstrap.servers", Steps.BOOTSTRAP, "max.block.ms", 20_000, "delivery.timeout.ms", 20_000, "request.timeout.ms", 10_000));
        settings.putAll(more);
        return new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer());
    }

    private static Producer<String, String> transactional(String id, Map<String, Object> more) {
        Map<String, Object> settings = new HashMap<>(more);
        settings.put("transactional.id", id);
        Producer<String, String> made = producer(settings);
        made.initTransactions();
        return made;
    }

    private static Consumer<String, String> consumer(Map<String, Object> more) {
        Map<String, Object> settings = new HashMap<>(Map.of("bootstrap.servers", Steps.BOOTSTRAP, "auto.offset.reset", "earliest", "enable.auto.commit", false));
        settings.putAll(more);
        return new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer());
    }

    /** Sends in order, and returns the offsets that were acknowledged. */
    private static List<Long> send(Producer<String, String> to, String topic, int partition, List<String> values) throws Exception {
        var sent = values.stream().map(v -> to.send(new ProducerRecord<>(topic, partition, v, v))).toList();
        to.flush();
        List<Long> offsets = new ArrayList<>();
        for (var one : sent) {
            offsets.add(one.get().offset());
        }
        return offsets;
    }

    private static List<String> numbered(int count) {
        return IntStream.range(0, count).mapToObj(n -> "value " + n + " " + "x".repeat(40)).toList();
    }

    /** What a reader from the beginning to the end of partition 0 sees. */
    private static List<String> read(String topic, String level) {
        var place = new TopicPartition(topic, 0);
        try (var reader = consumer(Map.of("isolation.level", level))) {
            reader.assign(List.of(place));
            reader.seekToBeginning(List.of(place));
            long end = reader.endOffsets(List.of(place)).get(place);
            List<String> seen = new ArrayList<>();
            long deadline = System.nanoTime() + WITHIN.toNanos();
            while (reader.position(place) < end && System.nanoTime() < deadline) {
                reader.poll(Duration.ofMillis(200)).forEach(r -> seen.add(r.offset() + " " + r.value()));
            }
            return seen;
        }
    }

    private static long end(String topic, IsolationLevel level) throws ExecutionException, InterruptedException {
        var place = new TopicPartition(topic, 0);
        return admin.listOffsets(Map.of(place, OffsetSpec.latest()), new ListOffsetsOptions(level)).all().get().get(place).offset();
    }

    // --- producers ----------------------------------------------------------------------------

    private static void producers() throws Exception {
        for (String codec : CODECS) {
            String topic = create("java-" + codec, 1);
            Steps.step("producer: idempotent, " + codec, () -> {
                try (var out = producer(Map.of("compression.type", codec, "linger.ms", 5))) {
                    var offsets = send(out, topic, 0, numbered(2000));
                    return offsets.equals(IntStream.range(0, 2000).mapToObj(Long::valueOf).toList());
                }
            });
            Steps.step("consumer: " + codec, () -> {
                var seen = read(topic, "read_uncommitted");
                var sent = numbered(2000);
                return IntStream.range(0, 2000).allMatch(n -> seen.get(n).equals(n + " " + sent.get(n)));
            });
        }
        String small = create("java-small", 1, Map.of("max.message.bytes", "1000"));
        Steps.step("producer: larger than the topic takes", () -> {
            try (var out = producer(Map.of())) {
                return send(out, small, 0, List.of("x".repeat(3000)));
            }
        });
        Steps.step("producer: a batch is split until the topic takes it", () -> {
            try (var out = producer(Map.of("compression.type", "gzip", "linger.ms", 200, "batch.size", 100_000))) {
                return send(out, create("java-split", 1, Map.of("max.message.bytes", "3000")), 0, IntStream.range(0, 40).mapToObj(n -> n + "-" + Math.abs((n + 1) * 2654435761L) + "y".repeat(180) + n).toList()).size();
            }
        });
        String compacted = create("java-compacted", 1, Map.of("cleanup.policy", "compact"));
        Steps.step("producer: keyless to a compacted topic", () -> {
            try (var out = producer(Map.of())) {
                return out.send(new ProducerRecord<>(compacted, 0, null, "v")).get().offset();
            }
        });
        Steps.step("producer: time far ahead", () -> {
            try (var out = producer(Map.of())) {
                long ahead = System.currentTimeMillis() + 48 * 3_600_000L;
                return out.send(new ProducerRecord<>(compacted, 0, ahead, "k", "v")).get().offset();
            }
        });
        Steps.step("producer: headers, empty and null values", () -> {
            String topic = create("java-parts", 1);
            try (var out = producer(Map.of())) {
                var one = new ProducerRecord<>(topic, 0, "k", "v");
                one.headers().add("h", "1".getBytes(StandardCharsets.UTF_8)).add("h", null);
                out.send(one).get();
                out.send(new ProducerRecord<>(topic, 0, "", "")).get();
                out.send(new ProducerRecord<>(topic, 0, "t", (String) null)).get();
            }
            return read(topic, "read_uncommitted");
        });
        Steps.step("producer: topic made in passing", () -> {
            try (var out = producer(Map.of())) {
                return out.send(new ProducerRecord<>("java-passing", "k", "v")).get().offset();
            }
        });
        Steps.step("producer: bad topic name", () -> {
            try (var out = producer(Map.of())) {
                return out.send(new ProducerRecord<>("not a name!", "k", "v")).get().offset();
            }
        });
        for (String acks : List.of("0", "1")) {
            Steps.step("producer: acks=" + acks, () -> {
                String topic = create("java-acks" + acks, 1);
                try (var out = producer(Map.of("acks", acks, "enable.idempotence", false))) {
                    numbered(100).forEach(v -> out.send(new ProducerRecord<>(topic, 0, v, v)));
                }
                Steps.until("all records", WITHIN, () -> read(topic, "read_uncommitted").size() == 100);
                return 100;
            });
        }
    }

    // --- consumers ----------------------------------------------------------------------------

    /** Members of one group, polled in turn. */
    private static final class Members implements AutoCloseable {
        final String topic;
        final Map<String, Object> settings;
        final List<Consumer<String, String>> list = new ArrayList<>();
        final Set<String> seen = new TreeSet<>();

        Members(String topic, String group, Map<String, Object> settings) {
            this.topic = topic;
            this.settings = new HashMap<>(Map.of("group.id", group, "metadata.max.age.ms", 2000));
            if (!"consumer".equals(settings.get("group.protocol"))) {
                this.settings.putAll(Map.of("session.timeout.ms", 6000, "heartbeat.interval.ms", 500));
            }
            this.settings.putAll(settings);
        }

        Consumer<String, String> join(Map<String, Object> more) {
            Map<String, Object> all = new HashMap<>(settings);
            all.putAll(more);
            var made = consumer(all);
            made.subscribe(List.of(topic));
            list.add(made);
            return made;
        }

        List<Integer> shares() {
            for (var one : list) {
                one.poll(Duration.ofMillis(50)).forEach(r -> seen.add(r.value()));
            }
            return list.stream().map(c -> c.assignment().size()).sorted().toList();
        }

        List<Integer> settle(Integer... expected) throws InterruptedException {
            Steps.until("shares " + List.of(expected), WITHIN, () -> shares().equals(List.of(expected)));
            return List.of(expected);
        }

        void leave(int which) {
            list.remove(which).close();
        }

        @Override
        public void close() {
            list.forEach(Consumer::close);
            list.clear();
        }
    }

    private static void consumers() throws Exception {
        String topic = create("java-grouped", 4);
        try (var out = producer(Map.of())) {
            for (int n = 0; n < 4; n++) {
                final int partition = n;
                send(out, topic, n, IntStream.range(0, 10).mapToObj(i -> partition + "-" + i).toList());
            }
        }
        for (String assignor : List.of("Range", "RoundRobin", "Sticky", "CooperativeSticky")) {
            Map<String, Object> how = Map.of("partition.assignment.strategy", "org.apache.kafka.clients.consumer." + assignor + "Assignor");
            Steps.step("groups: " + assignor, () -> shared(topic, "java-" + assignor, how));
        }
        Steps.step("groups: the protocol of KIP-848", () -> shared(topic, "java-848", Map.of("group.protocol", "consumer")));
        for (String assignor : List.of("uniform", "range")) {
            Steps.step("groups: the protocol of KIP-848, " + assignor, () -> shared(topic, "java-848-" + assignor, Map.of("group.protocol", "consumer", "group.remote.assignor", assignor)));
        }
        Steps.step("groups: static members", () -> {
            try (var members = new Members(topic, "java-static", Map.of())) {
                members.join(Map.of("group.instance.id", "one"));
                var second = members.join(Map.of("group.instance.id", "two"));
                members.settle(2, 2);
                var mine = Set.copyOf(second.assignment());
                members.leave(1);
                var back = members.join(Map.of("group.instance.id", "two"));
                members.settle(2, 2);
                return Set.copyOf(back.assignment()).equals(mine) ? "same share" : "other share";
            }
        });
        Steps.step("groups: an instance id taken over", () -> {
            try (var members = new Members(topic, "java-taken", Map.of()); var others = new Members(topic, "java-taken", Map.of())) {
                var old = members.join(Map.of("group.instance.id", "same"));
                members.settle(4);
                others.join(Map.of("group.instance.id", "same"));
                others.settle(4);
                long deadline = System.nanoTime() + WITHIN.toNanos();
                while (System.nanoTime() < deadline) {
                    String said = Steps.said(() -> old.poll(Duration.ofMillis(100)));
                    if (!said.equals("done")) {
                        return said;
                    }
                    others.shares();
                }
                return "never told";
            }
        });
        Steps.step("groups: commits and their metadata", () -> {
            var place = new TopicPartition(topic, 0);
            try (var one = consumer(Map.of("group.id", "java-commits"))) {
                one.assign(List.of(place));
                one.commitSync(Map.of(place, new OffsetAndMetadata(3, java.util.Optional.empty(), "note")));
                var found = one.committed(Set.of(place)).get(place);
                return List.of(found.offset(), found.metadata());
            }
        });
        Steps.step("groups: commit after leaving the group", () -> {
            try (var members = new Members(topic, "java-late", Map.of("max.poll.interval.ms", 6000))) {
                var one = members.join(Map.of());
                members.settle(4);
                one.poll(Duration.ofMillis(100));
                admin.removeMembersFromConsumerGroup("java-late", new org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions()).all().get();
                return Steps.said(() -> one.commitSync(Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(1))));
            }
        });
        Steps.step("consumer: offsetsForTimes, beginning, end", () -> {
            var place = new TopicPartition(topic, 0);
            try (var one = consumer(Map.of())) {
                long now = System.currentTimeMillis();
                return List.of(
                    one.beginningOffsets(List.of(place)).get(place),
                    one.endOffsets(List.of(place)).get(place),
                    one.offsetsForTimes(Map.of(place, 0L)).get(place).offset(),
                    String.valueOf(one.offsetsForTimes(Map.of(place, now + 3_600_000)).get(place)),
                    one.partitionsFor(topic).size());
            }
        });
        Steps.step("consumer: offset out of range", () -> {
            var place = new TopicPartition(topic, 0);
            try (var one = consumer(Map.of("auto.offset.reset", "none"))) {
                one.assign(List.of(place));
                one.seek(place, 1000);
                for (int n = 0; n < 50; n++) {
                    one.poll(Duration.ofMillis(200));
                }
                return "never told";
            }
        });
        Steps.step("consumer: subscribed by a pattern", () -> {
            try (var one = consumer(Map.of("group.id", "java-pattern", "metadata.max.age.ms", 1000))) {
                one.subscribe(java.util.regex.Pattern.compile("java-pattern-.*"));
                create("java-pattern-a", 1);
                create("java-pattern-b", 2);
                Steps.until("three partitions", WITHIN, () -> {
                    one.poll(Duration.ofMillis(100));
                    return one.assignment().size() == 3;
                });
                return 3;
            }
        });
    }

    private static Object shared(String topic, String group, Map<String, Object> how) throws Exception {
        try (var members = new Members(topic, group, how)) {
            List<Object> said = new ArrayList<>();
            members.join(Map.of());
            said.add(members.settle(4));
            members.join(Map.of());
            said.add(members.settle(2, 2));
            members.leave(0);
            said.add(members.settle(4));
            Steps.until("all records", WITHIN, () -> {
                members.shares();
                return members.seen.size() == 40;
            });
            said.add(members.seen.size());
            return said;
        }
    }

    // --- transactions -------------------------------------------------------------------------

    private static void transactions() throws Exception {
        String topic = create("java-transactions", 1);
        Steps.step("transactions: commit, abort, commit", () -> {
            try (var out = transactional("java-tx", Map.of())) {
                int n = 0;
                for (boolean commit : new boolean[] {true, false, true}) {
                    out.beginTransaction();
                    send(out, topic, 0, List.of("a" + n, "b" + n));
                    n++;
                    if (commit) {
                        out.commitTransaction();
                    } else {
                        out.abortTransaction();
                    }
                }
            }
            return Map.of("committed", read(topic, "read_committed"), "uncommitted", read(topic, "read_uncommitted"));
        });
        Steps.step("transactions: open ones are not seen", () -> {
            String open = create("java-open", 1);
            try (var out = transactional("java-open", Map.of())) {
                out.beginTransaction();
                send(out, open, 0, List.of("a"));
                var before = List.of(end(open, IsolationLevel.READ_COMMITTED), end(open, IsolationLevel.READ_UNCOMMITTED), read(open, "read_committed").size());
                out.commitTransaction();
                return List.of(before, read(open, "read_committed"));
            }
        });
        Steps.step("transactions: empty ones", () -> {
            try (var out = transactional("java-empty", Map.of())) {
                out.beginTransaction();
                out.commitTransaction();
                out.beginTransaction();
                out.abortTransaction();
                return "done";
            }
        });
        Steps.step("transactions: two producers in turn in one partition", () -> {
            String both = create("java-both", 1);
            try (var one = transactional("java-one", Map.of()); var two = transactional("java-two", Map.of())) {
                one.beginTransaction();
                two.beginTransaction();
                send(one, both, 0, List.of("1a"));
                send(two, both, 0, List.of("2a"));
                send(one, both, 0, List.of("1b"));
                two.commitTransaction();
                var held = read(both, "read_committed");
                one.abortTransaction();
                return List.of(held, read(both, "read_committed"));
            }
        });
        Steps.step("transactions: a zombie is fenced", () -> {
            String fenced = create("java-fenced", 1);
            try (var old = transactional("java-zombie", Map.of())) {
                old.beginTransaction();
                send(old, fenced, 0, List.of("old"));
                try (var fresh = transactional("java-zombie", Map.of())) {
                    fresh.beginTransaction();
                    send(fresh, fenced, 0, List.of("new"));
                    fresh.commitTransaction();
                }
                String commit = Steps.said(old::commitTransaction);
                return List.of(commit, Steps.said(old::abortTransaction), read(fenced, "read_committed"));
            }
        });
        Steps.step("transactions: a zombie sends", () -> {
            String fenced = create("java-fenced-2", 1);
            try (var old = transactional("java-zombie-2", Map.of()); var fresh = transactional("java-zombie-2", Map.of())) {
                old.beginTransaction();
                String send = Steps.said(() -> send(old, fenced, 0, List.of("late")));
                return List.of(send, Steps.said(old::commitTransaction), read(fenced, "read_committed"));
            }
        });
        Steps.step("transactions: time-out", () -> {
            String slow = create("java-slow", 1);
            try (var out = transactional("java-slow", Map.of("transaction.timeout.ms", 2000))) {
                out.beginTransaction();
                send(out, slow, 0, List.of("slow"));
                Steps.until("the marker", Duration.ofSeconds(45), () -> {
                    try {
                        return end(slow, IsolationLevel.READ_COMMITTED) == 2;
                    } catch (Exception error) {
                        return false;
                    }
                });
                return List.of(Steps.said(out::commitTransaction), read(slow, "read_committed"));
            }
        });
        Steps.step("transactions: time-out longer than allowed", () -> {
            transactional("java-long", Map.of("transaction.timeout.ms", 1_000_000)).close();
            return "taken";
        });
        Steps.step("transactions: a failed record aborts", () -> {
            String small = create("java-tx-small", 1, Map.of("max.message.bytes", "1000"));
            try (var out = transactional("java-tx-small", Map.of())) {
                out.beginTransaction();
                out.send(new ProducerRecord<>(small, 0, "k", "x".repeat(3000)));
                List<Object> said = new ArrayList<>(List.of(Steps.said(out::commitTransaction)));
                said.add(Steps.said(out::abortTransaction));
                out.beginTransaction();
                send(out, small, 0, List.of("fits"));
                out.commitTransaction();
                said.add(read(small, "read_committed"));
                return said;
            }
        });
        Steps.step("transactions: many partitions, many transactions", () -> {
            String wide = create("java-wide", 8);
            try (var out = transactional("java-wide", Map.of())) {
                for (int round = 0; round < 30; round++) {
                    out.beginTransaction();
                    for (int partition = 0; partition < 8; partition++) {
                        out.send(new ProducerRecord<>(wide, partition, "k", "r" + round));
                    }
                    if (round % 3 == 2) {
                        out.abortTransaction();
                    } else {
                        out.commitTransaction();
                    }
                }
            }
            return read(wide, "read_committed").size();
        });
        exactlyOnce();
    }

    /** Consume, transform, produce: two workers of one group, one of which dies in a transaction. */
    private static void exactlyOnce() throws Exception {
        String source = create("java-source", 2);
        String sink = create("java-sink", 1);
        try (var out = producer(Map.of())) {
            for (int n = 0; n < 2; n++) {
                final int partition = n;
                send(out, source, n, IntStream.range(0, 100).mapToObj(i -> partition + "-" + i).toList());
            }
        }
        Steps.step("exactly once: stopped in a transaction", () -> transform(source, sink, 60));
        Steps.step("exactly once: goes on", () -> transform(source, sink, Integer.MAX_VALUE));
        Steps.step("exactly once: each value once, in order", () -> {
            Map<String, List<Integer>> found = new TreeMap<>();
            for (String line : read(sink, "read_committed")) {
                String[] parts = line.split(" ")[1].split("-");
                found.computeIfAbsent(parts[0], k -> new ArrayList<>()).add(Integer.parseInt(parts[1]));
            }
            var all = IntStream.range(0, 100).boxed().toList();
            return found.equals(new TreeMap<>(Map.of("0", all, "1", all)));
        });
        Steps.step("exactly once: committed offsets", () -> admin.listConsumerGroupOffsets("java-eos").partitionsToOffsetAndMetadata().get().entrySet().stream()
            .map(e -> e.getKey().partition() + " at " + e.getValue().offset()).sorted().toList());
    }

    private static String transform(String source, String sink, int stopAt) throws Exception {
        var settings = Map.<String, Object>of("group.id", "java-eos", "isolation.level", "read_committed", "max.poll.records", 17, "session.timeout.ms", 6000);
        try (var in = consumer(settings); var out = transactional("java-eos", Map.of())) {
            in.subscribe(List.of(source));
            int done = 0;
            long deadline = System.nanoTime() + WITHIN.toNanos();
            while (System.nanoTime() < deadline) {
                var records = in.poll(Duration.ofMillis(500));
                if (records.isEmpty()) {
                    if (stopAt == Integer.MAX_VALUE && read(sink, "read_committed").size() >= 200) {
                        return "all";
                    }
                    continue;
                }
                out.beginTransaction();
                Map<TopicPartition, OffsetAndMetadata> next = new HashMap<>();
                for (ConsumerRecord<String, String> record : records) {
                    out.send(new ProducerRecord<>(sink, 0, record.key(), record.value()));
                    next.put(new TopicPartition(record.topic(), record.partition()), new OffsetAndMetadata(record.offset() + 1));
                }
                out.sendOffsetsToTransaction(next, in.groupMetadata());
                done += records.count();
                if (done >= stopAt) {
                    out.flush();
                    return "stopped";
                }
                out.commitTransaction();
            }
            return "too slow";
        }
    }
}
