//! Those who come in where one has to say who one is: strangers who never quite do, with every kind of
//! frame and token, and one who does and means no better.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use holdfast::kafka::protocol::{ApiKey, Response, decode_response};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::compose::{self, Frame};
use crate::dice::Dice;
use crate::names::{Names, USERS};
use crate::victim::{Broken, Number, PATIENCE, answer};

/// Signs in; not in the pool of names, so that nobody takes the password away.
pub const SIGNER: &str = "signer";
pub const PASSWORD: &str = "not a secret";

/// One connection up to its end; what was sent over it. The number says which exchange it is.
pub async fn exchange(
    address: SocketAddr,
    seed: u64,
    number: u64,
    names: &Names,
) -> Result<Vec<Frame>, Broken> {
    let mut dice = Dice::new(seed, number | 1 << 63);
    let mut sent = Vec::new();
    match try_exchange(address, &mut dice, names, &mut sent).await {
        Ok(()) => Ok(sent),
        Err(what) => Err(Broken {
            what: format!("signing in: {what}"),
            at: sent.len().saturating_sub(1),
            sent: sent
                .into_iter()
                .map(|frame| (Number::Exchange(number), frame))
                .collect(),
        }),
    }
}

/// A connection of [`SIGNER`], who signs in as one should.
pub async fn sign_in(address: SocketAddr) -> Result<TcpStream, String> {
    let mut socket = TcpStream::connect(address)
        .await
        .map_err(|error| format!("cannot connect: {error}"))?;
    let mut handshake = header(ApiKey::SaslHandshake, 1);
    handshake.extend(b"\x00\x0dSCRAM-SHA-256");
    ask(&mut socket, Frame::of(handshake), &mut Vec::new())
        .await?
        .ok_or("hung up on in the handshake")?;
    let bare = format!("n={SIGNER},r=noncenoncenonce");
    let first = authenticated(&mut socket, format!("n,,{bare}")).await?;
    authenticated(&mut socket, last_message(&bare, &first)?).await?;
    Ok(socket)
}

/// What the node says to a token that it takes.
async fn authenticated(socket: &mut TcpStream, token: String) -> Result<String, String> {
    let mut out = header(ApiKey::SaslAuthenticate, 1);
    out.extend((token.len() as i32).to_be_bytes());
    out.extend(token.as_bytes());
    let answered = ask(socket, Frame::of(out), &mut Vec::new()).await?;
    let answered = answered.ok_or("hung up on while signing in")?;
    match decode_response(ApiKey::SaslAuthenticate, 1, answered) {
        Ok((_, Response::SaslAuthenticate(body))) if body.error_code == 0 => {
            Ok(String::from_utf8_lossy(&body.auth_bytes).into_owned())
        }
        other => Err(format!("who signs in rightly is not let in: {other:?}")),
    }
}

/// The client's last message (RFC 5802, section 3).
fn last_message(bare: &str, first: &str) -> Result<String, String> {
    let field = |name: &str| {
        let found = first.split(',').find_map(|part| part.strip_prefix(name));
        found.ok_or_else(|| format!("{first:?} has no {name}"))
    };
    let salt = STANDARD
        .decode(field("s=")?)
        .map_err(|error| error.to_string())?;
    let iterations: u32 = field("i=")?
        .parse()
        .map_err(|_| "no number of iterations")?;
    let client_key = mac(&salted_password(&salt, iterations), b"Client Key");
    let without_proof = format!("c=biws,r={}", field("r=")?);
    let message = format!("{bare},{first},{without_proof}");
    let signature = mac(&Sha256::digest(&client_key), message.as_bytes());
    let proof: Vec<u8> = client_key
        .iter()
        .zip(&signature)
        .map(|(key, sign)| key ^ sign)
        .collect();
    Ok(format!("{without_proof},p={}", STANDARD.encode(proof)))
}

