//! The codec against `kafka-protocol`, which was generated from Kafka's own message definitions and
//! shares no line with ours: both must agree on every byte and, by name, on every field. And the
//! codec against bytes that no client would send.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeMap;
use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as oracle;
use kafka_protocol::protocol::{Decodable, Encodable};

use super::arbitrary::Rng;
use super::wire::{LENGTH_BYTES, Reader};
use super::*;

const ROUNDS: u64 = 40;

/// Versions that the oracle does not know: they differ from the version before in nothing but the
/// number, or are pinned by a test of their own.
fn oracle_knows(api: ApiKey, version: i16, request: bool) -> bool {
    match api {
        ApiKey::ListOffsets => version <= 10,
        ApiKey::DescribeLogDirs => version <= 4,
        ApiKey::WriteTxnMarkers => version <= 1,
        ApiKey::OffsetCommit | ApiKey::OffsetFetch if request => version <= 9,
        _ => true,
    }
}

fn for_every_version(mut check: impl FnMut(ApiKey, i16, &mut Rng)) {
    for &api in ApiKey::ALL {
        for version in api.served() {
            for round in 0..ROUNDS {
                let seed = (api.code() as u64) << 32 | (version as u64) << 16 | round;
                let mut rng = Rng::new(seed);
                check(api, version, &mut rng);
            }
        }
    }
}

fn body(frame: Frame) -> Bytes {
    let bytes = frame.into_bytes().unwrap();
    let length = i32::from_be_bytes(bytes[..LENGTH_BYTES].try_into().unwrap());
    assert_eq!(length as usize, bytes.len() - LENGTH_BYTES);
    bytes.slice(LENGTH_BYTES..)
}

#[test]
fn requests_agree_with_the_oracle_in_every_version() {
    for_every_version(|api, version, rng| {
        let (request, _) = arbitrary_pair(api, rng, version);
        let frame = body(encode_request(&request, version, 7, &Str::from("cli")).unwrap());

        let mut r = Reader::new(frame.clone());
        let (header, back) = decode_request_from(&mut r).unwrap();
        assert_eq!(r.remaining(), 0, "{api:?} {version}");
        assert_eq!(
            (header.api_key, header.api_version, header.correlation_id),
            (api.code(), version, 7)
        );
        assert_eq!(back, request, "{api:?} {version}");

        if !oracle_knows(api, version, true) {
            return;
        }
        let key = oracle::ApiKey::try_from(api.code()).unwrap();
        let mut input = frame.clone();
        let header_version = key.request_header_version(version);
        let theirs = oracle::RequestHeader::decode(&mut input, header_version).unwrap();
        assert_eq!(theirs.client_id.as_deref(), Some("cli"));
        let theirs_body = oracle::RequestKind::decode(key, &mut input, version)
            .unwrap_or_else(|e| panic!("{api:?} {version}: {e} in {request:?}"));
        assert!(
            input.is_empty(),
            "{api:?} {version}: {} bytes unread",
            input.len()
        );
        assert_same_fields(&request, &theirs_body);

        let mut again = BytesMut::new();
        theirs.encode(&mut again, header_version).unwrap();
        theirs_body.encode(&mut again, version).unwrap();
        assert_eq!(again.freeze(), frame, "{api:?} {version} {request:?}");
    });
}

#[test]
fn responses_agree_with_the_oracle_in_every_version() {
    for_every_version(|api, version, rng| {
        let (_, response) = arbitrary_pair(api, rng, version);
        let frame = body(encode_response(&response, version, 9).unwrap());

        let mut r = Reader::new(frame.clone());
        let (correlation_id, back) = decode_response_from(api, version, &mut r).unwrap();
        assert_eq!((correlation_id, r.remaining()), (9, 0), "{api:?} {version}");
        assert_eq!(back, response, "{api:?} {version}");

        if !oracle_knows(api, version, false) {
            return;
        }
        let key = oracle::ApiKey::try_from(api.code()).unwrap();
        let mut input = frame.clone();
        let header_version = key.response_header_version(version);
        let theirs = oracle::ResponseHeader::decode(&mut input, header_version).unwrap();
        let theirs_body = oracle::ResponseKind::decode(key, &mut input, version)
            .unwrap_or_else(|e| panic!("{api:?} {version}: {e} in {response:?}"));
        assert!(
            input.is_empty(),
            "{api:?} {version}: {} bytes unread",
            input.len()
        );
        assert_same_fields(&response, &theirs_body);

        let mut again = BytesMut::new();
        theirs.encode(&mut again, header_version).unwrap();
        theirs_body.encode(&mut again, version).unwrap();
        assert_eq!(again.freeze(), frame, "{api:?} {version} {response:?}");
    });
}

