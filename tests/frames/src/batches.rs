//! Record batches: as producers send them, and as nobody should.

use std::sync::OnceLock;

use bytes::Bytes;
use holdfast_storage::log::compression::{Codec, compress};

use crate::dice::Dice;

pub const BASE_TIMESTAMP_MS: i64 = 1_700_000_000_000;

const CODECS: [Codec; 5] = [
    Codec::None,
    Codec::Gzip,
    Codec::Snappy,
    Codec::Lz4,
    Codec::Zstd,
];

/// Records of one batch, packed.
struct Packed {
    codec: i16,
    records: i32,
    body: Bytes,
}

/// What a partition of a Produce carries.
pub fn records(dice: &mut Dice, producer: (i64, i16), bytes_max: usize) -> Vec<u8> {
    let mut out = match dice.below(40) {
        0 => Vec::new(),
        1 => vec![dice.next() as u8; dice.below(200)],
        2 => [
            batch(dice, producer, bytes_max),
            batch(dice, producer, bytes_max),
        ]
        .concat(),
        _ => batch(dice, producer, bytes_max),
    };
    if dice.once_in(24) && !out.is_empty() {
        let at = dice.below(out.len());
        match dice.below(3) {
            0 => out.truncate(at),
            1 => out[at] ^= 1 << dice.below(8),
            _ => out.extend([0, 1, 2]),
        }
    }
    out
}

fn batch(dice: &mut Dice, producer: (i64, i16), bytes_max: usize) -> Vec<u8> {
    let packed = packed();
    let chosen = match dice.below(200) {
        0 if bytes_max > 4096 => dice.pick(&packed.bombs.iter().collect::<Vec<_>>()),
        1..70 => dice.pick(&packed.good.iter().collect::<Vec<_>>()),
        _ => dice.pick(&packed.good[..PLAIN].iter().collect::<Vec<_>>()),
    };
    let mut body = chosen.body.to_vec();
    let (mut count, mut attributes) = (chosen.records, chosen.codec);
    match dice.below(60) {
        0 => body.truncate(dice.below(body.len().max(1))),
        1 => count = dice.extreme() as i32,
        2 => count = count.wrapping_add(dice.pick(&[1, -1, 1000])),
        3 => attributes = dice.below(8) as i16,
        4 if !body.is_empty() => {
            let at = dice.below(body.len());
            body[at] ^= 1 << dice.below(8);
        }
        5 => body.extend([0; 5]),
        6 => attributes |= dice.next() as i16 & 0x7fc0,
        _ => {}
    }
    if dice.once_in(6) {
        attributes |= 0x08;
    }
    let (id, epoch) = if dice.once_in(3) { producer } else { (-1, -1) };
    if (id >= 0 && dice.once_in(2)) || dice.once_in(60) {
        attributes |= 0x10;
    }
    if dice.once_in(100) {
        attributes |= 0x20;
    }
    let sequence = if id >= 0 {
        dice.mostly(&[0, 0, 0, 1, 2, 5, -1]) as i32
    } else {
        -1
    };
    let last_delta = if dice.once_in(80) {
        dice.extreme() as i32
    } else {
        count.wrapping_sub(1)
    };
    let base = if dice.once_in(40) {
        dice.extreme()
    } else {
        BASE_TIMESTAMP_MS
    };
    let mut signed = Vec::with_capacity(body.len() + 40);
    signed.extend(attributes.to_be_bytes());
    signed.extend(last_delta.to_be_bytes());
    signed.extend(base.to_be_bytes());
    signed.extend(
        if dice.once_in(40) {
            dice.extreme()
        } else {
            base
        }
        .to_be_bytes(),
    );
    signed.extend(id.to_be_bytes());
    signed.extend(epoch.to_be_bytes());
    signed.extend(sequence.to_be_bytes());
    signed.extend(count.to_be_bytes());
    signed.extend(body);
    let mut crc = crc32c::crc32c(&signed);
    if dice.once_in(40) {
        crc ^= 1;
    }
    let mut length = signed.len() as i32 + 9;
    if dice.once_in(60) {
        length = dice.pick(&[length - 1, length + 1, 0, -1, i32::MAX, i32::MIN]);
    }
    let magic = if dice.once_in(60) {
        dice.pick(&[0_u8, 1, 3, 255])
    } else {
        2
    };
    let mut out = Vec::with_capacity(signed.len() + 21);
    out.extend(if dice.once_in(40) { dice.extreme() } else { 0 }.to_be_bytes());
    out.extend(length.to_be_bytes());
    out.extend((-1_i32).to_be_bytes());
    out.push(magic);
    out.extend(crc.to_be_bytes());
    out.extend(signed);
    out
}

