//! One file of the simulated disk: what is on the platter, what readers see, and the changes in
//! between.

use fastrand::Rng;

use super::{HandleId, Region};

#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) durable: Vec<u8>,
    pub(super) current: Vec<u8>,
    pub(super) changes: Vec<Change>,
    /// Whether the name of the file is on the platter as well.
    pub(super) has_name: bool,
    pub(super) regions: Vec<Region>,
    pub(super) region_locks: Vec<(HandleId, usize, bool)>,
}

#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Truncate { size: usize },
}

impl File {
    pub(super) fn change(&mut self, change: Change) {
        change.apply(&mut self.current);
        self.changes.push(change);
    }

    pub(super) fn settle(&mut self) {
        for change in self.changes.drain(..) {
            change.apply(&mut self.durable);
        }
        self.has_name = true;
    }

    pub(super) fn settle_in_part(&mut self, sector: usize, rng: &mut Rng) {
        for change in std::mem::take(&mut self.changes) {
            change.apply_in_part(&mut self.durable, sector, rng);
        }
    }

    pub(super) fn lose_power(&mut self, sector: usize, rng: &mut Rng) {
        // Most often nothing or everything had reached the platter; the rest is where it hurts.
        match rng.u8(0..4) {
            0 => self.changes.clear(),
            1 => self.settle(),
            _ => self.settle_in_part(sector, rng),
        }
        self.current.clone_from(&self.durable);
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes: written } => {
                let end = at + written.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at..end].copy_from_slice(written);
            }
            Self::Truncate { size } => bytes.resize(*size, 0),
        }
    }

    /// Applies it sector by sector, each or not; and one in eight of them only to its middle.
    fn apply_in_part(&self, bytes: &mut Vec<u8>, sector: usize, rng: &mut Rng) {
        match self {
            Self::Write { at, bytes: written } => {
                let end = at + written.len();
                let mut from = *at;
                while from < end {
                    let to = end.min((from / sector + 1) * sector);
                    let kept = match rng.u8(0..16) {
                        0..7 => to - from,
                        7 | 8 => rng.usize(0..=to - from),
                        _ => 0,
                    };
                    let part = &written[from - at..from - at + kept];
                    if kept > 0 {
                        Self::Write { at: from, bytes: part.to_vec() }.apply(bytes);
                    }
                    from = to;
                }
            }
            Self::Truncate { .. } => {
                if rng.bool() {
                    self.apply(bytes);
                }
            }
        }
    }
}
