//! The PUBLISH packet, read without copying and written by hand.
//!
//! rumqttd's decoder keeps QoS and packet identifier of a publish to itself, and this is the one
//! packet whose cost counts; every other packet goes through its codec (see `codec`).

use bytes::{BufMut, Bytes, BytesMut};

use super::frame::{Fault, Frame, Version, variable_integer};
use super::reason;

mod property {
    pub(super) const PAYLOAD_FORMAT: u8 = 1;
    pub(super) const MESSAGE_EXPIRY: u8 = 2;
    pub(super) const CONTENT_TYPE: u8 = 3;
    pub(super) const RESPONSE_TOPIC: u8 = 8;
    pub(super) const CORRELATION_DATA: u8 = 9;
    pub(super) const SUBSCRIPTION_ID: u8 = 11;
    pub(super) const TOPIC_ALIAS: u8 = 35;
    pub(super) const USER: u8 = 38;
}

/// Quality of service that this door speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum QoS {
    AtMostOnce = 0,
    AtLeastOnce = 1,
}

/// A publish as it came; every `Bytes` is a slice of the read buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// 0 with QoS 0.
    pub(crate) packet_id: u16,
    /// Not yet validated; empty where an alias stands for it.
    pub(crate) topic: Bytes,
    pub(crate) topic_alias: Option<u16>,
    pub(crate) properties: Option<Box<PublishProperties>>,
    pub(crate) payload: Bytes,
}

/// Properties of an MQTT 5 publish that travel with the message. Texts are valid UTF-8.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PublishProperties {
    pub(crate) payload_format: Option<u8>,
    pub(crate) expiry_s: Option<u32>,
    pub(crate) content_type: Option<Bytes>,
    pub(crate) response_topic: Option<Bytes>,
    pub(crate) correlation_data: Option<Bytes>,
    pub(crate) user: Vec<(Bytes, Bytes)>,
}

/// Reads one publish from its whole packet.
pub(crate) fn read(
    packet: Bytes,
    frame: Frame,
    version: Version,
    user_properties_max: usize,
) -> Result<Publish, Fault> {
    let qos = match (frame.flags >> 1) & 3 {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => {
            return Err(Fault::new(
                reason::QOS_NOT_SUPPORTED,
                "QoS 2 is not offered, QoS 1 is",
            ));
        }
    };
    let mut reader = Reader {
        packet,
        at: frame.header_len,
    };
    let topic = reader.binary()?;
    let packet_id = if qos == QoS::AtLeastOnce {
        reader.u16()?
    } else {
        0
    };
    if qos == QoS::AtLeastOnce && packet_id == 0 {
        return Err(Fault::protocol("packet identifier 0"));
    }
    let (topic_alias, properties) = match version {
        Version::V311 => (None, None),
        Version::V5 => read_properties(&mut reader, user_properties_max)?,
    };
    let payload = reader.rest();
    let retain = frame.flags & 1 != 0;
    Ok(Publish {
        qos,
        retain,
        packet_id,
        topic,
        topic_alias,
        properties,
        payload,
    })
}

type ReadProperties = (Option<u16>, Option<Box<PublishProperties>>);

