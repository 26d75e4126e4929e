//! Why the telemetry store could not do what was asked.

use std::path::PathBuf;

/// An error of the telemetry store. Nothing of a failed commit is kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file was written by a newer Holdfast; opening it here could destroy what it knows.
    #[error(
        "the telemetry store {path} has schema version {found}, but this Holdfast knows only up to {supported}: \
         start the newer version again, or move the file away to rebuild it from the log"
    )]
    NewerSchema {
        /// The database file.
        path: PathBuf,
        /// Its `user_version`.
        found: i64,
        /// The newest version this code writes.
        supported: i64,
    },
    /// A statement failed: a full disk, a lock held by a foreign process, or a damaged file.
    #[error("telemetry store {path}: {doing}: {cause}")]
    Sqlite {
        /// The database file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// SQLite's own words.
        #[source]
        cause: rusqlite::Error,
    },
    /// A number that does not fit the row identity (see the module's format).
    #[error("telemetry store: {what} {value} exceeds {max}")]
    OutOfRange {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: i64,
        /// The largest that fits.
        max: i64,
    },
}
