//! Several writes as one: all or none.
//!
//! The operations run in order in one savepoint, each on what the ones before it made. Each step
//! of wire.md section 3 is judged for all of them before the next, so a refusal does not end the
//! run at once: the others are still judged, and of all refusals the earliest step answers, then
//! the earliest operation. An operation on what a refused one was about is not judged, for it
//! would be judged on a state that nobody asked for.

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use leasehold_core::ids::Seq;
use leasehold_core::resource::Resource;
use leasehold_core::target::Target;
use leasehold_problems::Problem;
use rusqlite::Connection;

use super::Settings;
use super::answer;
use super::apply::{Applied, Step, apply};
use super::plan::{self, Plan};
use super::writer::Txn;

/// The most that the answers of one batch may take: each patch answers with its whole document.
const MAX_ANSWERS: usize = 64 << 20;

/// One operation of a batch, as it was sent.
#[derive(Clone, Debug)]
pub struct BatchOperation {
    /// Its method, its query, and its header fields.
    pub head: Parts,
    /// What it is about.
    pub resource: Resource,
    /// Its body.
    pub body: Bytes,
}

/// A batch that has been read and understood.
#[derive(Clone, Debug)]
pub struct BatchPlan {
    plans: Vec<Plan>,
    /// What it turned out to need when it was tried, because of its own earlier operations.
    needs: Vec<Target>,
}

/// How a batch ends that was not carried out.
pub enum BatchEnd {
    /// An operation, counted from 0, was refused, and none was applied.
    Refused(usize, Box<Problem>),
    /// None was applied: the batch changes more than it was let through for. The plan comes back
    /// and names its targets anew.
    Retarget(BatchPlan),
    /// Storage failed; no operation is to blame.
    Failed(Box<Problem>),
}

/// What the writer made of a batch.
pub(super) enum Carried {
    Done(Vec<Response<Bytes>>),
    Refused(usize, Box<Problem>),
    Retarget(BatchPlan),
}

impl BatchPlan {
    pub(super) fn read(
        settings: &Settings,
        operations: Vec<BatchOperation>,
    ) -> Result<Self, (usize, Box<Problem>)> {
        for (index, operation) in operations.iter().enumerate() {
            plan::check_head(&operation.head).map_err(|problem| (index, problem))?;
        }
        let plans = operations.into_iter().enumerate().map(|(index, operation)| {
            let BatchOperation { head, resource, body } = operation;
            Plan::read(settings, &head, resource, body).map_err(|problem| (index, problem))
        });
        Ok(Self { plans: plans.collect::<Result<_, _>>()?, needs: Vec::new() })
    }

    pub(super) fn needed(&self, connection: &Connection) -> rusqlite::Result<Vec<Target>> {
        let mut targets = self.needs.clone();
        for plan in &self.plans {
            targets.extend(plan.needed(connection)?);
        }
        Ok(once_each(targets))
    }

    pub(super) fn possible(&self) -> Vec<Target> {
        once_each(self.plans.iter().flat_map(Plan::possible).collect())
    }
}

fn once_each(targets: Vec<Target>) -> Vec<Target> {
    let mut seen = std::collections::HashSet::new();
    targets.into_iter().filter(|target| seen.insert(target.clone())).collect()
}

/// Carries a batch out, in the writer's transaction.
pub(super) fn carry_out(
    txn: &mut Txn<'_>,
    settings: &Settings,
    mut batch: BatchPlan,
    admitted: &[Target],
    admission: Option<Seq>,
) -> rusqlite::Result<Carried> {
    txn.connection.execute_batch("SAVEPOINT batch")?;
    let carried = run(txn, settings, &mut batch, admitted, admission)?;
    if !matches!(carried, Run::Done(_)) {
        txn.connection.execute_batch("ROLLBACK TO batch")?;
    }
    txn.connection.execute_batch("RELEASE batch")?;
    Ok(match carried {
        Run::Done(answers) => Carried::Done(answers),
        Run::Refused(index, problem) => Carried::Refused(index, problem),
        Run::Retarget => Carried::Retarget(batch),
    })
}

enum Run {
    Done(Vec<Response<Bytes>>),
    Refused(usize, Box<Problem>),
    Retarget,
}

fn run(
    txn: &mut Txn<'_>,
    settings: &Settings,
    batch: &mut BatchPlan,
    admitted: &[Target],
    admission: Option<Seq>,
) -> rusqlite::Result<Run> {
    let admitted: std::collections::HashSet<_> = admitted.iter().collect();
    let mut answers = Vec::with_capacity(batch.plans.len());
    let mut bytes = 0;
    let mut needs = Vec::new();
    let mut redrawn = false;
    let mut refused: Vec<Resource> = Vec::new();
    let mut first: Option<(Step, usize, Box<Problem>)> = None;
    for (index, plan) in batch.plans.iter_mut().enumerate() {
        let in_doubt =
            |other: &Resource| other.covers(&plan.resource) || plan.resource.covers(other);
        if refused.iter().any(in_doubt) {
            continue;
        }
        needs.extend(plan.needed(txn.connection)?);
        let applied = apply(txn, settings, plan, admission)?;
        let (step, problem) = match applied {
            Applied::Done(answer) => {
                bytes += answer.body().len();
                if bytes <= MAX_ANSWERS {
                    answers.push(answer);
                    continue;
                }
                // Nothing is gained by going on: those before it are not to be had either.
                let problem = answer::too_large("What the batch answers", MAX_ANSWERS);
                return Ok(Run::Refused(index, problem));
            }
            Applied::Redrawn(other) => {
                (*plan, redrawn) = (other, true);
                continue;
            }
            Applied::Refused(step, problem) => (step, problem),
        };
        refused.push(plan.resource.clone());
        if first.as_ref().is_none_or(|(earliest, _, _)| step < *earliest) {
            first = Some((step, index, problem));
        }
    }
    // Locks, step 3, come before any refusal of a later step.
    if redrawn || needs.iter().any(|target| !admitted.contains(target)) {
        batch.needs.extend(needs);
        batch.needs = once_each(std::mem::take(&mut batch.needs));
        return Ok(Run::Retarget);
    }
    Ok(match first {
        Some((_, index, problem)) => Run::Refused(index, problem),
        None => Run::Done(answers),
    })
}
