//! The queue: who waits for whom, who is next, and what closes a circle.

mod common;

use common::check;

#[test]
fn waiters_are_served_first_come_first_served() {
    check(
        "
        0s  alice acquires /a 60s           -> fence 1
        0s  bob   acquires /a 60s wait 30s  -> waits
        1s  carol acquires /a 60s wait 30s  -> waits
        2s  dave  looks /a                  -> locks 1 queue bob,carol
        5s  alice releases /a fence 1       -> released | bob: fence 2 /a bob until 65s waited 5s
        6s  bob   releases /a fence 2       -> released | carol: fence 3 /a carol until 66s waited 5s
        ",
    );
}

#[test]
fn a_fail_fast_acquire_does_not_overtake() {
    check(
        "
        0s  alice acquires /a 60s             -> fence 1
        0s  bob   acquires /a,/b 60s wait 30s -> waits
        1s  carol acquires /b 60s             -> locked behind 1 .
        1s  carol acquires /b/x 60s shared    -> locked behind 1 .
        1s  carol acquires /b 60s wait 5s     -> waits
        1s  dave  acquires /c 60s             -> fence 2
        2s  alice releases /a fence 1         -> released | bob: fence 3 /a,/b
        3s  bob   releases /b fence 3         -> released | carol: fence 4
        ",
    );
}

#[test]
fn a_shared_acquire_does_not_overtake_an_exclusive_waiter() {
    check(
        "
        0s  alice acquires /a 60s shared           -> fence 1
        0s  bob   acquires /a 60s wait 30s         -> waits
        1s  carol acquires /a 60s shared           -> locked behind 1 .
        1s  carol acquires /a 60s shared wait 10s  -> waits
        1s  dave  acquires /a 60s shared wait 10s  -> waits
        2s  bob   leaves                           -> left | carol: fence 2 | dave: fence 3
        ",
    );
}

#[test]
fn shared_waiters_are_served_together() {
    check(
        "
        0s  alice acquires /a 60s                  -> fence 1
        0s  bob   acquires /a 60s shared wait 10s  -> waits
        0s  carol acquires /a/x 60s shared wait 10s -> waits
        0s  dave  acquires /a 60s wait 10s         -> waits
        0s  erin  acquires /a 60s shared wait 10s  -> waits
        1s  alice releases /a fence 1   -> released | bob: fence 2 | carol: fence 3
        2s  bob   releases /a fence 2   -> released
        3s  carol releases /a/x fence 3 -> released | dave: fence 4
        4s  dave  releases /a fence 4   -> released | erin: fence 5
        ",
    );
}

#[test]
fn who_waits_above_goes_before_who_comes_later_below() {
    check(
        "
        0s  alice acquires /a/b 60s           -> fence 1
        0s  bob   acquires /a 60s wait 30s    -> waits
        1s  carol acquires /a/c 60s           -> locked behind 1 .
        1s  carol acquires /a/c 60s wait 30s  -> waits
        1s  dave  acquires /a 60s depth0 wait 30s -> waits
        2s  alice releases /a/b fence 1       -> released | bob: fence 2
        3s  bob   releases /a fence 2         -> released | carol: fence 3 | dave: fence 4
        ",
    );
}

#[test]
fn a_waiter_whose_time_is_up_is_refused_with_how_long_it_waited() {
    check(
        "
        0s      alice acquires /a 60s          -> fence 1
        0s      bob   acquires /a 60s wait 5s  -> waits
        4.999s                                 ->
        5s                                     -> bob: locked by 1 waited 5s .
        6s      alice releases /a fence 1      -> released
        ",
    );
}

#[test]
fn a_lock_that_ends_when_the_time_is_up_goes_to_the_waiter() {
    check(
        "
        0s  alice acquires /a 5s           -> fence 1
        0s  bob   acquires /a 60s wait 5s  -> waits
        5s                                 -> bob: fence 2
        ",
    );
}

