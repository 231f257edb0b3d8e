//! Parsing on a thread of its own, while the parts before are used and the parts after are read.
//!
//! Deliberately absent: input and output on that thread. What is read and when stays with the
//! caller, so a start does the same each time.

use std::sync::mpsc;

/// How many parts are parsed, or wait for it, at most.
const AHEAD: usize = 3;

/// Runs `read`, which hands over one part after the other, and calls `take` with each part once
/// it is parsed, in the same order. Both run on the caller's thread.
///
/// # Errors
/// When the thread cannot be started.
pub(super) fn parse_ahead<Part: Send, Parsed: Send, Answer>(
    parse: impl Fn(Part) -> Parsed + Send,
    read: impl FnOnce(&mut dyn FnMut(Part)) -> Answer,
    mut take: impl FnMut(Parsed),
) -> std::io::Result<Answer> {
    std::thread::scope(|scope| {
        let (send, parts) = mpsc::channel();
        let (done, results) = mpsc::channel();
        std::thread::Builder::new().name("leasehold-load".to_owned()).spawn_scoped(
            scope,
            move || {
                for part in parts {
                    // Nobody listens only where the caller has panicked.
                    if done.send(parse(part)).is_err() {
                        return;
                    }
                }
            },
        )?;
        let mut under_way = 0;
        let answer = read(&mut |part| {
            under_way += usize::from(send.send(part).is_ok());
            // Where the thread has panicked, the scope passes that on.
            if under_way == AHEAD
                && let Ok(parsed) = results.recv()
            {
                under_way -= 1;
                take(parsed);
            }
        });
        drop(send);
        results.iter().for_each(take);
        Ok(answer)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_taken_in_order_each_once_and_never_far_behind() {
        let mut taken = Vec::new();
        let read = std::cell::Cell::new(0);
        let answer = parse_ahead(
            |number: usize| number * 2,
            |push| {
                for number in 0..100 {
                    read.set(number + 1);
                    push(number);
                }
                "all"
            },
            |parsed| {
                taken.push(parsed);
                assert!(read.get() - taken.len() < AHEAD);
            },
        );
        assert_eq!(answer.unwrap(), "all");
        assert!(taken.into_iter().eq((0..100).map(|number| number * 2)));
    }
}
