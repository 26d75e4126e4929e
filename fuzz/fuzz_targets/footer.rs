//! Any bytes as the footer of a segment or as a row of the index: read or refused, never a panic.
#![no_main]

use holdfast_storage::log::doctor::{is_readable_footer, is_readable_index_row};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = is_readable_footer(bytes, 64);
    let (key, value) = bytes.split_at(bytes.len() / 3);
    let _ = is_readable_index_row(key, value);
});
