//! Acquiring: what is granted, what is refused, and in which order of precedence.

mod common;

use common::{check, check_with};
use leasehold_core::table::TableLimits;

#[test]
fn a_ttl_is_at_least_one_second_and_at_most_the_rules_maximum() {
    check(
        "
        0s  alice acquires /a 999ms        -> ttl-out-of-range 1800s
        0s  alice acquires /a 1s           -> fence 1 /a alice until 1s
        0s  alice acquires /b 60001ms max 60s -> ttl-out-of-range 60s
        0s  alice acquires /b 60s max 60s  -> fence 2 /b alice until 60s
        0s  alice acquires /c              -> fence 3 /c alice until 300s
        ",
    );
}

#[test]
fn a_lock_has_ended_at_its_deadline_and_not_before() {
    check(
        "
        0s       alice acquires /a 10s  -> fence 1
        9.999s   bob   acquires /a 10s  -> locked by 1 .
        9.999s   lock 1                 -> 1 /a alice until 10s
        10s      lazily lock 1          -> none
        10s      lazily bob acquires /a 10s  -> fence 2 /a bob until 20s
        10s      lazily alice renews /a fence 1 -> gone 1 expired
        ",
    );
}

#[test]
fn the_first_lock_is_cut_to_the_longest_life() {
    check(
        "
        0s  alice acquires /a 60s hold 20s -> fence 1 /a alice until 20s
        ",
    );
}

#[test]
fn locks_meet_on_the_resource_and_through_infinite_depth_up_and_down() {
    check(
        "
        0s  alice acquires /a/b 10s         -> fence 1
        0s  bob   acquires /a/b 10s         -> locked by 1
        0s  bob   acquires /a/b 10s depth0  -> locked by 1
        0s  bob   acquires /a/b/c 10s       -> locked by 1
        0s  bob   acquires /a/b/c/d 10s depth0 -> locked by 1
        0s  bob   acquires /a 10s           -> locked by 1
        0s  bob   acquires / 10s            -> locked by 1
        0s  bob   acquires /a 10s depth0    -> fence 2
        0s  bob   acquires /a/bc 10s        -> fence 3
        0s  bob   acquires / 10s depth0     -> fence 4
        ",
    );
}

#[test]
fn a_lock_of_depth_0_reaches_nothing_below() {
    check(
        "
        0s  alice acquires /a 10s depth0    -> fence 1
        0s  bob   acquires /a 10s depth0    -> locked by 1
        0s  bob   acquires /a 10s           -> locked by 1
        0s  bob   acquires / 10s            -> locked by 1
        0s  bob   acquires /a/b 10s         -> fence 2
        0s  carol acquires /a 10s           -> locked by 1 of 2
        ",
    );
}

#[test]
fn only_shared_locks_stand_beside_each_other() {
    check(
        "
        0s  alice acquires /a 10s shared    -> fence 1
        0s  bob   acquires /a 20s shared    -> fence 2
        0s  carol acquires /a/b 10s shared  -> fence 3
        0s  dave  acquires /a 10s           -> locked by 2 of 3 .
        0s  dave  acquires /a/b 10s         -> locked by 2 of 3 .
        0s  dave  acquires /a/c 10s         -> locked by 2 of 2 .
        0s  dave  acquires /x 10s           -> fence 4
        0s  alice acquires /x 10s shared    -> locked by 4
        0s  alice acquires / 10s shared     -> locked by 4 .
        ",
    );
}

#[test]
fn a_second_acquire_by_the_holder_is_refused_like_anyones() {
    check(
        "
        0s  alice acquires /a 10s                   -> fence 1
        0s  alice acquires /a 10s                   -> locked by 1 yours .
        0s  bob   acquires /a 10s                   -> locked by 1 .
        0s  anonymous acquires /b 10s               -> fence 2
        0s  anonymous acquires /b 10s               -> locked by 2 .
        0s  anonymous acquires /b 10s holds 2       -> locked by 2 yours presented 2:live .
        ",
    );
}

#[test]
fn a_set_is_granted_whole_or_not_at_all() {
    check(
        "
        0s  alice acquires /b 10s            -> fence 1
        0s  bob   acquires /a,/b,/c 10s      -> locked by 1
        0s  carol acquires /a,/c 10s         -> fence 2 /a,/c
        0s  bob   acquires /c 10s            -> locked by 2
        0s  carol releases /c fence 2        -> released
        0s  bob   acquires /a 10s            -> fence 3
        ",
    );
}

