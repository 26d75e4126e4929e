//! Changes to topics. Room for the other administrative APIs.

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

    CreatableTopicConfigs {
        name: Str => 5..;
        value: Option<Str> => 5.., default Some(Str::default());
        read_only: bool => 5..;
        config_source: i8 => 5.., default -1;
        is_sensitive: bool => 5..;
    }
}
