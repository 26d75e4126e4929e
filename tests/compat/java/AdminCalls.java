import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionReplica;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.acl.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.quota.*;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourcePatternFilter;
import org.apache.kafka.common.resource.ResourceType;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Every call of Kafka's Admin client, the ones that a single node can only refuse included. */
public final class AdminCalls {
    /** Time of the first record. */
    private static final long BEGAN = System.currentTimeMillis() - 60_000;
    private static final Duration WITHIN = Duration.ofSeconds(40);
    private static final ConfigResource TOPIC = new ConfigResource(ConfigResource.Type.TOPIC, "adm");
    private static Admin admin;

    public static void main(String[] arguments) throws Exception {
        Steps.client("Java admin client");
        try (Admin opened = Admin.create(Map.of("bootstrap.servers", Steps.BOOTSTRAP, "default.api.timeout.ms", 20_000, "request.timeout.ms", 10_000))) {
            admin = opened;
            topics();
            configs();
            offsets();
            groups();
            cluster();
            transactions();
            security();
        }
    }

    private static void step(String name, java.util.concurrent.Callable<Object> call) {
        Steps.step(name, call);
    }

    /** The outcome of each of several futures, by name. */
    private static <K> Map<String, Object> each(Map<K, ? extends KafkaFuture<?>> futures) {
        Map<String, Object> said = new TreeMap<>();
        futures.forEach((key, future) -> said.put(String.valueOf(key), Steps.said(future::get)));
        return said;
    }

    // --- topics -------------------------------------------------------------------------------

    private static void topics() throws Exception {
        step("createTopics", () -> each(admin.createTopics(List.of(
            new NewTopic("adm", 2, (short) 1),
            new NewTopic("adm-default", Optional.empty(), Optional.empty()),
            new NewTopic("adm-hand", Map.of(0, List.of(1), 1, List.of(1))),
            new NewTopic("not valid!", 1, (short) 1),
            new NewTopic("adm-replicas", 1, (short) 2),
            new NewTopic("adm-none", 0, (short) 1),
            new NewTopic("adm-config", 1, (short) 1).configs(Map.of("retention.ms", "soon")))).values()));
        step("createTopics: again, and what it answers of the topic", () -> {
            var made = admin.createTopics(List.of(new NewTopic("adm-told", 3, (short) 1).configs(Map.of("retention.ms", "9000"))));
            var config = made.config("adm-told").get();
            return List.of(made.numPartitions("adm-told").get(), made.replicationFactor("adm-told").get(), config.get("retention.ms") == null ? "not told" : config.get("retention.ms").value(), !made.topicId("adm-told").get().equals(Uuid.ZERO_UUID));
        });
        step("createTopics: only judged", () -> each(admin.createTopics(List.of(new NewTopic("adm-judged", 1, (short) 1), new NewTopic("adm", 1, (short) 1)), new CreateTopicsOptions().validateOnly(true)).values()));
        step("createTopics: retried when there", () -> each(admin.createTopics(List.of(new NewTopic("adm", 1, (short) 1))).values()));
        Steps.until("topics", WITHIN, () -> Steps.said(() -> admin.describeTopics(List.of("adm", "adm-told", "adm-hand")).allTopicNames().get()).equals("done"));
        step("listTopics", () -> admin.listTopics().names().get().stream().filter(n -> n.startsWith("adm")).sorted().toList());
        step("listTopics: internal ones too", () -> admin.listTopics(new ListTopicsOptions().listInternal(true)).listings().get().stream().filter(TopicListing::isInternal).map(TopicListing::name).sorted().toList());
        step("describeTopics", () -> {
            var found = admin.describeTopics(List.of("adm"), new DescribeTopicsOptions().includeAuthorizedOperations(true)).allTopicNames().get().get("adm");
            var first = found.partitions().get(0);
            return List.of(found.partitions().size(), found.isInternal(), first.leader().id(), first.replicas().size(), first.isr().size(), first.elr() == null ? "null" : first.elr().size(), names(found.authorizedOperations()));
        });
        step("describeTopics: by id", () -> {
            Uuid id = admin.describeTopics(List.of("adm")).allTopicNames().get().get("adm").topicId();
            return admin.describeTopics(TopicCollection.ofTopicIds(List.of(id))).allTopicIds().get().get(id).name();
        });
        step("describeTopics: page by page", () -> admin.describeTopics(List.of("adm", "adm-told"), new DescribeTopicsOptions().partitionSizeLimitPerResponse(1)).allTopicNames().get().get("adm-told").partitions().size());
        step("describeTopics: not there", () -> each(admin.describeTopics(List.of("adm-nowhere")).topicNameValues()));
        step("describeTopics: id not there", () -> Steps.said(() -> admin.describeTopics(TopicCollection.ofTopicIds(List.of(new Uuid(1, 2)))).allTopicIds().get()));
        step("createPartitions", () -> each(admin.createPartitions(Map.of("adm-default", NewPartitions.increaseTo(4), "adm", NewPartitions.increaseTo(1), "adm-nowhere", NewPartitions.increaseTo(2), "adm-hand", NewPartitions.increaseTo(3, List.of(List.of(1))))).values()));
        step("createPartitions: only judged", () -> each(admin.createPartitions(Map.of("adm", NewPartitions.increaseTo(9)), new CreatePartitionsOptions().validateOnly(true)).values()));
        step("deleteTopics", () -> each(admin.deleteTopics(List.of("adm-default", "adm-nowhere")).topicNameValues()));
        step("deleteTopics: by id", () -> {
            Uuid id = admin.describeTopics(List.of("adm-hand")).allTopicNames().get().get("adm-hand").topicId();
            return Steps.said(() -> admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all().get());
        });
        try (var out = producer()) {
            for (int n = 0; n < 10; n++) {
                out.send(new ProducerRecord<>("adm", 0, BEGAN + 1_000L * n, "k" + n, "v" + n)).get();
            }
        }
    }