#[test]
fn a_set_is_folded() {
    check(
        "
        0s  alice acquires /a/b,/a,/a,/c 10s       -> fence 1 /a,/c
        0s  alice acquires /x/b,/x,/x 10s depth0   -> fence 2 /x/b,/x
        ",
    );
}

#[test]
fn any_of_takes_the_first_that_is_free() {
    check(
        "
        0s  alice acquires any:/a,/b 10s     -> fence 1 /a
        0s  bob   acquires any:/a,/b 10s     -> fence 2 /b
        0s  carol acquires any:/a,/b 10s     -> locked by 1 of 2
        0s  carol acquires any:/a,/b 10s wait 5s -> waits
        1s  bob releases /b fence 2          -> released | carol: fence 3 /b
        ",
    );
}

#[test]
fn any_of_prefers_what_no_write_is_on_its_way_to() {
    check(
        "
        0s  dave  writes /a as w             -> admitted
        0s  alice acquires any:/a,/b 10s     -> fence 1 /b
        0s  bob   acquires any:/a,/b 10s     -> waits
        0s  carol looks /a                   -> locks none queue bob!
        0s  carol looks /b                   -> locks 1 queue none
        1s  w ends                           -> ended | bob: fence 2 /a
        ",
    );
}

#[test]
fn a_waiting_any_of_prefers_what_no_write_is_on_its_way_to() {
    check(
        "
        0s  alice acquires /a,/b 10s             -> fence 1
        0s  alice writes /a fence 1 as w         -> admitted
        0s  bob   acquires any:/a,/b 10s wait 5s -> waits
        1s  alice releases /a fence 1            -> released | bob: fence 2 /b
        ",
    );
}

#[test]
fn any_of_may_name_a_resource_twice() {
    check(
        "
        0s  alice acquires /a 10s                -> fence 1
        0s  bob   acquires any:/a,/a 10s wait 5s -> waits
        1s  alice releases /a fence 1            -> released | bob: fence 2 /a
        1s  settles                              -> settled
        2s  bob   releases /a fence 2            -> released
        2s  settles                              -> settled
        2s  dave  writes /a as w                 -> admitted
        2s  bob   acquires any:/a,/a 10s wait 1s -> waits
        3s                                       -> bob: locked writes 1 waited 1s
        ",
    );
}

#[test]
fn a_frozen_resource_refuses_at_once_and_before_locked() {
    check(
        "
        0s  alice acquires /a/b 10s            -> fence 1
        0s  root  freezes /a until 60s         -> frozen
        0s  bob   acquires /a/b 10s            -> frozen at /a
        0s  bob   acquires /a/b/c 10s wait 5s  -> frozen at /a
        0s  bob   acquires /x,/a/c 10s         -> frozen at /a
        0s  bob   acquires any:/a/c,/x 10s     -> fence 2 /x
        0s  bob   acquires / 10s               -> locked by 1 of 2
        59.999s bob acquires /a 10s            -> frozen at /a
        60s lazily bob acquires /a 10s         -> fence 3
        ",
    );
}

#[test]
fn a_bad_ttl_is_told_before_a_dead_token_and_that_before_a_freeze() {
    check(
        "
        0s  alice acquires /x 10s                       -> fence 1
        0s  alice releases /x fence 1                   -> released
        0s  root  freezes /a until 60s                  -> frozen
        0s  alice acquires /a 1ms holds 1               -> ttl-out-of-range
        0s  alice acquires /a 10s holds 1               -> token 1:released
        0s  alice acquires /a 10s holds forged          -> token unknown
        0s  bob   acquires /y 10s                       -> fence 2
        0s  alice acquires /a 10s holds 2               -> token not-yours
        0s  bob   acquires /a 10s holds 2!              -> token unknown
        0s  bob   acquires /a 10s holds 2               -> frozen at /a
        ",
    );
}

#[test]
fn one_holder_has_no_more_locks_than_the_rule_allows() {
    check(
        "
        0s  alice acquires /a 10s each 2   -> fence 1
        0s  alice acquires /b 10s each 2   -> fence 2
        0s  alice acquires /c 10s each 2   -> too-many-locks 2 each
        0s  alice acquires /b 10s each 2   -> too-many-locks 2 each
        0s  bob   acquires /c 10s each 2   -> fence 3
        1s  alice releases /a fence 1      -> released
        1s  alice acquires /d 10s each 2   -> fence 4
        ",
    );
}