#[test]
fn defaults_are_kafkas() {
    for &api in ApiKey::ALL {
        let version = *api.served().end();
        let version = if oracle_knows(api, version, true) {
            version
        } else {
            version - 1
        };
        let (request, response) = default_pair(api);
        let key = oracle::ApiKey::try_from(api.code()).unwrap();
        let mut input = body(encode_request(&request, version, 0, &Str::default()).unwrap());
        oracle::RequestHeader::decode(&mut input, key.request_header_version(version)).unwrap();
        assert_same_fields(
            &request,
            &oracle::RequestKind::decode(key, &mut input, version).unwrap(),
        );
        let mut input = body(encode_response(&response, version, 0).unwrap());
        oracle::ResponseHeader::decode(&mut input, key.response_header_version(version)).unwrap();
        assert_same_fields(
            &response,
            &oracle::ResponseKind::decode(key, &mut input, version).unwrap(),
        );
    }
}

/// The oracle's OffsetCommit and OffsetFetch requests end at version 9; version 10 puts the topic's
/// id in the place of its name (KIP-848).
#[test]
fn version_10_of_the_offset_requests_names_topics_by_id() {
    let id = uuid::Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
    let commit = OffsetCommitRequest {
        group_id: "g".into(),
        topics: vec![OffsetCommitRequestTopic {
            topic_id: id,
            ..Default::default()
        }],
        ..Default::default()
    };
    let frame = body(encode_request(&commit.into(), 10, 1, &Str::default()).unwrap());
    let mut expected = b"\x00\x08\x00\x0a\x00\x00\x00\x01\x00\x00\x00".to_vec();
    expected.extend(b"\x02g\xff\xff\xff\xff\x01\x00\x02");
    expected.extend(id.as_bytes());
    expected.extend(b"\x01\x00\x00");
    assert_eq!(frame, expected);

    let fetch = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: "g".into(),
            topics: Some(vec![OffsetFetchRequestTopics {
                topic_id: id,
                partition_indexes: vec![3],
                ..Default::default()
            }]),
            ..Default::default()
        }],
        ..Default::default()
    };
    let frame = body(encode_request(&fetch.into(), 10, 1, &Str::default()).unwrap());
    let mut expected = b"\x00\x09\x00\x0a\x00\x00\x00\x01\x00\x00\x00".to_vec();
    expected.extend(b"\x02\x02g\x00\xff\xff\xff\xff\x02");
    expected.extend(id.as_bytes());
    expected.extend(b"\x02\x00\x00\x00\x03\x00\x00\x00\x00");
    assert_eq!(frame, expected);
}

/// Nor version 5 of DescribeLogDirs, whose response has one byte more (KIP-1066).
#[test]
fn version_5_of_describe_log_dirs_says_what_is_cordoned() {
    let response = DescribeLogDirsResponse {
        results: vec![DescribeLogDirsResult {
            log_dir: "d".into(),
            is_cordoned: true,
            ..Default::default()
        }],
        ..Default::default()
    };
    let frame = body(encode_response(&response.into(), 5, 1).unwrap());
    let mut expected =
        b"\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x02d\x01".to_vec();
    expected.extend([0xff; 16]);
    expected.extend(b"\x01\x00\x00");
    assert_eq!(frame, expected);
}

/// Nor does it know version 11 of ListOffsets, which added a meaning (KIP-1023) and no field.
#[test]
fn version_11_of_list_offsets_looks_like_version_10() {
    let mut rng = Rng::new(11);
    for _ in 0..ROUNDS {
        let (request, response) = arbitrary_pair(ApiKey::ListOffsets, &mut rng, 10);
        let requests = [10, 11].map(|version| {
            let mut frame = body(encode_request(&request, version, 1, &Str::default()).unwrap());
            assert_eq!(frame.split_to(4)[2..], version.to_be_bytes());
            frame
        });
        assert_eq!(requests[0], requests[1]);
        let responses =
            [10, 11].map(|version| body(encode_response(&response, version, 1).unwrap()));
        assert_eq!(responses[0], responses[1]);
    }
}

