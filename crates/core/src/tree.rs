//! The path tree: which locks, parked acquires, writes under way and freezes sit where.
//!
//! A node exists while something is attached to it or below it, or while the newest lock event of
//! it is not durable yet. Each inner node counts what is attached below it, so that "is anything
//! of this kind below?" is one look, and keeps the children that lead to something short-lived
//! (`busy`), so that finding it never walks past children that only hold locks.
//!
//! Deliberately absent: any rule about what conflicts with what.

use std::collections::{BTreeSet, VecDeque};
use std::hash::BuildHasher;
use std::ops::Range;

use hashbrown::HashTable;

use crate::arena::Arena;
use crate::ids::{PinId, Seq, WaiterId};
use crate::lock::{Depth, Freeze, Mode};
use crate::resource::Resource;

/// The place of a node in the tree.
pub(crate) type NodeId = u32;
/// The place of a lock in the table.
pub(crate) type LockIdx = u32;

/// The root always exists.
pub(crate) const ROOT: NodeId = 0;

/// A lock as the tree sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LockAt {
    pub(crate) lock: LockIdx,
    pub(crate) mode: Mode,
    pub(crate) depth: Depth,
}

/// A parked acquire as the tree sees it: what it asks for here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ParkedAt {
    pub(crate) waiter: WaiterId,
    pub(crate) mode: Mode,
    pub(crate) depth: Depth,
}

/// The part of a write that is on its way here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PinAt {
    pub(crate) pin: PinId,
    pub(crate) kind: PinKind,
    /// Which of the write's targets it is.
    pub(crate) target: usize,
}

/// Which part of the resource a write changes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PinKind {
    Content,
    Members,
    Subtree,
}

/// How many of each kind are attached strictly below a node.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Below {
    pub(crate) exclusive: u32,
    pub(crate) shared: u32,
    pub(crate) parked: u32,
    pub(crate) pins: u32,
    pub(crate) freezes: u32,
}

impl Below {
    fn count(&mut self, kind: Kind) -> &mut u32 {
        match kind {
            Kind::Exclusive => &mut self.exclusive,
            Kind::Shared => &mut self.shared,
            Kind::Parked => &mut self.parked,
            Kind::Pin => &mut self.pins,
            Kind::Freeze => &mut self.freezes,
        }
    }

    fn is_busy(&self) -> bool {
        self.parked + self.pins + self.freezes > 0
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Exclusive,
    Shared,
    Parked,
    Pin,
    Freeze,
}

impl Kind {
    fn of(mode: Mode) -> Self {
        match mode {
            Mode::Exclusive => Self::Exclusive,
            Mode::Shared => Self::Shared,
        }
    }
}

/// The locks attached to one node: nearly always none or one.
#[derive(Debug, Default)]
enum Locks {
    #[default]
    None,
    One(LockAt),
    /// Several, in `crowds`: a vector here would make each node larger.
    Many(u32),
}

#[derive(Debug, Default)]
struct Inner {
    children: HashTable<NodeId>,
    busy: BTreeSet<NodeId>,
    below: Below,
    /// The newest event that attached or detached a lock or freeze below.
    mark: Seq,
}

#[derive(Debug, Default)]
struct Extras {
    parked: Vec<ParkedAt>,
    pins: Vec<PinAt>,
    freeze: Option<Freeze>,
}

impl Extras {
    fn is_empty(&self) -> bool {
        self.parked.is_empty() && self.pins.is_empty() && self.freeze.is_none()
    }
}

#[derive(Debug)]
struct Node {
    parent: NodeId,
    /// A path that leads through here: that of the resource it was made for, which shares it.
    path: Resource,
    /// Where in the path the segment of this node begins and ends.
    begins: u16,
    ends: u16,
    locks: Locks,
    /// The newest event that attached or detached a lock or freeze here.
    mark: Seq,
    inner: Option<Box<Inner>>,
    extras: Option<Box<Extras>>,
}

impl Node {
    fn new(parent: NodeId, path: Resource, segment: Range<usize>) -> Self {
        // A path has at most 2,048 bytes.
        let short = |at| u16::try_from(at).unwrap_or(u16::MAX);
        Self {
            parent,
            path,
            begins: short(segment.start),
            ends: short(segment.end),
            locks: Locks::None,
            mark: Seq(0),
            inner: None,
            extras: None,
        }
    }

