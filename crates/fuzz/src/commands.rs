//! Histories of commands, by the table and by a naive one.

use leasehold_model::bench::Bench;
use leasehold_model::steps::{Pick, Step, What};

/// The longest history: what a step costs the naive table grows with it.
const MOST_STEPS: usize = 80;

/// The table does what the naive one does. Each byte is a choice; what is not there chooses the first.
pub fn commands(data: &[u8]) {
    let mut choices = Choices(data);
    let mut bench = Bench::new();
    for _ in 0..MOST_STEPS {
        if choices.0.is_empty() {
            break;
        }
        bench.step(&step(&mut choices));
    }
    bench.finish();
}

struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn below(&mut self, bound: u8) -> usize {
        usize::from(self.byte() % bound)
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    fn of(&mut self, choices: &[u64]) -> u64 {
        choices[usize::from(self.byte()) % choices.len()]
    }

    fn maybe<T>(&mut self, some: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.flag() { Some(some(self)) } else { None }
    }

    fn several<T>(&mut self, most: u8, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.below(most + 1);
        (0..count).map(|_| one(self)).collect()
    }

    fn pick(&mut self) -> Pick {
        match self.byte() {
            newest @ 0..=199 => Pick::Newest(usize::from(newest % 8)),
            wrong @ 200..=240 => Pick::WrongFence(usize::from(wrong % 3)),
            _ => Pick::Forged,
        }
    }
}

fn step(from: &mut Choices<'_>) -> Step {
    let what = what(from);
    let clock = from.byte();
    let passes = [0, 1, 300, 999, 1000, 2000, 5000, 10_000, 30_000, 700_000];
    Step {
        // Mostly no time passes.
        passes_ms: if clock < 128 { 0 } else { passes[usize::from(clock) % passes.len()] },
        budget: [Some(usize::MAX), None, Some(0), Some(1), Some(2)][from.below(5)],
        settles: from.byte().is_multiple_of(5),
        what,
    }
}

const TTLS: [u64; 9] = [1000, 2000, 5000, 12_000, 20_000, 30_000, 60_000, 999, 60_001];
const WAITS: [u64; 4] = [0, 1000, 5000, 20_000];

fn what(from: &mut Choices<'_>) -> What {
    match from.byte() % 32 {
        0..=8 => acquire(from),
        9..=11 => What::Renew {
            who: from.maybe(|from| from.below(3)),
            token: from.pick(),
            ttl_ms: from.maybe(|from| from.of(&TTLS)),
            elsewhere: from.maybe(|from| from.below(8)),
        },
        12..=14 => What::Release { who: from.maybe(|from| from.below(3)), token: from.pick() },
        15 | 16 => What::Transfer {
            who: from.maybe(|from| from.below(3)),
            token: from.pick(),
            to: from.below(3),
        },
        17 => What::Request { who: from.below(3), resource: from.below(8) },
        18 | 19 => What::Break {
            resource: from.below(8),
            named: from.maybe(Choices::pick),
            grace_ms: from.of(&[0, 1000, 5000]),
        },
        20 => What::Freeze { resource: from.below(8), for_ms: from.of(&[1, 1000, 8000]) },
        21 => What::Unfreeze { resource: from.below(8) },
        22..=25 => What::Write {
            who: from.maybe(|from| from.below(3)),
            targets: {
                let first = (from.below(8), from.byte() % 3);
                let mut targets = from.several(2, |from| (from.below(8), from.byte() % 3));
                targets.push(first);
                targets
            },
            tokens: from.several(2, Choices::pick),
            at_lock: from.flag(),
        },
        26 | 27 => What::Complete { pick: from.below(6), sent: from.flag() },
        28 => What::Again { pick: from.below(3), wait_ms: from.of(&WAITS) },
        29 => What::Leave { pick: from.below(6) },
        30 => What::Undelivered { pick: from.below(4) },
        _ => What::Reload,
    }
}

fn acquire(from: &mut Choices<'_>) -> What {
    let any_of = from.byte() % 8 == 7;
    let mut resources = vec![from.below(8)];
    resources.extend(from.several(2, |from| from.below(8)));
    // Sets of two and alternatives of three, as in the random histories.
    if resources.len() > 2 && !any_of {
        resources.truncate(1);
    }
    What::Acquire {
        who: from.below(3),
        resources,
        any_of,
        shared: from.flag(),
        depth_0: from.flag(),
        ttl_ms: from.maybe(|from| from.of(&TTLS)),
        wait_ms: from.of(&WAITS),
        key: from.maybe(|from| from.below(6)),
        holds: from.several(2, Choices::pick),
        hold_ms: from.maybe(|_| 15_000),
    }
}