/// Computed once: a run's node has one salt for [`SIGNER`].
fn salted_password(salt: &[u8], iterations: u32) -> Vec<u8> {
    static KNOWN: Mutex<Option<(Vec<u8>, Vec<u8>)>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, salted)) = known.as_ref().filter(|(of, _)| of == salt) {
        return salted.clone();
    }
    let mut block = mac(PASSWORD.as_bytes(), &[salt, &1_u32.to_be_bytes()].concat());
    let mut salted = block.clone();
    for _ in 1..iterations {
        block = mac(PASSWORD.as_bytes(), &block);
        salted
            .iter_mut()
            .zip(&block)
            .for_each(|(sum, byte)| *sum ^= byte);
    }
    *known = Some((salt.to_vec(), salted.clone()));
    salted
}

fn mac(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.chain_update(data).finalize().into_bytes().to_vec()
}

async fn try_exchange(
    address: SocketAddr,
    dice: &mut Dice,
    names: &Names,
    sent: &mut Vec<Frame>,
) -> Result<(), String> {
    let mut socket = TcpStream::connect(address)
        .await
        .map_err(|error| format!("cannot connect: {error}"))?;
    if dice.once_in(4) {
        let api = dice.pick(&[
            ApiKey::ApiVersions,
            ApiKey::SaslHandshake,
            ApiKey::SaslAuthenticate,
            ApiKey::Metadata,
        ]);
        if ask(&mut socket, compose::request(dice, names, api), sent)
            .await?
            .is_none()
        {
            return Ok(());
        }
    }
    let mechanism = dice.pick(&[
        "PLAIN",
        "SCRAM-SHA-256",
        "SCRAM-SHA-512",
        "SCRAM-SHA-256",
        "SCRAM-SHA-1",
        "",
    ]);
    let version = dice.below(2) as i16;
    let mut handshake = header(ApiKey::SaslHandshake, version);
    handshake.extend((mechanism.len() as i16).to_be_bytes());
    handshake.extend(mechanism.as_bytes());
    if ask(&mut socket, Frame::of(handshake), sent)
        .await?
        .is_none()
    {
        return Ok(());
    }
    let mut told = Bytes::new();
    for step in 0..3 {
        let mut token = if mechanism == "PLAIN" {
            plain(dice)
        } else {
            scram(dice, step, &told)
        };
        if dice.once_in(4) {
            compose::damage(dice, &mut token);
        }
        let authenticate = dice.below(3) as i16;
        let frame = if version == 0 {
            Frame::of(token)
        } else {
            carried(dice, token, authenticate)
        };
        let Some(answered) = ask(&mut socket, frame, sent).await? else {
            return Ok(());
        };
        told = match decode_response(ApiKey::SaslAuthenticate, authenticate, answered.clone()) {
            Ok((_, Response::SaslAuthenticate(body))) if version == 1 => body.auth_bytes,
            _ => answered,
        };
    }
    Ok(())
}

fn header(api: ApiKey, version: i16) -> Vec<u8> {
    let mut out = api.code().to_be_bytes().to_vec();
    out.extend(version.to_be_bytes());
    out.extend(b"\x00\x00\x00\x01\x00\x01c");
    if version >= api.flexible_from() {
        out.push(0);
    }
    out
}

fn carried(dice: &mut Dice, token: Vec<u8>, version: i16) -> Frame {
    let mut out = header(ApiKey::SaslAuthenticate, version);
    if version >= ApiKey::SaslAuthenticate.flexible_from() {
        let length = token.len() + 1;
        let low = [
            length as u8 & 0x7f | 0x80,
            (length >> 7) as u8 & 0x7f | 0x80,
            (length >> 14) as u8,
        ];
        out.extend(low);
        out.extend(token);
        out.push(0);
    } else {
        out.extend((token.len() as i32).to_be_bytes());
        out.extend(token);
    }
    if dice.once_in(24) {
        compose::damage(dice, &mut out);
    }
    Frame::of(out)
}

