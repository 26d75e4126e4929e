//! What a client asks about the broker itself: ApiVersions, Metadata, FindCoordinator.

use uuid::Uuid;

use crate::kafka::protocol::wire::Str;

messages! {
    ApiVersionsRequest {
        client_software_name: Str => 3..;
        client_software_version: Str => 3..;
    }

    ApiVersionsResponse {
        error_code: i16 => 0..;
        api_keys: Vec<ApiVersion> => 0..;
        throttle_time_ms: i32 => 1..;
        supported_features: Vec<SupportedFeatureKey> => 3.., tag 0;
        finalized_features_epoch: i64 => 3.., tag 1, default -1;
        finalized_features: Vec<FinalizedFeatureKey> => 3.., tag 2;
        /// Never set: a tagged field of one byte makes librdkafka before 2.2 misread the frame.
        zk_migration_ready: bool => 3.., tag 3;
    }

    ApiVersion {
        api_key: i16 => 0..;
        min_version: i16 => 0..;
        max_version: i16 => 0..;
    }

    SupportedFeatureKey {
        name: Str => 3..;
        min_version: i16 => 3..;
        max_version: i16 => 3..;
    }

    FinalizedFeatureKey {
        name: Str => 3..;
        max_version_level: i16 => 3..;
        min_version_level: i16 => 3..;
    }

    MetadataRequest {
        /// Null asks for every topic; in version 0 an empty list does.
        topics: Option<Vec<MetadataRequestTopic>> => 0.., null 1.., default Some(Vec::new());
        allow_auto_topic_creation: bool => 4.., default true;
        include_cluster_authorized_operations: bool => 8..=10;
        include_topic_authorized_operations: bool => 8..;
    }

    MetadataRequestTopic {
        topic_id: Uuid => 10..;
        name: Option<Str> => 0.., null 10.., default Some(Str::default());
    }

    MetadataResponse {
        throttle_time_ms: i32 => 3..;
        brokers: Vec<MetadataResponseBroker> => 0..;
        cluster_id: Option<Str> => 2..;
        controller_id: i32 => 1.., default -1;
        topics: Vec<MetadataResponseTopic> => 0..;
        cluster_authorized_operations: i32 => 8..=10, default i32::MIN;
        error_code: i16 => 13..;
    }

    MetadataResponseBroker {
        node_id: i32 => 0..;
        host: Str => 0..;
        port: i32 => 0..;
        rack: Option<Str> => 1..;
    }

    MetadataResponseTopic {
        error_code: i16 => 0..;
        name: Option<Str> => 0.., null 12.., default Some(Str::default());
        topic_id: Uuid => 10..;
        is_internal: bool => 1..;
        partitions: Vec<MetadataResponsePartition> => 0..;
        topic_authorized_operations: i32 => 8.., default i32::MIN;
    }

    MetadataResponsePartition {
        error_code: i16 => 0..;
        partition_index: i32 => 0..;
        leader_id: i32 => 0..;
        leader_epoch: i32 => 7.., default -1;
        replica_nodes: Vec<i32> => 0..;
        isr_nodes: Vec<i32> => 0..;
        offline_replicas: Vec<i32> => 5..;
    }

    FindCoordinatorRequest {
        key: Str => 0..=3;
        /// 0 group, 1 transaction, 2 share group.
        key_type: i8 => 1..;
        coordinator_keys: Vec<Str> => 4..;
    }

    FindCoordinatorResponse {
        throttle_time_ms: i32 => 1..;
        error_code: i16 => 0..=3;
        error_message: Option<Str> => 1..=3, default Some(Str::default());
        node_id: i32 => 0..=3;
        host: Str => 0..=3;
        port: i32 => 0..=3;
        coordinators: Vec<Coordinator> => 4..;
    }

    Coordinator {
        key: Str => 4..;
        node_id: i32 => 4..;
        host: Str => 4..;
        port: i32 => 4..;
        error_code: i16 => 4..;
        error_message: Option<Str> => 4.., default Some(Str::default());
    }
}
