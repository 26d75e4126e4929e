//! Any frame on port 9092: decoding neither panics nor allocates beyond the frame.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    let _ = holdfast::kafka::protocol::decode_request(Bytes::copy_from_slice(frame));
});
