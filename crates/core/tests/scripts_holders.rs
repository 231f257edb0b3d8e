//! What holders do with their locks, and what others may do to them.

mod common;

use common::check;

#[test]
fn a_renewal_counts_from_now() {
    check(
        "
        0s   alice acquires /a 10s            -> fence 1
        5s   alice renews /a fence 1 for 20s  -> 1 /a alice until 25s
        6s   alice renews /a fence 1          -> 1 /a alice until 26s
        7s   alice renews /a fence 1 for 2s   -> 1 /a alice until 9s
        8s   alice renews /a fence 1          -> 1 /a alice until 10s
        9s   alice renews id:1 fence 1 for 1s -> 1 /a alice until 10s
        10s  alice renews /a fence 1          -> gone 1 expired
        ",
    );
}

#[test]
fn a_renewal_without_a_ttl_never_brings_the_deadline_forward() {
    check(
        "
        0s   alice acquires /a 10s hold 20s    -> fence 1
        9s   alice renews /a fence 1 for 11s   -> 1 /a alice until 20s
        9s   alice renews /a fence 1 for 5s    -> 1 /a alice until 14s
        10s  alice renews /a fence 1           -> 1 /a alice until 15s
        ",
    );
}

#[test]
fn a_renewal_has_a_ttl_between_one_second_and_the_rules_maximum() {
    check(
        "
        0s  alice acquires /a 10s max 60s          -> fence 1
        0s  alice renews /a fence 1 for 999ms      -> ttl-out-of-range 60s
        0s  alice renews /a fence 1 for 60001ms    -> ttl-out-of-range 60s
        0s  alice renews /a fence 1 for 60s        -> 1 /a alice until 60s
        0s  alice renews /a fence 1 for 1s         -> 1 /a alice until 1s
        ",
    );
}

#[test]
fn a_renewal_past_the_longest_life_is_cut_to_it_and_at_it_refused() {
    check(
        "
        0s   alice acquires /a 10s hold 25s    -> fence 1
        9s   alice renews /a fence 1 for 16s   -> 1 /a alice until 25s
        9s   alice renews /a fence 1 for 10s   -> 1 /a alice until 19s
        18s  alice renews /a fence 1           -> 1 /a alice until 25s
        18s  alice renews /a fence 1           -> max-hold 25s
        18s  alice renews /a fence 1 for 7s    -> 1 /a alice until 25s
        18s  alice renews /a fence 1 for 8s    -> max-hold 25s
        20s  alice renews /a fence 1 for 2s    -> 1 /a alice until 22s
        25s  alice renews /a fence 1           -> gone 1 expired
        ",
    );
}

#[test]
fn a_holders_command_is_refused_in_this_order() {
    check(
        "
        0s  alice acquires /a,/b 60s           -> fence 1
        0s  bob   acquires /c 60s              -> fence 2
        0s  alice acquires /d 60s              -> fence 3
        0s  alice releases /d fence 3          -> released
        0s  alice renews /a fence forged       -> invalid-token
        0s  alice renews /a fence 1!           -> invalid-token
        0s  alice renews /c fence 1            -> invalid-token
        0s  alice renews /a/x fence 1          -> invalid-token
        0s  alice renews /a fence 3            -> invalid-token
        0s  alice renews id:2 fence 1          -> invalid-token
        0s  bob   renews /a fence 1            -> not-the-holder
        0s  bob   renews /d fence 3            -> not-the-holder
        0s  alice renews /d fence 3            -> gone 3 released
        0s  alice renews /d fence 3,1          -> gone 3 released
        0s  alice renews /b fence 3,1 for 30s  -> 1 /a,/b alice until 30s
        0s  root  breaks /a grace 5s           -> broken 1 at 5s
        0s  alice renews /a fence 1 for 1ms    -> closing 1
        ",
    );
}

#[test]
fn in_anonymous_mode_the_token_alone_proves_the_holder() {
    check(
        "
        0s  anonymous acquires /a 60s           -> fence 1
        1s  anonymous renews /a fence 1 for 60s -> 1
        1s  anonymous transfers /a fence 1 to carol -> fence 2
        2s  anonymous releases /a fence 2       -> released
        ",
    );
}

#[test]
fn a_release_may_be_repeated() {
    check(
        "
        0s  alice acquires /a 10s       -> fence 1
        1s  alice releases /a fence 1   -> released
        2s  alice releases /a fence 1   -> released
        2s  bob   releases /a fence 1   -> not-the-holder
        2s  alice acquires /a 10s       -> fence 2
        3s  alice releases /a fence 1   -> released
        3s  lock 2                      -> 2
        3s  alice releases /a fence 2,1 -> released
        3s  lock 2                      -> none
        ",
    );
}

