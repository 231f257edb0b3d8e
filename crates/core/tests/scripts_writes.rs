//! Writes: who is let through, who is refused and with what, and what a pin holds off.

mod common;

use common::check;

#[test]
fn a_write_needs_the_token_of_each_exclusive_lock_that_covers_it() {
    check(
        "
        0s  alice acquires /a 60s             -> fence 1
        0s  bob   writes /a                   -> locked by 1 .
        0s  bob   writes /a/b                 -> locked by 1 .
        0s  bob   writes members:/a/b         -> locked by 1 .
        0s  bob   writes subtree:/            -> locked by 1 .
        0s  bob   writes /                    -> admitted
        0s  bob   writes members:/            -> admitted
        0s  alice writes /a                   -> locked by 1 yours .
        0s  alice writes /a fence 1           -> admitted
        0s  alice writes subtree:/ fence 1    -> admitted
        ",
    );
}

#[test]
fn a_lock_of_depth_0_guards_the_resource_and_its_list_of_children() {
    check(
        "
        0s  alice acquires /a 60s depth0      -> fence 1
        0s  bob   writes /a                   -> locked by 1
        0s  bob   writes members:/a           -> locked by 1
        0s  bob   writes subtree:/a           -> locked by 1
        0s  bob   writes /a/b                 -> admitted
        0s  bob   writes members:/a/b         -> admitted
        0s  bob   writes subtree:/a/b         -> admitted
        0s  alice writes members:/a fence 1   -> admitted
        ",
    );
}

#[test]
fn every_target_of_a_write_counts() {
    check(
        "
        0s  alice acquires /a 60s                   -> fence 1
        0s  alice acquires /b 60s                   -> fence 2
        0s  alice writes /a+/b fence 1              -> locked by 2 yours presented 1:fits .
        0s  alice writes /a+/b fence 2              -> locked by 1 yours presented 2:fits .
        0s  alice writes /x+members:/b fence 2 as v -> admitted rests on 3 admission 3 .
        0s  alice writes /a+/b fence 1,2 as w       -> admitted rests on 5 admission 4 .
        0s  v ends                                  -> ended
        0s  w ends                                  -> ended
        ",
    );
}

#[test]
fn a_shared_lock_is_matched_by_any_sharers_token() {
    check(
        "
        0s  alice acquires /a 60s shared         -> fence 1
        0s  bob   acquires /a/b 60s shared       -> fence 2
        0s  alice writes /a/b fence 1            -> admitted
        0s  bob   writes /a/b fence 2            -> admitted
        0s  bob   writes /a/c fence 2            -> locked by 1 presented 2:live .
        0s  carol writes /a/b                    -> locked by 1 of 2 .
        0s  alice writes subtree:/a fence 1      -> admitted
        0s  bob   writes subtree:/a fence 2      -> locked by 1 presented 2:fits .
        ",
    );
}

#[test]
fn a_sharer_of_depth_0_does_not_answer_for_what_is_below() {
    check(
        "
        0s  alice acquires /a 60s shared            -> fence 1
        0s  bob   acquires /a 60s shared depth0     -> fence 2
        0s  bob   writes /a fence 2                 -> admitted
        0s  bob   writes subtree:/a fence 2         -> locked by 1 presented 2:fits .
        0s  alice writes subtree:/a fence 1         -> admitted
        ",
    );
}

#[test]
fn a_freeze_is_told_before_everything_else() {
    check(
        "
        0s  alice acquires /a 60s                     -> fence 1
        0s  root  freezes /a/b until 60s              -> frozen
        0s  alice writes /a/b fence 1                 -> frozen at /a/b
        0s  bob   writes /a/b/c fence forged if /a:false bare -> frozen at /a/b
        0s  bob   writes subtree:/                    -> frozen at /a/b
        0s  bob   writes subtree:/a/b                 -> frozen at /a/b
        0s  alice writes /a fence 1                   -> admitted
        0s  alice writes members:/a fence 1           -> admitted
        59.999s alice writes /x+/a/b                  -> frozen at /a/b
        60s lazily bob writes /a/b                    -> admitted
        ",
    );
}

#[test]
fn a_false_if_header_is_told_before_a_lock_and_a_lock_before_a_dead_token() {
    check(
        "
        0s  alice acquires /a 60s                           -> fence 1
        0s  alice acquires /b 60s                           -> fence 2
        0s  alice releases /b fence 2                       -> released
        0s  bob   writes /a if /a:false                     -> condition-failed
        0s  bob   writes /a if /a:true                      -> locked by 1 .
        0s  alice writes /a fence 2                         -> locked by 1 yours presented 2:released .
        0s  alice writes /a fence 1,2                       -> lock-lost 2 released
        0s  bob   writes /a fence 1,forged                  -> locked by 1 presented not-yours,unknown .
        ",
    );
}

