//! Results on stdout, complaints on stderr. `println!` panics when the reader has gone; these do not.

use std::fmt;
use std::io::{self, Write};

use super::error::CliError;

pub(super) fn line(arguments: fmt::Arguments<'_>) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_fmt(arguments)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

pub(super) fn bytes(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// A sentence on stderr; if that is gone too, nobody is left to be told.
pub(super) fn complain(sentence: &str) {
    let _ = writeln!(io::stderr(), "holdfast: {sentence}");
}
