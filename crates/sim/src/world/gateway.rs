//! The steps of a history with a gateway: what the API and the network do, and when.

use std::time::Duration;

use leasehold_engine::Clock as _;
use leasehold_guard::body::{Body, empty, full};
use leasehold_guard::targets::by_head;
use leasehold_journal::log::Stored;

use super::World;
use crate::call::Asked;
use crate::gateway::Surroundings;
use crate::gateway::api::{Act, Exchange, Seen};
use crate::gateway::body::Flow;
use crate::gateway::network::{Cut, Reach};
use crate::gateway::witness::Says;
use crate::judge::{Begun, Verdict};

/// The longest that time passes at once while writes are on their way: the timers of the gateway
/// are not those of the simulation.
const SLICE: Duration = Duration::from_millis(100);

impl World {
    /// Time goes on, for everybody.
    pub(super) fn advance(&mut self, span: Duration) -> Verdict {
        self.clock.advance(span);
        if self.gateway.is_none() {
            return Ok(());
        }
        // What is due by now lands before anybody stops waiting for it.
        self.settle()?;
        self.drive(tokio::time::advance(span));
        Ok(())
    }

    /// Until when time may pass at once.
    pub(super) fn next_moment(&self, now: Duration, until: Duration) -> Duration {
        let next = self.clock.next_wake().map_or(until, |wake| wake.clamp(now, until));
        let Some(gateway) = &self.gateway else { return next };
        let slice = if gateway.api.exchanges().is_empty() { until } else { now + SLICE };
        gateway.next_moment(now).map_or(next, |moment| moment.min(next)).min(slice)
    }

    /// Writes land whose time has come, and others cannot any more.
    fn settle(&mut self) -> Verdict {
        let now = self.clock.monotonic();
        let Some(gateway) = &mut self.gateway else { return Ok(()) };
        let (landing, over) = gateway.api.due(now);
        for write in landing {
            self.landed(write)?;
        }
        for write in over {
            self.judge.write_over(write);
            if let Some(gateway) = &mut self.gateway {
                gateway.api.forget(write);
            }
        }
        Ok(())
    }

    fn landed(&mut self, write: u64) -> Verdict {
        let Some(gateway) = &self.gateway else { return Ok(()) };
        let Some(exchange) = gateway.api.exchanges().get(&write) else { return Ok(()) };
        self.history.note(format_args!("write {write} lands"));
        gateway.witness.landed(write, exchange)
    }

    /// Shows the witness what has become durable.
    pub(super) fn witness(&mut self, events: &[Stored]) -> Verdict {
        self.gateway.as_mut().map_or(Ok(()), |gateway| gateway.witness.read(events))
    }

    /// Looks at what the gateway has sent, and at the connections that have ended.
    pub(super) fn look_at_network(&mut self) -> Verdict {
        for seen in self.see() {
            match seen {
                Seen::Begun(write) => self.exchange_begun(write)?,
                Seen::Again(call) => {
                    if let Some(gateway) = &self.gateway {
                        gateway.witness.sent_again(call)?;
                    }
                }
                Seen::Lost(_) | Seen::Answered(_) => {}
            }
        }
        Ok(())
    }

    /// The same, without a judge.
    fn see(&mut self) -> Vec<Seen> {
        let Some(gateway) = &mut self.gateway else { return Vec::new() };
        let Surroundings { api, network, witness, .. } = gateway;
        let seen = api.look(network, &mut self.rng);
        for seen in &seen {
            match *seen {
                Seen::Begun(write) => {
                    if let Some(exchange) = api.exchange_mut(write)
                        && let Some((tokens, ..)) = self.writes.get(&exchange.call)
                    {
                        exchange.tokens.clone_from(tokens);
                    }
                }
                Seen::Lost(write) => {
                    self.history.note(format_args!("nobody will see the end of write {write}"));
                    if let Some(exchange) = api.exchanges().get(&write) {
                        let Exchange { call, targets, tokens, .. } = exchange;
                        witness.doubts(*call, targets, tokens, Says::Must);
                    }
                }
                Seen::Answered(call) => witness.knows(call),
                Seen::Again(_) => {}
            }
        }
        seen
    }

    fn exchange_begun(&mut self, write: u64) -> Verdict {
        let Some(gateway) = &self.gateway else { return Ok(()) };
        let Some(exchange) = gateway.api.exchanges().get(&write) else { return Ok(()) };
        let Some((tokens, client, failures)) = self.writes.get(&exchange.call).cloned() else {
            return Ok(());
        };
        let (call, targets) = (exchange.call, exchange.targets.clone());
        let by = exchange.connection;
        self.history.note(format_args!("write {write} is sent by {by}: call {call}, {targets:?}"));
        self.judge.write_begun(Begun {
            write,
            call,
            failures,
            targets,
            tokens,
            admission: gateway.witness.admission(exchange),
            by: self.clients[client].principal().clone(),
        })
    }

