//! A password from whoever runs the command: a new one typed unseen and twice, or the first line of stdin; a
//! known one from a file, the environment, or typed once.

use std::fs;
use std::io::{self, BufRead as _, Write as _};
use std::path::Path;

use rustix::termios::{self, LocalModes, OptionalActions, Termios};

use super::error::CliError;

/// Bytes of a line; longer passwords are refused by `auth` anyway.
const LINE_BYTES_MAX: u64 = 4096;

/// A command's arguments are seen by everybody on the machine; its environment is not.
const VARIABLE: &str = "HOLDFAST_PASSWORD";

/// A password that is known already, from the file that is named, from the environment, or typed.
pub(super) fn of_user(name: &str, file: Option<&Path>) -> Result<String, CliError> {
    if let Some(path) = file {
        let text = fs::read_to_string(path);
        let text = text.map_err(|e| CliError::failed(format!("{}: {e}", path.display())))?;
        let secret = text.lines().next().unwrap_or_default();
        return match secret.is_empty() {
            true => Err(CliError::failed(format!(
                "{}: its first line is empty",
                path.display()
            ))),
            false => Ok(secret.to_owned()),
        };
    }
    match std::env::var(VARIABLE) {
        Ok(secret) => Ok(secret),
        // Records may come from stdin, so that only a terminal is asked.
        Err(_) if termios::isatty(io::stdin()) => typed(&format!("password of {name}: ")),
        Err(_) => Err(CliError::failed(format!(
            "the password of {name} is needed: --password-file, or {VARIABLE} in the environment"
        ))),
    }
}

pub(super) fn read() -> Result<String, CliError> {
    let stdin = io::stdin();
    if !termios::isatty(&stdin) {
        return line();
    }
    let first = typed("password: ")?;
    match typed("the same again: ")? == first {
        true => Ok(first),
        false => Err(CliError::failed("the two passwords differ")),
    }
}

fn line() -> Result<String, CliError> {
    let mut text = String::new();
    let stdin = io::stdin().lock();
    let mut limited = io::Read::take(stdin, LINE_BYTES_MAX);
    limited.read_line(&mut text)?;
    let end = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(end);
    match text.is_empty() {
        true => Err(CliError::failed("no password came from stdin")),
        false => Ok(text),
    }
}

fn typed(prompt: &str) -> Result<String, CliError> {
    // stdout is for results.
    let mut out = io::stderr();
    out.write_all(prompt.as_bytes())?;
    out.flush()?;
    let silence = Silence::begin()?;
    let text = line();
    drop(silence);
    out.write_all(b"\n")?;
    text
}

/// The terminal does not show what is typed until this is dropped.
struct Silence(Termios);

impl Silence {
    fn begin() -> Result<Silence, CliError> {
        let before = termios::tcgetattr(io::stdin()).map_err(io::Error::from)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        let set = termios::tcsetattr(io::stdin(), OptionalActions::Flush, &silent);
        set.map_err(io::Error::from)?;
        Ok(Silence(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if let Err(error) = termios::tcsetattr(io::stdin(), OptionalActions::Flush, &self.0) {
            tracing::warn!(%error, "the terminal stays silent: `stty echo` ends that");
        }
    }
}
