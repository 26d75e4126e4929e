//! The client's side of SASL: PLAIN (RFC 4616) and SCRAM (RFC 5802), which proves to the client, too, that
//! the broker knows the password.

use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::super::protocol::ErrorCode;
use super::super::protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use super::super::sasl::Mechanism;
use super::wire::Connection;
use super::{ClientError, check};
use crate::auth::scram::{ITERATIONS_MAX, ITERATIONS_MIN, ScramMechanism, prepared};

const NONCE_BYTES: usize = 18;

/// Who signs in, and how.
#[derive(Clone)]
pub struct Login {
    pub name: String,
    /// A password; a token only with PLAIN.
    pub secret: String,
    pub mechanism: Mechanism,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} by {}", self.name, self.mechanism.name())
    }
}

/// Signs in on a connection that has asked for nothing else yet.
pub(super) async fn sign_in(connection: &mut Connection, login: &Login) -> Result<(), ClientError> {
    let request = SaslHandshakeRequest {
        mechanism: login.mechanism.name().into(),
    };
    let response = connection.call(request, Duration::ZERO).await?;
    if ErrorCode(response.error_code) == ErrorCode::UnsupportedSaslMechanism {
        let offered: Vec<&str> = response.mechanisms.iter().map(|m| m.as_str()).collect();
        return Err(ClientError::Mechanism {
            wanted: login.mechanism.name(),
            offered: offered.join(", "),
        });
    }
    check(|| "SaslHandshake".to_owned(), response.error_code, None)?;
    let scram = match login.mechanism {
        Mechanism::Plain => {
            let message = format!("\0{}\0{}", login.name, login.secret);
            exchange(connection, message).await?;
            return Ok(());
        }
        Mechanism::ScramSha256 => ScramMechanism::Sha256,
        Mechanism::ScramSha512 => ScramMechanism::Sha512,
    };
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(io::Error::other)?;
    let name = login.name.replace('=', "=3D").replace(',', "=2C");
    let bare = format!("n={name},r={}", STANDARD.encode(nonce));
    let server_first = exchange(connection, format!("{GS2}{bare}")).await?;
    let (last, expected) = answer(scram, &bare, &server_first, &login.secret)?;
    let server_last = exchange(connection, last).await?;
    match server_last.trim_end() == expected {
        true => Ok(()),
        false => Err(ClientError::Unexpected("proof that it knows the password")),
    }
}

/// No channel binding.
const GS2: &str = "n,,";

/// The client's last message, and the server's that it must get for it.
fn answer(
    mechanism: ScramMechanism,
    bare: &str,
    server_first: &str,
    password: &str,
) -> Result<(String, String), ClientError> {
    let not_understood = ClientError::Unexpected("a SCRAM message");
    let mut fields = server_first.split(',');
    let mut field = |name: &str| fields.next().and_then(|field| field.strip_prefix(name));
    let (Some(nonce), Some(salt), Some(iterations)) = (field("r="), field("s="), field("i="))
    else {
        return Err(not_understood);
    };
    let own = bare.rsplit_once("r=").map_or(bare, |(_, nonce)| nonce);
    if nonce.strip_prefix(own).is_none_or(str::is_empty) {
        return Err(ClientError::Unexpected("this exchange's nonce"));
    }
    let (Ok(salt), Ok(iterations)) = (STANDARD.decode(salt), iterations.parse()) else {
        return Err(not_understood);
    };
    // Fewer would give the password away, more would keep this machine busy for a broker's whim.
    if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
        return Err(ClientError::Unexpected("a bearable number of iterations"));
    }
    let password = prepared(password);
    let password = password.ok_or(ClientError::Unexpected("a password that SASLprep allows"))?;
    let salted = mechanism.salted_password(&password, &salt, iterations);
    let client_key = mechanism.hmac(&salted, b"Client Key");
    let without_proof = format!("c={},r={nonce}", STANDARD.encode(GS2));
    let signed = format!("{bare},{server_first},{without_proof}");
    let signature = mechanism.hmac(&mechanism.hash(&client_key), signed.as_bytes());
    let proof: Vec<u8> = std::iter::zip(&client_key, &signature)
        .map(|(key, signature)| key ^ signature)
        .collect();
    let server_key = mechanism.hmac(&salted, b"Server Key");
    let expected = mechanism.hmac(&server_key, signed.as_bytes());
    Ok((
        format!("{without_proof},p={}", STANDARD.encode(proof)),
        format!("v={}", STANDARD.encode(expected)),
    ))
}

async fn exchange(connection: &mut Connection, message: String) -> Result<String, ClientError> {
    let request = SaslAuthenticateRequest {
        auth_bytes: Bytes::from(message),
    };
    let response = connection.call(request, Duration::ZERO).await?;
    let message = response.error_message.as_ref();
    check(|| "sign-in".to_owned(), response.error_code, message)?;
    let text = String::from_utf8(response.auth_bytes.to_vec());
    text.map_err(|_| ClientError::Unexpected("text"))
}