#[test]
fn a_waiter_who_left_is_not_granted() {
    check(
        "
        0s  alice acquires /a 60s           -> fence 1
        0s  bob   acquires /a 60s wait 30s  -> waits
        0s  carol acquires /a 60s wait 30s  -> waits
        1s  bob   leaves                    -> left
        2s  alice releases /a fence 1       -> released | carol: fence 2
        ",
    );
}

#[test]
fn who_asks_again_within_five_seconds_keeps_its_place() {
    check(
        "
        0s      alice acquires /a 60s                 -> fence 1
        0s      bob   acquires /a 60s wait 5s key k   -> waits
        1s      carol acquires /a 60s wait 30s        -> waits
        5s                                            -> bob: locked by 1 waited 5s
        9.999s  bob   acquires /a 60s wait 5s key k   -> waits
        10s     alice releases /a fence 1             -> released | bob: fence 2
        11s     bob   acquires /a 60s wait 5s key k   -> again 2
        12s     bob   releases /a fence 2             -> released | carol: fence 3
        ",
    );
}

#[test]
fn who_asks_again_after_five_seconds_has_lost_its_place() {
    check(
        "
        0s   alice acquires /a 60s                 -> fence 1
        0s   bob   acquires /a 60s wait 5s key k   -> waits
        1s   carol acquires /a 60s wait 30s        -> waits
        5s                                         -> bob: locked by 1 waited 5s
        10s  lazily bob acquires /a 60s wait 5s key k -> waits
        11s  alice releases /a fence 1             -> released | carol: fence 2
        ",
    );
}

#[test]
fn who_is_away_is_passed_over() {
    check(
        "
        0s   alice acquires /a 60s                 -> fence 1
        0s   bob   acquires /a 60s wait 5s key k   -> waits
        1s   carol acquires /a 60s wait 30s        -> waits
        5s                                         -> bob: locked by 1 waited 5s
        6s   alice releases /a fence 1             -> released | carol: fence 2
        7s   bob   acquires /a 60s wait 5s key k   -> waits
        7s   dave  acquires /a 60s wait 30s        -> waits
        8s   carol releases /a fence 2             -> released | bob: fence 3
        ",
    );
}

#[test]
fn who_comes_back_to_a_full_queue_has_its_place_still() {
    check(
        "
        0s   alice acquires /a 60s                         -> fence 1
        0s   bob   acquires /a 60s wait 5s key k queue 1   -> waits
        5s                                                 -> bob: locked by 1 waited 5s
        6s   carol acquires /a 60s wait 30s queue 1        -> queue-full /a
        7s   bob   acquires /a 60s wait 5s key k queue 1   -> waits
        8s   alice releases /a fence 1                     -> released | bob: fence 2
        ",
    );
}

#[test]
fn the_place_of_who_is_away_is_not_for_another_request_with_its_key() {
    check(
        "
        0s   alice acquires /a 60s                   -> fence 1
        0s   bob   acquires /a 60s wait 5s key k     -> waits
        1s   carol acquires /a 60s wait 30s          -> waits
        5s                                           -> bob: locked by 1 waited 5s
        6s   bob   acquires /a 60s wait 5s key k body other -> waits
        7s   alice releases /a fence 1               -> released | carol: fence 2
        ",
    );
}

#[test]
fn who_asks_again_without_waiting_takes_its_place_if_it_is_free() {
    check(
        "
        0s   alice acquires /a 60s                 -> fence 1
        0s   dave  acquires /b 60s                 -> fence 2
        0s   bob   acquires /a 60s wait 5s key k   -> waits
        1s   carol acquires /a,/b 60s wait 30s     -> waits
        5s                                         -> bob: locked by 1 waited 5s
        6s   bob   acquires /a 60s key k           -> locked by 1 .
        7s   alice releases /a fence 1             -> released
        8s   bob   acquires /a 60s key k           -> fence 3
        ",
    );
}

