//! Compression of record batches: read by the pipelines and settings, written again by compaction.
//! Kafka clients are sent the batches as they are stored.

use std::io::{Read, Write};

use bytes::Bytes;

/// A batch that unpacks to more is refused: nothing may grow beyond it, whatever its sender claims.
pub const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// How the records of a batch are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    pub fn from_bits(bits: i16) -> Option<Codec> {
        Some(match bits {
            0 => Codec::None,
            1 => Codec::Gzip,
            2 => Codec::Snappy,
            3 => Codec::Lz4,
            4 => Codec::Zstd,
            _ => return None,
        })
    }
}

/// The records of a batch, uncompressed.
pub fn decompress(codec: Codec, body: Bytes) -> Result<Bytes, String> {
    match codec {
        Codec::None => Ok(body),
        Codec::Gzip => read_bounded(flate2::read::MultiGzDecoder::new(body.as_ref())),
        Codec::Lz4 => read_bounded(lz4_flex::frame::FrameDecoder::new(body.as_ref())),
        Codec::Zstd => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(body.as_ref())
                .map_err(|e| format!("zstd: {e}"))?;
            read_bounded(decoder)
        }
        Codec::Snappy => snappy(&body),
    }
}

/// Compresses records as they were: `as_before` is what the batch held when its producer sent it.
pub fn compress(codec: Codec, body: &[u8], as_before: &[u8]) -> Result<Vec<u8>, String> {
    Ok(match codec {
        Codec::None => body.to_vec(),
        Codec::Gzip => {
            let level = flate2::Compression::default();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(body).map_err(|e| e.to_string())?;
            encoder.finish().map_err(|e| e.to_string())?
        }
        Codec::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(body).map_err(|e| e.to_string())?;
            encoder.finish().map_err(|e| e.to_string())?
        }
        Codec::Zstd => {
            let level = ruzstd::encoding::CompressionLevel::Fastest;
            ruzstd::encoding::compress_to_vec(body, level)
        }
        Codec::Snappy => {
            let packed = snap::raw::Encoder::new()
                .compress_vec(body)
                .map_err(|e| format!("snappy: {e}"))?;
            if !as_before.starts_with(XERIAL_MAGIC) {
                return Ok(packed);
            }
            let mut framed = as_before
                .get(..XERIAL_HEADER_BYTES)
                .unwrap_or_default()
                .to_vec();
            let length = u32::try_from(packed.len()).map_err(|e| e.to_string())?;
            framed.extend_from_slice(&length.to_be_bytes());
            framed.extend_from_slice(&packed);
            framed
        }
    })
}

fn read_bounded(reader: impl Read) -> Result<Bytes, String> {
    let mut out = Vec::new();
    reader
        .take(DECOMPRESSED_BYTES_MAX as u64 + 1)
        .read_to_end(&mut out)
        .map_err(|e| e.to_string())?;
    if out.len() > DECOMPRESSED_BYTES_MAX {
        return Err(format!(
            "unpacks to more than {DECOMPRESSED_BYTES_MAX} bytes"
        ));
    }
    Ok(Bytes::from(out))
}

const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;

/// Java clients frame snappy blocks (magic, version, compatible version, then length and block);
/// librdkafka sends one bare block.
fn snappy(body: &[u8]) -> Result<Bytes, String> {
    let mut out = Vec::new();
    if !body.starts_with(XERIAL_MAGIC) {
        unpack_snappy(body, &mut out)?;
        return Ok(Bytes::from(out));
    }
    let mut rest = body
        .get(XERIAL_HEADER_BYTES..)
        .ok_or("snappy: frame header is cut")?;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let (block, after) = after
            .split_at_checked(length)
            .ok_or("snappy: a block is cut")?;
        unpack_snappy(block, &mut out)?;
        rest = after;
    }
    if rest.is_empty() {
        Ok(Bytes::from(out))
    } else {
        Err("snappy: bytes behind the last block".into())
    }
}

fn unpack_snappy(block: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let bytes = snap::raw::decompress_len(block).map_err(|e| format!("snappy: {e}"))?;
    if out.len() + bytes > DECOMPRESSED_BYTES_MAX {
        return Err(format!(
            "unpacks to more than {DECOMPRESSED_BYTES_MAX} bytes"
        ));
    }
    // The claimed length is not believed further than a block can really unpack.
    if bytes / SNAPPY_RATIO_MAX > block.len() {
        return Err("snappy: a block claims more than it can hold".into());
    }
    out.extend_from_slice(
        &snap::raw::Decoder::new()
            .decompress_vec(block)
            .map_err(|e| format!("snappy: {e}"))?,
    );
    Ok(())
}

/// A three-byte copy element yields at most 64 bytes.
const SNAPPY_RATIO_MAX: usize = 64;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use super::*;

    const TEXT: &[u8] = b"holdfast holdfast holdfast holdfast anchors kelp to rock";

    #[test]
    fn every_codec_unpacks() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(TEXT).unwrap();
        assert_eq!(
            decompress(Codec::Gzip, gzip.finish().unwrap().into()).unwrap(),
            TEXT
        );
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(TEXT).unwrap();
        assert_eq!(
            decompress(Codec::Lz4, lz4.finish().unwrap().into()).unwrap(),
            TEXT
        );
        let zstd =
            ruzstd::encoding::compress_to_vec(TEXT, ruzstd::encoding::CompressionLevel::Fastest);
        assert_eq!(decompress(Codec::Zstd, zstd.into()).unwrap(), TEXT);
        let block = snap::raw::Encoder::new().compress_vec(TEXT).unwrap();
        assert_eq!(
            decompress(Codec::Snappy, block.clone().into()).unwrap(),
            TEXT
        );
        let mut framed = [XERIAL_MAGIC, &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
        for _ in 0..2 {
            framed.extend_from_slice(&u32::try_from(block.len()).unwrap().to_be_bytes());
            framed.extend_from_slice(&block);
        }
        assert_eq!(
            decompress(Codec::Snappy, framed.into()).unwrap(),
            [TEXT, TEXT].concat()
        );
    }

    #[test]
    fn a_bomb_is_refused() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let zeros = vec![0; 1 << 20];
        for _ in 0..65 {
            gzip.write_all(&zeros).unwrap();
        }
        let error = decompress(Codec::Gzip, gzip.finish().unwrap().into()).unwrap_err();
        assert_eq!(error, "unpacks to more than 67108864 bytes");
        assert!(
            decompress(
                Codec::Snappy,
                Bytes::from_static(&[0xff, 0xff, 0xff, 0x0f, 0])
            )
            .is_err()
        );
    }
}
