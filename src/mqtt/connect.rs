//! CONNECT: what a client says of itself, who it is, and how it is answered.
//!
//! Pure but for [`decide`], which asks `auth`. Sockets are elsewhere.

use std::net::IpAddr;

use bytes::{Buf as _, Bytes, BytesMut};
use rumqttd::protocol::{
    ConnAckProperties, ConnectReturnCode, LastWillProperties, Login, Packet, QoS as WireQoS,
};
use uuid::Uuid;

use super::codec;
use super::config::MqttConfig;
use super::frame::{Fault, Version, variable_integer};
use super::publish::{Publish, PublishProperties, QoS};
use super::topic::{TopicLimits, check_name};
use crate::auth::{Auth, LoginError, Principal};

/// Largest CONNECT: a will of 64 KiB and the texts beside it. Nobody is authenticated yet.
const CONNECT_BYTES_MAX: usize = 128 << 10;

/// A CONNECT in our terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) client_id: String,
    pub(crate) clean_start: bool,
    pub(crate) keep_alive_s: u16,
    pub(crate) login: Option<(String, String)>,
    pub(crate) will: Option<Publish>,
    /// A will of QoS 2, which this door cannot promise.
    pub(crate) will_qos_2: bool,
    pub(crate) session_expiry_s: u32,
    /// What the client takes unacknowledged; its MQTT 5 default is 65535.
    pub(crate) receive_max: u16,
    pub(crate) packet_bytes_max: u32,
    pub(crate) authentication_method: bool,
}

/// Why no CONNECT could be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error(transparent)]
    Malformed(#[from] Fault),
    /// MQTT 3.1, or something that is not yet.
    #[error("protocol {name:?} level {level} is not spoken")]
    UnknownVersion { name: String, level: u8 },
}

/// The first packet of a connection, taken off `buffer` once it is whole.
pub(crate) fn read(buffer: &mut BytesMut) -> Result<Option<Connect>, Unreadable> {
    let Some((&first, rest)) = buffer.split_first() else {
        return Ok(None);
    };
    if first != 0x10 {
        return Err(Fault::protocol("the first packet is not a CONNECT").into());
    }
    let Some((remaining, length_len)) = variable_integer(rest)? else {
        return Ok(None);
    };
    let len = 1 + length_len + remaining;
    if len > CONNECT_BYTES_MAX {
        return Err(Fault::malformed(format!("a CONNECT of {len} bytes")).into());
    }
    if buffer.len() < len {
        return Ok(None);
    }
    let packet = buffer.split_to(len);
    let version = version_of(&packet, 1 + length_len)?;
    let decoded = codec::read(packet, version)?;
    Ok(Some(convert(decoded, version)?))
}

/// Looks at name, level and flags before the codec does: it must be the right one of its two, and
/// it does not check the flags that the standard reserves.
fn version_of(packet: &[u8], header_len: usize) -> Result<Version, Unreadable> {
    let short = || Fault::malformed("a CONNECT without protocol name and level");
    let mut fields = packet.get(header_len..).ok_or_else(short)?;
    if fields.remaining() < 2 {
        return Err(short().into());
    }
    let name_len = usize::from(fields.get_u16());
    let (name, rest) = fields.split_at_checked(name_len).ok_or_else(short)?;
    let (Some(&level), Some(&flags)) = (rest.first(), rest.get(1)) else {
        return Err(short().into());
    };
    let version = match (name, level) {
        (b"MQTT", 4) => Version::V311,
        (b"MQTT", 5) => Version::V5,
        _ => {
            let name = String::from_utf8_lossy(name.get(..16).unwrap_or(name)).into_owned();
            return Err(Unreadable::UnknownVersion { name, level });
        }
    };
    if flags & 1 != 0 {
        return Err(Fault::malformed("the reserved flag of CONNECT is set").into());
    }
    if version == Version::V311 && flags & 0xc0 == 0x40 {
        return Err(Fault::malformed("a password without a user name").into());
    }
    Ok(version)
}

