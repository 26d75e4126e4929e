//! A disk that forgets, tears and fails on command, from a seed.
//!
//! Every file has *live* bytes (what reads return) and *durable* bytes (what survives a crash). A
//! write is pending until an fdatasync; at a crash each 512-byte sector of a pending write survives
//! or not by the toss of a coin. An fdatasync that fails drops its pending writes the way Linux does:
//! the pages stay readable and count as clean, some of them are on disk and some are not. Names
//! created, renamed or removed since the last fsync of the directory survive up to a random one.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile};

const SECTOR_BYTES: usize = 512;

/// Chances, in thousandths, that one operation goes wrong.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// A write takes fewer bytes than given.
    pub short_write: u32,
    /// A write fails with EIO, some of its sectors written.
    pub write_error: u32,
    /// Creating a file fails with ENOSPC.
    pub no_space: u32,
    /// fdatasync, or the fsync of the directory, fails with EIO.
    pub sync_error: u32,
}

/// Clones share the disk.
#[derive(Debug, Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

type Shared = Arc<Mutex<FileState>>;

#[derive(Debug)]
struct State {
    random: Random,
    faults: Faults,
    names: HashMap<String, Shared>,
    durable_names: HashMap<String, Shared>,
    pending_names: Vec<NameChange>,
    syncs: u64,
    /// Bytes that all files together may have.
    capacity: u64,
    /// Changes that still succeed before the power goes, if it is to go.
    fuse: Option<u64>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Put(String, Shared),
    Remove(String),
}

#[derive(Debug, Default)]
struct FileState {
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write { position: usize, bytes: Vec<u8> },
    Truncate { size: usize },
}

/// SplitMix64: small, seeded, and the same on every machine.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound` (0 for 0).
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64().checked_rem(bound).unwrap_or(0)
    }

    /// True `thousandths` times out of 1000.
    pub fn chance(&mut self, thousandths: u32) -> bool {
        self.below(1000) < u64::from(thousandths)
    }
}

