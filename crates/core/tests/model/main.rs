//! The lock table beside a naive one: the same commands, step by step.
//!
//! `LEASEHOLD_CASES` multiplies how many cases are run.

mod steps;

use leasehold_model::bench::Bench;
use leasehold_model::steps::Step;
use proptest::test_runner::{Config, RngSeed};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use steps::Commands;

struct Table;

impl StateMachineTest for Table {
    type SystemUnderTest = Bench;
    type Reference = Commands;

    fn init_test((): &()) -> Bench {
        Bench::new()
    }

    fn apply(mut bench: Bench, (): &(), step: Step) -> Bench {
        bench.step(&step);
        bench
    }

    fn teardown(bench: Bench, (): <Commands as ReferenceStateMachine>::State) {
        bench.finish();
    }
}

fn config(cases: u32) -> Config {
    let factor =
        std::env::var("LEASEHOLD_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    // The same histories each time, so that a change is judged by itself; other ones where more
    // are asked for, or PROPTEST_RNG_SEED says so.
    let mut config = Config { cases: cases * factor, max_shrink_iters: 3000, ..Config::default() };
    if factor == 1 && config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(20_261_120);
    }
    config
}

prop_state_machine! {
    #![proptest_config(config(2000))]

    #[test]
    fn the_table_does_what_the_naive_one_does(sequential 1..90 => Table);
}
