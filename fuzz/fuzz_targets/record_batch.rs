//! Any bytes as a record batch: judged, split and decoded without a panic. The checksum is made to
//! fit, or nothing behind it would ever be reached.
#![no_main]

use bytes::Bytes;
use holdfast_storage::log::batch;
use holdfast_storage::log::retain::Unpacked;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut bytes = input.to_vec();
    if bytes.len() >= batch::HEADER_BYTES {
        let length = i32::try_from(bytes.len() - 12).unwrap_or(i32::MAX);
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[16] = 2;
        let crc = crc(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    let bytes = Bytes::from(bytes);
    let _ = batch::validate(&bytes, 1 << 20);
    for item in batch::split(&bytes) {
        let Ok((header, one)) = item else { break };
        let unpacked = Unpacked::new(&header, &one);
        if let Ok(unpacked) = &unpacked {
            let _ = unpacked.each(|_| {});
        }
        if let Ok(records) = batch::records(&header, &one) {
            assert!(records.windows(2).all(|pair| pair[0].offset < pair[1].offset));
            // Compaction that drops nothing leaves the same records.
            let kept = unpacked.unwrap().retain(|_| true, None).unwrap();
            if let Some(kept) = kept {
                let header = batch::BatchHeader::parse(&kept).unwrap();
                assert_eq!(batch::records(&header, &kept).unwrap(), records);
            }
        }
    }
});

/// CRC-32C, bit by bit: slow, short, and not the one under test.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}
