//! Any bytes from an MQTT client, before and after its CONNECT: packets or a fault, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = holdfast::mqtt::dissect(bytes);
});
