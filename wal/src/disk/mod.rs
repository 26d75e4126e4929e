//! The disk as the wal sees it: one directory of flat files.
//!
//! A trait, so that crashes, torn writes, full disks and failing fsyncs can be played from a seed
//! ([`sim`]); [`real`] is the one that ships.

pub mod real;
pub mod sim;

use std::fmt;
use std::io::{self, IoSlice};
use std::sync::Arc;

pub use real::RealDisk;
pub use sim::SimDisk;

/// One directory. Names are flat; a name is durable only after [`Disk::sync_dir`].
pub trait Disk: Send + Sync + fmt::Debug {
    /// Every file name, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Creates (replacing what has the name) a file whose `capacity` bytes are allocated and read as zero.
    fn create(&self, name: &str, capacity: u64) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Replaces `to` if it exists.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Unlinks.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// Bytes that could still be allocated.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// One open file, used from many threads.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Length in bytes, allocated space included.
    fn size(&self) -> io::Result<u64>;
    /// May read less than asked; 0 at the end.
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize>;
    /// May write less than given.
    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<usize>;
    /// fdatasync.
    fn sync_data(&self) -> io::Result<()>;
    /// Cuts the file, giving allocated space back.
    fn truncate(&self, size: u64) -> io::Result<()>;
    /// These bytes are going to be read: the disk may begin now.
    fn will_need(&self, _position: u64, _bytes: u64) {}
    /// The file itself, where there is one, for sendfile and the like.
    fn as_file(&self) -> Option<&std::fs::File> {
        None
    }
}

/// Fills `buf` or fails with `UnexpectedEof`.
pub fn read_exact_at(file: &dyn DiskFile, mut buf: &mut [u8], mut position: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.read_at(buf, position) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                buf = buf.get_mut(n..).unwrap_or_default();
                position += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The most slices one call may carry (Linux's IOV_MAX).
const IOV_MAX: usize = 1024;

/// Writes every byte of `bufs`, going on after short writes.
pub fn write_all_vectored_at(
    file: &dyn DiskFile,
    bufs: &mut [IoSlice<'_>],
    mut position: u64,
) -> io::Result<()> {
    let mut rest = bufs;
    while !rest.is_empty() {
        let some = rest.get(..rest.len().min(IOV_MAX)).unwrap_or_default();
        match file.write_vectored_at(some, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                position += n as u64;
                IoSlice::advance_slices(&mut rest, n);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