fn read_properties(
    reader: &mut Reader,
    user_properties_max: usize,
) -> Result<ReadProperties, Fault> {
    let len = reader.variable_integer()?;
    if len == 0 {
        return Ok((None, None));
    }
    let end = reader.at + len;
    if end > reader.packet.len() {
        return Err(Fault::malformed("properties reach beyond their packet"));
    }
    let mut alias = None;
    let mut found = PublishProperties::default();
    while reader.at < end {
        match reader.u8()? {
            property::PAYLOAD_FORMAT => {
                let format = reader.u8()?;
                if format > 1 {
                    return Err(Fault::protocol("a payload format other than 0 and 1"));
                }
                once(&mut found.payload_format, format)?;
            }
            property::MESSAGE_EXPIRY => once(&mut found.expiry_s, reader.u32()?)?,
            property::CONTENT_TYPE => once(&mut found.content_type, reader.text()?)?,
            property::RESPONSE_TOPIC => once(&mut found.response_topic, reader.text()?)?,
            property::CORRELATION_DATA => once(&mut found.correlation_data, reader.binary()?)?,
            property::TOPIC_ALIAS => once(&mut alias, reader.u16()?)?,
            property::USER => {
                if found.user.len() >= user_properties_max {
                    let text = format!("more than {user_properties_max} user properties");
                    return Err(Fault::new(reason::QUOTA_EXCEEDED, text));
                }
                found.user.push((reader.text()?, reader.text()?));
            }
            property::SUBSCRIPTION_ID => {
                return Err(Fault::protocol(
                    "a subscription identifier in a client's publish",
                ));
            }
            other => {
                return Err(Fault::malformed(format!("property {other} in a publish")));
            }
        }
    }
    if reader.at != end {
        return Err(Fault::malformed("a property reaches beyond the properties"));
    }
    let properties = (found != PublishProperties::default()).then(|| Box::new(found));
    Ok((alias, properties))
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Fault> {
    if slot.replace(value).is_some() {
        return Err(Fault::protocol(
            "a property that may stand once stands twice",
        ));
    }
    Ok(())
}

/// Reads fields off a whole packet; no length leads beyond it.
struct Reader {
    packet: Bytes,
    at: usize,
}

impl Reader {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let bytes = self
            .packet
            .get(self.at..)
            .and_then(|rest| rest.first_chunk::<N>());
        let array = *bytes.ok_or_else(|| Fault::malformed("a field reaches beyond its packet"))?;
        self.at += N;
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, Fault> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_be_bytes)
    }

    fn variable_integer(&mut self) -> Result<usize, Fault> {
        let rest = self.packet.get(self.at..).unwrap_or_default();
        let (value, len) = variable_integer(rest)?
            .ok_or_else(|| Fault::malformed("a length reaches beyond its packet"))?;
        self.at += len;
        Ok(value)
    }

    fn binary(&mut self) -> Result<Bytes, Fault> {
        let len = usize::from(self.u16()?);
        let end = self.at + len;
        if end > self.packet.len() {
            return Err(Fault::malformed("a field reaches beyond its packet"));
        }
        let bytes = self.packet.slice(self.at..end);
        self.at = end;
        Ok(bytes)
    }

    fn text(&mut self) -> Result<Bytes, Fault> {
        let bytes = self.binary()?;
        match std::str::from_utf8(&bytes) {
            Ok(text) if !text.contains('\0') => Ok(bytes),
            _ => Err(Fault::malformed("a text is not UTF-8 or contains U+0000")),
        }
    }

    fn rest(self) -> Bytes {
        self.packet.slice(self.at.min(self.packet.len())..)
    }
}

impl PublishProperties {
    /// As they stand in a publish, without the expiry (which shrinks while a message waits) and
    /// without length; what [`Outgoing::properties`] takes.
    pub(crate) fn to_wire(&self) -> Bytes {
        let mut wire = BytesMut::new();
        if let Some(format) = self.payload_format {
            wire.put_u8(property::PAYLOAD_FORMAT);
            wire.put_u8(format);
        }
        for (id, value) in [
            (property::CONTENT_TYPE, &self.content_type),
            (property::RESPONSE_TOPIC, &self.response_topic),
            (property::CORRELATION_DATA, &self.correlation_data),
        ] {
            if let Some(value) = value {
                wire.put_u8(id);
                put_binary(&mut wire, value);
            }
        }
        for (name, value) in &self.user {
            wire.put_u8(property::USER);
            put_binary(&mut wire, name);
            put_binary(&mut wire, value);
        }
        wire.freeze()
    }
}