fn convert(packet: Packet, version: Version) -> Result<Connect, Fault> {
    let Packet::Connect(connect, properties, will, will_properties, login) = packet else {
        return Err(Fault::protocol("the first packet is not a CONNECT"));
    };
    let will_qos_2 = will
        .as_ref()
        .is_some_and(|will| will.qos == WireQoS::ExactlyOnce);
    let will = will.map(|will| Publish {
        // The node publishes a will itself and once, so that QoS 1 keeps what QoS 2 would promise
        // up to the log; only its subscribers get it with QoS 1 at most.
        qos: if will.qos == WireQoS::AtMostOnce {
            QoS::AtMostOnce
        } else {
            QoS::AtLeastOnce
        },
        retain: will.retain,
        packet_id: 0,
        topic: will.topic,
        topic_alias: None,
        properties: will_properties.map(|properties| Box::new(will_published_with(properties))),
        payload: will.message,
    });
    let properties = properties.as_ref();
    let receive_max = properties
        .and_then(|p| p.receive_maximum)
        .unwrap_or(u16::MAX);
    let packet_bytes_max = properties
        .and_then(|p| p.max_packet_size)
        .unwrap_or(u32::MAX);
    if receive_max == 0 || packet_bytes_max == 0 {
        return Err(Fault::protocol(
            "a receive maximum or maximum packet size of 0",
        ));
    }
    Ok(Connect {
        version,
        client_id: connect.client_id,
        clean_start: connect.clean_session,
        keep_alive_s: connect.keep_alive,
        login: login.map(|Login { username, password }| (username, password)),
        will,
        will_qos_2,
        session_expiry_s: properties
            .and_then(|p| p.session_expiry_interval)
            .unwrap_or(0),
        receive_max,
        packet_bytes_max,
        authentication_method: properties.is_some_and(|p| p.authentication_method.is_some()),
    })
}

/// The will delay is dropped: a will is due after its delay or when the session ends, whichever
/// is first, and every session ends with its connection (the CONNACK says so).
fn will_published_with(properties: LastWillProperties) -> PublishProperties {
    let text = |text: Option<String>| text.map(Bytes::from);
    PublishProperties {
        payload_format: properties.payload_format_indicator,
        expiry_s: properties.message_expiry_interval,
        content_type: text(properties.content_type),
        response_topic: text(properties.response_topic),
        correlation_data: properties.correlation_data,
        user: properties
            .user_properties
            .into_iter()
            .map(|(name, value)| (Bytes::from(name), Bytes::from(value)))
            .collect(),
    }
}

/// Why a client is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("unknown user or wrong secret")]
    BadCredentials,
    #[error("too many failed logins from its address")]
    TooManyFailures,
    #[error("no credentials, and anonymous clients are not let in")]
    NotAuthorized,
    #[error("the client identifier is not acceptable")]
    BadClientId,
    #[error("an authentication method is asked for, and none is offered")]
    BadAuthenticationMethod,
    #[error("the will's topic is not acceptable")]
    BadWillTopic,
    #[error("the will exceeds a limit")]
    WillTooLarge,
    #[error("a will with QoS 2")]
    WillQos2,
    #[error("mqtt.connections_max is reached")]
    Busy,
    #[error("too many passwords wait to be checked")]
    PasswordsWaiting,
    #[error("the log accepts no writes")]
    Unavailable,
}

impl Refusal {
    pub(crate) fn code(self, version: Version) -> ConnectReturnCode {
        match (version, self) {
            (Version::V311, Refusal::BadCredentials | Refusal::NotAuthorized) => {
                ConnectReturnCode::NotAuthorized
            }
            (Version::V311, Refusal::BadClientId) => ConnectReturnCode::ClientIdentifierNotValid,
            (Version::V311, _) => ConnectReturnCode::ServiceUnavailable,
            (Version::V5, Refusal::BadCredentials) => ConnectReturnCode::BadUserNamePassword,
            (Version::V5, Refusal::TooManyFailures) => ConnectReturnCode::ConnectionRateExceeded,
            (Version::V5, Refusal::NotAuthorized) => ConnectReturnCode::NotAuthorized,
            (Version::V5, Refusal::BadClientId) => ConnectReturnCode::ClientIdentifierNotValid,
            (Version::V5, Refusal::BadAuthenticationMethod) => {
                ConnectReturnCode::BadAuthenticationMethod
            }
            (Version::V5, Refusal::BadWillTopic) => ConnectReturnCode::TopicNameInvalid,
            (Version::V5, Refusal::WillTooLarge) => ConnectReturnCode::QuotaExceeded,
            (Version::V5, Refusal::WillQos2) => ConnectReturnCode::QoSNotSupported,
            (Version::V5, Refusal::Busy | Refusal::PasswordsWaiting) => {
                ConnectReturnCode::ServerBusy
            }
            (Version::V5, Refusal::Unavailable) => ConnectReturnCode::ServerUnavailable,
        }
    }
}

