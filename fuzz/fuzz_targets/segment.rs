//! Any file as a segment: recovery neither panics nor loses its way, and what it leaves can be
//! recovered again without damage.
#![no_main]

use std::io::IoSlice;
use std::sync::Arc;

use holdfast_wal::disk::{Disk, SimDisk};
use holdfast_wal::format::{SegmentHeader, SegmentKind};
use holdfast_wal::{SegmentId, WalOptions, recover};
use libfuzzer_sys::fuzz_target;

fn options() -> WalOptions {
    WalOptions { segment_bytes: 1 << 16, admit: Arc::new(|_, _| Ok(())), prepare_ahead: false, clock: Arc::new(|| 0), salt: Arc::new(|| 7) }
}

fuzz_target!(|input: &[u8]| {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(0));
    let id = SegmentId(1);
    let header = SegmentHeader { kind: SegmentKind::Appended, boot_epoch: 1, id, replaces: None, salt: 7 };
    let Ok(file) = disk.create(&id.file_name(), 64 + input.len() as u64) else { return };
    let _ = file.write_vectored_at(&[IoSlice::new(&header.encode())], 0);
    let _ = file.write_vectored_at(&[IoSlice::new(input)], 64);
    let _ = disk.sync_dir();
    if let Ok(recovered) = recover(&disk, options()) {
        for segment in &recovered.segments {
            let _ = segment.footer();
            let _ = segment.scan(None);
        }
        drop(recovered);
        assert!(recover(&disk, options()).is_ok(), "what recovery left cannot be recovered");
    }
});
