//! Configurations of topics and of the broker.

use crate::kafka::protocol::wire::Str;

messages! {
    DescribeConfigsRequest {
        resources: Vec<DescribeConfigsResource> => 1..;
        include_synonyms: bool => 1..;
        include_documentation: bool => 3..;
    }

    DescribeConfigsResource {
        resource_type: i8 => 1..;
        resource_name: Str => 1..;
        /// `None`: all of them.
        configuration_keys: Option<Vec<Str>> => 1.., default Some(Vec::new());
    }

    DescribeConfigsResponse {
        throttle_time_ms: i32 => 1..;
        results: Vec<DescribeConfigsResult> => 1..;
    }

    DescribeConfigsResult {
        error_code: i16 => 1..;
        error_message: Option<Str> => 1.., default Some(Str::default());
        resource_type: i8 => 1..;
        resource_name: Str => 1..;
        configs: Vec<DescribeConfigsResourceResult> => 1..;
    }

    DescribeConfigsResourceResult {
        name: Str => 1..;
        value: Option<Str> => 1.., default Some(Str::default());
        read_only: bool => 1..;
        config_source: i8 => 1.., default -1;
        is_sensitive: bool => 1..;
        synonyms: Vec<DescribeConfigsSynonym> => 1..;
        config_type: i8 => 3..;
        documentation: Option<Str> => 3.., default Some(Str::default());
    }

    DescribeConfigsSynonym {
        name: Str => 1..;
        value: Option<Str> => 1.., default Some(Str::default());
        source: i8 => 1..;
    }

    AlterConfigsRequest {
        resources: Vec<AlterConfigsResource> => 0..;
        validate_only: bool => 0..;
    }

    AlterConfigsResource {
        resource_type: i8 => 0..;
        resource_name: Str => 0..;
        configs: Vec<AlterableConfig> => 0..;
    }

    AlterableConfig {
        name: Str => 0..;
        value: Option<Str> => 0.., default Some(Str::default());
    }

    AlterConfigsResponse {
        throttle_time_ms: i32 => 0..;
        responses: Vec<AlterConfigsResourceResponse> => 0..;
    }

    AlterConfigsResourceResponse {
        error_code: i16 => 0..;
        error_message: Option<Str> => 0.., default Some(Str::default());
        resource_type: i8 => 0..;
        resource_name: Str => 0..;
    }

    IncrementalAlterConfigsRequest {
        resources: Vec<IncrementalAlterConfigsResource> => 0..;
        validate_only: bool => 0..;
    }

    IncrementalAlterConfigsResource {
        resource_type: i8 => 0..;
        resource_name: Str => 0..;
        configs: Vec<IncrementalAlterableConfig> => 0..;
    }

    IncrementalAlterableConfig {
        name: Str => 0..;
        /// 0 sets, 1 deletes, 2 appends to a list, 3 subtracts from it (KIP-339).
        config_operation: i8 => 0..;
        value: Option<Str> => 0.., default Some(Str::default());
    }

    IncrementalAlterConfigsResponse {
        throttle_time_ms: i32 => 0..;
        responses: Vec<IncrementalAlterConfigsResourceResponse> => 0..;
    }

    IncrementalAlterConfigsResourceResponse {
        error_code: i16 => 0..;
        error_message: Option<Str> => 0.., default Some(Str::default());
        resource_type: i8 => 0..;
        resource_name: Str => 0..;
    }

    ListConfigResourcesRequest {
        resource_types: Vec<i8> => 1..;
    }

    ListConfigResourcesResponse {
        throttle_time_ms: i32 => 0..;
        error_code: i16 => 0..;
        config_resources: Vec<ListedConfigResource> => 0..;
    }

    ListedConfigResource {
        resource_name: Str => 0..;
        resource_type: i8 => 1.., default 16;
    }
}