/// A client that may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Admitted {
    pub(crate) client_id: String,
    /// The client identifier is ours and is told.
    pub(crate) assigned: bool,
    pub(crate) principal: Principal,
    pub(crate) keep_alive_s: u16,
}

/// Who the client is and whether it may come in. `without_login` is who one is that presents no
/// credentials, if such a one may come in at all.
pub(crate) async fn decide(
    connect: &Connect,
    config: &MqttConfig,
    auth: &Auth,
    from: IpAddr,
    without_login: Option<Principal>,
) -> Result<Admitted, Refusal> {
    if connect.authentication_method {
        return Err(Refusal::BadAuthenticationMethod);
    }
    let principal = match &connect.login {
        Some((name, secret)) => {
            let principal = auth.login(name, secret, from).await;
            principal.map_err(|error| match error {
                LoginError::TooManyFailures { .. } => Refusal::TooManyFailures,
                LoginError::Busy => Refusal::PasswordsWaiting,
                _ => Refusal::BadCredentials,
            })?
        }
        None => without_login.ok_or(Refusal::NotAuthorized)?,
    };
    check_will(connect, config)?;
    let (client_id, assigned) = client_id(connect, config)?;
    Ok(Admitted {
        client_id,
        assigned,
        principal,
        keep_alive_s: keep_alive_s(connect, config),
    })
}

fn check_will(connect: &Connect, config: &MqttConfig) -> Result<(), Refusal> {
    let Some(will) = &connect.will else {
        return Ok(());
    };
    if connect.will_qos_2 && connect.version == Version::V5 {
        return Err(Refusal::WillQos2);
    }
    check_name(&will.topic, TopicLimits::from(config)).map_err(|_| Refusal::BadWillTopic)?;
    let user = will
        .properties
        .as_ref()
        .map_or(0, |properties| properties.user.len());
    if user > config.user_properties_max || will.payload.len() > config.packet_bytes_max as usize {
        return Err(Refusal::WillTooLarge);
    }
    Ok(())
}

fn client_id(connect: &Connect, config: &MqttConfig) -> Result<(String, bool), Refusal> {
    if connect.client_id.is_empty() {
        if connect.version == Version::V311 && !connect.clean_start {
            return Err(Refusal::BadClientId);
        }
        return Ok((format!("auto-{}", Uuid::new_v4().simple()), true));
    }
    let bad = connect.client_id.len() > config.client_id_bytes_max
        || connect.client_id.chars().any(char::is_control);
    if bad {
        Err(Refusal::BadClientId)
    } else {
        Ok((connect.client_id.clone(), false))
    }
}

fn keep_alive_s(connect: &Connect, config: &MqttConfig) -> u16 {
    let (asked, max) = (connect.keep_alive_s, config.keep_alive_max_s);
    // Only MQTT 5 has a way to tell the client.
    if max == 0 || connect.version == Version::V311 {
        asked
    } else if asked == 0 {
        max
    } else {
        asked.min(max)
    }
}

/// What an MQTT 5 client is told with its admission: the truth about this door.
pub(crate) fn connack_properties(
    connect: &Connect,
    admitted: &Admitted,
    config: &MqttConfig,
) -> ConnAckProperties {
    ConnAckProperties {
        // Whatever was asked for, the session ends with the connection.
        session_expiry_interval: (connect.session_expiry_s > 0).then_some(0),
        receive_max: Some(config.in_flight_max),
        max_qos: Some(1),
        retain_available: Some(1),
        max_packet_size: Some(config.packet_bytes_max),
        assigned_client_identifier: admitted.assigned.then(|| admitted.client_id.clone()),
        topic_alias_max: Some(config.topic_alias_max),
        wildcard_subscription_available: Some(1),
        subscription_identifiers_available: Some(1),
        shared_subscription_available: Some(1),
        server_keep_alive: (admitted.keep_alive_s != connect.keep_alive_s)
            .then_some(admitted.keep_alive_s),
        ..ConnAckProperties::default()
    }
}

