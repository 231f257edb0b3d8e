//! What has been committed lately, on its way to the index.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use leasehold_core::event::Event;
use leasehold_core::ids::Seq;

use crate::log::Hash;

/// The most events that wait. What does not fit is read from the log again.
const MOST: usize = 8192;

/// A queue of committed groups, bounded.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    groups: VecDeque<Group>,
    /// The events of all groups.
    events: usize,
}

/// What was committed together.
#[derive(Debug)]
pub(super) struct Group {
    /// One at least.
    pub(super) events: Vec<Event>,
    /// The hash of the last of them.
    pub(super) hash: Hash,
}

impl Recent {
    /// Adds a group that is durable. Where the queue has no room, all of it is dropped: whoever is
    /// so far behind has to read the log, and what came first is what it would want first.
    pub(super) fn push(&self, events: Vec<Event>, hash: Hash) {
        let mut queue = self.lock();
        if events.is_empty() || queue.events + events.len() > MOST {
            queue.groups.clear();
            queue.events = 0;
            return;
        }
        queue.events += events.len();
        queue.groups.push_back(Group { events, hash });
    }

    /// Takes groups from the one on that begins with `next`, until there are `enough` events. None
    /// if no group begins there.
    pub(super) fn take(&self, mut next: Seq, enough: usize) -> Vec<Group> {
        let mut taken = Vec::new();
        let mut events = 0;
        let mut queue = self.lock();
        while events < enough {
            let first = queue.groups.front().and_then(|group| group.events.first());
            if first.is_none_or(|first| first.seq > next) {
                break;
            }
            let Some(group) = queue.groups.pop_front() else { break };
            queue.events -= group.events.len();
            // Else it has been read from the log already.
            if group.events.first().is_some_and(|first| first.seq == next) {
                events += group.events.len();
                next = Seq(next.0 + group.events.len() as u64);
                taken.push(group);
            }
        }
        taken
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it is held; and were it so, a gap is read from the log.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Story, traffic};

    fn numbers(taken: &[Group]) -> Vec<(u8, Vec<u64>)> {
        let numbers = |group: &Group| group.events.iter().map(|event| event.seq.0).collect();
        taken.iter().map(|group| (group.hash[0], numbers(group))).collect()
    }

    /// Groups from one event up to another, both included.
    fn filled(groups: &[(usize, usize)]) -> Recent {
        let trail = traffic(&mut Story::default(), 20);
        let recent = Recent::default();
        for (number, (from, to)) in groups.iter().enumerate() {
            recent.push(trail[from - 1..*to].to_vec(), [number as u8; 32]);
        }
        recent
    }

    #[test]
    fn whole_groups_are_taken_in_order_until_it_is_enough() {
        let recent = filled(&[(1, 2), (3, 3), (4, 7)]);
        assert_eq!(numbers(&recent.take(Seq(1), 3)), [(0, vec![1, 2]), (1, vec![3])]);
        assert_eq!(numbers(&recent.take(Seq(4), 3)), [(2, vec![4, 5, 6, 7])]);
        assert_eq!(numbers(&recent.take(Seq(8), 3)), []);
    }

    #[test]
    fn what_was_read_from_the_log_is_left_out_and_a_gap_is_left_to_it() {
        let recent = filled(&[(1, 2), (3, 3), (5, 6)]);
        assert_eq!(numbers(&recent.take(Seq(3), 9)), [(1, vec![3])]);
        assert_eq!(numbers(&recent.take(Seq(4), 9)), [], "event 4 never came this way");
        assert_eq!(numbers(&recent.take(Seq(5), 9)), [(2, vec![5, 6])]);
        assert_eq!(numbers(&filled(&[(1, 3)]).take(Seq(2), 9)), [], "a group is taken whole");
    }

    #[test]
    fn what_does_not_fit_is_left_to_the_log() {
        let recent = filled(&[(1, 2)]);
        let large = traffic(&mut Story::default(), MOST).into_iter().take(MOST).collect();
        recent.push(large, [9; 32]);
        assert_eq!(numbers(&recent.take(Seq(1), 9)), []);
        assert_eq!(recent.lock().events, 0);
    }
}