#[test]
fn who_holds_what_an_earlier_waiter_needs_goes_before_it() {
    check(
        "
        0s  alice acquires /a 60s                  -> fence 1
        0s  bob   acquires /a,/b 60s wait 30s      -> waits
        1s  carol acquires /b 60s                  -> locked behind 1 .
        1s  alice acquires /b 60s holds 1          -> fence 2
        2s  alice releases /a fence 1              -> released
        3s  alice releases /b fence 2              -> released | bob: fence 3
        ",
    );
}

#[test]
fn who_holds_something_else_does_not_go_before_an_earlier_waiter() {
    check(
        "
        0s  alice acquires /a 60s                  -> fence 1
        0s  carol acquires /c 60s                  -> fence 2
        0s  bob   acquires /a,/b 60s wait 30s      -> waits
        1s  carol acquires /b 60s holds 2          -> locked behind 1 presented 2:live .
        ",
    );
}

#[test]
fn a_circle_of_one_is_refused() {
    check(
        "
        0s  alice acquires /a 60s                  -> fence 1
        0s  alice acquires /a 60s wait 5s holds 1  -> deadlock alice>alice(1) .
        0s  alice acquires /a/b 60s wait 5s holds 1 -> deadlock alice>alice(1) .
        0s  alice acquires /a 60s holds 1          -> locked by 1 yours presented 1:live .
        0s  alice acquires /a 60s wait 5s          -> waits
        ",
    );
}

#[test]
fn a_circle_of_two_is_refused_at_once() {
    check(
        "
        0s  alice acquires /a 60s                   -> fence 1
        0s  bob   acquires /b 60s                   -> fence 2
        0s  alice acquires /b 60s wait 30s holds 1  -> waits
        0s  bob   acquires /a 60s wait 30s holds 2  -> deadlock bob>alice(1) alice>bob(2) .
        1s  bob   releases /b fence 2               -> released | alice: fence 3
        ",
    );
}

#[test]
fn a_circle_of_three_is_refused_at_once() {
    check(
        "
        0s  alice acquires /a 60s                   -> fence 1
        0s  bob   acquires /b 60s                   -> fence 2
        0s  carol acquires /c 60s                   -> fence 3
        0s  alice acquires /b 60s wait 30s holds 1  -> waits
        0s  bob   acquires /c 60s wait 30s holds 2  -> waits
        0s  carol acquires /a 60s wait 30s holds 3  -> deadlock carol>alice(1) alice>bob(2) bob>carol(3) .
        0s  carol acquires /a 60s wait 30s          -> waits
        ",
    );
}

#[test]
fn a_circle_through_the_order_of_the_queue_is_refused() {
    // Bob waits behind alice for /x; alice waits for what bob holds only through carol.
    check(
        "
        0s  bob   acquires /b 60s                      -> fence 1
        0s  carol acquires /c 60s                      -> fence 2
        0s  carol acquires /b 60s wait 30s holds 2     -> waits
        0s  alice acquires /c,/x 60s wait 30s          -> waits
        0s  bob   acquires /x 60s wait 30s holds 1     -> deadlock bob>alice(queue) alice>carol(2) carol>bob(1) .
        0s  bob   acquires /x 60s wait 30s             -> waits
        ",
    );
}

#[test]
fn who_comes_back_to_its_place_closes_no_circle() {
    // While alice is away, bob waits for /y; her return would put her before him.
    check(
        "
        0s  bob   acquires /b 60s                      -> fence 1
        0s  carol acquires /c 60s                      -> fence 2
        0s  dave  acquires /y 60s                      -> fence 3
        0s  alice acquires /c,/x 60s wait 5s key k     -> waits
        0s  carol acquires /b 60s wait 30s holds 2     -> waits
        5s                                             -> alice: locked by 2 waited 5s
        6s  bob   acquires /x,/y 60s wait 30s holds 1  -> waits
        7s  alice acquires /c,/x 60s wait 5s key k     -> deadlock
        ",
    );
}

