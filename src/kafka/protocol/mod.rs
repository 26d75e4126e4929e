//! The codec of the Kafka protocol: two tables, and what turns their lines into bytes and back.
//!
//! - [`messages`] lists every field of every message; the macros of `table` make a decoder and an
//!   encoder of each, for requests and for responses alike, because the command line's client and
//!   the tests need the other half.
//! - [`ApiKey`] lists the APIs with the versions that are served and advertised: the one list.
//!
//! The codec does no I/O and knows no rules of a broker. Its limits are those of [`wire`]. Fuzzers
//! enter at [`decode_request`] and [`decode_response`].

#[macro_use]
mod table;
#[cfg(test)]
pub(crate) mod arbitrary;
mod error_code;
pub mod messages;
#[cfg(test)]
mod oracle_tests;
pub mod wire;

use bytes::Bytes;

pub use error_code::ErrorCode;
use messages::*;
pub use wire::{Chunk, DecodeError, EncodeError, Frame, Records, Str};
use wire::{Layout, Reader, Wire, Writer};

apis! {
    /// Versions 0 to 2 are advertised and refused: without them librdkafka before 2.8 turns
    /// compression off (KAFKA-18659), and Kafka does the same.
    Produce = 0: serve 3..=13, advertise 0..=13, flexible 9, ProduceRequest => ProduceResponse;
    Fetch = 1: serve 4..=18, advertise 4..=18, flexible 12, FetchRequest => FetchResponse;
    ListOffsets = 2: serve 1..=11, advertise 1..=11, flexible 6, ListOffsetsRequest => ListOffsetsResponse;
    Metadata = 3: serve 0..=13, advertise 0..=13, flexible 9, MetadataRequest => MetadataResponse;
    OffsetCommit = 8: serve 2..=10, advertise 2..=10, flexible 8, OffsetCommitRequest => OffsetCommitResponse;
    OffsetFetch = 9: serve 1..=10, advertise 1..=10, flexible 6, OffsetFetchRequest => OffsetFetchResponse;
    FindCoordinator = 10: serve 0..=6, advertise 0..=6, flexible 3, FindCoordinatorRequest => FindCoordinatorResponse;
    JoinGroup = 11: serve 0..=9, advertise 0..=9, flexible 6, JoinGroupRequest => JoinGroupResponse;
    Heartbeat = 12: serve 0..=4, advertise 0..=4, flexible 4, HeartbeatRequest => HeartbeatResponse;
    LeaveGroup = 13: serve 0..=5, advertise 0..=5, flexible 4, LeaveGroupRequest => LeaveGroupResponse;
    SyncGroup = 14: serve 0..=5, advertise 0..=5, flexible 4, SyncGroupRequest => SyncGroupResponse;
    DescribeGroups = 15: serve 0..=6, advertise 0..=6, flexible 5, DescribeGroupsRequest => DescribeGroupsResponse;
    ListGroups = 16: serve 0..=5, advertise 0..=5, flexible 3, ListGroupsRequest => ListGroupsResponse;
    ApiVersions = 18: serve 0..=4, advertise 0..=4, flexible 3, ApiVersionsRequest => ApiVersionsResponse;
    CreateTopics = 19: serve 2..=7, advertise 2..=7, flexible 5, CreateTopicsRequest => CreateTopicsResponse;
    DeleteTopics = 20: serve 1..=6, advertise 1..=6, flexible 4, DeleteTopicsRequest => DeleteTopicsResponse;
    DeleteRecords = 21: serve 0..=2, advertise 0..=2, flexible 2, DeleteRecordsRequest => DeleteRecordsResponse;
    InitProducerId = 22: serve 0..=5, advertise 0..=5, flexible 2, InitProducerIdRequest => InitProducerIdResponse;
    OffsetForLeaderEpoch = 23: serve 2..=4, advertise 2..=4, flexible 4, OffsetForLeaderEpochRequest => OffsetForLeaderEpochResponse;
    AddPartitionsToTxn = 24: serve 0..=5, advertise 0..=5, flexible 3, AddPartitionsToTxnRequest => AddPartitionsToTxnResponse;
    AddOffsetsToTxn = 25: serve 0..=4, advertise 0..=4, flexible 3, AddOffsetsToTxnRequest => AddOffsetsToTxnResponse;
    EndTxn = 26: serve 0..=5, advertise 0..=5, flexible 3, EndTxnRequest => EndTxnResponse;
    WriteTxnMarkers = 27: serve 1..=2, advertise 1..=2, flexible 1, WriteTxnMarkersRequest => WriteTxnMarkersResponse;
    TxnOffsetCommit = 28: serve 0..=5, advertise 0..=5, flexible 3, TxnOffsetCommitRequest => TxnOffsetCommitResponse;
    DescribeConfigs = 32: serve 1..=4, advertise 1..=4, flexible 4, DescribeConfigsRequest => DescribeConfigsResponse;
    AlterConfigs = 33: serve 0..=2, advertise 0..=2, flexible 2, AlterConfigsRequest => AlterConfigsResponse;
    AlterReplicaLogDirs = 34: serve 1..=2, advertise 1..=2, flexible 2, AlterReplicaLogDirsRequest => AlterReplicaLogDirsResponse;
    DescribeLogDirs = 35: serve 1..=5, advertise 1..=5, flexible 2, DescribeLogDirsRequest => DescribeLogDirsResponse;
    CreatePartitions = 37: serve 0..=3, advertise 0..=3, flexible 2, CreatePartitionsRequest => CreatePartitionsResponse;
    DeleteGroups = 42: serve 0..=2, advertise 0..=2, flexible 2, DeleteGroupsRequest => DeleteGroupsResponse;
    ElectLeaders = 43: serve 0..=2, advertise 0..=2, flexible 2, ElectLeadersRequest => ElectLeadersResponse;
    IncrementalAlterConfigs = 44: serve 0..=1, advertise 0..=1, flexible 1, IncrementalAlterConfigsRequest => IncrementalAlterConfigsResponse;
    AlterPartitionReassignments = 45: serve 0..=1, advertise 0..=1, flexible 0, AlterPartitionReassignmentsRequest => AlterPartitionReassignmentsResponse;
    ListPartitionReassignments = 46: serve 0..=0, advertise 0..=0, flexible 0, ListPartitionReassignmentsRequest => ListPartitionReassignmentsResponse;
    OffsetDelete = 47: serve 0..=0, advertise 0..=0, flexible 1, OffsetDeleteRequest => OffsetDeleteResponse;
    DescribeClientQuotas = 48: serve 0..=1, advertise 0..=1, flexible 1, DescribeClientQuotasRequest => DescribeClientQuotasResponse;
    AlterClientQuotas = 49: serve 0..=1, advertise 0..=1, flexible 1, AlterClientQuotasRequest => AlterClientQuotasResponse;
    DescribeQuorum = 55: serve 0..=2, advertise 0..=2, flexible 0, DescribeQuorumRequest => DescribeQuorumResponse;
    UpdateFeatures = 57: serve 0..=2, advertise 0..=2, flexible 0, UpdateFeaturesRequest => UpdateFeaturesResponse;
    DescribeCluster = 60: serve 0..=2, advertise 0..=2, flexible 0, DescribeClusterRequest => DescribeClusterResponse;
    DescribeProducers = 61: serve 0..=0, advertise 0..=0, flexible 0, DescribeProducersRequest => DescribeProducersResponse;
    DescribeTransactions = 65: serve 0..=0, advertise 0..=0, flexible 0, DescribeTransactionsRequest => DescribeTransactionsResponse;
    ListTransactions = 66: serve 0..=2, advertise 0..=2, flexible 0, ListTransactionsRequest => ListTransactionsResponse;
    ListConfigResources = 74: serve 0..=1, advertise 0..=1, flexible 0, ListConfigResourcesRequest => ListConfigResourcesResponse;
    DescribeTopicPartitions = 75: serve 0..=0, advertise 0..=0, flexible 0, DescribeTopicPartitionsRequest => DescribeTopicPartitionsResponse;
}

