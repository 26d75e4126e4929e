//! What a session reads, without its socket: where fuzzers enter.

use bytes::BytesMut;
use rumqttd::protocol::Packet;

use super::config::MqttConfig;
use super::frame::{Fault, Kind, Version};
use super::topic::{SubscriptionKey, TopicLimits, check_name};
use super::{codec, connect, frame, publish};

/// Takes the packets apart that a client sends, CONNECT first or in the midst of a session of either
/// version: how many were understood before the first that was not, or that is not whole.
pub fn dissect(bytes: &[u8]) -> usize {
    let mut buffer = BytesMut::from(bytes);
    match connect::read(&mut buffer) {
        Ok(Some(connect)) => 1 + rest(buffer, connect.version),
        _ => {
            let both = [Version::V311, Version::V5];
            let understood = both.map(|version| rest(BytesMut::from(bytes), version));
            understood.into_iter().max().unwrap_or_default()
        }
    }
}

fn rest(mut buffer: BytesMut, version: Version) -> usize {
    let mut understood = 0;
    while let Ok(true) = one(&mut buffer, version) {
        understood += 1;
    }
    understood
}

/// The next packet; false if it is not whole.
fn one(buffer: &mut BytesMut, version: Version) -> Result<bool, Fault> {
    let config = MqttConfig::default();
    let limits = TopicLimits::from(&config);
    let Some(frame) = frame::next(buffer, version, config.packet_bytes_max as usize)? else {
        return Ok(false);
    };
    let packet = buffer.split_to(frame.len);
    match frame.kind {
        Kind::Publish => {
            let properties_max = config.user_properties_max;
            let publish = publish::read(packet.freeze(), frame, version, properties_max)?;
            let _ = check_name(&publish.topic, limits);
        }
        Kind::Subscribe => {
            if let Packet::Subscribe(subscribe, _) = codec::read(packet, version)? {
                for filter in &subscribe.filters {
                    let _ = SubscriptionKey::parse(&filter.path, limits);
                }
            }
        }
        Kind::PingReq => {}
        Kind::Connect | Kind::PubAck | Kind::Unsubscribe | Kind::Disconnect => {
            codec::read(packet, version)?;
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]

    use super::dissect;

    const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c";

    #[test]
    fn packets_are_counted_up_to_the_first_that_is_none() {
        let publish = b"\x30\x05\x00\x01a\x01\x02";
        let all = [CONNECT, publish, b"\xc0\x00", b"\xff\xff", publish].concat();
        assert_eq!(dissect(&all), 3);
        assert_eq!(dissect(&all[CONNECT.len()..]), 2);
        assert_eq!(dissect(&all[..CONNECT.len() - 1]), 0);
        assert_eq!(dissect(b""), 0);
    }
}