#[test]
fn an_any_of_has_a_way_out_and_closes_no_circle() {
    check(
        "
        0s  alice acquires /a 60s                      -> fence 1
        0s  bob   acquires /b 60s                      -> fence 2
        0s  carol acquires /c 60s                      -> fence 3
        0s  alice acquires any:/b,/c 60s wait 30s holds 1 -> waits
        0s  bob   acquires /a 60s wait 30s holds 2     -> waits
        1s  carol releases /c fence 3                  -> released | alice: fence 4 /c
        ",
    );
}

#[test]
fn an_acquire_that_meets_only_writes_has_its_place_at_once() {
    check(
        "
        0s      dave  writes /a as w           -> admitted
        0s      alice acquires /a 60s          -> waits
        0s      dave  looks /a                 -> locks none queue alice!
        0s      bob   acquires /a 60s          -> locked pending alice writes 1 .
        0s      bob   writes /a                -> locked pending alice .
        0s      bob   writes /a/b              -> locked pending alice .
        0s      bob   writes subtree:/         -> locked pending alice .
        0s      bob   writes /                 -> admitted
        2s      w ends                         -> ended | alice: fence 1 /a alice until 62s waited 2s
        ",
    );
}

#[test]
fn an_acquire_without_a_wait_is_held_for_writes_as_long_as_the_drain_wait() {
    check(
        "
        0s      dave  writes /a as w           -> admitted
        0s      alice acquires /a 60s          -> waits
        4.999s  bob   writes /a                -> locked pending alice
        5s                                     -> alice: locked writes 1 waited 5s .
        5s      bob   writes /a as v           -> admitted
        6s      w ends                         -> ended
        6s      alice acquires /a 60s          -> waits
        7s      v ends                         -> ended | alice: fence 1
        ",
    );
}

#[test]
fn who_waits_behind_a_pending_acquire_is_served_after_it() {
    check(
        "
        0s  dave  writes /a as w           -> admitted
        0s  alice acquires /a 2s           -> waits
        0s  bob   acquires /a 60s wait 30s -> waits
        1s  w ends                         -> ended | alice: fence 1 /a alice until 3s
        3s                                 -> bob: fence 2
        ",
    );
}

#[test]
fn an_acquire_waits_for_each_write_once() {
    // Coming back, it waits for the same write again and for another: the end of the first must
    // not stand for both.
    check(
        "
        0s  dave  writes /a as w                  -> admitted
        0s  alice acquires /a 60s wait 1s key k   -> waits
        1s                                        -> alice: locked writes 1 waited 1s
        2s  dave  writes /a as v                  -> admitted
        3s  alice acquires /a 60s wait 9s key k   -> waits
        4s  w ends                                -> ended
        5s  v ends                                -> ended | alice: fence 1
        ",
    );
}

#[test]
fn which_writes_an_acquire_waits_for_depends_on_depth_and_target() {
    check(
        "
        0s  dave  writes /a as content                 -> admitted
        0s  alice acquires /a/b 60s                    -> fence 1
        0s  alice acquires / 60s depth0                -> fence 2
        0s  alice acquires /a 60s depth0               -> waits
        0s  content ends                               -> ended | alice: fence 3
        0s  dave  writes members:/c as members         -> admitted
        0s  alice acquires /c/d 60s                    -> fence 4
        0s  alice acquires /c 60s depth0               -> waits
        0s  members ends                               -> ended | alice: fence 5
        0s  dave  writes subtree:/e as subtree         -> admitted
        0s  alice acquires /e/f/g 60s depth0           -> waits
        0s  subtree ends                               -> ended | alice: fence 6
        0s  dave  writes /h/i/j as below               -> admitted
        0s  alice acquires /h 60s depth0               -> fence 7
        0s  bob   acquires /h/i 60s                    -> waits
        0s  below ends                                 -> ended | bob: fence 8
        ",
    );
}

#[test]
fn a_freeze_leaves_waiters_their_place() {
    check(
        "
        0s   alice acquires /a 60s            -> fence 1
        0s   bob   acquires /a 60s wait 30s   -> waits
        0s   carol acquires /a 60s wait 5s    -> waits
        1s   root  freezes / until 10s        -> frozen
        2s   alice releases /a fence 1        -> released
        5s                                    -> carol: frozen at /
        9.999s                                ->
        10s                                   -> bob: fence 2
        ",
    );
}

