//! ApiVersions: what this door serves.

use super::super::broker::Asker;
use super::super::protocol::messages::{
    ApiVersion, ApiVersionsRequest, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};
use super::super::protocol::{ApiKey, ErrorCode, Str};

/// Features and their levels: the classic group protocol only; transactions in which the epoch rises with
/// every one of them, and partitions are added by writing to them (KIP-890). Their lowest level, 0, is
/// understood from version 4 on (KIP-1022); older clients refuse it.
pub(super) const FEATURES: [(&str, i16); 2] = [("group.version", 0), ("transaction.version", 2)];
const FEATURES_SINCE_VERSION: i16 = 4;
/// Clients say what they are from here on (KIP-511).
const SOFTWARE_SINCE_VERSION: i16 = 3;

pub(super) fn api_versions(asker: &Asker, request: &ApiVersionsRequest) -> ApiVersionsResponse {
    tracing::debug!(
        peer = %asker.peer,
        client_id = %asker.client_id,
        software = %request.client_software_name,
        software_version = %request.client_software_version,
        "Kafka client"
    );
    if asker.version >= SOFTWARE_SINCE_VERSION
        && !(is_software(&request.client_software_name)
            && is_software(&request.client_software_version))
    {
        return ApiVersionsResponse {
            error_code: ErrorCode::InvalidRequest.code(),
            ..Default::default()
        };
    }
    let mut response = ApiVersionsResponse {
        api_keys: api_keys(),
        ..Default::default()
    };
    if asker.version >= FEATURES_SINCE_VERSION {
        response.finalized_features_epoch = 0;
        for (name, level) in FEATURES {
            response.supported_features.push(SupportedFeatureKey {
                name: name.into(),
                min_version: 0,
                max_version: level,
            });
            response.finalized_features.push(FinalizedFeatureKey {
                name: name.into(),
                min_version_level: level,
                max_version_level: level,
            });
        }
    }
    response
}

/// KIP-511: letters, digits, dots and hyphens, a letter or a digit at both ends.
fn is_software(text: &Str) -> bool {
    let text = text.as_str();
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    let is_outer = |c: char| c.is_ascii_alphanumeric();
    text.chars().all(is_inner) && text.starts_with(is_outer) && text.ends_with(is_outer)
}

/// The answer, in version 0, to a version that does not exist here yet (KIP-511).
pub(in super::super) fn unknown_api_versions() -> ApiVersionsResponse {
    ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        api_keys: api_keys(),
        ..Default::default()
    }
}

fn api_keys() -> Vec<ApiVersion> {
    let advertised = |api: &ApiKey| {
        let versions = api.advertised();
        ApiVersion {
            api_key: api.code(),
            min_version: *versions.start(),
            max_version: *versions.end(),
        }
    };
    ApiKey::ALL.iter().map(advertised).collect()
}
