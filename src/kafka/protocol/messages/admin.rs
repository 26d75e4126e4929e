//! Changes to topics.

use uuid::Uuid;

use crate::kafka::protocol::wire::Str;

messages! {
    CreateTopicsRequest {
        topics: Vec<CreatableTopic> => 2..;
        timeout_ms: i32 => 2.., default 60_000;
        validate_only: bool => 2..;
    }

    CreatableTopic {
        name: Str => 2..;
        num_partitions: i32 => 2..;
        replication_factor: i16 => 2..;
        assignments: Vec<CreatableReplicaAssignment> => 2..;
        configs: Vec<CreatableTopicConfig> => 2..;
    }

    CreatableReplicaAssignment {
        partition_index: i32 => 2..;
        broker_ids: Vec<i32> => 2..;
    }

    CreatableTopicConfig {
        name: Str => 2..;
        value: Option<Str> => 2.., default Some(Str::default());
    }

    CreateTopicsResponse {
        throttle_time_ms: i32 => 2..;
        topics: Vec<CreatableTopicResult> => 2..;
    }

    CreatableTopicResult {
        name: Str => 2..;
        topic_id: Uuid => 7..;
        error_code: i16 => 2..;
        error_message: Option<Str> => 2.., default Some(Str::default());
        topic_config_error_code: i16 => 5.., tag 0;
        num_partitions: i32 => 5.., default -1;
        replication_factor: i16 => 5.., default -1;
        configs: Option<Vec<CreatableTopicConfigs>> => 5.., default Some(Vec::new());
    }

    CreatePartitionsRequest {
        topics: Vec<CreatePartitionsTopic> => 0..;
        timeout_ms: i32 => 0..;
        validate_only: bool => 0..;
    }

    CreatePartitionsTopic {
        name: Str => 0..;
        /// Of all partitions, old and new.
        count: i32 => 0..;
        assignments: Option<Vec<CreatePartitionsAssignment>> => 0.., default Some(Vec::new());
    }

    CreatePartitionsAssignment {
        broker_ids: Vec<i32> => 0..;
    }

    CreatePartitionsResponse {
        throttle_time_ms: i32 => 0..;
        results: Vec<CreatePartitionsTopicResult> => 0..;
    }

    CreatePartitionsTopicResult {
        name: Str => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0.., default None;
    }

    /// By name up to version 5, by name or id from version 6 on.
    DeleteTopicsRequest {
        topics: Vec<DeleteTopicState> => 6..;
        topic_names: Vec<Str> => 1..=5;
        timeout_ms: i32 => 1..;
    }

    DeleteTopicState {
        name: Option<Str> => 6.., default None;
        topic_id: Uuid => 6..;
    }

    DeleteTopicsResponse {
        throttle_time_ms: i32 => 1..;
        responses: Vec<DeletableTopicResult> => 1..;
    }

    DeletableTopicResult {
        name: Option<Str> => 1.., null 6.., default Some(Str::default());
        topic_id: Uuid => 6..;
        error_code: i16 => 1..;
        error_message: Option<Str> => 5.., default None;
    }

    DeleteRecordsRequest {
        topics: Vec<DeleteRecordsTopic> => 0..;
        timeout_ms: i32 => 0..;
    }

    DeleteRecordsTopic {
        name: Str => 0..;
        partitions: Vec<DeleteRecordsPartition> => 0..;
    }

    DeleteRecordsPartition {
        partition_index: i32 => 0..;
        /// -1: the high watermark.
        offset: i64 => 0..;
    }

    DeleteRecordsResponse {
        throttle_time_ms: i32 => 0..;
        topics: Vec<DeleteRecordsTopicResult> => 0..;
    }

    DeleteRecordsTopicResult {
        name: Str => 0..;
        partitions: Vec<DeleteRecordsPartitionResult> => 0..;
    }

    DeleteRecordsPartitionResult {
        partition_index: i32 => 0..;
        /// The log start from now on.
        low_watermark: i64 => 0..;
        error_code: i16 => 0..;
    }

    CreatableTopicConfigs {
        name: Str => 5..;
        value: Option<Str> => 5.., default Some(Str::default());
        read_only: bool => 5..;
        config_source: i8 => 5.., default -1;
        is_sensitive: bool => 5..;
    }
}
