//! Reading and writing partitions: Produce, Fetch, ListOffsets, OffsetForLeaderEpoch, InitProducerId.

use bytes::Bytes;
use uuid::Uuid;

use crate::kafka::protocol::wire::{Records, Str};

messages! {
    /// Where a partition's leader listens (KIP-951).
    NodeEndpoint {
        node_id: i32 => 0..;
        host: Str => 0..;
        port: i32 => 0..;
        rack: Option<Str> => 0..;
    }

    LeaderIdAndEpoch {
        leader_id: i32 => 0.., default -1;
        leader_epoch: i32 => 0.., default -1;
    }

    ProduceRequest {
        transactional_id: Option<Str> => 3..;
        acks: i16 => 3..;
        timeout_ms: i32 => 3..;
        topic_data: Vec<TopicProduceData> => 3..;
    }

    TopicProduceData {
        name: Str => 3..=12;
        topic_id: Uuid => 13..;
        partition_data: Vec<PartitionProduceData> => 3..;
    }

    PartitionProduceData {
        index: i32 => 3..;
        records: Option<Bytes> => 3.., default Some(Bytes::new());
    }

    ProduceResponse {
        responses: Vec<TopicProduceResponse> => 3..;
        throttle_time_ms: i32 => 3..;
        node_endpoints: Vec<NodeEndpoint> => 10.., tag 0;
    }

    TopicProduceResponse {
        name: Str => 3..=12;
        topic_id: Uuid => 13..;
        partition_responses: Vec<PartitionProduceResponse> => 3..;
    }

    PartitionProduceResponse {
        index: i32 => 3..;
        error_code: i16 => 3..;
        base_offset: i64 => 3..;
        log_append_time_ms: i64 => 3.., default -1;
        log_start_offset: i64 => 5.., default -1;
        record_errors: Vec<BatchIndexAndErrorMessage> => 8..;
        error_message: Option<Str> => 8..;
        current_leader: LeaderIdAndEpoch => 10.., tag 0;
    }

    BatchIndexAndErrorMessage {
        batch_index: i32 => 8..;
        batch_index_error_message: Option<Str> => 8..;
    }

    FetchRequest {
        cluster_id: Option<Str> => 12.., tag 0;
        replica_id: i32 => 4..=14, default -1;
        replica_state: ReplicaState => 15.., tag 1;
        max_wait_ms: i32 => 4..;
        min_bytes: i32 => 4..;
        max_bytes: i32 => 4.., default i32::MAX;
        isolation_level: i8 => 4..;
        session_id: i32 => 7..;
        session_epoch: i32 => 7.., default -1;
        topics: Vec<FetchTopic> => 4..;
        forgotten_topics_data: Vec<ForgottenTopic> => 7..;
        rack_id: Str => 11..;
    }

    ReplicaState {
        replica_id: i32 => 15.., default -1;
        replica_epoch: i64 => 15.., default -1;
    }

    FetchTopic {
        topic: Str => 4..=12;
        topic_id: Uuid => 13..;
        partitions: Vec<FetchPartition> => 4..;
    }

    FetchPartition {
        partition: i32 => 4..;
        current_leader_epoch: i32 => 9.., default -1;
        fetch_offset: i64 => 4..;
        last_fetched_epoch: i32 => 12.., default -1;
        log_start_offset: i64 => 5.., default -1;
        partition_max_bytes: i32 => 4..;
        replica_directory_id: Uuid => 17.., tag 0;
        high_watermark: i64 => 18.., tag 1, default i64::MAX;
    }

    ForgottenTopic {
        topic: Str => 7..=12;
        topic_id: Uuid => 13..;
        partitions: Vec<i32> => 7..;
    }

    FetchResponse {
        throttle_time_ms: i32 => 4..;
        error_code: i16 => 7..;
        session_id: i32 => 7..;
        responses: Vec<FetchableTopicResponse> => 4..;
        node_endpoints: Vec<NodeEndpoint> => 16.., tag 0;
    }

    FetchableTopicResponse {
        topic: Str => 4..=12;
        topic_id: Uuid => 13..;
        partitions: Vec<PartitionData> => 4..;
    }

    PartitionData {
        partition_index: i32 => 4..;
        error_code: i16 => 4..;
        high_watermark: i64 => 4..;
        last_stable_offset: i64 => 4.., default -1;
        log_start_offset: i64 => 5.., default -1;
        diverging_epoch: EpochEndOffset => 12.., tag 0;
        current_leader: LeaderIdAndEpoch => 12.., tag 1;
        snapshot_id: SnapshotId => 12.., tag 2;
        aborted_transactions: Option<Vec<AbortedTransaction>> => 4.., default Some(Vec::new());
        preferred_read_replica: i32 => 11.., default -1;
        records: Option<Records> => 4.., default Some(Records::default());
    }

    EpochEndOffset {
        epoch: i32 => 12.., default -1;
        end_offset: i64 => 12.., default -1;
    }

    SnapshotId {
        end_offset: i64 => 12.., default -1;
        epoch: i32 => 12.., default -1;
    }

    AbortedTransaction {
        producer_id: i64 => 4..;
        first_offset: i64 => 4..;
    }

    ListOffsetsRequest {
        replica_id: i32 => 1..;
        isolation_level: i8 => 2..;
        topics: Vec<ListOffsetsTopic> => 1..;
        timeout_ms: i32 => 10..;
    }

    ListOffsetsTopic {
        name: Str => 1..;
        partitions: Vec<ListOffsetsPartition> => 1..;
    }

    ListOffsetsPartition {
        partition_index: i32 => 1..;
        current_leader_epoch: i32 => 4.., default -1;
        timestamp: i64 => 1..;
    }

    ListOffsetsResponse {
        throttle_time_ms: i32 => 2..;
        topics: Vec<ListOffsetsTopicResponse> => 1..;
    }

    ListOffsetsTopicResponse {
        name: Str => 1..;
        partitions: Vec<ListOffsetsPartitionResponse> => 1..;
    }

    ListOffsetsPartitionResponse {
        partition_index: i32 => 1..;
        error_code: i16 => 1..;
        timestamp: i64 => 1.., default -1;
        offset: i64 => 1.., default -1;
        leader_epoch: i32 => 4.., default -1;
    }

    OffsetForLeaderEpochRequest {
        replica_id: i32 => 3.., default -2;
        topics: Vec<OffsetForLeaderTopic> => 2..;
    }

    OffsetForLeaderTopic {
        topic: Str => 2..;
        partitions: Vec<OffsetForLeaderPartition> => 2..;
    }

    OffsetForLeaderPartition {
        partition: i32 => 2..;
        current_leader_epoch: i32 => 2.., default -1;
        leader_epoch: i32 => 2..;
    }

    OffsetForLeaderEpochResponse {
        throttle_time_ms: i32 => 2..;
        topics: Vec<OffsetForLeaderTopicResult> => 2..;
    }

    OffsetForLeaderTopicResult {
        topic: Str => 2..;
        partitions: Vec<OffsetForLeaderPartitionResult> => 2..;
    }

    OffsetForLeaderPartitionResult {
        error_code: i16 => 2..;
        partition: i32 => 2..;
        leader_epoch: i32 => 2.., default -1;
        end_offset: i64 => 2.., default -1;
    }

    InitProducerIdRequest {
        transactional_id: Option<Str> => 0.., default Some(Str::default());
        transaction_timeout_ms: i32 => 0..;
        producer_id: i64 => 3.., default -1;
        producer_epoch: i16 => 3.., default -1;
    }

    InitProducerIdResponse {
        throttle_time_ms: i32 => 0..;
        error_code: i16 => 0..;
        producer_id: i64 => 0.., default -1;
        producer_epoch: i16 => 0..;
    }
}
