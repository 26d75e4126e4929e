//! What fields are filled with: it follows from their name and their message's, so that many requests are
//! taken seriously.

use crate::batches;
use crate::compose::Composer;
use crate::names::{GROUPS, TOPICS, TRANSACTIONAL_IDS, USERS};

impl Composer<'_> {
    pub(crate) fn number(&mut self, owner: &'static str, field: &'static str) -> i64 {
        let (id, epoch) = self.producer;
        let generation = i64::from(self.member.1);
        let dice = &mut *self.dice;
        match field {
            "partition" | "partition_index" | "partitions" | "partition_indexes" | "index" => {
                dice.mostly(&[0, 0, 0, 0, 0, 1, 1, 2, 3, 4, 99, -1])
            }
            "max_wait_ms" => match dice.once_in(100) {
                true => 30_000,
                false => dice.pick(&[0, 0, 0, 1, 5, -1]),
            },
            "min_bytes" => dice.mostly(&[0, 0, 1, 1, 1 << 20]),
            "max_bytes" | "partition_max_bytes" => {
                dice.mostly(&[1 << 20, 1 << 20, 64 << 10, 1, 0, 16 << 20])
            }
            "acks" => dice.mostly(&[-1, -1, -1, 1, 1, 0]),
            "timeout_ms" => dice.mostly(&[0, 1, 1000, 30_000]),
            "session_timeout_ms" => dice.mostly(&[6000, 6000, 10_000, 45_000]),
            "rebalance_timeout_ms" => dice.mostly(&[0, 1, 5, 20, 1000]),
            "generation_id" | "generation_id_or_member_epoch" | "member_epoch" => dice.mostly(&[
                generation,
                generation,
                generation,
                generation.wrapping_add(1),
                -1,
                0,
                1,
            ]),
            "producer_id" | "v3_and_below_producer_id" | "producer_id_filters" => {
                dice.mostly(&[id, id, id, id, -1, id.wrapping_add(1)])
            }
            "producer_epoch" | "v3_and_below_producer_epoch" => {
                let epoch = i64::from(epoch);
                dice.mostly(&[epoch, epoch, epoch, epoch, epoch + 1, epoch - 1, -1])
            }
            "transaction_timeout_ms" => dice.mostly(&[1000, 60_000, 60_000, 900_000, 900_001]),
            "replica_id" => dice.mostly(&[-1, -1, -1, -1, -2, 1]),
            "session_id" => match dice.below(3) {
                0 => i64::from(self.names.session(dice)),
                _ => 0,
            },
            "session_epoch" => dice.mostly(&[-1, 0, 0, 1, 2, 3]),
            "num_partitions" => dice.mostly(&[-1, 1, 1, 1, 2, 3, 4]),
            "count" => dice.mostly(&[1, 2, 3, 4, 5, 8]),
            "replication_factor" => dice.mostly(&[-1, 1, 1]),
            "resource_type" | "resource_type_filter" | "resource_types" => {
                dice.mostly(&[2, 2, 2, 4, 4, 1, 3, 5, 6, 7, 8, 16, 32])
            }
            "pattern_type_filter" | "resource_pattern_type" => dice.mostly(&[3, 3, 4, 4, 1, 2]),
            "operation" => dice.mostly(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
            "permission_type" => dice.mostly(&[1, 2, 3, 3, 3]),
            "config_operation" => dice.mostly(&[0, 0, 1, 2, 3]),
            "offset" | "fetch_offset" | "committed_offset" | "log_start_offset"
            | "high_watermark" => dice.mostly(&[0, 0, 0, 1, 2, 10, 100, 1000, 10_000, -1, -2]),
            "timestamp" => dice.mostly(&[
                -1,
                -2,
                -3,
                -4,
                -5,
                -6,
                0,
                1,
                batches::BASE_TIMESTAMP_MS,
                batches::BASE_TIMESTAMP_MS + 1,
            ]),
            "leader_epoch"
            | "current_leader_epoch"
            | "last_fetched_epoch"
            | "committed_leader_epoch" => dice.mostly(&[-1, -1, 0, 1, 1, 2]),
            "isolation_level" => dice.mostly(&[0, 1]),
            "key_type" => dice.mostly(&[0, 0, 1, 1, 2]),
            "mechanism" => dice.mostly(&[1, 2, 1, 2, 0]),
            "iterations" => dice.mostly(&[4096, 8192, 16_384, 4095, 0, 1]),
            "broker_ids" | "replicas" => dice.mostly(&[1, 1, 1, 0, 2]),
            "match_type" => dice.mostly(&[0, 0, 1, 2, 2, 3]),
            "endpoint_type" => dice.mostly(&[1, 1, 2]),
            "election_type" => dice.mostly(&[0, 1]),
            "response_partition_limit" => dice.mostly(&[2000, 2000, 1, 3, 0, -1]),
            "duration_filter" => dice.mostly(&[-1, -1, 0, 1000]),
            "upgrade_type" => dice.mostly(&[1, 2, 3]),
            _ if owner.ends_with("Response") => dice.extreme(),
            _ => dice.mostly(&[0, 1, 1, 2, -1]),
        }
    }

    pub(crate) fn text(&mut self, owner: &'static str, field: &'static str) -> Vec<u8> {
        if self.dice.once_in(24) {
            return self.odd_text();
        }
        let dice = &mut *self.dice;
        let text: &str = match (owner, field) {
            ("CreatableTopicConfig" | "AlterableConfig" | "IncrementalAlterableConfig", "name")
            | (_, "configuration_keys") => dice.pick(CONFIG_KEYS),
            (_, "value") => dice.pick(CONFIG_VALUES),
            (_, "resource_name" | "resource_name_filter") => match dice.below(6) {
                0 => dice.pick(GROUPS),
                1 => dice.pick(&["1", "", "kafka-cluster", "*", "re", "g"]),
                2 => dice.pick(TRANSACTIONAL_IDS),
                _ => dice.pick(TOPICS),
            },
            (_, "group_id" | "groups" | "groups_names" | "key" | "coordinator_keys")
                if owner != "QuotaOpData" =>
            {
                dice.pick(GROUPS)
            }
            (_, "transactional_id" | "v3_and_below_transactional_id" | "transactional_ids") => {
                dice.pick(TRANSACTIONAL_IDS)
            }
            (_, "transactional_id_pattern") => dice.pick(&[
                "t.*",
                "",
                "t[1-3]",
                "(",
                "(a*)*b",
                "((((((((a{99}){99}){99}",
                "a{2147483647}",
                "\\",
                ".",
            ]),
            (_, "member_id") => {
                let member = &self.member.0;
                match dice.below(8) {
                    0 => "nobody",
                    1 | 2 => "",
                    _ => member,
                }
            }
            (_, "group_instance_id") => dice.pick(&["i1", "i2", "i3"]),
            (_, "protocol_type") => dice.pick(&["consumer", "consumer", "consumer", "connect", ""]),
            ("JoinGroupRequestProtocol", "name") | (_, "protocol_name") => {
                dice.pick(&["range", "range", "range", "roundrobin"])
            }
            (_, "principal" | "principal_filter") => dice.pick(&[
                "User:alice",
                "User:bob",
                "User:*",
                "User:",
                "alice",
                "User:ANONYMOUS",
                "Group:x",
            ]),
            (_, "host" | "host_filter") => dice.pick(&["*", "*", "127.0.0.1", "10.0.0.1", "::1"]),
            (_, "mechanism") => dice.pick(&["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI"]),
            (_, "entity_type") => dice.pick(&["user", "client-id", "ip", "broker"]),
            (_, "entity_name" | "_match") => dice.pick(&["alice", "c1", "10.0.0.1", "::1", "bob"]),
            ("QuotaOpData", _) => dice.pick(&[
                "producer_byte_rate",
                "consumer_byte_rate",
                "request_percentage",
                "controller_mutation_rate",
                "connection_creation_rate",
                "x",
            ]),
            ("UserName" | "ScramCredentialDeletion" | "ScramCredentialUpsertion", _) => {
                dice.pick(USERS)
            }
            (_, "state_filters" | "states_filter") => {
                dice.pick(&["Ongoing", "Empty", "Stable", "CompleteCommit", "x"])
            }
            (_, "types_filter") => dice.pick(&["classic", "consumer", "x"]),
            (_, "feature") => {
                dice.pick(&["metadata.version", "kraft.version", "group.version", "x"])
            }
            (_, "path") => dice.pick(&["/tmp/x", "", "/"]),
            (_, "client_software_name" | "client_software_version") => {
                dice.pick(&["a-client", "1.0", "-"])
            }
            (_, "committed_metadata" | "reason" | "rack_id" | "cluster_id") => {
                dice.pick(&["", "m", "some words"])
            }
            _ => dice.pick(TOPICS),
        };
        text.as_bytes().to_vec()
    }

    /// What is no name, or just about.
    fn odd_text(&mut self) -> Vec<u8> {
        match self.dice.below(14) {
            0 => Vec::new(),
            1 => b"__consumer_offsets".to_vec(),
            2 => b"..".to_vec(),
            3 => b"a/../b\0c".to_vec(),
            4 => vec![b'a'; self.dice.pick(&[249, 250, 255, 256])],
            5 => vec![b'b'; self.dice.pick(&[1024, 4096, 32_766, 32_767])],
            6 => "\u{1f40b}"
                .repeat(self.dice.pick(&[1, 64, 8191]))
                .into_bytes(),
            7 => b"\xff\xfe\xfd".to_vec(),
            8 => "\u{202e}\u{feff}\u{0}\u{7f}".as_bytes().to_vec(),
            9 => b"__cluster_metadata".to_vec(),
            10 => b"2147483648".to_vec(),
            11 => b"-1".to_vec(),
            12 => b"nobody-made-this".to_vec(),
            _ => b"*".to_vec(),
        }
    }

    pub(crate) fn blob(&mut self, owner: &'static str, field: &'static str) -> Vec<u8> {
        let dice = &mut *self.dice;
        match (owner, field) {
            ("PartitionProduceData", "records") => {
                batches::records(dice, self.producer, self.budget)
            }
            (_, "salt" | "salted_password") => vec![7; dice.pick(&[32, 64, 32, 64, 0, 16, 1000])],
            (_, "auth_bytes") => b"\0alice\0secret".to_vec(),
            _ => vec![1; dice.pick(&[0, 1, 8, 24, 100, 4096, 70_000])],
        }
    }
}

const CONFIG_KEYS: &[&str] = &[
    "cleanup.policy",
    "compression.type",
    "delete.retention.ms",
    "max.message.bytes",
    "message.timestamp.type",
    "message.timestamp.before.max.ms",
    "message.timestamp.after.max.ms",
    "min.cleanable.dirty.ratio",
    "retention.ms",
    "retention.bytes",
    "segment.bytes",
    "segment.ms",
    "min.insync.replicas",
    "holdfast.durability",
    "flush.ms",
    "min.compaction.lag.ms",
    "follower.replication.throttled.replicas",
    "log.retention.ms",
    "unknown.key",
];

const CONFIG_VALUES: &[&str] = &[
    "delete",
    "compact",
    "compact,delete",
    "",
    "0",
    "1",
    "-1",
    "100000",
    "1048588",
    "9223372036854775807",
    "9223372036854775808",
    "producer",
    "gzip",
    "LogAppendTime",
    "CreateTime",
    "0.5",
    "NaN",
    "os",
    "fsync",
    "true",
    "*",
];