/// A publish to a subscriber.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing<'m> {
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) packet_id: u16,
    pub(crate) topic: &'m [u8],
    pub(crate) payload: &'m [u8],
    /// The publisher's properties, as [`PublishProperties::to_wire`] gives them.
    pub(crate) properties: &'m [u8],
    pub(crate) expiry_s: Option<u32>,
    pub(crate) subscription_id: Option<u32>,
}

impl Outgoing<'_> {
    fn properties_len(&self) -> usize {
        let expiry = if self.expiry_s.is_some() { 5 } else { 0 };
        let id = self
            .subscription_id
            .map_or(0, |id| 1 + variable_integer_len(id as usize));
        self.properties.len() + expiry + id
    }

    fn remaining_len(&self, version: Version) -> usize {
        let packet_id = if self.qos == QoS::AtLeastOnce { 2 } else { 0 };
        let properties = match version {
            Version::V311 => 0,
            Version::V5 => variable_integer_len(self.properties_len()) + self.properties_len(),
        };
        2 + self.topic.len() + packet_id + properties + self.payload.len()
    }

    /// Bytes of the whole packet.
    pub(crate) fn packet_len(&self, version: Version) -> usize {
        let remaining = self.remaining_len(version);
        1 + variable_integer_len(remaining) + remaining
    }

    pub(crate) fn write(&self, version: Version, out: &mut BytesMut) {
        let remaining = self.remaining_len(version);
        out.reserve(5 + remaining);
        out.put_u8(0x30 | ((self.qos as u8) << 1) | u8::from(self.retain));
        put_variable_integer(out, remaining);
        put_binary(out, self.topic);
        if self.qos == QoS::AtLeastOnce {
            out.put_u16(self.packet_id);
        }
        if version == Version::V5 {
            put_variable_integer(out, self.properties_len());
            if let Some(expiry_s) = self.expiry_s {
                out.put_u8(property::MESSAGE_EXPIRY);
                out.put_u32(expiry_s);
            }
            out.put_slice(self.properties);
            if let Some(id) = self.subscription_id {
                out.put_u8(property::SUBSCRIPTION_ID);
                put_variable_integer(out, id as usize);
            }
        }
        out.put_slice(self.payload);
    }
}

fn put_binary(out: &mut BytesMut, bytes: &[u8]) {
    debug_assert!(
        bytes.len() <= usize::from(u16::MAX),
        "it was read with a two-byte length"
    );
    out.put_u16(u16::try_from(bytes.len()).unwrap_or(u16::MAX));
    out.put_slice(bytes.get(..usize::from(u16::MAX)).unwrap_or(bytes));
}

