//! Why a command failed: one sentence for stderr and an exit code.

use std::error::Error;
use std::fmt;
use std::io;
use std::process::ExitCode;

use holdfast_storage::log::OpenError;

use super::output;
use crate::config::ConfigError;

/// Exit code of a log that could not be opened or written (`EX_IOERR`); a supervisor does not start
/// the node again over it, because only a person can look at the disk.
const EXIT_STORAGE: u8 = 74;
/// Exit code of a refused configuration (`EX_CONFIG` of sysexits).
const EXIT_CONFIG: u8 = 78;

/// A failed command.
#[derive(Debug)]
pub(super) enum CliError {
    /// The configuration was refused.
    Config(ConfigError),
    /// The log could not be opened or written.
    Storage(String),
    /// Anything else, in one sentence.
    Failed(String),
    /// The reader of our output has gone: the end, but no failure (`holdfast consume | head`).
    BrokenPipe,
}

impl CliError {
    pub(super) fn failed(sentence: impl fmt::Display) -> CliError {
        CliError::Failed(sentence.to_string())
    }

    /// Of an error that may have a log that does not open among its causes.
    pub(super) fn opening(error: &(dyn Error + 'static)) -> CliError {
        let sentence = error.to_string();
        let mut cause = Some(error);
        while let Some(error) = cause {
            match error.downcast_ref::<OpenError>() {
                // The other node will end; nobody has to look at the disk.
                Some(OpenError::Locked(_)) => break,
                Some(_) => return CliError::Storage(sentence),
                None => cause = error.source(),
            }
        }
        CliError::Failed(sentence)
    }

    /// Says what there is to say on stderr.
    pub(super) fn report(self) -> ExitCode {
        match self {
            CliError::Config(error) => {
                output::complain(&format!("configuration: {error}"));
                ExitCode::from(EXIT_CONFIG)
            }
            CliError::Storage(sentence) => {
                output::complain(&sentence);
                ExitCode::from(EXIT_STORAGE)
            }
            CliError::Failed(sentence) => {
                output::complain(&sentence);
                ExitCode::FAILURE
            }
            CliError::BrokenPipe => ExitCode::SUCCESS,
        }
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> CliError {
        CliError::Config(error)
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> CliError {
        match error.kind() {
            io::ErrorKind::BrokenPipe => CliError::BrokenPipe,
            _ => CliError::failed(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the log does not open")]
    struct Wrapped(#[source] OpenError);

    #[test]
    fn only_a_log_that_needs_a_person_is_a_storage_failure() {
        let locked = Wrapped(OpenError::Locked("d".into()));
        assert!(matches!(CliError::opening(&locked), CliError::Failed(_)));
        let damaged = Wrapped(OpenError::Metadata("checksum".to_owned()));
        assert!(matches!(CliError::opening(&damaged), CliError::Storage(_)));
        assert!(matches!(
            CliError::opening(&io::Error::other("port taken")),
            CliError::Failed(_)
        ));
    }
}
