//! A group commit without a log: what is submitted while one group is synced becomes the next group.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::SEGMENT_BYTES;

#[derive(Default)]
struct Queue {
    waiting: Vec<(Bytes, oneshot::Sender<()>)>,
    ends: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

/// Its thread writes and syncs.
pub struct GroupCommit {
    shared: Arc<Shared>,
    thread: JoinHandle<u64>,
}

#[derive(Clone)]
pub struct Submitter(Arc<Shared>);

impl Submitter {
    pub fn submit(&self, payload: Bytes) -> oneshot::Receiver<()> {
        let (tell, durable) = oneshot::channel();
        let mut queue = self.0.queue.lock().unwrap();
        queue.waiting.push((payload, tell));
        if queue.waiting.len() == 1 {
            self.0.arrived.notify_one();
        }
        durable
    }
}

impl GroupCommit {
    pub fn start(dir: &Path) -> GroupCommit {
        let shared = Arc::new(Shared::default());
        let (dir, of_thread) = (dir.to_path_buf(), shared.clone());
        let thread = std::thread::spawn(move || write(&dir, &of_thread));
        GroupCommit { shared, thread }
    }

    pub fn submitter(&self) -> Submitter {
        Submitter(self.shared.clone())
    }

    /// Ends the thread; how often it synced.
    pub fn end(self) -> u64 {
        self.shared.queue.lock().unwrap().ends = true;
        self.shared.arrived.notify_one();
        self.thread.join().unwrap()
    }
}

fn write(dir: &Path, shared: &Shared) -> u64 {
    let new_file = |id: u64| {
        let file = File::create(dir.join(format!("{id}.bare"))).unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, SEGMENT_BYTES)
            .unwrap();
        file
    };
    let (mut files, mut file, mut position, mut syncs) = (1, new_file(0), 0, 0);
    let (mut group, mut bytes) = (Vec::new(), Vec::new());
    loop {
        let mut queue = shared.queue.lock().unwrap();
        while queue.waiting.is_empty() && !queue.ends {
            queue = shared.arrived.wait(queue).unwrap();
        }
        std::mem::swap(&mut group, &mut queue.waiting);
        drop(queue);
        if group.is_empty() {
            return syncs;
        }
        bytes.clear();
        group
            .iter()
            .for_each(|(payload, _)| bytes.extend_from_slice(payload));
        if position + bytes.len() as u64 > SEGMENT_BYTES {
            (files, file, position) = (files + 1, new_file(files), 0);
        }
        rustix::io::pwrite(&file, &bytes, position).unwrap();
        file.sync_data().unwrap();
        position += bytes.len() as u64;
        syncs += 1;
        for (_, tell) in group.drain(..) {
            let _ = tell.send(());
        }
    }
}
