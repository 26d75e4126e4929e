//! What the node has allocated now, and the most that was: an allocator that counts. A binary that wants
//! to know makes it its global allocator. Threads of the attackers count for nothing; what they allocate
//! they free themselves.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};

pub struct Counting;

static LIVE: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);
static MOST: AtomicIsize = AtomicIsize::new(0);

thread_local! {
    static OUTSIDE: Cell<bool> = const { Cell::new(false) };
}

/// What this thread does from here on is not the node's.
pub fn leave_out() {
    OUTSIDE.set(true);
}

fn is_outside() -> bool {
    OUTSIDE.try_with(Cell::get).unwrap_or_default()
}

fn grown(bytes: usize) {
    if is_outside() {
        return;
    }
    let live = LIVE.fetch_add(bytes as isize, Relaxed) + bytes as isize;
    if live > PEAK.load(Relaxed) {
        PEAK.fetch_max(live, Relaxed);
    }
}

fn shrunk(bytes: usize) {
    if !is_outside() {
        LIVE.fetch_sub(bytes as isize, Relaxed);
    }
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
    LIVE.load(Relaxed).max(0) as usize
}

/// How many more than `before` there were since [`forget_peak`] gave that.
pub fn peak_since(before: isize) -> usize {
    (PEAK.load(Relaxed) - before).max(0) as usize
}

/// What is allocated now is the peak from here on; gives it.
pub fn forget_peak() -> isize {
    MOST.fetch_max(PEAK.load(Relaxed), Relaxed);
    let live = LIVE.load(Relaxed);
    PEAK.store(live, Relaxed);
    live
}

/// The most that ever were.
pub fn most() -> usize {
    forget_peak();
    MOST.load(Relaxed).max(0) as usize
}
