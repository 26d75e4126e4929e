//! What is allocated now, and the most that was: an allocator that counts. A binary that wants to know
//! makes it its global allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

pub struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn grown(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
    if live > PEAK.load(Relaxed) {
        PEAK.fetch_max(live, Relaxed);
    }
}

fn shrunk(bytes: usize) {
    LIVE.fetch_sub(bytes, Relaxed);
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        shrunk(layout.size());
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // The old and the new may be there at once.
        grown(bytes);
        let moved = unsafe { System.realloc(at, layout, bytes) };
        shrunk(layout.size());
        moved
    }
}

/// Bytes allocated now.
pub fn live() -> usize {
    LIVE.load(Relaxed)
}

/// The most that were since [`forget_peak`].
pub fn peak() -> usize {
    PEAK.load(Relaxed)
}

/// What is allocated now is the peak from here on; gives it.
pub fn forget_peak() -> usize {
    MOST.fetch_max(peak(), Relaxed);
    let live = live();
    PEAK.store(live, Relaxed);
    live
}

/// The most that ever were.
pub fn most() -> usize {
    MOST.fetch_max(peak(), Relaxed).max(peak())
}
