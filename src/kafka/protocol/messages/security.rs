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
}