    fn segment(&self) -> &str {
        &self.path.as_str()[usize::from(self.begins)..usize::from(self.ends)]
    }
}

/// The tree. See the module.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Arena<Node>,
    /// The locks of nodes that have several.
    crowds: Arena<Vec<LockAt>>,
    hasher: foldhash::quality::FixedState,
    /// Nodes that may be empty once the event is durable.
    to_prune: VecDeque<(Seq, NodeId)>,
    durable: Seq,
}

impl Tree {
    pub(crate) fn new(seed: u64) -> Self {
        let mut nodes = Arena::new();
        nodes.insert(Node::new(ROOT, Resource::root(), 0..0));
        Self {
            nodes,
            crowds: Arena::new(),
            hasher: foldhash::quality::FixedState::with_seed(seed),
            to_prune: VecDeque::new(),
            durable: Seq(0),
        }
    }

    fn child(&self, node: NodeId, segment: &str) -> Option<NodeId> {
        let inner = self.nodes[node].inner.as_ref()?;
        inner
            .children
            .find(self.hasher.hash_one(segment), |&child| self.nodes[child].segment() == segment)
            .copied()
    }

    /// The nodes of the resource's path that exist, from the root down, and whether the last of
    /// them is the resource itself.
    pub(crate) fn path(&self, resource: &Resource, path: &mut Vec<NodeId>) -> bool {
        path.clear();
        path.push(ROOT);
        let mut node = ROOT;
        for segment in resource.segments() {
            match self.child(node, segment) {
                Some(child) => {
                    node = child;
                    path.push(node);
                }
                None => return false,
            }
        }
        true
    }

    /// The node of the resource, made if it is not there. Attach something to it, or call
    /// [`Tree::prune`].
    pub(crate) fn make(&mut self, resource: &Resource) -> NodeId {
        self.make_from(&[ROOT], resource)
    }

    /// The same, where the first nodes of the resource's path are known: those of [`Tree::path`],
    /// unless one was removed since.
    pub(crate) fn make_from(&mut self, known: &[NodeId], resource: &Resource) -> NodeId {
        let mut node = known.last().copied().unwrap_or(ROOT);
        let mut ends = 0;
        for (depth, segment) in resource.segments().enumerate() {
            // Behind the slash.
            let begins = ends + 1;
            ends = begins + segment.len();
            if depth + 1 < known.len() {
                continue;
            }
            node = match self.child(node, segment) {
                Some(child) => child,
                None => self.add_child(node, resource, begins..ends),
            };
        }
        node
    }

    fn add_child(&mut self, parent: NodeId, path: &Resource, segment: Range<usize>) -> NodeId {
        let hash = self.hasher.hash_one(&path.as_str()[segment.clone()]);
        let child = self.nodes.insert(Node::new(parent, path.clone(), segment));
        let mut inner = self.nodes[parent].inner.take().unwrap_or_default();
        inner
            .children
            .insert_unique(hash, child, |&other| self.hasher.hash_one(self.nodes[other].segment()));
        self.nodes[parent].inner = Some(inner);
        child
    }

    /// The node above, for all but the root.
    pub(crate) fn parent(&self, node: NodeId) -> Option<NodeId> {
        (node != ROOT).then(|| self.nodes[node].parent)
    }

    pub(crate) fn locks(&self, node: NodeId) -> &[LockAt] {
        match &self.nodes[node].locks {
            Locks::None => &[],
            Locks::One(lock) => std::slice::from_ref(lock),
            Locks::Many(crowd) => &self.crowds[*crowd],
        }
    }

    pub(crate) fn parked(&self, node: NodeId) -> &[ParkedAt] {
        self.nodes[node].extras.as_ref().map_or(&[], |extras| &extras.parked)
    }

    pub(crate) fn pins(&self, node: NodeId) -> &[PinAt] {
        self.nodes[node].extras.as_ref().map_or(&[], |extras| &extras.pins)
    }