struct AllPacked {
    /// The first [`PLAIN`] are not compressed.
    good: Vec<Packed>,
    bombs: Vec<Packed>,
}

const PLAIN: usize = 4;

fn packed() -> &'static AllPacked {
    static ALL: OnceLock<AllPacked> = OnceLock::new();
    ALL.get_or_init(|| {
        let sets: [Vec<u8>; PLAIN] = [
            body(1, 10, true),
            body(3, 4, true),
            body(2, 100, false),
            body(50, 3, true),
        ];
        let mut good = Vec::new();
        for (code, codec) in CODECS.into_iter().enumerate() {
            for (records, body) in [1, 3, 2, 50].into_iter().zip(&sets) {
                good.push(pack(code as i16, codec, records, body));
            }
        }
        AllPacked {
            good,
            bombs: bombs(),
        }
    })
}

/// Makes what takes long, so that it is not counted as the node's memory.
pub fn prepare() {
    packed();
}

fn pack(code: i16, codec: Codec, records: i32, body: &[u8]) -> Packed {
    let body = compress(codec, body, b"").expect("these compress").into();
    Packed {
        codec: code,
        records,
        body,
    }
}

fn varint(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

/// Encoded records with values of so many bytes.
fn body(records: i64, value_bytes: usize, keyed: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for index in 0..records {
        let mut record = vec![0];
        varint(&mut record, index % 7);
        varint(&mut record, index);
        if keyed {
            varint(&mut record, 2);
            record.extend([b'k', b'a' + (index % 20) as u8]);
        } else {
            varint(&mut record, -1);
        }
        varint(&mut record, value_bytes as i64);
        record.resize(record.len() + value_bytes, b'v');
        varint(&mut record, 0);
        varint(&mut out, record.len() as i64);
        out.extend(record);
    }
    out
}

/// One record with so many headers of two bytes.
fn headers(count: usize) -> Vec<u8> {
    let mut record = vec![0, 0, 0, 1, 1];
    varint(&mut record, count as i64);
    for _ in 0..count {
        record.extend([0, 1]);
    }
    let mut out = Vec::new();
    varint(&mut out, record.len() as i64);
    out.extend(record);
    out
}

/// Small, and large when unpacked: what no node may believe, and what is just about possible.
fn bombs() -> Vec<Packed> {
    let zeros = vec![0; 16 << 20];
    let gzip = compress(Codec::Gzip, &zeros, b"").expect("gzip").repeat(20);
    let lz4 = compress(Codec::Lz4, &vec![0; 200 << 20], b"").expect("lz4");
    let snappy = compress(Codec::Snappy, &zeros, b"").expect("snappy");
    let mut framed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    let block = compress(Codec::Snappy, &zeros[..1 << 20], b"").expect("snappy");
    for _ in 0..18 {
        framed.extend((block.len() as u32).to_be_bytes());
        framed.extend(&block);
    }
    let raw = |codec, records, body: Vec<u8>| Packed {
        codec,
        records,
        body: body.into(),
    };
    let mut out = vec![
        raw(1, 1, gzip.clone()),
        raw(1, 1, gzip[..gzip.len() / 7].to_vec()),
        raw(2, 1, snappy),
        raw(2, 1, framed),
        raw(2, 1, b"\xff\xff\xff\xff\x0f\x00".to_vec()),
        raw(3, 1, lz4),
        raw(4, 1, zstd_bomb(1600, 0x58)),
        raw(4, 1, zstd_bomb(300, 0x58)),
        // Windows of 128 MiB and of terabytes.
        raw(4, 1, zstd_bomb(2, 0x88)),
        raw(4, 1, zstd_bomb(2, 0xff)),
    ];
    let tiny = body(1 << 18, 0, false);
    let large = body(1, 60 << 20, true);
    let headers = headers(1 << 20);
    for (code, codec) in [(1, Codec::Gzip), (4, Codec::Zstd), (3, Codec::Lz4)] {
        out.push(pack(code, codec, 1 << 18, &tiny));
        out.push(pack(code, codec, 1, &large));
        out.push(pack(code, codec, 1, &headers));
    }
    out
}

/// So many blocks that say "this byte, 131072 times".
fn zstd_bomb(blocks: usize, window: u8) -> Vec<u8> {
    let mut out = b"\x28\xb5\x2f\xfd\x00".to_vec();
    out.push(window);
    for block in 1..=blocks {
        let header = (128 << 10) << 3 | 1 << 1 | u32::from(block == blocks);
        out.extend(&header.to_le_bytes()[..3]);
        out.push(0);
    }
    out
}
