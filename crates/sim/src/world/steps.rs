//! What happens next: one choice of the scheduler, and what comes of it.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use leasehold_core::command::Want;
use leasehold_engine::Clock as _;

use super::{CLIENTS, Guarding, World, unable};
use crate::call::{Asked, Call};
use crate::client::{Again, Held, Scene};
use crate::disk::{Crash, Faults};
use crate::judge::{Acquiring, Begun, Verdict};
use crate::upstream::Act;

/// How often the tasks of the runtime get their turn until nothing can be left to do.
const TURNS: usize = 12;

impl World {
    /// One step.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn step(&mut self) -> Verdict {
        self.history.step();
        self.sample();
        match self.rng.u32(0..1000) {
            0..220 => self.send()?,
            220..470 => self.go_on()?,
            470..620 => self.commit()?,
            620..660 => self.follow(),
            660..860 => self.pass_time()?,
            860..870 => self.pause()?,
            870..880 => self.set_wall(),
            880..920 => self.upstream_acts()?,
            920..940 => self.leave(),
            940..950 => self.run_tasks()?,
            950..960 => self.change_company(),
            960..975 => self.rest()?,
            975..985 if self.options.disk_fails => self.harm_disk(),
            985..990 if self.options.disk_fails => self.heal_disk(),
            990..993 if self.options.crashes => self.die_soon(),
            993..996 if self.options.crashes => {
                let crash = if self.rng.bool() { Crash::Kill } else { Crash::PowerLoss };
                self.crash(crash)?;
            }
            996..997 => self.stop_cleanly()?,
            _ => self.go_on()?,
        }
        if self.mount.disk().is_dead() {
            let crash = if self.rng.bool() { Crash::Kill } else { Crash::PowerLoss };
            self.crash(crash)?;
        }
        self.sample();
        self.look_for_commits()?;
        match &self.server {
            Some(server) => server.stepped.look(|look| self.judge.after_step(&look)),
            None => Ok(()),
        }
    }

    /// Tells the judge what the clocks show.
    pub(super) fn sample(&mut self) {
        if let Some(engine) = self.engine() {
            let lease = engine.now().lease;
            let mono = self.clock.monotonic();
            self.judge.at(mono, lease);
            if let Some(gateway) = &mut self.gateway {
                gateway.witness.at(lease);
            }
        }
    }

    fn send(&mut self) -> Verdict {
        let at = self.rng.usize(..self.clients.len());
        if self.calls.len() >= 3 * CLIENTS {
            return Ok(());
        }
        let others: Vec<Held> = self
            .clients
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != at)
            .filter_map(|(_, client)| client.held.last().cloned())
            .collect();
        let to = self.clients[self.rng.usize(..self.clients.len())].principal().clone();
        let id = self.next_call;
        self.next_call += 1;
        let scene = Scene { call: id, others, to, wall: self.clock.wall() };
        let intent = self.clients[at].next(&mut self.rng, &scene);
        self.history.note(format_args!("call {id}: client {at} asks to {}", intent.asked));
        self.tell_judge(id, &intent.asked, intent.repeats);
        if let Asked::Write { tokens, .. } = &intent.asked {
            let tokens = tokens.iter().map(|(lock, _)| *lock).collect();
            self.writes.insert(id, (tokens, at, self.judge.failures));
        }
        let failures = self.judge.failures;
        let body = self.body_of(id, &intent.asked);
        let Some(server) = &self.server else { return Ok(()) };
        let call = match &server.guard {
            Guarding::Store(guard) => Call::new(id, at, intent.asked, failures, guard, body),
            Guarding::Gateway(guard) => Call::new(id, at, intent.asked, failures, guard, body),
        };
        self.calls.insert(id, call);
        self.poll(id)
    }

    fn tell_judge(&mut self, id: u64, asked: &Asked, repeats: Option<u64>) {
        match asked {
            Asked::Acquire(command) => {
                let asked = Acquiring {
                    lock_id: command.lock_id,
                    resources: command.want.resources().to_vec(),
                    is_any_of: matches!(&command.want, Want::AnyOf(each) if each.len() > 1),
                    mode: command.mode,
                    depth: command.depth,
                    has_holds: !command.holds.is_empty(),
                    wait_ms: command.wait_ms,
                    repeats,
                };
                self.judge.acquire_sent(id, asked);
            }
            Asked::Renew(command, lock) => self.judge.renewal_asked(id, *lock, command.ttl_ms),
            Asked::Release(_, lock) | Asked::Transfer(_, lock) | Asked::Break(_, lock) => {
                self.judge.end_asked(*lock);
            }
            Asked::LetGo(_)
            | Asked::Freeze(_)
            | Asked::Unfreeze(_)
            | Asked::Inspect(_)
            | Asked::Write { .. } => {}
        }
    }

    /// One call that has been woken goes on.
    fn go_on(&mut self) -> Verdict {
        let ready: Vec<u64> =
            self.calls.iter().filter(|(_, call)| call.is_ready()).map(|(id, _)| *id).collect();
        if ready.is_empty() {
            return Ok(());
        }
        let id = ready[self.rng.usize(..ready.len())];
        self.poll(id)
    }

    fn poll(&mut self, id: u64) -> Verdict {
        let Some(server) = &self.server else { return Ok(()) };
        let Some(call) = self.calls.get_mut(&id) else { return Ok(()) };
        let told = {
            // The guard starts a task for a write that is let through.
            let _runtime = server.runtime.enter();
            call.poll()
        };
        let Some(told) = told else { return Ok(()) };
        let Some(call) = self.calls.remove(&id) else { return Ok(()) };
        self.history.note(format_args!("call {id} is told: {}", told.name()));
        self.told(id, &call, told)
    }

    /// A step of the journal's thread.
    fn commit(&mut self) -> Verdict {
        if self.clock.monotonic() < self.stalled_until {
            return Ok(());
        }
        let Some(server) = &mut self.server else { return Ok(()) };
        server.stepped.commit();
        self.committed()
    }

    /// Looks at what became of a commit.
    fn committed(&mut self) -> Verdict {
        let failures = self.mount.disk().failures();
        if failures != std::mem::replace(&mut self.failures, failures) {
            self.judge.disk_failed();
        }
        if self.mount.disk().is_dead() {
            return Ok(());
        }
        let Some(server) = &mut self.server else { return Ok(()) };
        let serving = server.stepped.engine().is_serving();
        if serving != std::mem::replace(&mut server.was_serving, serving) {
            self.history.note(format_args!("serving: {serving}"));
            if serving {
                self.sample();
                self.judge.stood_still();
                self.judge.recovered();
            } else {
                // What failed may have come after a commit whose answers go out.
                self.read_log()?;
                self.judge.journal_failed();
            }
        }
        if serving { self.read_log() } else { Ok(()) }
    }

    /// Reads what is new in the durable log, and judges it.
    pub(super) fn read_log(&mut self) -> Verdict {
        let stored = self.stored(self.judge.trail.last()).map_err(unable)?;
        if !stored.is_empty() {
            self.history.note(format_args!("{} events are durable", stored.len()));
            self.judge.recovered();
        }
        self.judge.read(&stored)?;
        self.witness(&stored)
    }

    fn follow(&mut self) {
        if let Some(server) = &mut self.server {
            server.stepped.follow();
            // What fails there is no commit.
            self.failures = self.mount.disk().failures();
        }
    }

    /// Has the server's tasks go on until `until`.
    pub(super) fn drive(&mut self, until: impl Future<Output = ()>) {
        let Some(server) = &self.server else { return };
        let is_stalled = self.clock.monotonic() < self.stalled_until;
        self.alone.0.store(self.is_alone && !is_stalled, Ordering::Relaxed);
        server.runtime.block_on(until);
    }

    /// Looks whether the task that settles answers has committed, or tried to.
    fn look_for_commits(&mut self) -> Verdict {
        let Some(server) = &self.server else { return Ok(()) };
        let (durable, serving) = server.stepped.look(|look| (look.durable, look.is_serving));
        let has_failed = self.failures != self.mount.disk().failures();
        if has_failed || serving != server.was_serving || self.judge.trail.last() < durable {
            self.history.note(format_args!("the task that settles answers has made a commit"));
            return self.committed();
        }
        Ok(())
    }

    /// Lets the tasks of the server do what they can.
    pub(super) fn run_tasks(&mut self) -> Verdict {
        if self.mount.disk().is_dead() {
            return Ok(());
        }
        self.drive(async {
            for _ in 0..TURNS {
                tokio::task::yield_now().await;
            }
        });
        self.look_for_commits()?;
        let Some(server) = &self.server else { return Ok(()) };
        server.stepped.look(|look| self.judge.decided(look.gathered))?;
        for write in self.upstream.take_begun() {
            self.write_begun(write)?;
        }
        self.look_at_network()
    }

    /// Time goes by, and whoever sleeps wakes when it is time.
    fn pass_time(&mut self) -> Verdict {
        let now = self.clock.monotonic();
        let span = match self.rng.u8(0..8) {
            // Just to the next moment at which something is due, or right before and after it.
            0..3 => self.clock.next_wake().map_or(Duration::ZERO, |at| at.saturating_sub(now)),
            3 => {
                let next = self.clock.next_wake().unwrap_or(now).saturating_sub(now);
                next.saturating_sub(Duration::from_millis(1))
            }
            4 => Duration::from_micros(self.rng.u64(1..1_000)),
            5..7 => Duration::from_millis(self.rng.u64(1..100)),
            _ => Duration::from_millis(self.rng.u64(100..3_000)),
        };
        // Nobody sleeps while there is something to do.
        self.run_tasks()?;
        let until = now + span;
        self.history.note(format_args!("time passes until {until:?}"));
        while self.clock.monotonic() < until {
            let now = self.clock.monotonic();
            let next = self.next_moment(now, until);
            self.advance(next.saturating_sub(now))?;
            self.sample();
            self.run_tasks()?;
            if next == now {
                // Somebody is due who does not go on: time must not stand still for it.
                self.advance(Duration::from_millis(1))?;
            }
        }
        self.sample();
        Ok(())
    }

    /// The whole process stands still for a while.
    fn pause(&mut self) -> Verdict {
        let span = Duration::from_millis(self.rng.u64(10..15_000));
        self.history.note(format_args!("the process stands still for {span:?}"));
        self.advance(span)?;
        self.sample();
        self.judge.stood_still();
        self.run_tasks()
    }

    fn set_wall(&mut self) {
        if self.rng.bool() {
            let by = self.rng.i64(-100..=100);
            self.history.note(format_args!("the wall clock drifts by {by} ms a second"));
            self.clock.drift(by);
        } else {
            let by = self.rng.i64(-100_000..100_000);
            self.history.note(format_args!("the wall clock is set by {by} ms"));
            self.clock.jump(by);
        }
    }

    /// One client is alone, or is not any more, as far as the server knows.
    fn change_company(&mut self) {
        self.is_alone = self.rng.bool();
        self.history.note(format_args!("one client is alone: {}", self.is_alone));
    }

    /// A client goes away.
    fn leave(&mut self) {
        let ids: Vec<u64> = self.calls.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = ids[self.rng.usize(..ids.len())];
        self.history.note(format_args!("the client of call {id} goes away"));
        let Some(call) = self.calls.remove(&id) else { return };
        self.judge.left(id);
        self.lost(id, &call);
        self.break_off_body(id);
        // The rest of an answer that nobody takes is read by a task.
        let _runtime = self.server.as_ref().map(|server| server.runtime.enter());
        drop(call);
    }

    /// The answer of a call is lost: what it may have got is given back, unless it asks again.
    pub(super) fn lost(&mut self, id: u64, call: &Call) {
        if let Asked::Acquire(command) = &call.asked {
            self.judge.end_asked(command.lock_id);
            if command.idempotency.is_some() {
                let command = (**command).clone();
                self.clients[call.client].again.push(Again { call: id, command });
            }
        }
    }

    fn upstream_acts(&mut self) -> Verdict {
        if self.gateway.is_some() {
            return self.surroundings_act();
        }
        let writes: Vec<(u64, bool)> = self.upstream.underway(|underway| {
            underway.iter().map(|(id, write)| (*id, write.is_asked_for)).collect()
        });
        if writes.is_empty() {
            return Ok(());
        }
        let (write, is_asked_for) = writes[self.rng.usize(..writes.len())];
        let act = match self.rng.u8(0..8) {
            0 => Act::FailUnknown,
            1 => Act::Panic,
            2 => Act::Refuse,
            _ => Act::Apply,
        };
        if is_asked_for {
            let landed = self.rng.bool();
            self.history.note(format_args!("write {write}: landed: {landed}"));
            self.upstream.tell(write, landed);
        } else {
            self.history.note(format_args!("write {write}: {act:?}"));
            self.upstream.act(write, act);
        }
        if self.upstream.underway(|underway| !underway.contains_key(&write)) {
            self.judge.write_over(write);
        }
        if self.rng.bool() { self.run_tasks() } else { Ok(()) }
    }

    fn write_begun(&mut self, write: u64) -> Verdict {
        let begun = self.upstream.underway(|underway| {
            underway.get(&write).map(|each| (each.call, each.targets.clone(), each.admission))
        });
        let Some((call, targets, admission)) = begun else { return Ok(()) };
        let Some((tokens, client, failures)) = self.writes.get(&call).cloned() else {
            return Ok(());
        };
        self.history.note(format_args!("write {write} begins: call {call}, {targets:?}"));
        let begun = Begun {
            write,
            call,
            failures,
            targets,
            tokens,
            admission,
            by: self.clients[client].principal().clone(),
        };
        self.judge.write_begun(begun)
    }

    // ---- the disk ------------------------------------------------------------------------------

    fn harm_disk(&mut self) {
        let soon = Some(self.rng.u64(0..12));
        let disk = self.mount.disk();
        let faults = match self.rng.u8(0..6) {
            0 => Faults { broken: true, ..Faults::default() },
            1 => {
                let capacity = Some(disk.used() + self.rng.u64(0..20_000));
                Faults { capacity, ..Faults::default() }
            }
            2 => Faults { fail_read_after: soon, ..Faults::default() },
            3 => {
                let span = Duration::from_millis(self.rng.u64(100..5_000));
                self.stalled_until = self.clock.monotonic() + span;
                self.history.note(format_args!("the disk is slow for {span:?}"));
                return;
            }
            _ => Faults { fail_after: soon, ..Faults::default() },
        };
        self.history.note(format_args!("the disk: {faults:?}"));
        disk.set_faults(faults);
    }

    fn heal_disk(&mut self) {
        self.history.note(format_args!("the disk works"));
        self.mount.disk().set_faults(Faults::default());
    }

    fn die_soon(&mut self) {
        let after = self.rng.u64(0..12);
        // Now and then it has seen something fail just before.
        let fails = self.options.disk_fails && self.rng.bool();
        let fail_after = after.checked_sub(1).filter(|_| fails);
        let faults = Faults { die_after: Some(after), fail_after, ..Faults::default() };
        self.history.note(format_args!("the process dies: {faults:?}"));
        self.mount.disk().set_faults(faults);
    }

    // ---- rest ----------------------------------------------------------------------------------

    /// Everything that can be done is done, and what clients see is compared with the log.
    fn rest(&mut self) -> Verdict {
        self.run_tasks()?;
        for _ in 0..3 {
            self.commit()?;
            if self.mount.disk().is_dead() {
                return Ok(());
            }
            self.run_tasks()?;
            for id in self.calls.keys().copied().collect::<Vec<_>>() {
                if self.calls.get(&id).is_some_and(Call::is_ready) {
                    self.poll(id)?;
                }
            }
        }
        let Some(engine) = self.engine().cloned() else { return Ok(()) };
        if !engine.is_serving() || self.clock.monotonic() < self.stalled_until {
            return Ok(());
        }
        let mut list = Box::pin(engine.list(None, 1000, |_| true));
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(Ok((locks, _))) = list.as_mut().poll(&mut context) else {
            return Ok(());
        };
        drop(list);
        self.read_log()?;
        self.judge.listed(&locks)?;
        self.judge.at_rest()
    }
}
