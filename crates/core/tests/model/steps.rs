//! How likely each step is.

use leasehold_model::steps::{Pick, Step, What};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;

pub(crate) struct Commands;

impl ReferenceStateMachine for Commands {
    type State = ();
    type Transition = Step;

    fn init_state() -> BoxedStrategy<()> {
        Just(()).boxed()
    }

    fn transitions((): &()) -> BoxedStrategy<Step> {
        let passes = prop_oneof![
            12 => Just(0),
            6 => 1_u64..700,
            3 => prop_oneof![Just(1000), Just(2000), Just(5000), Just(10_000)],
            2 => 3000_u64..30_000,
        ];
        // Rarely a jump over everything that is due.
        let passes = prop_oneof![60 => passes, 1 => 100_000_u64..700_000];
        let budget = prop_oneof![
            4 => Just(Some(usize::MAX)),
            3 => Just(None),
            // More is due than is ended: what follows meets what has ended and is still there.
            4 => (0_usize..3).prop_map(Some),
        ];
        (passes, budget, proptest::bool::weighted(0.2), what())
            .prop_map(|(passes_ms, budget, settles, what)| Step {
                passes_ms,
                budget,
                settles,
                what,
            })
            .boxed()
    }

    fn apply((): (), _: &Step) {}
}

fn pick() -> impl Strategy<Value = Pick> {
    prop_oneof![
        20 => (0_usize..3).prop_map(Pick::Newest),
        6 => (0_usize..8).prop_map(Pick::Newest),
        1 => (0_usize..3).prop_map(Pick::WrongFence),
        1 => Just(Pick::Forged),
    ]
}

/// Most of them meet.
fn place() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 1_usize..5, 1 => 0_usize..8]
}

fn wait() -> impl Strategy<Value = u64> {
    prop_oneof![2 => Just(0_u64), 5 => prop_oneof![Just(1000_u64), Just(5000), Just(20_000)]]
}

/// Mostly a token of the caller's own.
fn own() -> impl Strategy<Value = Pick> {
    prop_oneof![30 => (0_usize..2).prop_map(Pick::Newest), 1 => Just(Pick::Newest(5)), 1 => pick()]
}

/// Mostly whoever holds the lock that is meant.
fn who() -> impl Strategy<Value = Option<usize>> {
    proptest::option::weighted(0.15, 0_usize..3)
}

fn ttl() -> impl Strategy<Value = Option<u64>> {
    proptest::option::weighted(
        0.8,
        prop_oneof![
            4 => 1000_u64..12_000,
            10 => 12_000_u64..60_001,
            1 => prop_oneof![Just(999_u64), Just(1000), Just(60_001)],
        ],
    )
}

fn what() -> impl Strategy<Value = What> {
    let acquire = (
        (0_usize..3, vec(place(), 1..4), proptest::bool::weighted(0.25)),
        (proptest::bool::weighted(0.35), proptest::bool::weighted(0.25), ttl()),
        wait(),
        proptest::option::weighted(0.4, 0_usize..6),
        prop_oneof![2 => Just(Vec::new()), 3 => vec(own(), 1..3)],
        proptest::option::weighted(0.2, Just(15_000_u64)),
    )
        .prop_map(
            |(
                (who, mut resources, any_of),
                (shared, depth_0, ttl_ms),
                wait_ms,
                key,
                holds,
                hold_ms,
            )| {
                if resources.len() > 2 && !any_of {
                    resources.truncate(1);
                }
                What::Acquire {
                    who,
                    resources,
                    any_of,
                    shared,
                    depth_0,
                    ttl_ms,
                    wait_ms,
                    key,
                    holds,
                    hold_ms,
                }
            },
        );
    let write = (
        who(),
        vec((place(), 0_u8..3), 1..3),
        prop_oneof![2 => Just(Vec::new()), 4 => vec(pick(), 1..3)],
        any::<bool>(),
    )
        .prop_map(|(who, targets, tokens, at_lock)| What::Write {
            who,
            targets,
            tokens,
            at_lock,
        });
    let often = prop_oneof![
        1 => Just(What::Nothing),
        24 => acquire,
        6 => (who(), pick(), ttl(), proptest::option::weighted(0.1, 0_usize..8))
            .prop_map(|(who, token, ttl_ms, elsewhere)| What::Renew { who, token, ttl_ms, elsewhere }),
        9 => (who(), pick()).prop_map(|(who, token)| What::Release { who, token }),
        5 => (who(), pick(), 0_usize..3).prop_map(|(who, token, to)| What::Transfer { who, token, to }),
        1 => (0_usize..3, 0_usize..8).prop_map(|(who, resource)| What::Request { who, resource }),
        4 => (
            place(),
            proptest::option::weighted(0.4, pick()),
            prop_oneof![Just(0_u64), Just(1000), Just(5000)],
        )
            .prop_map(|(resource, named, grace_ms)| What::Break { resource, named, grace_ms }),
        1 => (place(), 1_u64..8000).prop_map(|(resource, for_ms)| What::Freeze { resource, for_ms }),
        1 => place().prop_map(|resource| What::Unfreeze { resource }),
        18 => write,
        9 => (0_usize..6, any::<bool>()).prop_map(|(pick, sent)| What::Complete { pick, sent }),
        3 => (0_usize..6).prop_map(|pick| What::Vanish { pick }),
        6 => (0_usize..3, wait()).prop_map(|(pick, wait_ms)| What::Again { pick, wait_ms }),
        2 => (0_usize..6).prop_map(|pick| What::Leave { pick }),
        2 => (0_usize..4).prop_map(|pick| What::Undelivered { pick }),
    ];
    let crash = prop_oneof![Just(1000_u64), Just(7000), Just(30_000)]
        .prop_map(|recovers_ms| What::Crash { recovers_ms });
    prop_oneof![300 => often, 1 => Just(What::Reload), 4 => crash]
}
