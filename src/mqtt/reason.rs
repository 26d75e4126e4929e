//! Reason codes of MQTT 5 (2.4) that this door sends.

pub(crate) const MALFORMED_PACKET: u8 = 0x81;
pub(crate) const PROTOCOL_ERROR: u8 = 0x82;
pub(crate) const NOT_AUTHORIZED: u8 = 0x87;
pub(crate) const SERVER_BUSY: u8 = 0x89;
pub(crate) const SHUTTING_DOWN: u8 = 0x8b;
pub(crate) const KEEP_ALIVE_TIMEOUT: u8 = 0x8d;
pub(crate) const SESSION_TAKEN_OVER: u8 = 0x8e;
pub(crate) const TOPIC_NAME_INVALID: u8 = 0x90;
pub(crate) const RECEIVE_MAXIMUM_EXCEEDED: u8 = 0x93;
pub(crate) const TOPIC_ALIAS_INVALID: u8 = 0x94;
pub(crate) const PACKET_TOO_LARGE: u8 = 0x95;
pub(crate) const QUOTA_EXCEEDED: u8 = 0x97;
pub(crate) const QOS_NOT_SUPPORTED: u8 = 0x9b;
