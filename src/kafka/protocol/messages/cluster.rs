//! The cluster as administrators see it: its brokers, its disks, who leads what.

use crate::kafka::protocol::wire::Str;

messages! {
    DescribeClusterRequest {
        include_cluster_authorized_operations: bool => 0..;
        /// 1 brokers, 2 controllers (KIP-919).
        endpoint_type: i8 => 1.., default 1;
        include_fenced_brokers: bool => 2..;
    }

    DescribeClusterResponse {
        throttle_time_ms: i32 => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0.., default None;
        endpoint_type: i8 => 1.., default 1;
        cluster_id: Str => 0..;
        controller_id: i32 => 0.., default -1;
        brokers: Vec<DescribeClusterBroker> => 0..;
        cluster_authorized_operations: i32 => 0.., default i32::MIN;
    }

    DescribeClusterBroker {
        broker_id: i32 => 0..;
        host: Str => 0..;
        port: i32 => 0..;
        rack: Option<Str> => 0.., default None;
        is_fenced: bool => 2..;
    }

    DescribeLogDirsRequest {
        /// `None`: every topic.
        topics: Option<Vec<DescribableLogDirTopic>> => 1.., default Some(Vec::new());
    }

    DescribableLogDirTopic {
        topic: Str => 1..;
        partitions: Vec<i32> => 1..;
    }

    DescribeLogDirsResponse {
        throttle_time_ms: i32 => 1..;
        error_code: i16 => 3..;
        results: Vec<DescribeLogDirsResult> => 1..;
    }

    DescribeLogDirsResult {
        error_code: i16 => 1..;
        log_dir: Str => 1..;
        topics: Vec<DescribeLogDirsTopic> => 1..;
        total_bytes: i64 => 4.., default -1;
        usable_bytes: i64 => 4.., default -1;
        /// The disk takes no new partitions (KIP-1066).
        is_cordoned: bool => 5..;
    }

    DescribeLogDirsTopic {
        name: Str => 1..;
        partitions: Vec<DescribeLogDirsPartition> => 1..;
    }

    DescribeLogDirsPartition {
        partition_index: i32 => 1..;
        partition_size: i64 => 1..;
        offset_lag: i64 => 1..;
        is_future_key: bool => 1..;
    }

    AlterReplicaLogDirsRequest {
        dirs: Vec<AlterReplicaLogDir> => 1..;
    }

    AlterReplicaLogDir {
        path: Str => 1..;
        topics: Vec<AlterReplicaLogDirTopic> => 1..;
    }

    AlterReplicaLogDirTopic {
        name: Str => 1..;
        partitions: Vec<i32> => 1..;
    }

    AlterReplicaLogDirsResponse {
        throttle_time_ms: i32 => 1..;
        results: Vec<AlterReplicaLogDirTopicResult> => 1..;
    }

    AlterReplicaLogDirTopicResult {
        topic_name: Str => 1..;
        partitions: Vec<AlterReplicaLogDirPartitionResult> => 1..;
    }

    AlterReplicaLogDirPartitionResult {
        partition_index: i32 => 1..;
        error_code: i16 => 1..;
    }

    AlterPartitionReassignmentsRequest {
        timeout_ms: i32 => 0.., default 60_000;
        allow_replication_factor_change: bool => 1.., default true;
        topics: Vec<ReassignableTopic> => 0..;
    }

    ReassignableTopic {
        name: Str => 0..;
        partitions: Vec<ReassignablePartition> => 0..;
    }

    ReassignablePartition {
        partition_index: i32 => 0..;
        /// `None`: the reassignment under way is called off.
        replicas: Option<Vec<i32>> => 0.., default None;
    }

    AlterPartitionReassignmentsResponse {
        throttle_time_ms: i32 => 0..;
        allow_replication_factor_change: bool => 1.., default true;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0.., default Some(Str::default());
        responses: Vec<ReassignableTopicResponse> => 0..;
    }

    ReassignableTopicResponse {
        name: Str => 0..;
        partitions: Vec<ReassignablePartitionResponse> => 0..;
    }

    ReassignablePartitionResponse {
        partition_index: i32 => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0.., default Some(Str::default());
    }

    ElectLeadersRequest {
        election_type: i8 => 1..;
        /// `None`: every partition.
        topic_partitions: Option<Vec<ElectLeadersTopicPartitions>> => 0.., default Some(Vec::new());
        timeout_ms: i32 => 0.., default 60_000;
    }

    ElectLeadersTopicPartitions {
        topic: Str => 0..;
        partitions: Vec<i32> => 0..;
    }

    ElectLeadersResponse {
        throttle_time_ms: i32 => 0..;
        error_code: i16 => 1..;
        replica_election_results: Vec<ReplicaElectionResult> => 0..;
    }

    ReplicaElectionResult {
        topic: Str => 0..;
        partition_result: Vec<PartitionElectionResult> => 0..;
    }

    PartitionElectionResult {
        partition_id: i32 => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0.., default Some(Str::default());
    }

    ListPartitionReassignmentsRequest {
        timeout_ms: i32 => 0.., default 60_000;
        topics: Option<Vec<ListPartitionReassignmentsTopics>> => 0.., default None;
    }

    ListPartitionReassignmentsTopics {
        name: Str => 0..;
        partition_indexes: Vec<i32> => 0..;
    }

    ListPartitionReassignmentsResponse {
        throttle_time_ms: i32 => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0.., default Some(Str::default());
        topics: Vec<OngoingTopicReassignment> => 0..;
    }

    OngoingTopicReassignment {
        name: Str => 0..;
        partitions: Vec<OngoingPartitionReassignment> => 0..;
    }

    OngoingPartitionReassignment {
        partition_index: i32 => 0..;
        replicas: Vec<i32> => 0..;
        adding_replicas: Vec<i32> => 0..;
        removing_replicas: Vec<i32> => 0..;
    }
}
