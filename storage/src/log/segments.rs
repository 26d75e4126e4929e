//! Every open segment, by id.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use holdfast_wal::{Segment, SegmentId};

/// Clones share the map.
#[derive(Debug, Clone, Default)]
pub struct Segments {
    open: Arc<RwLock<BTreeMap<SegmentId, Arc<Segment>>>>,
}

impl Segments {
    pub fn get(&self, id: SegmentId) -> Option<Arc<Segment>> {
        self.open
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .cloned()
    }

    /// Cheap if it is there already.
    pub fn insert(&self, segment: &Arc<Segment>) {
        if self.get(segment.id()).is_none() {
            self.open
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(segment.id(), segment.clone());
        }
    }

    pub fn remove(&self, id: SegmentId) {
        self.open
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
    }

    pub fn ids(&self) -> Vec<SegmentId> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.keys().copied().collect()
    }

    /// Of their files.
    pub fn bytes(&self) -> u64 {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let sizes = open.values().map(|segment| segment.file().size());
        sizes.filter_map(Result::ok).sum()
    }

    pub fn len(&self) -> usize {
        self.open
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }
}
