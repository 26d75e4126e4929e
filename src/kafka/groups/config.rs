//! What an operator can set about consumer groups, and the limits that cannot be set.

use std::time::Duration;

use serde::Deserialize;

/// Longest group id, in bytes; Kafka names none, but an id is kept for as long as its group.
pub const GROUP_ID_BYTES_MAX: usize = 1024;

/// Longest part of a client id or instance id that becomes the head of a member id, in bytes.
pub const MEMBER_ID_HEAD_BYTES_MAX: usize = 255;

/// Protocols one member may bring; clients bring one to three.
pub const PROTOCOLS_MAX: usize = 16;

/// Longest rebalance time-out; more counts as this. It is the largest a client can put on the wire.
pub const REBALANCE_TIMEOUT_MAX: Duration = Duration::from_millis(i32::MAX as u64);

/// `[kafka.groups]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GroupsConfig {
    /// How long the first rebalance of an empty group waits for more members, in milliseconds;
    /// starts again with each newcomer, up to the members' rebalance time-out. Default 3000.
    /// Kafka: `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: u32,
    /// Shortest session time-out a member may ask for, in milliseconds. Default 6000.
    /// Kafka: `group.min.session.timeout.ms`.
    pub session_timeout_ms_min: u32,
    /// Longest session time-out a member may ask for, in milliseconds. Default 1800000.
    /// Kafka: `group.max.session.timeout.ms`.
    pub session_timeout_ms_max: u32,
    /// Members of one group, and member ids handed out but not yet used. Default 1000.
    /// Kafka: `group.max.size`.
    pub group_size_max: usize,
    /// Groups kept in memory; a group without members makes room for a new one. Default 10000.
    pub groups_max: usize,
    /// Bytes of metadata a member may bring over all its protocols, and of one assignment.
    /// Default 1 MiB.
    pub member_bytes_max: usize,
    /// Bytes of metadata in a committed offset. Default 4096. Kafka: `offset.metadata.max.bytes`.
    pub offset_metadata_bytes_max: usize,
    /// How long committed offsets are kept once their group has no members and commits nothing, in
    /// milliseconds. Counts from the start of the node at the earliest. Default seven days.
    /// Kafka: `offsets.retention.minutes`.
    pub offsets_retention_ms: u64,
}

impl Default for GroupsConfig {
    fn default() -> GroupsConfig {
        GroupsConfig {
            initial_rebalance_delay_ms: 3_000,
            session_timeout_ms_min: 6_000,
            session_timeout_ms_max: 1_800_000,
            group_size_max: 1_000,
            groups_max: 10_000,
            member_bytes_max: 1 << 20,
            offset_metadata_bytes_max: 4_096,
            offsets_retention_ms: 7 * 24 * 3_600_000,
        }
    }
}

impl GroupsConfig {
    pub(super) fn initial_rebalance_delay(&self) -> Duration {
        Duration::from_millis(self.initial_rebalance_delay_ms.into())
    }

    pub(super) fn accepts_session_timeout(&self, timeout: Duration) -> bool {
        let bounds = Duration::from_millis(self.session_timeout_ms_min.into())
            ..=Duration::from_millis(self.session_timeout_ms_max.into());
        bounds.contains(&timeout)
    }
}
