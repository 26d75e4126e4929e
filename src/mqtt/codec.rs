//! Control packets other than PUBLISH, through rumqttd's codec.
//!
//! The codec is handed whole frames of known kinds only (`frame` sees to that). A panic in it is
//! caught and counts as a malformed packet: it would be a fault of the codec, and it must still
//! end one connection only.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::BytesMut;
use rumqttd::protocol::{
    ConnAck, ConnAckProperties, ConnectReturnCode, Packet, Protocol, SubAck, SubscribeReasonCode,
    UnsubAck, UnsubAckReason, v4::V4, v5::V5,
};

use super::frame::{Fault, Version};

/// Decodes one whole packet.
pub(crate) fn read(mut packet: BytesMut, version: Version) -> Result<Packet, Fault> {
    if let (Version::V5, [0xe0, 1, reason]) = (version, &packet[..]) {
        // Properties may be left out (3.14.2.2.1), which rumqttd does not know.
        packet = BytesMut::from(&disconnect(*reason)[..]);
    }
    let len = packet.len();
    let decoded = catch_unwind(AssertUnwindSafe(|| match version {
        Version::V311 => V4.read_mut(&mut packet, len),
        Version::V5 => V5.read_mut(&mut packet, len),
    }));
    match decoded {
        Ok(Ok(packet)) => Ok(packet),
        Ok(Err(error)) => Err(Fault::malformed(error.to_string())),
        Err(_) => Err(Fault::malformed("the codec panicked over it")),
    }
}

fn write(packet: Packet, version: Version, out: &mut BytesMut) {
    let written = match version {
        Version::V311 => V4.write(packet, out),
        Version::V5 => V5.write(packet, out),
    };
    debug_assert!(
        written.is_ok(),
        "packets of ours fit their format: {written:?}"
    );
}

/// Properties go to MQTT 5 clients only.
pub(crate) fn write_connack(
    code: ConnectReturnCode,
    properties: ConnAckProperties,
    version: Version,
    out: &mut BytesMut,
) {
    // No session outlives its connection, so that there is never one to resume.
    let connack = ConnAck {
        session_present: false,
        code,
    };
    let properties = (version == Version::V5).then_some(properties);
    write(Packet::ConnAck(connack, properties), version, out);
}

pub(crate) fn write_suback(
    packet_id: u16,
    return_codes: Vec<SubscribeReasonCode>,
    version: Version,
    out: &mut BytesMut,
) {
    write(
        Packet::SubAck(
            SubAck {
                pkid: packet_id,
                return_codes,
            },
            None,
        ),
        version,
        out,
    );
}

pub(crate) fn write_unsuback(
    packet_id: u16,
    reasons: Vec<UnsubAckReason>,
    version: Version,
    out: &mut BytesMut,
) {
    write(
        Packet::UnsubAck(
            UnsubAck {
                pkid: packet_id,
                reasons,
            },
            None,
        ),
        version,
        out,
    );
}

/// Both versions: the short form, which means success.
pub(crate) fn puback(packet_id: u16) -> [u8; 4] {
    let [high, low] = packet_id.to_be_bytes();
    [0x40, 2, high, low]
}

/// MQTT 5 only: 3.1.1 has no PUBACK that says no.
pub(crate) fn puback_refused(packet_id: u16, reason: u8) -> [u8; 5] {
    let [high, low] = packet_id.to_be_bytes();
    [0x40, 3, high, low, reason]
}

pub(crate) const PINGRESP: [u8; 2] = [0xd0, 0];

/// MQTT 5 only: 3.1.1 has no DISCONNECT from the server.
pub(crate) fn disconnect(reason: u8) -> [u8; 4] {
    [0xe0, 2, reason, 0]
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )]
    use super::*;

    #[test]
    fn hand_built_packets_are_read_by_the_codec() {
        for version in [Version::V311, Version::V5] {
            let packet = read(BytesMut::from(&puback(0x1234)[..]), version).unwrap();
            assert!(matches!(packet, Packet::PubAck(ack, None) if ack.pkid == 0x1234));
        }
        let packet = read(BytesMut::from(&disconnect(0x8e)[..]), Version::V5).unwrap();
        assert!(matches!(packet, Packet::Disconnect(..)));
        let short = read(BytesMut::from(&[0xe0, 1, 0x04][..]), Version::V5).unwrap();
        let long = read(BytesMut::from(&disconnect(0x04)[..]), Version::V5).unwrap();
        assert_eq!(short, long);
        assert!(read(BytesMut::from(&[0xe0, 1, 0x04][..]), Version::V311).is_err());
    }

    #[test]
    fn a_panic_of_the_codec_is_a_fault_of_the_packet() {
        let fault = read(BytesMut::from(&[0x20, 2, 0, 0][..]), Version::V5).unwrap_err();
        assert!(fault.text.contains("panicked"));
    }
}