/// Tells why a connection is refused, as far as the client's version has words for it.
pub(crate) fn refusal_packet(refusal: Refusal, version: Version) -> BytesMut {
    let mut out = BytesMut::new();
    codec::write_connack(
        refusal.code(version),
        ConnAckProperties::default(),
        version,
        &mut out,
    );
    out
}

/// To a client whose version is not spoken: the 3.1.1 form, which every version reads.
pub(crate) fn unknown_version_packet() -> BytesMut {
    let mut out = BytesMut::new();
    let code = ConnectReturnCode::RefusedProtocolVersion;
    codec::write_connack(code, ConnAckProperties::default(), Version::V311, &mut out);
    out
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

    use super::*;

    fn packet(flags: u8, name: &[u8], level: u8, tail: &[u8]) -> BytesMut {
        let mut body = vec![0, u8::try_from(name.len()).unwrap()];
        body.extend_from_slice(name);
        body.extend_from_slice(&[level, flags, 0, 60]);
        body.extend_from_slice(tail);
        let mut packet = vec![0x10, u8::try_from(body.len()).unwrap()];
        packet.extend_from_slice(&body);
        BytesMut::from(&packet[..])
    }

    #[test]
    fn a_plain_connect_is_read_and_what_follows_stays() {
        let mut buffer = packet(2, b"MQTT", 4, &[0, 1, b'c']);
        buffer.extend_from_slice(&[0xc0, 0]);
        let connect = read(&mut buffer).unwrap().unwrap();
        assert_eq!(
            (connect.version, connect.client_id.as_str()),
            (Version::V311, "c")
        );
        assert!(connect.clean_start && connect.login.is_none() && connect.will.is_none());
        assert_eq!(connect.keep_alive_s, 60);
        assert_eq!(&buffer[..], [0xc0, 0]);
    }

    #[test]
    fn versions_not_spoken_are_told_apart_from_broken_bytes() {
        for (name, level) in [(&b"MQIsdp"[..], 3), (b"MQTT", 6), (b"AMQP", 4)] {
            let unreadable = read(&mut packet(2, name, level, &[0, 1, b'c'])).unwrap_err();
            assert!(
                matches!(unreadable, Unreadable::UnknownVersion { .. }),
                "{name:?}"
            );
        }
        for mut broken in [
            packet(3, b"MQTT", 4, &[0, 1, b'c']),
            packet(0x42, b"MQTT", 4, &[0, 1, b'c', 0, 1, b'p']),
            packet(2, b"MQTT", 4, &[0, 9, b'c']),
            BytesMut::from(&[0x30, 0][..]),
            BytesMut::from(&[0x10, 0xff, 0xff, 0xff, 0x7f][..]),
        ] {
            assert!(
                matches!(read(&mut broken), Err(Unreadable::Malformed(_))),
                "{broken:02x?}"
            );
        }
    }

    #[test]
    fn every_refusal_has_a_code_in_both_versions() {
        for refusal in [
            Refusal::BadCredentials,
            Refusal::NotAuthorized,
            Refusal::TooManyFailures,
            Refusal::BadClientId,
            Refusal::BadAuthenticationMethod,
            Refusal::BadWillTopic,
            Refusal::WillTooLarge,
            Refusal::WillQos2,
            Refusal::Busy,
            Refusal::PasswordsWaiting,
            Refusal::Unavailable,
        ] {
            assert_eq!(refusal_packet(refusal, Version::V311).len(), 4);
            assert!(refusal_packet(refusal, Version::V5)[3] >= 0x80);
        }
        assert_eq!(refusal_packet(Refusal::BadCredentials, Version::V311)[3], 5);
        assert_eq!(
            refusal_packet(Refusal::BadCredentials, Version::V5)[3],
            0x86
        );
        assert_eq!(refusal_packet(Refusal::NotAuthorized, Version::V5)[3], 0x87);
        assert_eq!(unknown_version_packet()[3], 1);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(tail in prop::collection::vec(any::<u8>(), 0..100), flags in any::<u8>(), level in 3u8..7) {
            let _ = read(&mut packet(flags, b"MQTT", level, &tail));
        }
    }
}