    /// The process has ended, and with it its connections.
    pub(super) fn gateway_ended(&mut self) {
        let now = self.clock.monotonic();
        let Some(gateway) = &mut self.gateway else { return };
        gateway.network.forget_closed();
        gateway.network.set_reach(Reach::Open);
        gateway.api.process_ended(now, &mut self.rng);
        gateway.bodies.clear();
    }

    /// What the process has sent until it ends.
    pub(super) fn look_once_more(&mut self) {
        self.see();
    }

    /// A write was refused before it was sent.
    pub(super) fn not_sent(&mut self, call: u64) {
        if let Some(gateway) = &mut self.gateway {
            gateway.witness.knows(call);
        }
    }

    /// The body of the write that a call is, if it is one.
    pub(super) fn body_of(&mut self, call: u64, asked: &Asked) -> Body {
        let Some(gateway) = &mut self.gateway else { return empty() };
        let Asked::Write { method, resource, .. } = asked else { return empty() };
        // Whether anything of it was written to a connection that has just ended, nobody can tell.
        gateway.witness.doubts(call, &by_head(method, resource, false), &[], Says::May);
        match self.rng.u8(0..8) {
            0..5 => empty(),
            5 => full("whole"),
            _ => {
                let (body, flow) = Flow::new();
                gateway.bodies.push((call, flow));
                body
            }
        }
    }

    /// The client of a call has gone, and sends no more.
    pub(super) fn break_off_body(&mut self, call: u64) {
        let Some(gateway) = &mut self.gateway else { return };
        let Some(at) = gateway.bodies.iter().position(|(other, _)| *other == call) else { return };
        let (_, flow) = gateway.bodies.swap_remove(at);
        flow.break_off();
    }

    /// The API, the network and clients that send bodies go on.
    pub(super) fn surroundings_act(&mut self) -> Verdict {
        for _ in 0..self.rng.u8(1..8) {
            match self.rng.u8(0..64) {
                0..3 => self.change_reach(),
                3 => self.close_idle(),
                4..20 => self.send_body(),
                _ => self.api_acts()?,
            }
        }
        if self.rng.bool() { self.run_tasks() } else { Ok(()) }
    }

    fn change_reach(&mut self) {
        let Some(gateway) = &self.gateway else { return };
        let reach = match self.rng.u8(0..4) {
            0 if gateway.network.reach() == Reach::Open => Reach::Refused,
            1 if gateway.network.reach() == Reach::Open => Reach::Silent,
            _ => Reach::Open,
        };
        self.history.note(format_args!("the API is {reach:?}"));
        gateway.network.set_reach(reach);
    }

    /// The API closes a connection that it has not been asked by for a while, it thinks.
    fn close_idle(&mut self) {
        let Some(gateway) = &self.gateway else { return };
        let mut idle = Vec::new();
        gateway.network.each(|id, connection| {
            if connection.cut.is_none() && gateway.api.is_idle(id) {
                idle.push(id);
            }
        });
        if idle.is_empty() {
            return;
        }
        let id = idle[self.rng.usize(..idle.len())];
        self.history.note(format_args!("the API closes the idle connection {id}"));
        gateway.network.cut(id, Cut::Closed);
    }

    fn send_body(&mut self) {
        let Some(gateway) = &mut self.gateway else { return };
        if gateway.bodies.is_empty() {
            return;
        }
        let at = self.rng.usize(..gateway.bodies.len());
        let (call, flow) = &gateway.bodies[at];
        if self.rng.bool() {
            self.history.note(format_args!("call {call} sends a piece of its body"));
            flow.send();
        } else {
            self.history.note(format_args!("call {call} has sent its body"));
            flow.end();
            gateway.bodies.swap_remove(at);
        }
    }

    fn api_acts(&mut self) -> Verdict {
        let Some(gateway) = &mut self.gateway else { return Ok(()) };
        let open = gateway.api.open();
        if open.is_empty() {
            return Ok(());
        }
        let write = open[self.rng.usize(..open.len())];
        let act = match self.rng.u8(0..16) {
            0..4 => Act::Land,
            4..9 => Act::Answer,
            9..12 => Act::AnswerInPart,
            12 | 13 => Act::Cut(Cut::Closed),
            14 => Act::Cut(Cut::Reset),
            _ => Act::Cut(Cut::Partition),
        };
        self.history.note(format_args!("write {write}: {act:?}"));
        let lands = gateway.api.act(write, act, &gateway.network);
        if gateway.api.is_over(write) {
            self.judge.write_over(write);
        }
        if lands { self.landed(write) } else { Ok(()) }
    }
}