#[test]
fn a_waiter_is_held_to_the_limit_also_when_its_turn_comes() {
    check(
        "
        0s  bob   acquires /a 10s                -> fence 1
        0s  alice acquires /a 10s wait 5s each 1 -> waits
        0s  alice acquires /b 10s each 1         -> fence 2
        1s  bob   releases /a fence 1            -> released | alice: too-many-locks 1 each
        1s  carol acquires /a 10s                -> fence 3
        ",
    );
}

#[test]
fn the_table_has_no_more_locks_and_waiters_than_it_may() {
    check_with(
        TableLimits { max_locks: 2, max_waiters: 1, ..TableLimits::default() },
        "
        0s  alice acquires /a 10s          -> fence 1
        0s  bob   acquires /a 10s wait 5s  -> waits
        0s  carol acquires /a 10s wait 5s  -> too-many-waiters 1 all
        0s  carol acquires /a 10s          -> locked by 1 behind 1
        0s  alice acquires /b 10s          -> fence 2
        0s  alice acquires /c 10s          -> too-many-locks 2 all
        ",
    );
}

#[test]
fn one_holder_has_no_more_locks_and_waiters_than_the_table_allows() {
    check_with(
        TableLimits {
            max_locks_per_holder: Some(2),
            max_waiters_per_principal: Some(2),
            ..TableLimits::default()
        },
        "
        0s  alice acquires /a 10s                -> fence 1
        0s  alice acquires /b 10s each 9         -> fence 2
        0s  alice acquires /c 10s each 9         -> too-many-locks 2 each
        0s  carol acquires /c 10s each 1         -> fence 3
        0s  carol acquires /d 10s each 1         -> too-many-locks 1 each
        0s  bob   acquires /a 10s wait 5s        -> waits
        0s  bob   acquires /b 10s wait 1s key k  -> waits
        0s  bob   acquires /c 10s wait 5s        -> too-many-waiters 2 each
        0s  bob   acquires /c 10s                -> locked by 3
        0s  dave  acquires /a 10s wait 5s        -> waits
        ",
    );
}

#[test]
fn who_has_left_the_queue_does_not_count_as_a_waiter_and_who_keeps_a_place_does() {
    check_with(
        TableLimits { max_waiters_per_principal: Some(1), ..TableLimits::default() },
        "
        0s   alice acquires /a 60s                -> fence 1
        0s   alice acquires /b 60s                -> fence 2
        0s   bob   acquires /a 60s wait 5s        -> waits
        1s   bob   leaves                         -> left
        1s   bob   acquires /a 60s wait 5s key k  -> waits
        6s                                        -> bob: locked by 1 waited 5s
        7s   bob   acquires /b 60s wait 5s        -> too-many-waiters 1 each
        7s   bob   acquires /a 60s wait 5s key k  -> waits
        12s                                       -> bob: locked by 1 waited 5s
        18s  bob   acquires /b 60s wait 5s        -> waits
        ",
    );
}

#[test]
fn a_full_queue_refuses() {
    check(
        "
        0s  alice acquires /a 10s                  -> fence 1
        0s  bob   acquires /a 10s wait 5s queue 2  -> waits
        0s  carol acquires /a 10s wait 5s queue 2  -> waits
        0s  dave  acquires /a 10s wait 5s queue 2  -> queue-full /a
        0s  dave  acquires /b,/a 10s wait 5s queue 2  -> queue-full /a
        0s  dave  acquires /a 10s queue 2          -> locked by 1 behind 2
        1s  bob   leaves                           -> left
        1s  dave  acquires /a 10s wait 5s queue 2  -> waits
        ",
    );
}

#[test]
fn a_key_gets_the_same_lock_again_as_it_is_now() {
    check(
        "
        0s   alice acquires /a 10s key k        -> fence 1 /a alice until 10s
        1s   alice renews /a fence 1 for 20s    -> 1 /a alice until 21s
        2s   alice acquires /a 10s key k        -> again 1 /a alice until 21s
        2s   bob   acquires /a 10s key k        -> locked by 1
        2s   alice acquires /b 10s key k        -> key-reused
        2s   alice acquires /b 1ms key k        -> key-reused
        2s   alice acquires /a 10s max 5s key k -> again 1
        ",
    );
}