#[test]
fn a_token_that_does_not_fit_refuses_in_this_order() {
    check(
        "
        0s   alice acquires /a 10s                         -> fence 1
        0s   alice acquires /b 60s                         -> fence 2
        0s   bob   acquires /c 60s                         -> fence 3
        10s  lazily alice writes /x fence forged,3,2,1 bare -> lock-lost 1 expired
        10s  alice writes /x fence forged,3,2 bare         -> lock-mismatch 2
        10s  alice writes /x fence forged,3 bare           -> not-the-holder
        10s  alice writes /x fence forged bare             -> invalid-token
        10s  alice writes /x fence 2! bare                 -> invalid-token
        10s  alice writes /x bare                          -> precondition-required
        10s  alice writes /b fence 2 bare                  -> admitted
        10s  alice writes /x if /x:true bare               -> admitted
        10s  alice writes /x                               -> admitted
        10s  bob   writes /a fence 1                       -> not-the-holder
        ",
    );
}

#[test]
fn an_if_header_is_judged_by_its_own_rules() {
    check(
        "
        0s  alice acquires /a 60s                    -> fence 1
        0s  alice acquires /d 60s depth0             -> fence 2
        0s  alice acquires /e 60s                    -> fence 3
        0s  alice releases /e fence 3                -> released
        0s  alice writes /a if /a:1                  -> admitted
        0s  alice writes /a/b if /a/b:1              -> admitted
        0s  alice writes /d if /d/x:2                -> condition-failed
        0s  alice writes /a if /b:1                  -> condition-failed
        0s  alice writes /a if /a:1,false            -> condition-failed
        0s  alice writes /a if /a:not1               -> condition-failed
        0s  alice writes /a if /a:1,notfalse         -> admitted
        0s  alice writes /a if /a:3;/a:1             -> admitted
        0s  alice writes /a if /a:3                  -> condition-failed
        0s  alice writes /x if /x:3;/x:true          -> admitted
        0s  alice writes /x if /a:1                  -> admitted
        0s  bob   writes /a if /a:1                  -> condition-failed
        0s  bob   writes /a if /a:not1               -> locked by 1 presented not-yours .
        0s  alice writes /x fence 3 if /x:true       -> lock-lost 3 released
        ",
    );
}

#[test]
fn a_check_pins_nothing() {
    check(
        "
        0s  alice checks /a          -> may pass
        0s  alice acquires /a 60s    -> fence 1
        0s  bob   checks /a          -> locked by 1
        0s  alice checks /a fence 1  -> may pass
        0s  alice releases /a fence 1 -> released
        0s  bob   acquires /a 60s    -> fence 2
        ",
    );
}

#[test]
fn what_was_let_through_before_the_end_lands_before_the_next_grant() {
    check(
        "
        0s  alice acquires /a 5s               -> fence 1
        4s  alice writes /a/x fence 1 as v     -> admitted
        5s  bob   acquires /a 60s              -> waits
        5s  alice writes /a/x fence 1          -> locked pending bob presented 1:expired .
        6s  v ends                             -> ended | bob: fence 2
        ",
    );
}

#[test]
fn a_sharers_write_keeps_no_other_sharer_waiting() {
    check(
        "
        0s  alice acquires /a 60s shared           -> fence 1
        0s  alice writes /a/x fence 1 as v         -> admitted
        0s  bob   acquires /a 60s shared           -> fence 2
        0s  dave  acquires /b 60s                  -> fence 3
        0s  carol acquires /a,/b 60s wait 30s      -> waits
        1s  alice releases /a fence 1              -> released
        1s  bob   releases /a fence 2              -> released
        1s  dave  releases /b fence 3              -> released
        2s  v ends                                 -> ended | carol: fence 4
        ",
    );
}

#[test]
fn the_write_of_a_sharer_who_let_go_keeps_the_next_waiting() {
    check(
        "
        0s  alice acquires /a 60s shared           -> fence 1
        0s  alice writes /a fence 1 as v           -> admitted
        1s  alice releases /a fence 1              -> released
        1s  bob   acquires /a 60s shared           -> waits
        2s  v ends                                 -> ended | bob: fence 2
        ",
    );
}