impl Response {
    /// Tells the client how long it should wait; where a version has no such field it is only made to.
    pub(super) fn set_throttle_time_ms(&mut self, ms: i32) {
        match self {
            Response::Produce(body) => body.throttle_time_ms = ms,
            Response::Fetch(body) => body.throttle_time_ms = ms,
            Response::ListOffsets(body) => body.throttle_time_ms = ms,
            Response::Metadata(body) => body.throttle_time_ms = ms,
            Response::OffsetCommit(body) => body.throttle_time_ms = ms,
            Response::OffsetFetch(body) => body.throttle_time_ms = ms,
            Response::FindCoordinator(body) => body.throttle_time_ms = ms,
            Response::JoinGroup(body) => body.throttle_time_ms = ms,
            Response::Heartbeat(body) => body.throttle_time_ms = ms,
            Response::LeaveGroup(body) => body.throttle_time_ms = ms,
            Response::SyncGroup(body) => body.throttle_time_ms = ms,
            Response::DescribeGroups(body) => body.throttle_time_ms = ms,
            Response::ListGroups(body) => body.throttle_time_ms = ms,
            Response::ApiVersions(body) => body.throttle_time_ms = ms,
            Response::CreateTopics(body) => body.throttle_time_ms = ms,
            Response::DeleteTopics(body) => body.throttle_time_ms = ms,
            Response::DeleteRecords(body) => body.throttle_time_ms = ms,
            Response::InitProducerId(body) => body.throttle_time_ms = ms,
            Response::OffsetForLeaderEpoch(body) => body.throttle_time_ms = ms,
            Response::AddPartitionsToTxn(body) => body.throttle_time_ms = ms,
            Response::AddOffsetsToTxn(body) => body.throttle_time_ms = ms,
            Response::EndTxn(body) => body.throttle_time_ms = ms,
            Response::TxnOffsetCommit(body) => body.throttle_time_ms = ms,
            Response::DescribeConfigs(body) => body.throttle_time_ms = ms,
            Response::AlterConfigs(body) => body.throttle_time_ms = ms,
            Response::AlterReplicaLogDirs(body) => body.throttle_time_ms = ms,
            Response::DescribeLogDirs(body) => body.throttle_time_ms = ms,
            Response::CreatePartitions(body) => body.throttle_time_ms = ms,
            Response::DeleteGroups(body) => body.throttle_time_ms = ms,
            Response::ElectLeaders(body) => body.throttle_time_ms = ms,
            Response::IncrementalAlterConfigs(body) => body.throttle_time_ms = ms,
            Response::AlterPartitionReassignments(body) => body.throttle_time_ms = ms,
            Response::ListPartitionReassignments(body) => body.throttle_time_ms = ms,
            Response::OffsetDelete(body) => body.throttle_time_ms = ms,
            Response::DescribeClientQuotas(body) => body.throttle_time_ms = ms,
            Response::AlterClientQuotas(body) => body.throttle_time_ms = ms,
            Response::UpdateFeatures(body) => body.throttle_time_ms = ms,
            Response::DescribeCluster(body) => body.throttle_time_ms = ms,
            Response::DescribeProducers(body) => body.throttle_time_ms = ms,
            Response::DescribeTransactions(body) => body.throttle_time_ms = ms,
            Response::ListTransactions(body) => body.throttle_time_ms = ms,
            Response::ListConfigResources(body) => body.throttle_time_ms = ms,
            Response::DescribeTopicPartitions(body) => body.throttle_time_ms = ms,
            Response::WriteTxnMarkers(_) | Response::DescribeQuorum(_) => {}
        }
    }
}

