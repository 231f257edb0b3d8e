//! Writes of which nobody can say whether they landed, and the grants that are told so.

mod common;

use common::check;

#[test]
fn the_first_exclusive_grant_is_told_of_a_write_that_nobody_saw_the_end_of() {
    check(
        "
        0s   alice writes /a/x as w           -> admitted
        1s   bob   acquires /a 10s wait 20s   -> waits
        2s   w ends unknown                   -> ended | bob: unknown fence 1
        3s   bob   releases /a fence 1        -> released
        3s   carol acquires /a 10s            -> fence 2
        ",
    );
}

#[test]
fn sharers_are_told_of_it_and_so_is_the_next_who_is_alone() {
    check(
        "
        0s   alice writes /a as w             -> admitted
        1s   w ends unknown                   -> ended
        1s   bob   acquires /a 5s shared      -> unknown fence 1
        1s   carol acquires /a 5s shared      -> unknown fence 2
        6s   dave  acquires /a 5s             -> unknown fence 3
        11s  dave  acquires /a 5s             -> fence 4
        ",
    );
}

#[test]
fn a_grant_beside_the_write_is_not_told_of_it_and_does_not_use_it_up() {
    check(
        "
        0s   alice writes /a/x as w           -> admitted
        1s   w ends unknown                   -> ended
        1s   bob   acquires /a/y 5s           -> fence 1
        1s   bob   acquires /b 5s             -> fence 2
        1s   carol acquires /a/x 5s           -> unknown fence 3
        ",
    );
}

#[test]
fn each_part_of_what_a_write_took_along_is_told_of_it_once() {
    check(
        "
        0s   alice writes subtree:/a+members:/ as w   -> admitted
        0s   w ends unknown                      -> ended
        1s   bob   acquires /a/x 1s              -> unknown fence 1
        2s   bob   acquires /a/x 1s              -> fence 2
        3s   carol acquires /a/y/z 1s depth0     -> unknown fence 3
        4s   carol acquires /a/y/z 1s depth0     -> fence 4
        5s   carol acquires /a/y/z/1 1s          -> unknown fence 5
        6s   carol acquires /a/y 1s              -> unknown fence 6
        7s   carol acquires /a/y/z/2 1s          -> fence 7
        8s   dave  acquires /a/q,/a/x 1s         -> unknown fence 8
        9s   dave  acquires /a/x,/a/q/1 1s       -> fence 9
        10s  erin  acquires /a 1s depth0         -> unknown fence 10
        11s  erin  acquires /a 1s depth0         -> fence 11
        12s  erin  acquires /a 1s                -> unknown fence 12
        13s  erin  acquires /a 1s                -> fence 13
        14s  erin  acquires /a/w 1s              -> fence 14
        15s  frank writes subtree:/a as v        -> admitted
        15s  v ends unknown                      -> ended
        16s  frank acquires /a/x 1s              -> unknown fence 15
        17s  frank acquires / 1s                 -> unknown fence 16
        18s  frank acquires / 1s                 -> fence 17
        ",
    );
}

#[test]
fn another_write_to_the_whole_is_told_to_every_part_again() {
    check(
        "
        0s   alice writes subtree:/a as w  -> admitted
        0s   w ends unknown                -> ended
        1s   bob   acquires /a/x 1s        -> unknown fence 1
        2s   bob   acquires /a/x 1s        -> fence 2
        3s   alice writes subtree:/a as v  -> admitted
        3s   v ends unknown                -> ended
        4s   bob   acquires /a/x 1s        -> unknown fence 3
        5s   settles                       -> settled
        5s   carol acquires /a/y 9s        -> unknown fence 4
        5s   fails                         -> loaded again
        6s   bob   acquires /a/x 1s        -> fence 4
        6s   carol acquires /a/y 9s        -> unknown fence 5
        ",
    );
}

#[test]
fn who_is_handed_a_lock_is_told_of_the_writes_before_it() {
    check(
        "
        0s   alice acquires /a 60s               -> fence 1
        0s   alice writes /a fence 1 as w        -> admitted
        1s   w ends unknown                      -> ended
        2s   alice transfers /a fence 1 to bob   -> unknown fence 2
        3s   bob   transfers /a fence 2 to carol -> fence 3
        ",
    );
}

#[test]
fn a_lock_that_is_handed_over_after_a_crash_says_what_nobody_knows() {
    check(
        "
        0s   alice acquires /a 60s               -> fence 1
        0s   recovers for 10s                    -> recovers
        1s   alice transfers /a fence 1 to bob   -> unknown fence 2
        10s  bob   transfers /a fence 2 to carol -> fence 3
        ",
    );
}

#[test]
fn what_was_told_by_a_grant_that_never_was_is_told_again() {
    check(
        "
        0s   alice writes /a as w             -> admitted
        1s   w ends unknown                   -> ended
        1s   settles                          -> settled
        1s   bob   acquires /a 5s             -> unknown fence 1
        1s   fails                            -> loaded again
        2s   carol acquires /a 5s             -> unknown fence 1
        2s   settles                          -> settled
        2s   fails                            -> loaded again
        7s   dave  acquires /a 5s             -> fence 2
        ",
    );
}

#[test]
fn after_a_crash_whoever_may_wait_waits_for_what_may_still_land() {
    check(
        "
        0s    recovers for 10s                 -> recovers
        0s    alice acquires /a 60s            -> unknown fence 1
        1s    bob   acquires /b 60s wait 20s   -> waits
        2s    carol writes /b                  -> locked
        9.999s bob  looks /b                   -> locks none queue bob! freeze no
        10s   bob   looks /b                   -> bob: fence 2 /b bob until 70s waited 9s | locks 2
        10s   carol acquires /c 60s            -> fence 3
        ",
    );
}

#[test]
fn who_cannot_wait_so_long_is_told_when_its_time_is_up() {
    check(
        "
        0s   recovers for 10s                 -> recovers
        0s   alice acquires /a 60s wait 2s    -> waits
        2s   alice looks /a                   -> alice: unknown fence 1 | locks 1
        ",
    );
}

#[test]
fn who_cannot_wait_so_long_does_not_pass_the_write_of_a_sharer_whose_lock_has_ended() {
    // While both shared it, that write was in nobody's way.
    check(
        "
        0s   recovers for 10s                       -> recovers
        0s   alice acquires /a 2s shared wait 1s    -> waits
        1s   alice looks /a                         -> alice: unknown fence 1 | locks 1
        1s   alice writes /a fence 1 as w           -> admitted
        1s   bob   acquires /a 60s shared wait 2s   -> waits
        1s   carol acquires /a 60s shared wait 3s   -> waits
        3s   bob   looks /a  -> bob: locked writes 2 waited 2s | locks none queue carol! freeze no
        3.5s w ends          -> ended
        4s   carol looks /a  -> carol: unknown fence 2 | locks 2
        ",
    );
}

#[test]
fn a_write_that_is_on_its_way_is_waited_for_after_a_crash_as_at_any_time() {
    check(
        "
        0s   recovers for 10s                 -> recovers
        0s   alice writes /a as w             -> admitted
        0s   bob   acquires /a 60s            -> waits
        3s   w ends                           -> ended | bob: unknown fence 1
        4s   alice writes /b as v             -> admitted
        4s   bob   acquires /b 60s wait 2s    -> waits
        6s   bob   looks /b                   -> bob: locked writes 2 waited 2s | locks none queue none freeze no
        ",
    );
}