#[test]
fn a_sharer_who_lets_go_while_another_is_pending_keeps_it_waiting() {
    check(
        "
        0s  alice acquires /a/x 60s shared         -> fence 1
        0s  dave  writes /a/y as other             -> admitted
        0s  alice writes /a/x fence 1 as v         -> admitted
        0s  bob   acquires /a 60s shared wait 30s  -> waits
        1s  alice releases /a/x fence 1            -> released
        2s  other ends                             -> ended
        3s  v ends                                 -> ended | bob: fence 2
        ",
    );
}

#[test]
fn a_subtree_that_is_removed_by_a_sharer_of_depth_0_keeps_sharers_below_waiting() {
    check(
        "
        0s  alice acquires /a 60s shared depth0    -> fence 1
        0s  alice writes subtree:/a fence 1 as v   -> admitted
        0s  bob   acquires /a/b 60s shared         -> waits
        1s  v ends                                 -> ended | bob: fence 2
        ",
    );
}

#[test]
fn a_sharer_writes_on_while_another_sharer_is_pending() {
    check(
        "
        0s  alice acquires /a/x 60s shared         -> fence 1
        0s  dave  writes /a/y as other             -> admitted
        0s  bob   acquires /a 60s shared wait 30s  -> waits
        1s  alice writes /a/x fence 1 as v         -> admitted
        1s  dave  writes /a/y                      -> locked pending bob
        1s  alice writes /a fence 1                -> locked pending bob presented 1:live
        2s  other ends                             -> ended | bob: fence 2
        ",
    );
}

#[test]
fn a_write_without_a_lock_rests_on_the_release_that_let_it_through() {
    check(
        "
        0s  alice acquires /a/b 60s          -> fence 1
        1s  alice releases /a/b fence 1      -> released
        1s  bob   writes /a/b                -> admitted rests on 2 .
        1s  bob   writes /a/b/c              -> admitted rests on 2 .
        1s  bob   writes subtree:/a          -> admitted rests on 2 .
        1s  bob   writes /x                  -> admitted rests on 0 .
        1s  settles                          -> settled
        2s  alice acquires /q 60s            -> fence 2
        2s  root  freezes /f until 60s       -> frozen
        2s  root  unfreezes /f               -> lifted
        2s  bob   writes /f/g                -> admitted rests on 5 .
        2s  alice writes /q/r fence 2        -> admitted rests on 6 admission 6 .
        ",
    );
}

#[test]
fn a_write_rests_on_the_expiry_that_let_it_through() {
    check(
        "
        0s  alice acquires /a/b 5s           -> fence 1
        0s  alice acquires /a/c 5s           -> fence 2
        5s  lazily bob writes /a/b           -> admitted rests on 3 .
        5s  lazily bob writes subtree:/a     -> admitted rests on 4 .
        ",
    );
}

#[test]
fn a_subtree_with_many_shared_places_meets_the_exclusive_lock_among_them() {
    let places: Vec<String> = (0..1100).map(|at| format!("/a/{at}")).collect();
    let places = places.join(",");
    check(&format!(
        "
        0s  alice acquires {places} 60s shared  -> fence 1
        0s  bob   acquires /a/z/z 60s           -> fence 2
        0s  alice writes subtree:/a fence 1     -> locked by 2 presented 1:fits .
        "
    ));
}

#[test]
fn a_freeze_is_answered_when_the_writes_under_way_have_ended() {
    check(
        "
        0s   dave  writes /a/b/c as below          -> admitted
        0s   dave  writes subtree:/a as above      -> admitted
        0s   dave  writes /x as elsewhere          -> admitted
        0s   root  freezes /a/b until 60s          -> waits
        1s   dave  writes /a/b                     -> frozen at /a/b
        1s   below ends                            -> ended
        2s   above ends                            -> ended | root: frozen writes 0
        2s   dave  writes /y as slow               -> admitted
        2s   root  freezes /y until 60s drain 3s   -> waits
        5s                                         -> root: frozen writes 1
        6s   slow ends                             -> ended
        ",
    );
}

#[test]
fn a_freeze_may_be_replaced() {
    check(
        "
        0s   root freezes /a until 60s   -> frozen
        1s   root freezes /a until 10s   -> frozen
        10s  bob  writes /a              -> admitted
        ",
    );
}

#[test]
fn a_write_whose_lock_has_ended_still_completes() {
    check(
        "
        0s   alice acquires /a 5s             -> fence 1
        1s   alice writes /a fence 1 as v     -> admitted
        5s   bob   looks /a                   -> locks none queue none freeze no
        6s   v ends unknown                   -> ended
        6s   bob   acquires /a 5s             -> unknown fence 2
        6s   bob   writes /a fence 2 as v     -> admitted
        6s   v ends not_sent                  -> ended
        ",
    );
}