#[test]
fn a_key_gets_no_second_lock_for_ten_minutes_after_the_end() {
    check(
        "
        0s       alice acquires /a 10s key k    -> fence 1
        5s       alice releases /a fence 1      -> released
        6s       alice acquires /a 10s key k    -> gone released
        6s       alice acquires /b 10s key k    -> key-reused
        605s     alice acquires /a 10s key k    -> gone released
        605.001s alice acquires /a 10s key k    -> fence 2
        606s     alice acquires /a 10s key k    -> again 2
        ",
    );
}

#[test]
fn a_key_is_bound_from_the_deadline_on_also_if_the_end_is_written_late() {
    check(
        "
        0s       alice acquires /a 10s key k        -> fence 1
        10s      lazily alice acquires /a 10s key k -> gone expired
        610s     alice acquires /a 10s key k        -> gone expired
        610.001s alice acquires /a 10s key k        -> fence 2
        ",
    );
}

#[test]
fn how_a_lock_with_a_key_ended_is_known_longer_than_its_key() {
    check(
        "
        0s       alice acquires /a 10s key k    -> fence 1
        5s       alice releases /a fence 1      -> released
        12m      bob   acquires /b 10s          -> fence 2
        12m      bob   releases /b fence 2      -> released
        12m      alice renews /a fence 1        -> gone 1 released
        12m      alice releases /a fence 1      -> released
        24h      bob   acquires /b 10s          -> fence 3
        24h      alice renews /a fence 1        -> gone 1 released
        86405.001s bob acquires /c 10s          -> fence 4
        86405.001s alice renews /a fence 1      -> gone 1 unknown
        ",
    );
}

#[test]
fn a_key_that_is_still_undecided_is_in_progress() {
    check(
        "
        0s  bob   acquires /a 10s               -> fence 1
        0s  alice acquires /a 10s key k wait 5s -> waits
        1s  alice acquires /a 10s key k wait 5s -> key-in-progress
        1s  alice acquires /b 10s key k wait 5s -> key-reused
        1s  carol acquires /b 10s key k         -> fence 2
        2s  bob   releases /a fence 1           -> released | alice: fence 3
        2s  alice acquires /a 10s key k         -> again 3
        ",
    );
}

#[test]
fn a_refusal_is_not_remembered() {
    check(
        "
        0s  bob   acquires /a 10s               -> fence 1
        0s  alice acquires /a 10s key k         -> locked by 1
        0s  alice acquires /b 10s key k         -> fence 2
        ",
    );
}

#[test]
fn the_key_of_a_lock_that_was_handed_over_gets_no_second_lock() {
    check(
        "
        0s  alice acquires /a 10s key k         -> fence 1
        1s  alice transfers /a fence 1 to bob   -> fence 2 /a bob
        1s  alice acquires /a 10s key k         -> gone transferred
        ",
    );
}

#[test]
fn an_undelivered_grant_without_a_key_is_released_at_once() {
    check(
        "
        0s  alice acquires /a 60s               -> fence 1
        0s  bob   acquires /a 60s wait 5s       -> waits
        1s  undelivered 1                       -> noted | bob: fence 2
        1s  bob   renews /a fence 2             -> 2
        2s  undelivered 2                       -> noted
        2s  lock 2                              -> 2 /a bob
        ",
    );
}

#[test]
fn an_undelivered_grant_with_a_key_stays_ten_seconds_for_the_retry() {
    check(
        "
        0s       alice acquires /a 60s key k    -> fence 1
        1s       undelivered 1                  -> noted
        10.999s  lock 1                         -> 1
        11s      lock 1                         -> none
        11s      alice acquires /a 60s key k    -> gone released
        11s      alice acquires /b 60s key l    -> fence 2
        12s      undelivered 2                  -> noted
        20s      alice acquires /b 60s key l    -> again 2
        30s      lock 2                         -> 2
        30s      undelivered 2                  -> noted
        31s      undelivered 2                  -> noted
        40.999s  lock 2                         -> 2
        41s      lock 2                         -> none
        41s      alice acquires /c 60s key m    -> fence 3
        41s      undelivered 3                  -> noted
        42s      alice writes /c fence 3 as w   -> admitted
        60s      lock 3                         -> 3
        ",
    );
}
