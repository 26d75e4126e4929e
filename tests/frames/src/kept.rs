//! Frames that broke a promise, in files, and out of them again. A file holds frames as they go over a
//! connection, lengths included.

use std::fs;
use std::path::Path;

use crate::compose::Frame;
use crate::report::kind;
use crate::victim::{Broken, Number};

/// Of a frame that is told about.
const SHOWN_BYTES: usize = 400;

/// Keeps the frame at fault, and its connection up to it; says where, and how to throw them again.
pub fn keep(dir: &Path, seed: u64, broken: &Broken) -> String {
    let Some((number, frame)) = broken.sent.get(broken.at) else {
        return "  nothing had been sent".to_owned();
    };
    let (name, again) = match number {
        Number::Frame(n) => (format!("{seed}-frame-{n}"), format!("FRAME={n}")),
        Number::Exchange(n) => (format!("{seed}-exchange-{n}"), format!("EXCHANGE={n}")),
        Number::Kept(n) => (format!("kept-{n}"), String::new()),
    };
    let alone = dir.join(format!("{name}.bin"));
    let before = dir.join(format!("{name}-connection.bin"));
    let mut connection = Vec::new();
    for (_, frame) in broken.sent.iter().take(broken.at + 1) {
        frame.write(&mut connection);
    }
    let mut bytes = Vec::new();
    frame.write(&mut bytes);
    let written = fs::create_dir_all(dir)
        .and_then(|()| fs::write(&alone, bytes))
        .and_then(|()| fs::write(&before, connection));
    let kept = match written {
        Ok(()) => format!("  kept in {} and {}", alone.display(), before.display()),
        Err(error) => format!("  cannot be kept in {}: {error}", dir.display()),
    };
    let (api, version) = kind(frame);
    format!(
        "  {api:?} {version}, {}\n{kept}\n  again: SEED={seed} {again} frames, or FILE= one of these files",
        shown(frame)
    )
}

/// Its size, its beginning, and its length if that is a lie.
pub fn shown(frame: &Frame) -> String {
    let hex: String = frame
        .bytes
        .iter()
        .take(SHOWN_BYTES)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let claims = if frame.lies() {
        format!(" (claims {})", frame.claims)
    } else {
        String::new()
    };
    format!("{} bytes{claims}: {hex}", frame.bytes.len())
}

/// The frames of such a file.
pub fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let claims = i32::from_be_bytes(*length);
        let whole = usize::try_from(claims)
            .ok()
            .filter(|bytes| *bytes <= after.len());
        // What follows a lie is its frame.
        let (frame, next) = after.split_at(whole.unwrap_or(after.len()));
        let bytes = frame.to_vec().into();
        frames.push(Frame { bytes, claims });
        rest = next;
    }
    frames
}