    pub(crate) fn freeze(&self, node: NodeId) -> Option<&Freeze> {
        self.nodes[node].extras.as_ref().and_then(|extras| extras.freeze.as_ref())
    }

    pub(crate) fn below(&self, node: NodeId) -> Below {
        self.nodes[node].inner.as_ref().map_or_else(Below::default, |inner| inner.below)
    }

    /// The children that lead to a parked acquire, a write under way or a freeze, in a fixed
    /// order.
    pub(crate) fn busy(&self, node: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes[node].inner.iter().flat_map(|inner| inner.busy.iter().copied())
    }

    /// All children.
    pub(crate) fn children(&self, node: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes[node].inner.iter().flat_map(|inner| inner.children.iter().copied())
    }

    /// The newest event that changed which locks or freezes are attached here.
    pub(crate) fn mark(&self, node: NodeId) -> Seq {
        self.nodes[node].mark
    }

    /// The newest event that changed which locks or freezes are attached below.
    pub(crate) fn mark_below(&self, node: NodeId) -> Seq {
        self.nodes[node].inner.as_ref().map_or(Seq(0), |inner| inner.mark)
    }

    pub(crate) fn attach_lock(&mut self, node: NodeId, lock: LockAt, seq: Seq) {
        let slot = &mut self.nodes[node].locks;
        *slot = match std::mem::take(slot) {
            Locks::None => Locks::One(lock),
            Locks::One(first) => Locks::Many(self.crowds.insert(vec![first, lock])),
            Locks::Many(crowd) => {
                self.crowds[crowd].push(lock);
                Locks::Many(crowd)
            }
        };
        self.count(node, Kind::of(lock.mode), true);
        self.set_mark(node, seq);
    }

    pub(crate) fn detach_lock(&mut self, node: NodeId, lock: LockIdx, seq: Seq) {
        let slot = &mut self.nodes[node].locks;
        let mut gone = None;
        *slot = match std::mem::take(slot) {
            Locks::None => Locks::None,
            Locks::One(only) if only.lock == lock => {
                gone = Some(only.mode);
                Locks::None
            }
            Locks::One(other) => Locks::One(other),
            Locks::Many(crowd) => {
                let locks = &mut self.crowds[crowd];
                if let Some(at) = locks.iter().position(|each| each.lock == lock) {
                    gone = Some(locks.remove(at).mode);
                }
                match *locks.as_slice() {
                    [only] => {
                        self.crowds.remove(crowd);
                        Locks::One(only)
                    }
                    _ => Locks::Many(crowd),
                }
            }
        };
        if let Some(mode) = gone {
            self.count(node, Kind::of(mode), false);
            self.set_mark(node, seq);
            self.to_prune.push_back((seq, node));
        }
    }

    pub(crate) fn attach_parked(&mut self, node: NodeId, parked: ParkedAt) {
        self.extras(node).parked.push(parked);
        self.count(node, Kind::Parked, true);
    }

    pub(crate) fn detach_parked(&mut self, node: NodeId, waiter: WaiterId) {
        // One at a time: who names a resource twice is attached twice, and the node must stand
        // until the last has gone.
        let parked = &mut self.extras(node).parked;
        if let Some(at) = parked.iter().position(|each| each.waiter == waiter) {
            parked.remove(at);
            self.count(node, Kind::Parked, false);
        }
        self.prune(node);
    }

    pub(crate) fn attach_pin(&mut self, node: NodeId, pin: PinAt) {
        self.extras(node).pins.push(pin);
        self.count(node, Kind::Pin, true);
    }

    pub(crate) fn detach_pin(&mut self, node: NodeId, pin: PinId) {
        let pins = &mut self.extras(node).pins;
        if let Some(at) = pins.iter().position(|each| each.pin == pin) {
            pins.swap_remove(at);
            self.count(node, Kind::Pin, false);
        }
        self.prune(node);
    }

    pub(crate) fn set_freeze(&mut self, node: NodeId, freeze: Option<Freeze>, seq: Seq) {
        let was = self.freeze(node).is_some();
        let is = freeze.is_some();
        self.extras(node).freeze = freeze;
        if was != is {
            self.count(node, Kind::Freeze, is);
        }
        self.set_mark(node, seq);
        if !is {
            self.to_prune.push_back((seq, node));
        }
    }