/// A request message together with the response that belongs to it.
pub trait Call: Into<Request> {
    const API: ApiKey;
    type Response;
    /// `None` for the response of another API.
    fn response(response: Response) -> Option<Self::Response>;
}

/// What stands before every request's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    pub api_key: i16,
    pub api_version: i16,
    pub correlation_id: i32,
    pub client_id: Option<Str>,
}

impl ApiKey {
    fn layout(self, version: i16) -> Layout {
        Layout {
            version,
            flexible: version >= self.flexible_from(),
        }
    }

    /// ApiVersions keeps the oldest header for ever, because its reader does not know yet what it
    /// talks to (KIP-511).
    fn response_header_is_flexible(self, version: i16) -> bool {
        self != ApiKey::ApiVersions && version >= self.flexible_from()
    }
}

const RIGID: Layout = Layout {
    version: 0,
    flexible: false,
};

/// Reads a header up to its tagged fields, whose presence depends on the API.
fn read_header(r: &mut Reader) -> Result<RequestHeader, DecodeError> {
    Ok(RequestHeader {
        api_key: i16::read(r, RIGID)?,
        api_version: i16::read(r, RIGID)?,
        correlation_id: i32::read(r, RIGID)?,
        client_id: Wire::read(r, RIGID)?,
    })
}

