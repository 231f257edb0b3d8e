//! The simulation can fail: each deliberate mistake of the product is found, by the right name.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail them")]

use leasehold_core::sabotage::Mistake;
use leasehold_sim::judge::Invariant;
use leasehold_sim::run::{Outcome, run};
use leasehold_sim::world::{Behind, Options};

/// How many histories a mistake may survive, and how long each is.
const SEEDS: u64 = 40;
const STEPS: u64 = 2000;

/// What a mistake breaks. Of several, any may be seen first.
fn breaks(mistake: Mistake) -> &'static [Invariant] {
    match mistake {
        Mistake::ExpireEarly => &[Invariant::NeverEarly],
        Mistake::ExpireLate => &[Invariant::NotLate],
        Mistake::IgnoreLocksBelow | Mistake::IgnoreMissingToken | Mistake::RepeatWrite => {
            &[Invariant::Exclusion]
        }
        Mistake::Overtake => &[Invariant::FirstComeFirstServed],
        Mistake::ReuseFence => &[Invariant::FencesGrow],
        Mistake::IgnoreLimits => &[Invariant::Bounded],
        Mistake::EventWithoutEffect => &[Invariant::TrailIsTruth],
        Mistake::AnswerBeforeCommit | Mistake::SkipLoneCommit => &[Invariant::DurableBeforeSaid],
        // Where not even the grant of what was released is durable, the log has it after the write.
        Mistake::IgnoreAbsence => &[Invariant::DurableBeforeSaid, Invariant::CleanHandOver],
        Mistake::ForgetPins
        | Mistake::DropPinOnError
        | Mistake::LeaveUnpinned
        | Mistake::ForgetRecovery
        | Mistake::EndAtHead
        | Mistake::SkipDrainTime => &[Invariant::CleanHandOver],
        Mistake::AcknowledgeFailedCommit => &[Invariant::FailStop],
        // Lost after a failure of the disk, or without one; or the file is no log any more.
        Mistake::SkipSync => &[Invariant::DurableBeforeSaid, Invariant::FailStop],
    }
}

/// What has to stand behind the guard for a mistake to be made.
fn behind(mistake: Mistake) -> Behind {
    match mistake {
        Mistake::ForgetRecovery
        | Mistake::EndAtHead
        | Mistake::SkipDrainTime
        | Mistake::RepeatWrite
        | Mistake::LeaveUnpinned => Behind::Gateway,
        _ => Behind::Store,
    }
}

fn check(mistake: Mistake) {
    for seed in 1..=SEEDS {
        let behind = behind(mistake);
        let options = Options { mistake: Some(mistake), behind, ..Options::new(seed) };
        if let Outcome::Broken { step, violation, lines } = run(options, STEPS, false).unwrap() {
            assert!(
                breaks(mistake).contains(&violation.invariant),
                "{}\nseed {seed}, step {step}: {mistake:?} was taken for {violation}",
                lines.join("\n")
            );
            return;
        }
    }
    panic!("{mistake:?} was not found in {SEEDS} histories of {STEPS} steps");
}

macro_rules! mistakes {
    ($($name:ident: $mistake:ident;)*) => {
        $(#[test]
        fn $name() {
            check(Mistake::$mistake);
        })*

        #[test]
        fn each_mistake_has_a_test_and_each_invariant_a_mistake() {
            let tried = [$(Mistake::$mistake,)*];
            assert!(Mistake::ALL.iter().all(|mistake| tried.contains(mistake)));
            let broken: Vec<Invariant> =
                tried.iter().flat_map(|mistake| breaks(*mistake)).copied().collect();
            assert!(Invariant::ALL.iter().all(|invariant| broken.contains(invariant)));
        }
    };
}

mistakes! {
    a_lock_that_expires_a_millisecond_early_is_found: ExpireEarly;
    a_lock_that_expires_late_is_found: ExpireLate;
    a_lock_that_does_not_see_those_below_is_found: IgnoreLocksBelow;
    a_write_that_passes_without_a_token_is_found: IgnoreMissingToken;
    a_waiter_that_is_overtaken_is_found: Overtake;
    a_fence_that_is_used_again_after_a_start_is_found: ReuseFence;
    a_limit_that_is_not_kept_is_found: IgnoreLimits;
    an_event_without_effect_is_found: EventWithoutEffect;
    a_write_that_rests_on_a_release_that_is_not_durable_is_found: IgnoreAbsence;
    writes_that_a_recovery_forgets_are_found: ForgetPins;
    a_write_that_is_not_known_to_have_ended_is_found: DropPinOnError;
    an_answer_before_its_commit_is_found: AnswerBeforeCommit;
    a_commit_that_failed_and_is_acknowledged_is_found: AcknowledgeFailedCommit;
    a_lone_client_s_change_that_is_not_committed_is_found: SkipLoneCommit;
    a_commit_that_does_not_wait_for_the_disk_is_found: SkipSync;
    a_write_without_a_lock_that_is_not_pinned_is_found: LeaveUnpinned;
    a_start_that_does_not_wait_for_what_was_sent_before_it_is_found: ForgetRecovery;
    a_write_that_ends_with_the_head_of_its_answer_is_found: EndAtHead;
    a_drain_time_that_is_not_waited_for_is_found: SkipDrainTime;
    a_write_that_is_sent_twice_is_found: RepeatWrite;
}

#[test]
fn the_program_that_ships_cannot_make_mistakes_on_purpose() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["--offline", "--locked", "--package", "leasehold-cli", "--edges", "normal"];
    let tree = std::process::Command::new(cargo)
        .arg("tree")
        .args(arguments)
        .args(["--format", "{p} [{f}]"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    assert!(tree.contains("leasehold-core"), "{tree}");
    assert!(!tree.contains("sabotage"), "{tree}");
}