impl SimDisk {
    /// An empty disk.
    pub fn new(seed: u64) -> SimDisk {
        let state = State {
            random: Random::new(seed),
            faults: Faults::default(),
            names: HashMap::new(),
            durable_names: HashMap::new(),
            pending_names: Vec::new(),
            syncs: 0,
            capacity: u64::MAX,
            fuse: None,
        };
        SimDisk {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// From now on files take no more than this together.
    pub fn set_capacity(&self, bytes: u64) {
        self.lock().capacity = bytes;
    }

    /// From now on operations fail with these chances.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// After so many further changes (writes, syncs, names) every operation fails, until [`SimDisk::crash`]:
    /// what is on disk stays as it was at that moment.
    pub fn power_off_after(&self, changes: u64) {
        self.lock().fuse = Some(changes);
    }

    /// The power is off.
    pub fn is_off(&self) -> bool {
        self.lock().fuse == Some(0)
    }

    /// fdatasyncs that succeeded so far.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Power cut. Files that are open must not be used afterwards; open them again.
    pub fn crash(&self) {
        let mut state = self.lock();
        let state = &mut *state;
        state.fuse = None;
        let kept =
            usize::try_from(state.random.below(state.pending_names.len() as u64 + 1)).unwrap_or(0);
        for change in state.pending_names.drain(..).take(kept) {
            change.apply(&mut state.durable_names);
        }
        let mut survivors = HashMap::new();
        for (name, file) in &state.durable_names {
            let mut file = lock(file);
            file.lose_pending(&mut state.random);
            let bytes = file.durable.clone();
            survivors.insert(
                name.clone(),
                Arc::new(Mutex::new(FileState {
                    live: bytes.clone(),
                    durable: bytes,
                    pending: Vec::new(),
                })),
            );
        }
        state.durable_names = survivors.clone();
        state.names = survivors;
    }

    /// Rot: flips one bit of what is on disk. Returns whether the file has that bit.
    pub fn flip_bit(&self, name: &str, bit: u64) -> bool {
        let state = self.lock();
        let Some(file) = state.names.get(name) else {
            return false;
        };
        let mut file = lock(file);
        let (byte, mask) = (
            usize::try_from(bit / 8).unwrap_or(usize::MAX),
            1_u8 << (bit % 8),
        );
        let mut found = false;
        let FileState { live, durable, .. } = &mut *file;
        for bytes in [live, durable] {
            if let Some(byte) = bytes.get_mut(byte) {
                *byte ^= mask;
                found = true;
            }
        }
        found
    }

    /// Bytes of a file, as a reader sees them.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.lock();
        state.names.get(name).map(|file| lock(file).live.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(file: &Shared) -> MutexGuard<'_, FileState> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

impl NameChange {
    fn apply(self, names: &mut HashMap<String, Shared>) {
        match self {
            NameChange::Put(name, file) => {
                names.insert(name, file);
            }
            NameChange::Remove(name) => {
                names.remove(&name);
            }
        }
    }
}

impl State {
    /// Every change asks first.
    fn change(&mut self) -> io::Result<()> {
        match &mut self.fuse {
            Some(0) => Err(eio()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn free(&self) -> u64 {
        let used = self.names.values().map(|file| lock(file).live.len() as u64);
        self.capacity.saturating_sub(used.sum())
    }

    fn read(&self) -> io::Result<()> {
        if self.fuse == Some(0) {
            Err(eio())
        } else {
            Ok(())
        }
    }

    fn change_names(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.pending_names.push(change);
    }

    fn find(&self, name: &str) -> io::Result<Shared> {
        self.names
            .get(name)
            .cloned()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl FileState {
    fn write(&mut self, position: usize, bytes: Vec<u8>) {
        put(&mut self.live, position, &bytes);
        self.pending.push(Change::Write { position, bytes });
    }

    /// Everything pending reaches the disk.
    fn flush(&mut self) {
        for change in self.pending.drain(..) {
            match change {
                Change::Write { position, bytes } => put(&mut self.durable, position, &bytes),
                Change::Truncate { size } => self.durable.resize(size, 0),
            }
        }
    }

    /// Each sector of what is pending reaches the disk or does not.
    fn lose_pending(&mut self, random: &mut Random) {
        for change in std::mem::take(&mut self.pending) {
            match change {
                Change::Truncate { size } => {
                    if random.chance(500) {
                        self.durable.resize(size, 0);
                    }
                }
                Change::Write { position, bytes } => {
                    let all = random.below(4);
                    let mut at = 0;
                    while at < bytes.len() {
                        let sector_end = ((position + at) / SECTOR_BYTES + 1) * SECTOR_BYTES;
                        let end = (sector_end - position).min(bytes.len());
                        let kept = match all {
                            0 => true,
                            1 => false,
                            _ => random.chance(500),
                        };
                        if let Some(sector) = bytes.get(at..end).filter(|_| kept) {
                            put(&mut self.durable, position + at, sector);
                        }
                        at = end;
                    }
                }
            }
        }
    }
}

fn put(bytes: &mut Vec<u8>, position: usize, part: &[u8]) {
    let end = position + part.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    if let Some(room) = bytes.get_mut(position..end) {
        room.copy_from_slice(part);
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.lock().read()?;
        let mut names: Vec<String> = self.lock().names.keys().cloned().collect();
        names.sort_unstable();
        Ok(names)
    }

    fn create(&self, name: &str, capacity: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.lock();
        state.change()?;
        let chance = state.faults.no_space;
        if state.random.chance(chance) || state.free() < capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let zeros = vec![0; usize::try_from(capacity).unwrap_or(0)];
        let file = Arc::new(Mutex::new(FileState {
            live: zeros.clone(),
            durable: zeros,
            pending: Vec::new(),
        }));
        state.change_names(NameChange::Put(name.to_owned(), file.clone()));
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            file,
        }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.lock();
        state.read()?;
        let file = state.find(name)?;
        drop(state);
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            file,
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.change()?;
        let file = state.find(from)?;
        state.change_names(NameChange::Put(to.to_owned(), file));
        state.change_names(NameChange::Remove(from.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.change()?;
        state.find(name)?;
        state.change_names(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.lock().free())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.lock();
        let state = &mut *state;
        state.change()?;
        let failing = state.random.chance(state.faults.sync_error);
        let pending = state.pending_names.len() as u64;
        let kept = if failing {
            state.random.below(pending + 1)
        } else {
            pending
        };
        let kept = usize::try_from(kept).unwrap_or(0);
        for change in state.pending_names.drain(..).take(kept) {
            change.apply(&mut state.durable_names);
        }
        if failing { Err(eio()) } else { Ok(()) }
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: Shared,
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        Ok(lock(&self.file).live.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.disk.lock().read()?;
        let file = lock(&self.file);
        let from = usize::try_from(position)
            .unwrap_or(usize::MAX)
            .min(file.live.len());
        let rest = file.live.get(from..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        Ok(n)
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let mut bytes: Vec<u8> = bufs.iter().flat_map(|b| b.iter().copied()).collect();
        let mut state = self.disk.lock();
        state.change()?;
        let faults = state.faults;
        let failing = state.random.chance(faults.write_error);
        if (failing || state.random.chance(faults.short_write)) && bytes.len() > 1 {
            let kept = 1 + state.random.below(bytes.len() as u64 - 1);
            bytes.truncate(usize::try_from(kept).unwrap_or(1));
        }
        drop(state);
        let written = bytes.len();
        lock(&self.file).write(usize::try_from(position).unwrap_or(usize::MAX), bytes);
        if failing { Err(eio()) } else { Ok(written) }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.change()?;
        let chance = state.faults.sync_error;
        let mut file = lock(&self.file);
        if state.random.chance(chance) {
            file.lose_pending(&mut state.random);
            return Err(eio());
        }
        state.syncs += 1;
        file.flush();
        Ok(())
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        self.disk.lock().change()?;
        let mut file = lock(&self.file);
        file.live.resize(size, 0);
        file.pending.push(Change::Truncate { size });
        Ok(())
    }
}
