//! Every scenario, one after the other, in one report.

use super::{Plan, audit, contended, cycles, documents, expiry, gateway, handover, many, mix};
use crate::report::Report;

/// What is asked for.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    cycles: cycles::Options,
    #[command(flatten)]
    mix: mix::Options,
    #[command(flatten)]
    contended: contended::Options,
    #[command(flatten)]
    handover: handover::Options,
    #[command(flatten)]
    documents: documents::Options,
    #[command(flatten)]
    many: many::Options,
    #[command(flatten)]
    expiry: expiry::Options,
    #[command(flatten)]
    gateway: gateway::Options,
    #[command(flatten)]
    audit: audit::Options,
}

pub(crate) async fn measure(
    plan: &Plan,
    options: &Options,
    report: &mut Report,
) -> anyhow::Result<()> {
    report.add(cycles::measure(plan, &options.cycles).await?);
    report.add([mix::measure(plan, &options.mix).await?]);
    report.add([contended::measure(plan, &options.contended).await?]);
    report.add([handover::measure(plan, &options.handover).await?]);
    report.add([documents::measure(plan, &options.documents).await?]);
    report.add([many::measure(plan, &options.many).await?]);
    report.add([expiry::measure(plan, &options.expiry).await?]);
    report.add([gateway::measure(plan, &options.gateway).await?]);
    report.add([audit::measure(plan, &options.audit).await?]);
    Ok(())
}