/// The answer to a frame; `None` where the door hung up, as it may at every step.
async fn ask(
    socket: &mut TcpStream,
    frame: Frame,
    sent: &mut Vec<Frame>,
) -> Result<Option<Bytes>, String> {
    let mut whole = Vec::new();
    frame.write(&mut whole);
    let incomplete = usize::try_from(frame.claims).is_ok_and(|claims| claims > frame.bytes.len());
    sent.push(frame);
    if socket.write_all(&whole).await.is_err() {
        return Ok(None);
    }
    if incomplete {
        let _ = socket.shutdown().await;
    }
    match timeout(PATIENCE, answer(socket)).await {
        Ok(Ok(answered)) => Ok(answered),
        // The end, with something of ours unread.
        Ok(Err(_)) => Ok(None),
        Err(_) => Err(format!("neither answer nor end in {PATIENCE:?}")),
    }
}

fn plain(dice: &mut Dice) -> Vec<u8> {
    let user = dice.pick(USERS);
    match dice.below(8) {
        0 => Vec::new(),
        1 => format!("{user}\0{user}\0secret").into_bytes(),
        2 => format!("\0{user}\0").into_bytes(),
        3 => format!("\0{}\0p", "u".repeat(dice.pick(&[255, 256, 1024, 15_000]))).into_bytes(),
        4 => format!(
            "\0{user}\0{}",
            "p".repeat(dice.pick(&[72, 1024, 1025, 15_000]))
        )
        .into_bytes(),
        5 => b"\0\xff\xfe\0secret".to_vec(),
        6 => vec![0; dice.pick(&[1, 2, 3, 4, 1000])],
        _ => format!("\0{user}\0secret").into_bytes(),
    }
}

fn scram(dice: &mut Dice, step: usize, told: &Bytes) -> Vec<u8> {
    if step == 0 {
        let user = dice.pick(USERS);
        let begin = dice.pick(&[
            "n,,",
            "n,,",
            "n,,",
            "y,,",
            "p=tls-unique,,",
            "n,a=alice,",
            "n,a=bob,",
            ",,",
            "",
        ]);
        let name = match dice.below(8) {
            0 => "al=2Cice=3D".to_owned(),
            1 => "a=2X".to_owned(),
            2 => "a=".to_owned(),
            3 => "\u{ad}\u{200b}\u{2168}".to_owned(),
            4 => "\u{7}\u{e000}\u{10ffff}".to_owned(),
            5 => "u".repeat(dice.pick(&[255, 256, 4096, 15_000])),
            _ => user.to_owned(),
        };
        let nonce = dice.pick(&[
            "fyko+d2lbbFgONRv9qkxdawL",
            "",
            "a",
            "r=r=r",
            "\u{fc}",
            "a b",
        ]);
        let more = dice.pick(&["", "", "", ",x=y", ",tokenauth=true", ",m=z", ",", ",,,,"]);
        let extension = dice.pick(&["", "", "", "", "m=ext,"]);
        return format!("{begin}{extension}n={name},r={nonce}{more}").into_bytes();
    }
    let told = String::from_utf8_lossy(told).into_owned();
    let nonce = told
        .split(',')
        .find_map(|part| part.strip_prefix("r="))
        .unwrap_or("none");
    let channel = dice.pick(&[
        "biws",
        "biws",
        "biws",
        "eSws",
        "",
        "!!!!",
        "bixhPWFsaWNlLA==",
    ]);
    let proof = match dice.below(6) {
        0 => String::new(),
        1 => "A".repeat(dice.pick(&[3, 43, 87, 10_000])),
        2 => "====".to_owned(),
        3 => format!("{}==", "A".repeat(86)),
        _ => format!("{}=", "A".repeat(43)),
    };
    let nonce = if dice.once_in(6) { "other" } else { nonce };
    let more = dice.pick(&["", "", "", "x=y,"]);
    format!("c={channel},r={nonce},{more}p={proof}").into_bytes()
}
