//! Any text as a configuration file and, behind a NUL, as the values of environment variables: read or
//! refused with a sentence, never a panic. What was read can be shown.
#![no_main]

use std::ffi::OsString;
use std::path::PathBuf;

use holdfast::config::{Config, Sources};
use libfuzzer_sys::fuzz_target;

const VARIABLES: [&str; 4] = ["LOG__RETENTION_MS", "KAFKA__LISTENERS", "MQTT__LISTEN", "SOMETHING"];

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.split(|byte| *byte == 0);
    let file = std::env::temp_dir().join(format!("holdfast-fuzz-{}.toml", std::process::id()));
    if std::fs::write(&file, parts.next().unwrap_or_default()).is_err() {
        return;
    }
    let values = parts.map(|part| OsString::from(String::from_utf8_lossy(part).into_owned()));
    let names = VARIABLES.iter().map(|name| OsString::from(format!("HOLDFAST_{name}")));
    let sources = Sources { file: Some(PathBuf::from(&file)), env: names.zip(values).collect(), flags: Vec::new() };
    match Config::load(&sources) {
        Ok(loaded) => {
            let _ = loaded.show();
            let _ = loaded.config.log_options();
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let _ = std::fs::remove_file(&file);
});
