//! What tools ask about the cluster's metadata: its quorum, its features, topics page by page.

use uuid::Uuid;

use crate::kafka::protocol::wire::Str;

messages! {
    DescribeQuorumRequest {
        topics: Vec<DescribeQuorumTopic> => 0..;
    }

    DescribeQuorumTopic {
        topic_name: Str => 0..;
        partitions: Vec<DescribeQuorumPartition> => 0..;
    }

    DescribeQuorumPartition {
        partition_index: i32 => 0..;
    }

    DescribeQuorumResponse {
        error_code: i16 => 0..;
        error_message: Option<Str> => 2.., default Some(Str::default());
        topics: Vec<DescribeQuorumTopicResponse> => 0..;
        nodes: Vec<DescribeQuorumNode> => 2..;
    }

    DescribeQuorumTopicResponse {
        topic_name: Str => 0..;
        partitions: Vec<DescribeQuorumPartitionResponse> => 0..;
    }

    DescribeQuorumPartitionResponse {
        partition_index: i32 => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 2.., default Some(Str::default());
        leader_id: i32 => 0..;
        leader_epoch: i32 => 0..;
        high_watermark: i64 => 0..;
        current_voters: Vec<QuorumReplicaState> => 0..;
        observers: Vec<QuorumReplicaState> => 0..;
    }

    QuorumReplicaState {
        replica_id: i32 => 0..;
        replica_directory_id: Uuid => 2..;
        log_end_offset: i64 => 0..;
        last_fetch_timestamp: i64 => 1.., default -1;
        last_caught_up_timestamp: i64 => 1.., default -1;
    }

    DescribeQuorumNode {
        node_id: i32 => 2..;
        listeners: Vec<DescribeQuorumListener> => 2..;
    }

    DescribeQuorumListener {
        name: Str => 2..;
        host: Str => 2..;
        port: u16 => 2..;
    }

    UpdateFeaturesRequest {
        timeout_ms: i32 => 0.., default 60_000;
        feature_updates: Vec<FeatureUpdateKey> => 0..;
        validate_only: bool => 1..;
    }

    FeatureUpdateKey {
        feature: Str => 0..;
        max_version_level: i16 => 0..;
        allow_downgrade: bool => 0..=0;
        /// 1 up, 2 down if nothing is lost, 3 down.
        upgrade_type: i8 => 1.., default 1;
    }

    UpdateFeaturesResponse {
        throttle_time_ms: i32 => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0.., default Some(Str::default());
        results: Vec<UpdatableFeatureResult> => 0..=1;
    }

    UpdatableFeatureResult {
        feature: Str => 0..=1;
        error_code: i16 => 0..=1;
        error_message: Option<Str> => 0..=1, default Some(Str::default());
    }

    DescribeTopicPartitionsRequest {
        topics: Vec<DescribeTopicPartitionsTopic> => 0..;
        response_partition_limit: i32 => 0.., default 2000;
        /// Where the answer before ended.
        cursor: Option<TopicPartitionsCursor> => 0..;
    }

    DescribeTopicPartitionsTopic {
        name: Str => 0..;
    }

    TopicPartitionsCursor {
        topic_name: Str => 0..;
        partition_index: i32 => 0..;
    }

    DescribeTopicPartitionsResponse {
        throttle_time_ms: i32 => 0..;
        topics: Vec<DescribeTopicPartitionsResponseTopic> => 0..;
        next_cursor: Option<TopicPartitionsCursor> => 0..;
    }

    DescribeTopicPartitionsResponseTopic {
        error_code: i16 => 0..;
        name: Option<Str> => 0.., default Some(Str::default());
        topic_id: Uuid => 0..;
        is_internal: bool => 0..;
        partitions: Vec<DescribeTopicPartitionsPartition> => 0..;
        topic_authorized_operations: i32 => 0.., default i32::MIN;
    }

    DescribeTopicPartitionsPartition {
        error_code: i16 => 0..;
        partition_index: i32 => 0..;
        leader_id: i32 => 0..;
        leader_epoch: i32 => 0.., default -1;
        replica_nodes: Vec<i32> => 0..;
        isr_nodes: Vec<i32> => 0..;
        eligible_leader_replicas: Option<Vec<i32>> => 0..;
        last_known_elr: Option<Vec<i32>> => 0..;
        offline_replicas: Vec<i32> => 0..;
    }
}
