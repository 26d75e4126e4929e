//! Framing: where one control packet ends in the read buffer, and which packets a client may send.
//!
//! Everything is checked here before rumqttd's codec sees a byte: that codec panics on packets
//! that only servers send, and reads lengths before it knows whether the frame is whole.

use super::reason;

/// Protocol of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V311,
    V5,
}

/// A breach that ends the connection of the client that sent it, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text} (0x{reason:02x})")]
pub(crate) struct Fault {
    /// MQTT 5 reason code of the DISCONNECT.
    pub(crate) reason: u8,
    /// For the log.
    pub(crate) text: String,
}

impl Fault {
    pub(crate) fn new(reason: u8, text: impl Into<String>) -> Fault {
        Fault {
            reason,
            text: text.into(),
        }
    }

    pub(crate) fn malformed(text: impl Into<String>) -> Fault {
        Fault::new(reason::MALFORMED_PACKET, text)
    }

    pub(crate) fn protocol(text: impl Into<String>) -> Fault {
        Fault::new(reason::PROTOCOL_ERROR, text)
    }
}

/// Packets a client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Connect,
    Publish,
    PubAck,
    Subscribe,
    Unsubscribe,
    PingReq,
    Disconnect,
}

/// Fixed header of a packet of which every byte has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    /// Bytes of the fixed header.
    pub(crate) header_len: usize,
    /// Bytes of the whole packet.
    pub(crate) len: usize,
}

/// A variable byte integer at the start of `bytes`: its value and its length. `None` while bytes
/// are missing.
pub(crate) fn variable_integer(bytes: &[u8]) -> Result<Option<(usize, usize)>, Fault> {
    let mut value = 0usize;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() >= 4 {
        return Err(Fault::malformed("a length takes more than four bytes"));
    }
    Ok(None)
}

/// The next whole packet in `buffer`, or `None` while bytes are missing. Refuses it as early as
/// its first bytes tell: by type, by flags, by length.
pub(crate) fn next(
    buffer: &[u8],
    version: Version,
    bytes_max: usize,
) -> Result<Option<Frame>, Fault> {
    let Some((&first, rest)) = buffer.split_first() else {
        return Ok(None);
    };
    let kind = kind_of(first, version)?;
    let Some((remaining, length_len)) = variable_integer(rest)? else {
        return Ok(None);
    };
    let header_len = 1 + length_len;
    let len = header_len + remaining;
    if len > bytes_max {
        let text = format!("a packet of {len} bytes exceeds the limit of {bytes_max}");
        return Err(Fault::new(reason::PACKET_TOO_LARGE, text));
    }
    Ok((buffer.len() >= len).then_some(Frame {
        kind,
        flags: first & 0x0f,
        header_len,
        len,
    }))
}

fn kind_of(first: u8, version: Version) -> Result<Kind, Fault> {
    let flags = first & 0x0f;
    let (kind, flags_due) = match first >> 4 {
        1 => (Kind::Connect, 0),
        3 => return publish_flags(flags).map(|()| Kind::Publish),
        4 => (Kind::PubAck, 0),
        8 => (Kind::Subscribe, 2),
        10 => (Kind::Unsubscribe, 2),
        12 => (Kind::PingReq, 0),
        14 => (Kind::Disconnect, 0),
        5..=7 => {
            return Err(Fault::protocol(
                "a packet of a QoS 2 exchange that was never begun",
            ));
        }
        15 if version == Version::V5 => {
            return Err(Fault::protocol("AUTH without an authentication method"));
        }
        2 | 9 | 11 | 13 => return Err(Fault::protocol("a packet that only servers send")),
        _ => return Err(Fault::malformed("a reserved packet type")),
    };
    if flags == flags_due {
        Ok(kind)
    } else {
        Err(Fault::malformed(
            "reserved flags of the fixed header are set",
        ))
    }
}

fn publish_flags(flags: u8) -> Result<(), Fault> {
    let qos = (flags >> 1) & 3;
    if qos == 3 {
        return Err(Fault::malformed("a publish with QoS 3"));
    }
    if qos == 0 && flags & 0x08 != 0 {
        return Err(Fault::malformed("a publish with QoS 0 and DUP"));
    }
    Ok(())
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
    fn a_frame_is_reported_once_it_is_whole() {
        let packet = [0x30, 0x05, 0, 1, b'a', 1, 2];
        for n in 0..packet.len() {
            assert_eq!(
                next(&packet[..n], Version::V311, 100),
                Ok(None),
                "{n} bytes"
            );
        }
        let frame = next(&packet, Version::V311, 100).unwrap().unwrap();
        assert_eq!(
            (frame.kind, frame.header_len, frame.len),
            (Kind::Publish, 2, 7)
        );
    }

    #[test]
    fn too_large_a_packet_is_refused_by_its_header_alone() {
        let fault = next(&[0x30, 0xff, 0xff, 0x7f], Version::V5, 1000).unwrap_err();
        assert_eq!(fault.reason, reason::PACKET_TOO_LARGE);
    }

    #[test]
    fn lengths_of_five_bytes_and_wrong_flags_are_malformed() {
        for packet in [
            &[0x30, 0x80, 0x80, 0x80, 0x80][..],
            &[0x36, 2],
            &[0x38, 2],
            &[0x80, 2],
            &[0xc1, 0],
            &[0x00, 0],
        ] {
            let fault = next(packet, Version::V5, 1000).unwrap_err();
            assert_eq!(fault.reason, reason::MALFORMED_PACKET, "{packet:02x?}");
        }
    }

    #[test]
    fn packets_that_only_servers_send_break_the_protocol() {
        for first in [0x20, 0x90, 0xb0, 0xd0, 0x50, 0x62, 0x70, 0xf0] {
            let fault = next(&[first, 0], Version::V5, 1000).unwrap_err();
            assert_eq!(fault.reason, reason::PROTOCOL_ERROR, "{first:02x}");
        }
    }
}
