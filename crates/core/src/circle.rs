//! Deadlocks: circles of waiters, found before they close.

use std::collections::BTreeMap;

use crate::command::Want;
use crate::ids::WaiterId;
use crate::obstacles::{Obstacle, Reach};
use crate::queue::Phase;
use crate::refusal::{COUNT_LIMIT, CircleStep};
use crate::table::LockTable;
use crate::time::Now;

/// How many edges a search for a circle follows at most: in a queue they grow with its square.
/// Those in a circle that is larger wait until their time is up.
const CIRCLE_LIMIT: usize = 50_000;

impl LockTable {
    /// The circle that a parked acquire closes, if it closes one.
    ///
    /// Edges lead from a waiter to every waiter that presented the token of a lock in its way, and
    /// to every earlier waiter in its way. An `any_of` has a way out and closes none.
    pub(crate) fn circle(&self, start: WaiterId, now: Now) -> Option<Vec<CircleStep>> {
        let mut came_from: BTreeMap<WaiterId, (WaiterId, CircleStep)> = BTreeMap::new();
        let mut to_visit = vec![start];
        let mut followed = 0;
        while let Some(waiter) = to_visit.pop() {
            let edges = self.waits_for(waiter, now);
            followed += edges.len();
            if followed > CIRCLE_LIMIT {
                return None;
            }
            for (next, step) in edges {
                if next == start {
                    let mut circle = vec![step];
                    let mut at = waiter;
                    while at != start {
                        let (before, step) = came_from.get(&at)?;
                        circle.push(step.clone());
                        at = *before;
                    }
                    circle.reverse();
                    return Some(circle);
                }
                if let std::collections::btree_map::Entry::Vacant(entry) = came_from.entry(next) {
                    entry.insert((waiter, step));
                    to_visit.push(next);
                }
            }
        }
        None
    }

    fn waits_for(&self, waiter: WaiterId, now: Now) -> Vec<(WaiterId, CircleStep)> {
        let mut edges = Vec::new();
        let Some(parked) = self.parked.get(&waiter) else { return edges };
        let several = parked.command.want.resources().len() > 1;
        if matches!(parked.phase, Phase::Claimed { .. })
            || (several && matches!(parked.command.want, Want::AnyOf(_)))
        {
            return edges;
        }
        let reach = Reach {
            mode: parked.command.mode,
            depth: parked.command.depth,
            ticket: Some(waiter),
            holds: &parked.holds,
        };
        let principal = &parked.command.caller.principal;
        for (&node, resource) in parked.nodes.iter().zip(parked.command.want.resources().iter()) {
            let place = self.place_of(node);
            let mut looked = 0;
            self.visit_obstacles(&place, reach, now, &mut |obstacle| {
                looked += 1;
                match obstacle {
                    Obstacle::Parked(other) => {
                        if let Some(behind) = self.parked.get(&other) {
                            let step = CircleStep {
                                waiter: principal.clone(),
                                resource: resource.clone(),
                                behind: behind.command.caller.principal.clone(),
                                lock_id: None,
                            };
                            edges.push((other, step));
                        }
                    }
                    Obstacle::Lock(idx) => {
                        let grant = self.state.slot(idx);
                        for &other in self.held_by_parked.get(&grant.lock_id).into_iter().flatten()
                        {
                            let step = CircleStep {
                                waiter: principal.clone(),
                                resource: resource.clone(),
                                behind: grant.holder.clone(),
                                lock_id: Some(grant.lock_id),
                            };
                            edges.push((other, step));
                        }
                    }
                    Obstacle::Freeze(_) => {}
                }
                looked < COUNT_LIMIT
            });
        }
        edges
    }
}