/// The header alone: all that may be trusted in a request of an unknown version.
pub fn decode_header(frame: &Bytes) -> Result<RequestHeader, DecodeError> {
    read_header(&mut Reader::new(frame.clone()))
}

/// A request as it came in, without the frame's length field. Bytes after the last known field are
/// ignored, as Kafka does.
pub fn decode_request(frame: Bytes) -> Result<(RequestHeader, Request), DecodeError> {
    decode_request_from(&mut Reader::new(frame))
}

fn decode_request_from(r: &mut Reader) -> Result<(RequestHeader, Request), DecodeError> {
    let header = read_header(r)?;
    let api = ApiKey::from_code(header.api_key).ok_or(DecodeError::UnknownApi(header.api_key))?;
    let version = header.api_version;
    if !api.served().contains(&version) {
        return Err(DecodeError::UnsupportedVersion {
            api: api.name(),
            version,
        });
    }
    let layout = api.layout(version);
    if layout.flexible {
        r.tagged(|_, _| Ok(false))?;
    }
    let request = Request::read_body(api, r, layout)?;
    Ok((header, request))
}

/// A response's correlation id and body, without the frame's length field.
pub fn decode_response(
    api: ApiKey,
    version: i16,
    frame: Bytes,
) -> Result<(i32, Response), DecodeError> {
    decode_response_from(api, version, &mut Reader::new(frame))
}

fn decode_response_from(
    api: ApiKey,
    version: i16,
    r: &mut Reader,
) -> Result<(i32, Response), DecodeError> {
    if !api.served().contains(&version) {
        return Err(DecodeError::UnsupportedVersion {
            api: api.name(),
            version,
        });
    }
    let correlation_id = i32::read(r, RIGID)?;
    if api.response_header_is_flexible(version) {
        r.tagged(|_, _| Ok(false))?;
    }
    let response = Response::read_body(api, r, api.layout(version))?;
    Ok((correlation_id, response))
}

/// A request's frame, length field included.
pub fn encode_request(
    request: &Request,
    version: i16,
    correlation_id: i32,
    client_id: &Str,
) -> Result<Frame, EncodeError> {
    let api = request.api();
    check_version(api, version)?;
    let layout = api.layout(version);
    let mut w = Writer::new();
    api.code().write(&mut w, RIGID);
    version.write(&mut w, RIGID);
    correlation_id.write(&mut w, RIGID);
    client_id.write(&mut w, RIGID);
    if layout.flexible {
        w.tag_count(0);
    }
    request.write_body(&mut w, layout);
    w.finish()
}

/// A response's frame, length field included.
pub fn encode_response(
    response: &Response,
    version: i16,
    correlation_id: i32,
) -> Result<Frame, EncodeError> {
    let api = response.api();
    check_version(api, version)?;
    let mut w = Writer::new();
    correlation_id.write(&mut w, RIGID);
    if api.response_header_is_flexible(version) {
        w.tag_count(0);
    }
    response.write_body(&mut w, api.layout(version));
    w.finish()
}

fn check_version(api: ApiKey, version: i16) -> Result<(), EncodeError> {
    if api.served().contains(&version) {
        return Ok(());
    }
    Err(EncodeError::UnsupportedVersion {
        api: api.name(),
        version,
    })
}