#[test]
fn a_release_of_what_ended_otherwise_is_gone() {
    check(
        "
        0s   alice acquires /a 10s             -> fence 1
        10s  alice releases /a fence 1         -> gone 1 expired
        10s  alice acquires /a 10s             -> fence 2
        11s  root  breaks /a                   -> broken 2 at 11s
        11s  alice releases /a fence 2         -> gone 2 broken
        11s  alice acquires /a 10s             -> fence 3
        11s  alice transfers /a fence 3 to bob -> fence 4
        11s  alice releases /a fence 3         -> gone 3 transferred
        ",
    );
}

#[test]
fn a_transfer_makes_a_new_grant_with_the_same_deadline() {
    check(
        "
        0s   alice acquires /a 20s hold 30s        -> fence 1
        5s   alice transfers /a fence 1 to bob     -> fence 2 /a bob until 20s
        6s   alice renews /a fence 1               -> gone 1 transferred
        6s   alice writes /a fence 1               -> locked by 2 presented 1:transferred .
        6s   bob   acquires /a 20s                 -> locked by 2 yours
        19s  bob   renews /a fence 2 for 20s       -> 2 /a bob until 30s
        ",
    );
}

#[test]
fn a_repeated_transfer_gives_the_same_answer_until_the_new_token_is_used() {
    check(
        "
        0s  alice acquires /a 60s                  -> fence 1
        1s  alice transfers /a fence 1 to bob      -> fence 2
        2s  alice transfers /a fence 1 to bob      -> again 2
        2s  alice transfers /a fence 1 to carol    -> gone 1 transferred
        2s  carol transfers /a fence 1 to bob      -> not-the-holder
        3s  bob   writes /a fence 2 as w           -> admitted
        4s  alice transfers /a fence 1 to bob      -> gone 1 transferred
        ",
    );
}

#[test]
fn a_transfer_waits_for_the_holders_writes_and_for_no_others() {
    check(
        "
        0s  alice acquires /a 60s                  -> fence 1
        0s  dave  writes /b as other               -> admitted
        1s  alice writes /a/x fence 1 as v         -> admitted
        1s  alice writes subtree:/ fence 1 as w    -> admitted
        2s  alice transfers /a fence 1 to bob      -> waits
        3s  v ends                                 -> ended
        3s  alice writes /a fence 1 as u           -> admitted
        4s  w ends                                 -> ended
        5s  u ends                                 -> ended | alice: fence 2 /a bob
        ",
    );
}

#[test]
fn a_transfer_whose_time_is_up_leaves_the_lock_as_it_was() {
    check(
        "
        0s      alice acquires /a 60s                       -> fence 1
        1s      alice writes /a fence 1 as v                -> admitted
        2s      alice transfers /a fence 1 to bob drain 3s  -> waits
        4.999s                                              ->
        5s                                                  -> alice: writes 1
        6s      v ends                                      -> ended
        6s      lock 1                                      -> 1 /a alice
        ",
    );
}

#[test]
fn a_transfer_that_was_sent_twice_while_it_waited_has_one_answer() {
    check(
        "
        0s  alice acquires /a 60s                          -> fence 1
        1s  alice writes /a fence 1 as v                   -> admitted
        2s  alice transfers /a fence 1 to bob as first     -> waits
        3s  alice transfers /a fence 1 to bob as second    -> waits
        3s  alice transfers /a fence 1 to carol as third   -> waits
        4s  v ends           -> ended | first: fence 2 | second: again 2 | third: gone 1 transferred
        ",
    );
}

#[test]
fn a_transfer_of_a_lock_that_ends_meanwhile_is_refused() {
    check(
        "
        0s  alice acquires /a 4s                      -> fence 1
        1s  alice writes /a fence 1 as v              -> admitted
        2s  alice transfers /a fence 1 to bob         -> waits
        5s  v ends                                    -> ended | alice: gone 1 expired
        5s  alice acquires /a 60s                     -> fence 2
        5s  alice writes /a fence 2 as v              -> admitted
        5s  alice transfers /a fence 2 to bob         -> waits
        6s  root  breaks /a grace 20s                 -> broken 2 at 26s
        6s  alice transfers /a fence 2 to bob as late -> closing 2
        7s  v ends                                    -> ended | alice: closing 2
        ",
    );
}

#[test]
fn a_transfer_whose_client_left_is_not_carried_out() {
    check(
        "
        0s  alice acquires /a 60s                  -> fence 1
        1s  alice writes /a fence 1 as v           -> admitted
        2s  alice transfers /a fence 1 to bob      -> waits
        3s  alice leaves                           -> left
        4s  v ends                                 -> ended
        9s  lock 1                                 -> 1 /a alice
        ",
    );
}

#[test]
fn waiters_stay_behind_a_lock_that_is_handed_over() {
    check(
        "
        0s  alice acquires /a 60s              -> fence 1
        0s  carol acquires /a 60s wait 30s     -> waits
        1s  alice transfers /a fence 1 to bob  -> fence 2
        2s  bob   releases /a fence 2          -> released | carol: fence 3
        ",
    );
}