#[test]
fn record_batches_are_shared_in_both_directions() {
    let batch = Bytes::from(vec![7u8; 5000]);
    let response = FetchResponse {
        responses: vec![FetchableTopicResponse {
            partitions: vec![PartitionData {
                records: Some(Records::new(vec![Chunk::Memory(batch.clone()); 2])),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let chunks = encode_response(&response.into(), 12, 1)
        .unwrap()
        .into_chunks();
    let shared = chunks
        .iter()
        .filter(|chunk| matches!(chunk, Chunk::Memory(chunk) if chunk.as_ptr() == batch.as_ptr()))
        .count();
    assert_eq!(
        shared, 2,
        "the batches themselves are in the list of chunks"
    );
    assert_eq!(chunks.len(), 4);

    let frame = body(Frame::from_chunks(chunks));
    let (_, decoded) = decode_response(ApiKey::Fetch, 12, frame.clone()).unwrap();
    let Response::Fetch(fetch) = decoded else {
        panic!("another API")
    };
    let records = fetch.responses[0].partitions[0]
        .records
        .clone()
        .unwrap()
        .into_bytes()
        .unwrap();
    assert_eq!(records.len(), 10_000);
    assert!(
        frame.as_ptr_range().contains(&records.as_ptr()),
        "a slice of the frame"
    );
}

#[test]
fn every_truncation_is_an_error_and_never_a_panic() {
    for &api in ApiKey::ALL {
        for version in api.served() {
            let mut rng = Rng::new(version as u64 + 1000);
            let (request, response) = arbitrary_pair(api, &mut rng, version);
            let frame = body(encode_request(&request, version, 1, &Str::from("c")).unwrap());
            for cut in 0..frame.len() {
                assert!(
                    decode_request(frame.slice(..cut)).is_err(),
                    "{api:?} {version} at {cut}"
                );
            }
            let frame = body(encode_response(&response, version, 1).unwrap());
            for cut in 0..frame.len() {
                assert!(
                    decode_response(api, version, frame.slice(..cut)).is_err(),
                    "{api:?} {version} at {cut}"
                );
            }
        }
    }
}

/// Writes impossible lengths over every position of real frames. What survives decoding must be
/// small: at most the limit of the frame.
#[test]
fn hostile_lengths_neither_panic_nor_allocate() {
    let hostile: [&[u8]; 6] = [
        b"\x7f\xff\xff\xff",
        b"\xff\xff\xff\xfe",
        b"\xff\xff\xff\xff\x0f",
        b"\xff\xff\xff\xff\xff",
        b"\x7f\xff",
        b"\x80\x80\x80\x80\x08",
    ];
    for &api in ApiKey::ALL {
        for version in api.served() {
            let mut rng = Rng::new(version as u64 + 77);
            let (request, response) = arbitrary_pair(api, &mut rng, version);
            let request = body(encode_request(&request, version, 1, &Str::from("c")).unwrap());
            let response = body(encode_response(&response, version, 1).unwrap());
            for at in 0..request.len().max(response.len()) {
                for bytes in hostile {
                    let _ = decode_request(overwrite(&request, at, bytes));
                    let _ = decode_response(api, version, overwrite(&response, at, bytes));
                }
            }
        }
    }
}

fn overwrite(frame: &Bytes, at: usize, bytes: &[u8]) -> Bytes {
    let mut copy = frame.to_vec();
    let at = at.min(copy.len());
    let end = (at + bytes.len()).min(copy.len());
    copy.splice(at..end, bytes.iter().copied());
    Bytes::from(copy)
}

#[test]
fn random_bytes_never_panic() {
    let mut rng = Rng::new(4242);
    for _ in 0..20_000 {
        let api = ApiKey::ALL[rng.below(ApiKey::ALL.len())];
        let versions = api.served();
        let span = (versions.end() - versions.start() + 1) as usize;
        let version = versions.start() + rng.below(span) as i16;
        let mut frame = BytesMut::new();
        frame.extend_from_slice(&api.code().to_be_bytes());
        frame.extend_from_slice(&version.to_be_bytes());
        frame.extend_from_slice(&[0, 0, 0, 1, 0xff, 0xff]);
        frame.extend((0..rng.below(200)).map(|_| {
            if rng.below(3) == 0 {
                rng.next() as u8
            } else {
                rng.below(4) as u8
            }
        }));
        let frame = frame.freeze();
        let _ = decode_request(frame.clone());
        let _ = decode_response(api, version, frame);
    }
}

/// The body that makes other codecs ask for 154 GB: four bytes, an array of 2^31-1 topics.
#[test]
fn a_metadata_request_for_two_billion_topics_is_refused_by_its_length() {
    let frame = Bytes::from_static(b"\x00\x03\x00\x01\x00\x00\x00\x01\xff\xff\x7f\xff\xff\xff");
    let refused = decode_request(frame).unwrap_err();
    assert_eq!(
        refused,
        DecodeError::Truncated {
            needed: 0x7fff_ffff,
            left: 0
        }
    );
}

/// A length that the frame could hold, of elements that memory should not.
#[test]
fn an_array_of_many_tiny_elements_is_refused_by_its_memory() {
    let mut frame = b"\x00\x03\x00\x0c\x00\x00\x00\x01\xff\xff\x00".to_vec();
    frame.extend(b"\x81\x80\x80\x04");
    frame.resize(frame.len() + (8 << 20), 0);
    let refused = decode_request(frame.into()).unwrap_err();
    assert!(
        matches!(refused, DecodeError::TooMuchStructure { .. }),
        "{refused}"
    );
}

#[test]
fn null_is_refused_where_a_version_has_none() {
    let all = MetadataRequest {
        topics: None,
        ..Default::default()
    };
    assert!(encode_request(&all.clone().into(), 0, 1, &Str::default()).is_err());
    assert!(encode_request(&all.into(), 1, 1, &Str::default()).is_ok());
    let frame = Bytes::from_static(b"\x00\x03\x00\x00\x00\x00\x00\x01\xff\xff\xff\xff\xff\xff");
    assert_eq!(
        decode_request(frame).unwrap_err(),
        DecodeError::Null {
            field: "topics",
            version: 0
        }
    );
}

#[test]
fn unknown_tagged_fields_are_skipped() {
    let frame = Bytes::from_static(
        b"\x00\x12\x00\x03\x00\x00\x00\x01\xff\xff\x01\x09\x02zz\x02a\x02b\x01\x2a\x03abc",
    );
    let (_, request) = decode_request(frame).unwrap();
    let Request::ApiVersions(request) = request else {
        panic!("another API")
    };
    assert_eq!(request.client_software_name.as_str(), "a");
    assert_eq!(request.client_software_version.as_str(), "b");
}

/// Fields of the oracle that no version served here has, and the last one, which is newer than it.
const NOT_COMPARED: &[&str] = &[
    "unknown_tagged_fields",
    "enable_2_pc",
    "keep_prepared_txn",
    "ongoing_txn_producer_id",
    "ongoing_txn_producer_epoch",
    "is_cordoned",
    "transaction_version",
];

#[derive(Debug, PartialEq, Eq)]
enum Tree {
    Leaf(String),
    List(Vec<Tree>),
    Fields(BTreeMap<String, Tree>),
}

/// Compares two messages of different types field by field through their `Debug` forms, so that two
/// fields of one type cannot have changed places.
fn assert_same_fields(ours: &impl Debug, theirs: &impl Debug) {
    let (ours, theirs) = (format!("{ours:?}"), format!("{theirs:?}"));
    let parsed = (Parser::parse(&ours), Parser::parse(&theirs));
    assert_eq!(parsed.0, parsed.1, "\nours:   {ours}\ntheirs: {theirs}");
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn parse(text: &str) -> Tree {
        let mut parser = Parser { rest: text };
        let tree = parser.value();
        assert!(parser.rest.is_empty(), "unread: {}", parser.rest);
        tree
    }

    fn eat(&mut self, token: &str) -> bool {
        let trimmed = self.rest.trim_start();
        match trimmed.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn word(&mut self) -> String {
        let trimmed = self.rest.trim_start();
        let end = trimmed
            .find(|c: char| !(c.is_alphanumeric() || "_-+.".contains(c)))
            .unwrap_or(trimmed.len());
        let (word, rest) = trimmed.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn quoted(&mut self) -> Tree {
        let mut text = String::new();
        let mut escaped = false;
        let mut used = 0;
        for c in self.rest.chars() {
            used += c.len_utf8();
            if !escaped && c == '"' {
                break;
            }
            escaped = !escaped && c == '\\';
            text.push(c);
        }
        self.rest = &self.rest[used..];
        Tree::Leaf(text)
    }

    fn until(&mut self, close: &str) -> Vec<Tree> {
        let mut items = Vec::new();
        while !self.eat(close) {
            items.push(self.value());
            self.eat(",");
        }
        items
    }

    fn fields(&mut self) -> Tree {
        let mut fields = BTreeMap::new();
        while !self.eat("}") {
            let name = self.word();
            assert!(self.eat(":"), "no field at {}", self.rest);
            let value = self.value();
            self.eat(",");
            if !NOT_COMPARED.contains(&name.as_str()) {
                fields.insert(name, value);
            }
        }
        Tree::Fields(fields)
    }

    fn value(&mut self) -> Tree {
        if self.eat("b\"") || self.eat("\"") {
            return self.quoted();
        }
        if self.eat("[") {
            return Tree::List(self.until("]"));
        }
        if self.eat("{") {
            return self.fields();
        }
        let name = self.word();
        assert!(!name.is_empty(), "no value at {}", self.rest);
        if self.eat("{") {
            return self.fields();
        }
        if !self.eat("(") {
            return Tree::Leaf(name);
        }
        let mut items = self.until(")");
        assert_eq!(items.len(), 1, "{name} is not a wrapper");
        match (name.as_str(), items.remove(0)) {
            ("Records", Tree::List(mut chunks)) if chunks.len() == 1 => chunks.remove(0),
            ("Records", Tree::List(chunks)) if chunks.is_empty() => Tree::Leaf(String::new()),
            (_, item) => item,
        }
    }
}