#[test]
fn lifting_a_freeze_serves_who_waits() {
    check(
        "
        0s   alice acquires /a/b 60s          -> fence 1
        0s   bob   acquires /a/b 60s wait 30s -> waits
        1s   root  freezes /a until 100s      -> frozen
        1s   root  freezes /a/b until 100s    -> frozen
        2s   alice releases /a/b fence 1      -> released
        3s   root  unfreezes /a               -> lifted
        4s   root  freezes /a/b until 50s     -> frozen
        5s   root  unfreezes /a/b             -> lifted | bob: fence 2
        6s   root  unfreezes /a/b             -> not frozen
        ",
    );
}

#[test]
fn a_set_waits_until_all_of_it_is_free() {
    check(
        "
        0s   alice acquires /a 60s            -> fence 1
        0s   bob   acquires /b 60s            -> fence 2
        0s   carol acquires /a,/b 60s wait 30s -> waits
        1s   alice releases /a fence 1        -> released
        1s   dave  acquires /a 60s            -> locked behind 1 .
        2s   bob   releases /b fence 2        -> released | carol: fence 3
        ",
    );
}

#[test]
fn a_due_lock_is_in_nobodys_way_and_its_waiters_come_first() {
    check(
        "
        0s   alice acquires /a 5s             -> fence 1
        0s   bob   acquires /a 60s wait 30s   -> waits
        5s   lazily carol acquires /a 60s     -> locked by 2 . | bob: fence 2
        ",
    );
}

#[test]
fn a_mass_expiry_is_written_down_in_bounded_chunks() {
    check(
        "
        0s   alice acquires /a 5s             -> fence 1
        0s   alice acquires /b 5s             -> fence 2
        0s   alice acquires /c 5s             -> fence 3
        0s   bob   acquires /c 60s wait 30s   -> waits
        5s   lazily ticks 2                   -> more
        5s   lazily dave looks /c                  -> locks none queue bob
        5s   lazily ticks 2                   -> done | bob: fence 4
        ",
    );
}

#[test]
fn an_any_of_that_waits_keeps_its_place_on_each_until_it_has_one() {
    check(
        "
        0s  bob   acquires /a/b 60s shared          -> fence 1
        0s  alice acquires /a/d 5s                  -> fence 2
        1s  carol acquires any:/a/d,/a/b 60s wait 30s -> waits
        2s  dave  acquires /a/b 60s shared wait 30s -> waits
        5s                                          -> carol: fence 3 /a/d | dave: fence 4 /a/b
        ",
    );
}

#[test]
fn an_any_of_that_has_a_place_leaves_the_others() {
    check(
        "
        0s  bob   acquires /b 60s shared              -> fence 1
        0s  alice acquires /a 5s                      -> fence 2
        1s  carol acquires any:/a,/b 60s wait 30s     -> waits
        2s  dave  acquires /b 60s shared wait 30s     -> waits
        3s  alice writes /a fence 2 as w              -> admitted
        5s                                            -> dave: fence 3
        5s  erin  looks /a                            -> locks none queue carol!
        6s  w ends                                    -> ended | carol: fence 4 /a
        ",
    );
}

#[test]
fn ending_one_due_lock_may_take_away_where_the_next_was_looked_for() {
    // Bob leaves /p/b for /a, and with him goes all there was at /p/b. Another lock is due besides,
    // so more is looked for there.
    for next in ["acquires /a,/p/b 60s -> locked by 4 of 2", "writes /a+/p/b -> locked by 4 of 2"] {
        check(&format!(
            "
            0s  erin  acquires /z 1s                    -> fence 1
            0s  alice acquires /a 1s                    -> fence 2
            0s  alice acquires /p 60s                   -> fence 3
            0s  bob   acquires any:/a,/p/b 60s wait 30s -> waits
            1s  lazily carol {next} | bob: fence 4 /a
            "
        ));
    }
}
