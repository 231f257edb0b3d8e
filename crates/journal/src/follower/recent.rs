//! What has been committed lately, on its way to the index.
//!
//! The log's thread pushes and the index's takes. What was not pushed leaves a gap, which whoever
//! takes reads from the log: so nobody has to wait here for room, or for the other thread.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError, TryLockError};

use leasehold_core::event::Event;
use leasehold_core::ids::Seq;

use crate::log::Hash;

/// The most events that wait.
const MOST: usize = 8192;
/// The most bytes that they take in memory. So many ordinary events take a quarter of it; one of a
/// lock on many long paths can take hundreds of kilobytes.
const MOST_BYTES: usize = 16 << 20;

/// A queue of committed groups, bounded by their events and by what these take.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    groups: VecDeque<Waiting>,
    /// The events of all groups.
    events: usize,
    /// What they take in memory.
    bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    group: Group,
    bytes: usize,
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
    /// Adds a group that is durable, unless there is no room, or the queue is being taken from.
    ///
    /// The thread of the index runs when others do not want to: the log's would wait for all of
    /// them if it waited for that one. Answers with how many events wait now, as far as it can.
    pub(super) fn push(&self, events: Vec<Event>, hash: Hash) -> usize {
        let bytes = events.iter().map(Event::size).sum();
        let mut queue = match self.0.try_lock() {
            Ok(queue) => queue,
            Err(TryLockError::Poisoned(queue)) => queue.into_inner(),
            Err(TryLockError::WouldBlock) => return 0,
        };
        if !events.is_empty()
            && queue.events + events.len() <= MOST
            && queue.bytes + bytes <= MOST_BYTES
        {
            queue.events += events.len();
            queue.bytes += bytes;
            queue.groups.push_back(Waiting { group: Group { events, hash }, bytes });
        }
        queue.events
    }

    /// Takes groups from the one on that begins with `next`, until there are `enough` events. None
    /// if no group begins there.
    pub(super) fn take(&self, mut next: Seq, enough: usize) -> Vec<Group> {
        let mut taken = Vec::new();
        let mut events = 0;
        // Freed when the queue is free for the log's thread again.
        let mut stale = Vec::new();
        let mut queue = self.lock();
        while events < enough {
            let first = queue.groups.front().and_then(|waiting| waiting.group.events.first());
            if first.is_none_or(|first| first.seq > next) {
                break;
            }
            let Some(Waiting { group, bytes }) = queue.groups.pop_front() else { break };
            queue.events -= group.events.len();
            queue.bytes -= bytes;
            if group.events.first().is_some_and(|first| first.seq == next) {
                events += group.events.len();
                next = Seq(next.0 + group.events.len() as u64);
                taken.push(group);
            } else {
                // It has been read from the log already.
                stale.push(group);
            }
        }
        taken
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        // Nothing panics while it is held; and were it so, a gap is read from the log.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something while the queue is being taken from.
    #[cfg(test)]
    pub(super) fn while_taken_from<T>(&self, work: impl FnOnce() -> T) -> T {
        let _queue = self.lock();
        work()
    }
}

#[cfg(test)]
mod tests {
    use leasehold_core::event::EventBody;

    use super::*;
    use crate::testing::{Story, resource, traffic};

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
    fn what_does_not_fit_is_left_to_the_log_and_what_was_there_stays() {
        let recent = filled(&[(1, 2)]);
        let many = traffic(&mut Story::default(), MOST).into_iter().take(MOST).collect();
        recent.push(many, [9; 32]);
        let trail = traffic(&mut Story::default(), 20);
        recent.push(trail[2..4].to_vec(), [1; 32]);
        assert_eq!(numbers(&recent.take(Seq(1), 9)), [(0, vec![1, 2]), (1, vec![3, 4])]);
        let queue = recent.lock();
        assert_eq!((queue.events, queue.bytes), (0, 0));
    }

    #[test]
    fn sets_of_long_paths_take_no_more_memory_than_there_is_room_for() {
        let recent = Recent::default();
        let mut story = Story::default();
        let mut pushed = 0;
        while pushed < 2 * MOST_BYTES {
            let mut grant = story.grant("alice", "/", 60_000);
            let long = "x".repeat(1000);
            grant.resources = (0..256).map(|at| resource(&format!("/{long}/{at}"))).collect();
            let event = story.event(Some("alice"), EventBody::Acquired(Box::new(grant)));
            pushed += 256 * long.len();
            recent.push(vec![event], [0; 32]);
        }
        let kept = recent.lock().events * 256 * 1000;
        assert!(kept < MOST_BYTES && MOST_BYTES < 2 * kept, "{kept} bytes of paths");
        assert!(story.seq < MOST as u64, "they are not too many");
    }

    #[test]
    fn the_log_does_not_wait_for_whoever_takes() {
        let recent = filled(&[(1, 2)]);
        let trail = traffic(&mut Story::default(), 20);
        recent.while_taken_from(|| recent.push(trail[2..3].to_vec(), [1; 32]));
        recent.push(trail[3..4].to_vec(), [2; 32]);
        assert_eq!(numbers(&recent.take(Seq(1), 9)), [(0, vec![1, 2])]);
        assert_eq!(numbers(&recent.take(Seq(4), 9)), [(2, vec![4])]);
    }
}