fn variable_integer_len(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

fn put_variable_integer(out: &mut BytesMut, mut value: usize) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.put_u8(low);
            return;
        }
        out.put_u8(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )]
    use proptest::prelude::*;
    use rumqttd::protocol::{Packet, Protocol, v4::V4, v5::V5};

    use super::*;
    use crate::mqtt::frame;

    fn parse(packet: &[u8], version: Version) -> Result<Publish, Fault> {
        let frame = frame::next(packet, version, 1 << 20)?.unwrap();
        read(Bytes::copy_from_slice(packet), frame, version, 4)
    }

    fn outgoing<'m>(payload: &'m [u8], properties: &'m [u8]) -> Outgoing<'m> {
        Outgoing {
            qos: QoS::AtLeastOnce,
            retain: true,
            packet_id: 7,
            topic: b"a/b",
            payload,
            properties,
            expiry_s: None,
            subscription_id: None,
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let properties = PublishProperties {
            payload_format: Some(1),
            expiry_s: None,
            content_type: Some(Bytes::from_static(b"application/json")),
            response_topic: Some(Bytes::from_static(b"re/ply")),
            correlation_data: Some(Bytes::from_static(&[0, 255])),
            user: vec![(Bytes::from_static(b"k"), Bytes::from_static(b"v"))],
        };
        let wire = properties.to_wire();
        let mut out = BytesMut::new();
        let message = Outgoing {
            expiry_s: Some(9),
            ..outgoing(&[1; 300], &wire)
        };
        message.write(Version::V5, &mut out);
        assert_eq!(out.len(), message.packet_len(Version::V5));
        let publish = parse(&out, Version::V5).unwrap();
        assert_eq!(publish.qos, QoS::AtLeastOnce);
        assert!(publish.retain);
        assert_eq!(publish.packet_id, 7);
        assert_eq!(publish.topic, "a/b");
        assert_eq!(publish.payload, vec![1; 300]);
        assert_eq!(
            *publish.properties.unwrap(),
            PublishProperties {
                expiry_s: Some(9),
                ..properties
            }
        );
    }

    #[test]
    fn our_publishes_are_read_by_an_independent_decoder() {
        let mut out = BytesMut::new();
        let with_id = Outgoing {
            subscription_id: Some(300),
            ..outgoing(b"xyz", &[])
        };
        with_id.write(Version::V5, &mut out);
        let Packet::Publish(publish, properties) = V5.read_mut(&mut out, 1000).unwrap() else {
            panic!("not a publish");
        };
        assert_eq!(
            (&publish.topic[..], &publish.payload[..]),
            (&b"a/b"[..], &b"xyz"[..])
        );
        assert_eq!(properties.unwrap().subscription_identifiers, [300]);
        outgoing(b"xyz", &[]).write(Version::V311, &mut out);
        let Packet::Publish(publish, _) = V4.read_mut(&mut out, 1000).unwrap() else {
            panic!("not a publish");
        };
        assert_eq!(
            (&publish.topic[..], &publish.payload[..]),
            (&b"a/b"[..], &b"xyz"[..])
        );
        assert!(publish.retain);
    }

    #[test]
    fn breaches_have_their_reason_code() {
        let v5 = |body: &[u8]| {
            let mut packet = vec![0x32, u8::try_from(body.len()).unwrap()];
            packet.extend_from_slice(body);
            parse(&packet, Version::V5).unwrap_err().reason
        };
        let topic = [0, 1, b'a', 0, 1];
        let with = |properties: &[u8]| [&topic[..], properties].concat();
        assert_eq!(v5(&[0, 1, b'a', 0, 0, 0]), reason::PROTOCOL_ERROR);
        assert_eq!(v5(&with(&[4, 1, 1, 1, 1])), reason::PROTOCOL_ERROR);
        assert_eq!(v5(&with(&[2, 1, 2])), reason::PROTOCOL_ERROR);
        assert_eq!(v5(&with(&[2, 11, 1])), reason::PROTOCOL_ERROR);
        assert_eq!(v5(&with(&[1, 99])), reason::MALFORMED_PACKET);
        assert_eq!(v5(&with(&[9, 1])), reason::MALFORMED_PACKET);
        assert_eq!(v5(&with(&[1, 35, 0, 1])), reason::MALFORMED_PACKET);
        assert_eq!(
            v5(&with(&[5, 3, 0, 2, 0xff, 0xff])),
            reason::MALFORMED_PACKET
        );
        assert_eq!(v5(&[0, 9, b'a']), reason::MALFORMED_PACKET);
        assert_eq!(
            v5(&with(&[
                25, 38, 0, 0, 0, 0, 38, 0, 0, 0, 0, 38, 0, 0, 0, 0, 38, 0, 0, 0, 0, 38, 0, 0, 0, 0
            ])),
            reason::QUOTA_EXCEEDED
        );
        let qos2 = parse(&[0x34, 5, 0, 1, b'a', 0, 1], Version::V311).unwrap_err();
        assert_eq!(qos2.reason, reason::QOS_NOT_SUPPORTED);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(body in prop::collection::vec(any::<u8>(), 0..100), first in 0x30u8..0x34) {
            let mut packet = vec![first, u8::try_from(body.len()).unwrap()];
            packet.extend_from_slice(&body);
            for version in [Version::V311, Version::V5] {
                if let Ok(publish) = parse(&packet, version) {
                    prop_assert!(publish.payload.len() <= body.len());
                }
            }
        }
    }
}