    private static KafkaProducer<String, String> producer() {
        return new KafkaProducer<>(Map.of("bootstrap.servers", Steps.BOOTSTRAP), new StringSerializer(), new StringSerializer());
    }

    private static List<String> names(Collection<? extends Enum<?>> values) {
        return values == null ? List.of("null") : values.stream().map(Enum::name).sorted().toList();
    }

    // --- configurations -----------------------------------------------------------------------

    private static String alter(ConfigResource resource, AlterConfigOp.OpType kind, String key, String value) {
        return Steps.said(() -> admin.incrementalAlterConfigs(Map.of(resource, List.of(new AlterConfigOp(new ConfigEntry(key, value), kind)))).all().get());
    }

    private static Map<String, String> overrides(ConfigResource resource) throws Exception {
        Map<String, String> found = new TreeMap<>();
        for (var entry : admin.describeConfigs(List.of(resource)).all().get().get(resource).entries()) {
            if (!entry.isDefault() && entry.source() != ConfigEntry.ConfigSource.STATIC_BROKER_CONFIG && !entry.name().startsWith("min.insync")) {
                found.put(entry.name(), entry.value());
            }
        }
        return found;
    }

    private static void configs() {
        step("describeConfigs: names", () -> admin.describeConfigs(List.of(TOPIC)).all().get().get(TOPIC).entries().stream().map(ConfigEntry::name).filter(n -> !n.startsWith("holdfast.")).sorted().toList());
        step("describeConfigs: synonyms and help", () -> {
            var entry = admin.describeConfigs(List.of(TOPIC), new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true)).all().get().get(TOPIC).get("cleanup.policy");
            return List.of(entry.synonyms().stream().map(s -> s.name() + " " + s.source()).toList(), entry.documentation() != null, entry.type().name(), entry.isReadOnly());
        });
        step("describeConfigs: not there", () -> Steps.said(() -> admin.describeConfigs(List.of(new ConfigResource(ConfigResource.Type.TOPIC, "adm-nowhere"))).all().get()));
        step("incrementalAlterConfigs", () -> List.of(
            alter(TOPIC, AlterConfigOp.OpType.SET, "retention.ms", "90000000"), alter(TOPIC, AlterConfigOp.OpType.APPEND, "cleanup.policy", "compact"),
            alter(TOPIC, AlterConfigOp.OpType.SUBTRACT, "cleanup.policy", "delete"), alter(TOPIC, AlterConfigOp.OpType.DELETE, "retention.ms", null),
            alter(TOPIC, AlterConfigOp.OpType.SET, "no.such.thing", "1"), alter(TOPIC, AlterConfigOp.OpType.SET, "segment.ms", "x"), overrides(TOPIC)));
        step("incrementalAlterConfigs: back", () -> List.of(alter(TOPIC, AlterConfigOp.OpType.DELETE, "cleanup.policy", null), overrides(TOPIC)));
        for (var kind : List.of(ConfigResource.Type.BROKER, ConfigResource.Type.GROUP, ConfigResource.Type.BROKER_LOGGER, ConfigResource.Type.CLIENT_METRICS)) {
            String name = kind == ConfigResource.Type.BROKER || kind == ConfigResource.Type.BROKER_LOGGER ? "1" : "adm-" + kind.name().toLowerCase();
            step("describeConfigs: " + kind, () -> Steps.said(() -> admin.describeConfigs(List.of(new ConfigResource(kind, name))).all().get()));
        }
        step("incrementalAlterConfigs: a group", () -> alter(new ConfigResource(ConfigResource.Type.GROUP, "adm-configured"), AlterConfigOp.OpType.SET, "consumer.session.timeout.ms", "50000"));
        step("incrementalAlterConfigs: a broker", () -> alter(new ConfigResource(ConfigResource.Type.BROKER, "1"), AlterConfigOp.OpType.SET, "log.cleaner.threads", "1"));
        step("listConfigResources", () -> admin.listConfigResources(Set.of(ConfigResource.Type.TOPIC), new ListConfigResourcesOptions()).all().get().stream().map(ConfigResource::name).filter(n -> n.startsWith("adm")).sorted().toList());
    }

    // --- offsets and records ------------------------------------------------------------------

    private static void offsets() throws Exception {
        var place = new TopicPartition("adm", 0);
        var empty = new TopicPartition("adm", 1);
        Map<String, OffsetSpec> specs = new TreeMap<>(Map.of("earliest", OffsetSpec.earliest(), "latest", OffsetSpec.latest(), "maxTimestamp", OffsetSpec.maxTimestamp(), "earliestLocal", OffsetSpec.earliestLocal(), "latestTiered", OffsetSpec.latestTiered(), "earliestPendingUpload", OffsetSpec.earliestPendingUpload(), "timestamp", OffsetSpec.forTimestamp(BEGAN + 4_500), "timestamp after all", OffsetSpec.forTimestamp(System.currentTimeMillis() + 1_000_000)));
        specs.forEach((name, spec) -> {
            for (var level : IsolationLevel.values()) {
                step("listOffsets: " + name + ", " + level, () -> {
                    var found = admin.listOffsets(Map.of(place, spec, empty, spec), new ListOffsetsOptions(level)).all().get();
                    return List.of(found.get(place).offset(), found.get(empty).offset(), found.get(place).leaderEpoch().isPresent());
                });
            }
        });
        step("listOffsets: not there", () -> Steps.said(() -> admin.listOffsets(Map.of(new TopicPartition("adm-nowhere", 0), OffsetSpec.latest()), new ListOffsetsOptions().timeoutMs(4000)).all().get()));
        step("deleteRecords", () -> admin.deleteRecords(Map.of(place, RecordsToDelete.beforeOffset(3))).lowWatermarks().get(place).get().lowWatermark());
        step("deleteRecords: beyond the end", () -> Steps.said(() -> admin.deleteRecords(Map.of(place, RecordsToDelete.beforeOffset(99))).all().get()));
        step("deleteRecords: all", () -> admin.deleteRecords(Map.of(place, RecordsToDelete.beforeOffset(-1))).lowWatermarks().get(place).get().lowWatermark());
    }

    // --- groups -------------------------------------------------------------------------------

    private static KafkaConsumer<String, String> member(String group, Map<String, Object> more) {
        Map<String, Object> settings = new HashMap<>(Map.of("bootstrap.servers", Steps.BOOTSTRAP, "group.id", group, "client.id", "member", "enable.auto.commit", false, "auto.offset.reset", "earliest"));
        settings.putAll(more);
        var made = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer());
        made.subscribe(List.of("adm"));
        return made;
    }

    @SuppressWarnings("removal")
    private static void groups() throws Exception {
        var place = new TopicPartition("adm", 0);
        var other = new TopicPartition("adm-told", 0);
        try (var one = member("adm-group", Map.of("group.instance.id", "inst"))) {
            Steps.until("an assignment", WITHIN, () -> {
                one.poll(Duration.ofMillis(100));
                return one.assignment().size() == 2;
            });
            one.commitSync(Map.of(place, new OffsetAndMetadata(5, "note")));
            step("listGroups", () -> admin.listGroups().all().get().stream().filter(g -> g.groupId().startsWith("adm")).map(g -> g.groupId() + " " + g.type().map(Enum::name).orElse("?") + " " + g.groupState().map(Enum::name).orElse("?") + " " + g.protocol()).sorted().toList());
            step("listGroups: by type and state", () -> List.of(
                admin.listGroups(new ListGroupsOptions().withTypes(Set.of(GroupType.CLASSIC))).all().get().stream().filter(g -> g.groupId().startsWith("adm")).count(),
                admin.listGroups(new ListGroupsOptions().inGroupStates(Set.of(GroupState.EMPTY))).all().get().stream().filter(g -> g.groupId().startsWith("adm")).count()));
            step("listConsumerGroups", () -> admin.listConsumerGroups().all().get().stream().filter(g -> g.groupId().startsWith("adm")).map(ConsumerGroupListing::groupId).toList());
            step("describeConsumerGroups", () -> {
                var found = admin.describeConsumerGroups(List.of("adm-group"), new DescribeConsumerGroupsOptions().includeAuthorizedOperations(true)).all().get().get("adm-group");
                var only = found.members().iterator().next();
                return List.of(found.groupState().name(), found.type().name(), found.partitionAssignor(), found.isSimpleConsumerGroup(), only.clientId(), only.groupInstanceId().orElse(""), only.assignment().topicPartitions().size(), found.coordinator().id(), names(found.authorizedOperations()));
            });
            step("describeConsumerGroups: not there", () -> each(admin.describeConsumerGroups(List.of("adm-nobody")).describedGroups()));
            step("describeClassicGroups", () -> {
                var found = admin.describeClassicGroups(List.of("adm-group")).all().get().get("adm-group");
                return List.of(found.state().name(), found.protocol(), found.protocolData(), found.members().size(), found.isSimpleConsumerGroup());
            });
            step("describeClassicGroups: not there", () -> each(admin.describeClassicGroups(List.of("adm-nobody")).describedGroups()));
            step("listConsumerGroupOffsets", () -> shown(admin.listConsumerGroupOffsets("adm-group").partitionsToOffsetAndMetadata().get()));
            step("listConsumerGroupOffsets: stable, chosen", () -> shown(admin.listConsumerGroupOffsets(Map.of("adm-group", new ListConsumerGroupOffsetsSpec().topicPartitions(List.of(place, other))), new ListConsumerGroupOffsetsOptions().requireStable(true)).partitionsToOffsetAndMetadata("adm-group").get()));
            step("alterConsumerGroupOffsets: with members", () -> Steps.said(() -> admin.alterConsumerGroupOffsets("adm-group", Map.of(place, new OffsetAndMetadata(1))).all().get()));
            step("deleteConsumerGroupOffsets: subscribed", () -> Steps.said(() -> admin.deleteConsumerGroupOffsets("adm-group", Set.of(place)).all().get()));
            step("deleteConsumerGroups: with members", () -> each(admin.deleteConsumerGroups(List.of("adm-group")).deletedGroups()));
            step("removeMembersFromConsumerGroup: of nobody", () -> Steps.said(() -> admin.removeMembersFromConsumerGroup("adm-group", new RemoveMembersFromConsumerGroupOptions(List.of(new MemberToRemove("nobody")))).all().get()));
            step("removeMembersFromConsumerGroup", () -> Steps.said(() -> admin.removeMembersFromConsumerGroup("adm-group", new RemoveMembersFromConsumerGroupOptions(List.of(new MemberToRemove("inst")))).all().get()));
        }
        Steps.until("an empty group", WITHIN, () -> {
            try {
                return admin.describeConsumerGroups(List.of("adm-group")).all().get().get("adm-group").members().isEmpty();
            } catch (Exception error) {
                return false;
            }
        });
        step("alterConsumerGroupOffsets", () -> Steps.said(() -> admin.alterConsumerGroupOffsets("adm-group", Map.of(place, new OffsetAndMetadata(7), other, new OffsetAndMetadata(1, Optional.of(0), "m"))).all().get()));
        step("alterConsumerGroupOffsets: a new group", () -> Steps.said(() -> admin.alterConsumerGroupOffsets("adm-new", Map.of(place, new OffsetAndMetadata(2))).all().get()));
        step("alterConsumerGroupOffsets: topic not there", () -> Steps.said(() -> admin.alterConsumerGroupOffsets("adm-group", Map.of(new TopicPartition("adm-nowhere", 0), new OffsetAndMetadata(2))).all().get()));
        step("deleteConsumerGroupOffsets", () -> Steps.said(() -> admin.deleteConsumerGroupOffsets("adm-group", Set.of(other)).all().get()));
        step("offsets then", () -> shown(admin.listConsumerGroupOffsets("adm-group").partitionsToOffsetAndMetadata().get()));
        step("deleteConsumerGroups", () -> each(admin.deleteConsumerGroups(List.of("adm-group", "adm-nobody")).deletedGroups()));
        step("describeShareGroups: not there", () -> each(admin.describeShareGroups(List.of("adm-nobody")).describedGroups()));
        step("describeStreamsGroups: not there", () -> each(admin.describeStreamsGroups(List.of("adm-nobody")).describedGroups()));
        step("listShareGroupOffsets: not there", () -> Steps.said(() -> admin.listShareGroupOffsets(Map.of("adm-nobody", new ListShareGroupOffsetsSpec())).all().get()));
    }

    private static List<String> shown(Map<TopicPartition, OffsetAndMetadata> found) {
        return found.entrySet().stream().map(e -> e.getKey() + " " + (e.getValue() == null ? "none" : e.getValue().offset() + " " + e.getValue().metadata())).sorted().toList();
    }

    // --- cluster ------------------------------------------------------------------------------

    private static void cluster() {
        var place = new TopicPartition("adm", 0);
        step("describeCluster", () -> {
            var found = admin.describeCluster(new DescribeClusterOptions().includeAuthorizedOperations(true));
            return List.of(found.nodes().get().size(), found.controller().get().id(), !found.clusterId().get().isEmpty(), names(found.authorizedOperations().get()));
        });
        step("describeCluster: fenced brokers", () -> admin.describeCluster(new DescribeClusterOptions().includeFencedBrokers(true)).nodes().get().size());
        step("electLeaders", () -> {
            Map<String, String> said = new TreeMap<>();
            admin.electLeaders(ElectionType.PREFERRED, Set.of(place, new TopicPartition("adm-nowhere", 0))).partitions().get().forEach((p, e) -> said.put(p.toString(), e.map(Steps::name).orElse("elected")));
            return said;
        });
        step("electLeaders: all", () -> Steps.said(() -> admin.electLeaders(ElectionType.PREFERRED, null).all().get()));
        step("electLeaders: unclean", () -> Steps.said(() -> admin.electLeaders(ElectionType.UNCLEAN, Set.of(place)).all().get()));
        step("describeLogDirs", () -> {
            var found = admin.describeLogDirs(List.of(1)).allDescriptions().get().get(1).values().iterator().next();
            return List.of(Steps.said(() -> { if (found.error() != null) throw found.error(); }), found.replicaInfos().keySet().stream().filter(p -> p.topic().equals("adm")).count(), found.totalBytes().isPresent(), found.usableBytes().isPresent());
        });
        step("describeLogDirs: broker not there", () -> Steps.said(() -> admin.describeLogDirs(List.of(9), new DescribeLogDirsOptions().timeoutMs(4000)).allDescriptions().get()));
        step("describeReplicaLogDirs", () -> {
            var replica = new TopicPartitionReplica("adm", 0, 1);
            var found = admin.describeReplicaLogDirs(List.of(replica)).all().get().get(replica);
            return List.of(found.getCurrentReplicaLogDir() != null, found.getCurrentReplicaOffsetLag(), found.getFutureReplicaLogDir() == null);
        });
        step("alterReplicaLogDirs", () -> Steps.said(() -> admin.alterReplicaLogDirs(Map.of(new TopicPartitionReplica("adm", 0, 1), "/nowhere")).all().get()));
        step("describeFeatures", () -> {
            var found = admin.describeFeatures().featureMetadata().get();
            Map<String, Object> said = new TreeMap<>();
            for (String name : List.of("transaction.version", "group.version", "share.version")) {
                var level = found.finalizedFeatures().get(name);
                said.put(name, level == null ? "none" : level.maxVersionLevel());
            }
            return said;
        });
        step("updateFeatures: unknown", () -> Steps.said(() -> admin.updateFeatures(Map.of("no.such.feature", new FeatureUpdate((short) 1, FeatureUpdate.UpgradeType.UPGRADE)), new UpdateFeaturesOptions()).all().get()));
        step("updateFeatures: only judged", () -> Steps.said(() -> admin.updateFeatures(Map.of("transaction.version", new FeatureUpdate((short) 2, FeatureUpdate.UpgradeType.UPGRADE)), new UpdateFeaturesOptions().validateOnly(true)).all().get()));
        step("describeMetadataQuorum", () -> {
            var found = admin.describeMetadataQuorum().quorumInfo().get();
            return List.of(found.leaderId(), found.voters().size(), found.observers().size());
        });
        step("listPartitionReassignments", () -> admin.listPartitionReassignments().reassignments().get().size());
        step("alterPartitionReassignments", () -> Steps.said(() -> admin.alterPartitionReassignments(Map.of(place, Optional.of(new NewPartitionReassignment(List.of(1))))).all().get()));
        step("alterPartitionReassignments: to a broker not there", () -> Steps.said(() -> admin.alterPartitionReassignments(Map.of(place, Optional.of(new NewPartitionReassignment(List.of(2))))).all().get()));
        step("alterPartitionReassignments: cancelled", () -> Steps.said(() -> admin.alterPartitionReassignments(Map.of(place, Optional.<NewPartitionReassignment>empty())).all().get()));
        step("unregisterBroker: not there", () -> Steps.said(() -> admin.unregisterBroker(9).all().get()));
        step("createDelegationToken", () -> Steps.said(() -> admin.createDelegationToken().delegationToken().get()));
        step("describeDelegationToken", () -> Steps.said(() -> admin.describeDelegationToken().delegationTokens().get()));
        step("clientInstanceId", () -> Steps.said(() -> admin.clientInstanceId(Duration.ofSeconds(4))));
    }

    // --- transactions -------------------------------------------------------------------------

    private static void transactions() throws Exception {
        var place = new TopicPartition("adm", 1);
        Map<String, Object> settings = new HashMap<>(Map.of("bootstrap.servers", Steps.BOOTSTRAP, "transactional.id", "adm-tx", "max.block.ms", 15_000));
        try (var out = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            step("transaction begun", () -> Steps.said(() -> {
                out.initTransactions();
                out.beginTransaction();
                out.send(new ProducerRecord<>("adm", 1, "k", "v")).get();
            }));
            step("describeProducers", () -> {
                var found = admin.describeProducers(List.of(place)).all().get().get(place).activeProducers();
                var one = found.get(0);
                return List.of(found.size(), one.lastSequence(), one.currentTransactionStartOffset().orElse(-1));
            });
            step("describeTransactions", () -> {
                var found = admin.describeTransactions(List.of("adm-tx")).all().get().get("adm-tx");
                return List.of(found.state().name(), found.topicPartitions().toString(), found.coordinatorId(), found.transactionTimeoutMs());
            });
            step("describeTransactions: of nobody", () -> Steps.said(() -> admin.describeTransactions(List.of("adm-nobody")).all().get()));
            step("listTransactions", () -> admin.listTransactions().all().get().stream().filter(t -> t.transactionalId().startsWith("adm")).map(t -> t.transactionalId() + " " + t.state()).toList());
            step("listTransactions: by state and pattern", () -> List.of(
                admin.listTransactions(new ListTransactionsOptions().filterStates(Set.of(TransactionState.ONGOING))).all().get().stream().filter(t -> t.transactionalId().startsWith("adm")).count(),
                admin.listTransactions(new ListTransactionsOptions().filterOnTransactionalIdPattern("adm-.*")).all().get().size()));
            step("abortTransaction", () -> {
                var one = admin.describeProducers(List.of(place)).all().get().get(place).activeProducers().get(0);
                String said = Steps.said(() -> admin.abortTransaction(new AbortTransactionSpec(place, one.producerId(), (short) one.producerEpoch(), one.coordinatorEpoch().orElse(0))).all().get());
                return List.of(said, admin.listOffsets(Map.of(place, OffsetSpec.latest()), new ListOffsetsOptions(IsolationLevel.READ_COMMITTED)).all().get().get(place).offset());
            });
            step("fenceProducers", () -> {
                String said = Steps.said(() -> admin.fenceProducers(List.of("adm-tx")).all().get());
                return List.of(said, Steps.said(() -> {
                    out.send(new ProducerRecord<>("adm", 1, "k", "late"));
                    out.commitTransaction();
                }));
            });
            step("forceTerminateTransaction: of nobody", () -> Steps.said(() -> admin.forceTerminateTransaction("adm-nobody").result().get()));
        }
    }

    // --- ACLs, quotas, SCRAM ------------------------------------------------------------------

    private static void security() throws Exception {
        var pattern = new ResourcePattern(ResourceType.TOPIC, "adm", PatternType.LITERAL);
        var entry = new AccessControlEntry("User:adm", "*", AclOperation.READ, AclPermissionType.ALLOW);
        var filter = new AclBindingFilter(new ResourcePatternFilter(ResourceType.TOPIC, "adm", PatternType.LITERAL), AccessControlEntryFilter.ANY);
        step("createAcls", () -> Steps.said(() -> admin.createAcls(List.of(new AclBinding(pattern, entry), new AclBinding(new ResourcePattern(ResourceType.GROUP, "adm", PatternType.PREFIXED), entry))).all().get()));
        step("describeAcls", () -> {
            Steps.until("the ACL", WITHIN, () -> Steps.said(() -> { if (admin.describeAcls(filter).values().get().isEmpty()) throw new IllegalStateException(); }).equals("done"));
            return admin.describeAcls(filter).values().get().stream().map(AclBinding::toString).sorted().toList();
        });
        step("deleteAcls", () -> {
            List<String> gone = new ArrayList<>();
            for (var one : admin.deleteAcls(List.of(filter)).values().get(filter).get().values()) {
                gone.add(one.binding().toString());
            }
            return gone;
        });
        var user = new ClientQuotaEntity(Map.of(ClientQuotaEntity.USER, "adm"));
        step("alterClientQuotas", () -> Steps.said(() -> admin.alterClientQuotas(List.of(new ClientQuotaAlteration(user, List.of(new ClientQuotaAlteration.Op("producer_byte_rate", 1e6))))).all().get()));
        step("describeClientQuotas", () -> {
            Steps.until("the quota", WITHIN, () -> Steps.said(() -> { if (admin.describeClientQuotas(ClientQuotaFilter.all()).entities().get().isEmpty()) throw new IllegalStateException(); }).equals("done"));
            return String.valueOf(admin.describeClientQuotas(ClientQuotaFilter.contains(List.of(ClientQuotaFilterComponent.ofEntity(ClientQuotaEntity.USER, "adm")))).entities().get());
        });
        step("alterClientQuotas: removed", () -> Steps.said(() -> admin.alterClientQuotas(List.of(new ClientQuotaAlteration(user, List.of(new ClientQuotaAlteration.Op("producer_byte_rate", null))))).all().get()));
        var info = new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 8192);
        step("alterUserScramCredentials", () -> Steps.said(() -> admin.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion("adm", info, "password"))).all().get()));
        step("describeUserScramCredentials", () -> String.valueOf(admin.describeUserScramCredentials(List.of("adm")).description("adm").get().credentialInfos()));
        step("describeUserScramCredentials: of nobody", () -> Steps.said(() -> admin.describeUserScramCredentials(List.of("adm-nobody")).description("adm-nobody").get()));
        step("alterUserScramCredentials: deleted", () -> Steps.said(() -> admin.alterUserScramCredentials(List.of(new UserScramCredentialDeletion("adm", ScramMechanism.SCRAM_SHA_256))).all().get()));
    }
}
