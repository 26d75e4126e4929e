//! Transactions: their steps, their offsets, and what administrators ask of them.

use crate::kafka::protocol::wire::Str;

messages! {
    /// Up to version 3 one transaction of a client, from version 4 on several, asked by brokers.
    AddPartitionsToTxnRequest {
        transactions: Vec<AddPartitionsToTxnTransaction> => 4..;
        v3_and_below_transactional_id: Str => 0..=3;
        v3_and_below_producer_id: i64 => 0..=3;
        v3_and_below_producer_epoch: i16 => 0..=3;
        v3_and_below_topics: Vec<AddPartitionsToTxnTopic> => 0..=3;
    }

    AddPartitionsToTxnTransaction {
        transactional_id: Str => 4..;
        producer_id: i64 => 4..;
        producer_epoch: i16 => 4..;
        verify_only: bool => 4..;
        topics: Vec<AddPartitionsToTxnTopic> => 4..;
    }

    AddPartitionsToTxnTopic {
        name: Str => 0..;
        partitions: Vec<i32> => 0..;
    }

    AddPartitionsToTxnResponse {
        throttle_time_ms: i32 => 0..;
        error_code: i16 => 4..;
        results_by_transaction: Vec<AddPartitionsToTxnResult> => 4..;
        results_by_topic_v3_and_below: Vec<AddPartitionsToTxnTopicResult> => 0..=3;
    }

    AddPartitionsToTxnResult {
        transactional_id: Str => 4..;
        topic_results: Vec<AddPartitionsToTxnTopicResult> => 4..;
    }

    AddPartitionsToTxnTopicResult {
        name: Str => 0..;
        results_by_partition: Vec<AddPartitionsToTxnPartitionResult> => 0..;
    }

    AddPartitionsToTxnPartitionResult {
        partition_index: i32 => 0..;
        partition_error_code: i16 => 0..;
    }

    AddOffsetsToTxnRequest {
        transactional_id: Str => 0..;
        producer_id: i64 => 0..;
        producer_epoch: i16 => 0..;
        group_id: Str => 0..;
    }

    AddOffsetsToTxnResponse {
        throttle_time_ms: i32 => 0..;
        error_code: i16 => 0..;
    }

    EndTxnRequest {
        transactional_id: Str => 0..;
        producer_id: i64 => 0..;
        producer_epoch: i16 => 0..;
        committed: bool => 0..;
    }

    EndTxnResponse {
        throttle_time_ms: i32 => 0..;
        error_code: i16 => 0..;
        producer_id: i64 => 5.., default -1;
        producer_epoch: i16 => 5.., default -1;
    }

    WriteTxnMarkersRequest {
        markers: Vec<WritableTxnMarker> => 1..;
    }

    WritableTxnMarker {
        producer_id: i64 => 1..;
        producer_epoch: i16 => 1..;
        /// Whether it commits.
        transaction_result: bool => 1..;
        topics: Vec<WritableTxnMarkerTopic> => 1..;
        coordinator_epoch: i32 => 1..;
        transaction_version: i8 => 2..;
    }

    WritableTxnMarkerTopic {
        name: Str => 1..;
        partition_indexes: Vec<i32> => 1..;
    }

    WriteTxnMarkersResponse {
        markers: Vec<WritableTxnMarkerResult> => 1..;
    }

    WritableTxnMarkerResult {
        producer_id: i64 => 1..;
        topics: Vec<WritableTxnMarkerTopicResult> => 1..;
    }

    WritableTxnMarkerTopicResult {
        name: Str => 1..;
        partitions: Vec<WritableTxnMarkerPartitionResult> => 1..;
    }

    WritableTxnMarkerPartitionResult {
        partition_index: i32 => 1..;
        error_code: i16 => 1..;
    }

    TxnOffsetCommitRequest {
        transactional_id: Str => 0..;
        group_id: Str => 0..;
        producer_id: i64 => 0..;
        producer_epoch: i16 => 0..;
        generation_id: i32 => 3.., default -1;
        member_id: Str => 3..;
        group_instance_id: Option<Str> => 3..;
        topics: Vec<TxnOffsetCommitRequestTopic> => 0..;
    }

    TxnOffsetCommitRequestTopic {
        name: Str => 0..;
        partitions: Vec<TxnOffsetCommitRequestPartition> => 0..;
    }

    TxnOffsetCommitRequestPartition {
        partition_index: i32 => 0..;
        committed_offset: i64 => 0..;
        committed_leader_epoch: i32 => 2.., default -1;
        committed_metadata: Option<Str> => 0.., default Some(Str::default());
    }

    TxnOffsetCommitResponse {
        throttle_time_ms: i32 => 0..;
        topics: Vec<TxnOffsetCommitResponseTopic> => 0..;
    }

    TxnOffsetCommitResponseTopic {
        name: Str => 0..;
        partitions: Vec<TxnOffsetCommitResponsePartition> => 0..;
    }

    TxnOffsetCommitResponsePartition {
        partition_index: i32 => 0..;
        error_code: i16 => 0..;
    }

    DescribeProducersRequest {
        topics: Vec<DescribeProducersTopic> => 0..;
    }

    DescribeProducersTopic {
        name: Str => 0..;
        partition_indexes: Vec<i32> => 0..;
    }

    DescribeProducersResponse {
        throttle_time_ms: i32 => 0..;
        topics: Vec<DescribeProducersTopicResponse> => 0..;
    }

    DescribeProducersTopicResponse {
        name: Str => 0..;
        partitions: Vec<DescribeProducersPartition> => 0..;
    }

    DescribeProducersPartition {
        partition_index: i32 => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0..;
        active_producers: Vec<ProducerState> => 0..;
    }

    ProducerState {
        producer_id: i64 => 0..;
        producer_epoch: i32 => 0..;
        last_sequence: i32 => 0.., default -1;
        last_timestamp: i64 => 0.., default -1;
        coordinator_epoch: i32 => 0..;
        current_txn_start_offset: i64 => 0.., default -1;
    }

    DescribeTransactionsRequest {
        transactional_ids: Vec<Str> => 0..;
    }

    DescribeTransactionsResponse {
        throttle_time_ms: i32 => 0..;
        transaction_states: Vec<DescribedTransaction> => 0..;
    }

    DescribedTransaction {
        error_code: i16 => 0..;
        transactional_id: Str => 0..;
        transaction_state: Str => 0..;
        transaction_timeout_ms: i32 => 0..;
        transaction_start_time_ms: i64 => 0..;
        producer_id: i64 => 0..;
        producer_epoch: i16 => 0..;
        topics: Vec<DescribedTransactionTopic> => 0..;
    }

    DescribedTransactionTopic {
        topic: Str => 0..;
        partitions: Vec<i32> => 0..;
    }

    ListTransactionsRequest {
        state_filters: Vec<Str> => 0..;
        producer_id_filters: Vec<i64> => 0..;
        /// Only those that are older, in milliseconds.
        duration_filter: i64 => 1.., default -1;
        transactional_id_pattern: Option<Str> => 2..;
    }

    ListTransactionsResponse {
        throttle_time_ms: i32 => 0..;
        error_code: i16 => 0..;
        unknown_state_filters: Vec<Str> => 0..;
        transaction_states: Vec<ListedTransaction> => 0..;
    }

    ListedTransaction {
        transactional_id: Str => 0..;
        producer_id: i64 => 0..;
        transaction_state: Str => 0..;
    }
}
