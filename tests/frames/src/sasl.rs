//! Those who come in where one has to say who one is, and never quite do: frames and tokens of SASL.

use std::net::SocketAddr;

use bytes::Bytes;
use holdfast::kafka::protocol::{ApiKey, Response, decode_response};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::compose::{self, Frame};
use crate::dice::Dice;
use crate::names::{Names, USERS};
use crate::victim::{Broken, PATIENCE, answer};

/// One connection up to its end; what was sent over it.
pub async fn exchange(
    address: SocketAddr,
    dice: &mut Dice<'_>,
    names: &Names,
) -> Result<Vec<Frame>, Broken> {
    let mut sent = Vec::new();
    match try_exchange(address, dice, names, &mut sent).await {
        Ok(()) => Ok(sent),
        Err(what) => Err(Broken {
            what: format!("signing in: {what}"),
            frames: sent.into_iter().map(|f| f.bytes).collect(),
        }),
    }
}

async fn try_exchange(
    address: SocketAddr,
    dice: &mut Dice<'_>,
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

fn carried(dice: &mut Dice<'_>, token: Vec<u8>, version: i16) -> Frame {
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
    let whole = [&frame.claims.to_be_bytes(), &frame.bytes[..]].concat();
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

fn plain(dice: &mut Dice<'_>) -> Vec<u8> {
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

fn scram(dice: &mut Dice<'_>, step: usize, told: &Bytes) -> Vec<u8> {
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
