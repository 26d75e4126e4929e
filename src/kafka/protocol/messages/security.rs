//! Who somebody is, and what they may do: SASL, access rules, SCRAM users.

use bytes::Bytes;

use crate::kafka::protocol::wire::Str;

messages! {
    SaslHandshakeRequest {
        mechanism: Str => 0..;
    }

    SaslHandshakeResponse {
        error_code: i16 => 0..;
        mechanisms: Vec<Str> => 0..;
    }

    SaslAuthenticateRequest {
        auth_bytes: Bytes => 0..;
    }

    SaslAuthenticateResponse {
        error_code: i16 => 0..;
        error_message: Option<Str> => 0.., default Some(Str::default());
        auth_bytes: Bytes => 0..;
        /// 0: for as long as the connection lasts (KIP-368).
        session_lifetime_ms: i64 => 1..;
    }

    /// Types, operations and permissions are Kafka's numbers; 1 is any.
    DescribeAclsRequest {
        resource_type_filter: i8 => 1..;
        resource_name_filter: Option<Str> => 1.., default Some(Str::default());
        pattern_type_filter: i8 => 1.., default 3;
        principal_filter: Option<Str> => 1.., default Some(Str::default());
        host_filter: Option<Str> => 1.., default Some(Str::default());
        operation: i8 => 1..;
        permission_type: i8 => 1..;
    }

    DescribeAclsResponse {
        throttle_time_ms: i32 => 1..;
        error_code: i16 => 1..;
        error_message: Option<Str> => 1.., default Some(Str::default());
        resources: Vec<DescribeAclsResource> => 1..;
    }

    DescribeAclsResource {
        resource_type: i8 => 1..;
        resource_name: Str => 1..;
        pattern_type: i8 => 1.., default 3;
        acls: Vec<AclDescription> => 1..;
    }

    AclDescription {
        principal: Str => 1..;
        host: Str => 1..;
        operation: i8 => 1..;
        permission_type: i8 => 1..;
    }

    CreateAclsRequest {
        creations: Vec<AclCreation> => 1..;
    }

    AclCreation {
        resource_type: i8 => 1..;
        resource_name: Str => 1..;
        resource_pattern_type: i8 => 1.., default 3;
        principal: Str => 1..;
        host: Str => 1..;
        operation: i8 => 1..;
        permission_type: i8 => 1..;
    }

    CreateAclsResponse {
        throttle_time_ms: i32 => 1..;
        results: Vec<AclCreationResult> => 1..;
    }

    AclCreationResult {
        error_code: i16 => 1..;
        error_message: Option<Str> => 1.., default Some(Str::default());
    }

    DeleteAclsRequest {
        filters: Vec<DeleteAclsFilter> => 1..;
    }

    DeleteAclsFilter {
        resource_type_filter: i8 => 1..;
        resource_name_filter: Option<Str> => 1.., default Some(Str::default());
        pattern_type_filter: i8 => 1.., default 3;
        principal_filter: Option<Str> => 1.., default Some(Str::default());
        host_filter: Option<Str> => 1.., default Some(Str::default());
        operation: i8 => 1..;
        permission_type: i8 => 1..;
    }

    DeleteAclsResponse {
        throttle_time_ms: i32 => 1..;
        filter_results: Vec<DeleteAclsFilterResult> => 1..;
    }

    DeleteAclsFilterResult {
        error_code: i16 => 1..;
        error_message: Option<Str> => 1.., default Some(Str::default());
        matching_acls: Vec<DeleteAclsMatchingAcl> => 1..;
    }

    DeleteAclsMatchingAcl {
        error_code: i16 => 1..;
        error_message: Option<Str> => 1.., default Some(Str::default());
        resource_type: i8 => 1..;
        resource_name: Str => 1..;
        pattern_type: i8 => 1.., default 3;
        principal: Str => 1..;
        host: Str => 1..;
        operation: i8 => 1..;
        permission_type: i8 => 1..;
    }

    DescribeUserScramCredentialsRequest {
        /// `None`, or nobody: everybody.
        users: Option<Vec<UserName>> => 0.., default Some(Vec::new());
    }

    UserName {
        name: Str => 0..;
    }

    DescribeUserScramCredentialsResponse {
        throttle_time_ms: i32 => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0.., default Some(Str::default());
        results: Vec<DescribeUserScramCredentialsResult> => 0..;
    }

    DescribeUserScramCredentialsResult {
        user: Str => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0.., default Some(Str::default());
        credential_infos: Vec<CredentialInfo> => 0..;
    }

    CredentialInfo {
        /// 1 SCRAM-SHA-256, 2 SCRAM-SHA-512.
        mechanism: i8 => 0..;
        iterations: i32 => 0..;
    }

    AlterUserScramCredentialsRequest {
        deletions: Vec<ScramCredentialDeletion> => 0..;
        upsertions: Vec<ScramCredentialUpsertion> => 0..;
    }

    ScramCredentialDeletion {
        name: Str => 0..;
        mechanism: i8 => 0..;
    }

    ScramCredentialUpsertion {
        name: Str => 0..;
        mechanism: i8 => 0..;
        iterations: i32 => 0..;
        salt: Bytes => 0..;
        salted_password: Bytes => 0..;
    }

    AlterUserScramCredentialsResponse {
        throttle_time_ms: i32 => 0..;
        results: Vec<AlterUserScramCredentialsResult> => 0..;
    }

    AlterUserScramCredentialsResult {
        user: Str => 0..;
        error_code: i16 => 0..;
        error_message: Option<Str> => 0.., default Some(Str::default());
    }
}