#[test]
fn a_request_reaches_every_lock_that_covers_the_resource() {
    check(
        "
        0s  bob   requests /a                    -> lock-changed
        0s  alice acquires /a 10s shared         -> fence 1
        0s  carol acquires /a/b 60s shared       -> fence 2
        0s  dave  acquires /a 60s depth0 shared  -> fence 3
        1s  bob   requests /a/b/c                -> asked 1,2
        1s  bob   requests /a                    -> asked 1,3
        1s  bob   requests /                     -> lock-changed
        2s  alice renews /a fence 1              -> 1 /a alice until 12s requested by bob
        2s  alice writes /a fence 1 as v         -> admitted rests on 9 admission 9 requested by bob
        12s lazily bob requests /a/c             -> lock-changed
        ",
    );
}

#[test]
fn a_break_ends_a_lock_that_covers_the_resource_and_never_one_below() {
    check(
        "
        0s  alice acquires /a/b 60s         -> fence 1
        0s  root  breaks /a                 -> lock-changed
        0s  root  breaks /a/b/c             -> broken 1 at 0s
        0s  alice writes /a/b fence 1       -> lock-lost 1 broken
        0s  root  breaks /a/b               -> lock-changed
        ",
    );
}

#[test]
fn a_break_of_several_names_one() {
    check(
        "
        0s  alice acquires /a 10s shared       -> fence 1
        0s  bob   acquires /a 60s shared       -> fence 2
        0s  carol acquires /c 60s              -> fence 3
        1s  root  breaks /a                    -> ambiguous 1,2
        1s  root  breaks /a lock 3             -> lock-changed
        1s  root  breaks /a lock 2             -> broken 2 at 1s
        1s  root  breaks /a lock 2             -> lock-changed
        1s  root  breaks /a                    -> broken 1 at 1s
        1s  root  breaks id:3                  -> broken 3 at 1s
        1s  root  breaks id:3                  -> lock-changed
        ",
    );
}

#[test]
fn while_the_grace_runs_writes_pass_and_renewals_do_not() {
    check(
        "
        0s       alice acquires /a 60s             -> fence 1
        0s       bob   acquires /a 60s wait 30s    -> waits
        1s       root  breaks /a grace 5s          -> broken 1 at 6s
        2s       alice renews /a fence 1           -> closing 1 /a alice until 6s breaking
        5.999s   alice writes /a fence 1 as v      -> admitted
        5.999s   v ends                            -> ended
        6s       lazily alice writes /a fence 1    -> locked by 2 presented 1:broken | bob: fence 2
        6s       alice releases /a fence 1         -> gone 1 broken
        ",
    );
}

#[test]
fn a_grace_never_lengthens_a_lock() {
    check(
        "
        0s   alice acquires /a 10s          -> fence 1
        1s   root  breaks /a grace 20s      -> broken 1 at 10s
        2s   root  breaks /a grace 3s       -> broken 1 at 5s
        3s   root  breaks /a grace 30s      -> broken 1 at 5s
        4s   alice releases /a fence 1      -> released
        4s   bob   acquires /a 10s          -> fence 2
        5s   root  breaks /a                -> broken 2 at 5s
        ",
    );
}

#[test]
fn a_preview_tells_what_would_end_and_changes_nothing() {
    check(
        "
        0s  root  previews /a                 -> lock-changed
        0s  alice acquires /a 60s             -> fence 1
        0s  bob   acquires /a/b 60s wait 30s  -> waits
        0s  carol acquires /a 60s wait 30s    -> waits
        1s  alice writes /a fence 1 as v      -> admitted
        1s  dave  writes /x as w              -> admitted
        1s  root  previews /a/b               -> would end 1 writes 1 queue bob,carol
        1s  root  previews id:1               -> would end 1 writes 1 queue bob,carol
        1s  lock 1                            -> 1 /a alice until 60s .
        ",
    );
}

#[test]
fn a_preview_shows_no_one_who_waits_below_a_lock_of_depth_0() {
    check(
        "
        0s  alice acquires /a 60s depth0      -> fence 1
        0s  alice acquires /a/b 60s           -> fence 2
        0s  bob   acquires /a/b 60s wait 30s  -> waits
        0s  carol acquires /a 60s depth0 wait 30s -> waits
        1s  root  previews /a                 -> would end 1 writes 0 queue carol
        ",
    );
}

#[test]
fn a_broken_lock_is_not_granted_while_its_write_is_on_its_way() {
    check(
        "
        0s  alice acquires /a 60s             -> fence 1
        0s  bob   acquires /a 60s wait 30s    -> waits
        1s  alice writes /a fence 1 as v      -> admitted
        2s  root  breaks /a                   -> broken 1 at 2s
        2s  carol acquires /a 60s             -> locked pending bob writes 1
        3s  v ends                            -> ended | bob: fence 2
        ",
    );
}