    /// Everything up to `durable` is on disk: nodes that were kept only for their mark may go.
    pub(crate) fn settled(&mut self, durable: Seq) {
        self.durable = durable;
        while let Some(&(seq, node)) = self.to_prune.front() {
            if durable < seq {
                break;
            }
            self.to_prune.pop_front();
            self.prune(node);
        }
    }

    /// Removes the node, and those above it, as far as nothing needs them.
    pub(crate) fn prune(&mut self, mut node: NodeId) {
        while node != ROOT {
            let Some(here) = self.nodes.get(node) else { return };
            if self.is_needed(here) {
                return;
            }
            let parent = here.parent;
            let hash = self.hasher.hash_one(here.segment());
            if let Some(inner) = self.nodes[parent].inner.as_mut() {
                if let Ok(entry) = inner.children.find_entry(hash, |&child| child == node) {
                    entry.remove();
                }
                inner.busy.remove(&node);
            }
            self.nodes.remove(node);
            node = parent;
        }
    }

    fn is_needed(&self, node: &Node) -> bool {
        // The mark of what is below needs no look: the child that it came from stands as long.
        !matches!(node.locks, Locks::None)
            || self.durable < node.mark
            || node.extras.as_ref().is_some_and(|extras| !extras.is_empty())
            || node.inner.as_ref().is_some_and(|inner| !inner.children.is_empty())
    }

    fn extras(&mut self, node: NodeId) -> &mut Extras {
        self.nodes[node].extras.get_or_insert_default()
    }

    fn set_mark(&mut self, node: NodeId, seq: Seq) {
        self.nodes[node].mark = seq;
        let mut at = node;
        while let Some(parent) = self.parent(at) {
            if let Some(inner) = self.nodes[parent].inner.as_mut() {
                inner.mark = seq;
            }
            at = parent;
        }
    }

    fn is_busy(&self, node: NodeId) -> bool {
        let here = &self.nodes[node];
        here.extras.as_ref().is_some_and(|extras| !extras.is_empty())
            || here.inner.as_ref().is_some_and(|inner| inner.below.is_busy())
    }

    fn count(&mut self, node: NodeId, kind: Kind, up: bool) {
        let short_lived = matches!(kind, Kind::Parked | Kind::Pin | Kind::Freeze);
        let mut at = node;
        while let Some(parent) = self.parent(at) {
            let busy = short_lived && self.is_busy(at);
            if let Some(inner) = self.nodes[parent].inner.as_mut() {
                let count = inner.below.count(kind);
                *count = if up { *count + 1 } else { count.saturating_sub(1) };
                if busy {
                    inner.busy.insert(at);
                } else if short_lived {
                    inner.busy.remove(&at);
                }
            }
            at = parent;
        }
    }

    /// Recounts everything and compares; for tests.
    pub(crate) fn assert_consistent(&self) {
        let to_u32 = |count| u32::try_from(count).unwrap_or(u32::MAX);
        for (at, node) in self.nodes.iter() {
            assert!(at == ROOT || self.is_needed(node), "node {at} should have been pruned");
            let Some(inner) = &node.inner else { continue };
            let mut below = Below::default();
            for &child in &inner.children {
                let deeper = self.below(child);
                let (mut exclusive, mut shared) = (0, 0);
                for lock in self.locks(child) {
                    match lock.mode {
                        Mode::Exclusive => exclusive += 1,
                        Mode::Shared => shared += 1,
                    }
                }
                below.exclusive += deeper.exclusive + exclusive;
                below.shared += deeper.shared + shared;
                below.parked += deeper.parked + to_u32(self.parked(child).len());
                below.pins += deeper.pins + to_u32(self.pins(child).len());
                below.freezes += deeper.freezes + u32::from(self.freeze(child).is_some());
                assert_eq!(inner.busy.contains(&child), self.is_busy(child), "busy of {at}");
            }
            assert_eq!(inner.below, below, "counts below {at}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_nodes_fit_in_little_memory() {
        assert!(size_of::<Node>() <= 56, "{}", size_of::<Node>());
    }
}
