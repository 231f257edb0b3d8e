//! `leasehold explain`.

use std::io::Write as _;

use crate::outcome::Failure;
use crate::output::stdout;

/// Prints what the catalogue says of a status or a problem.
pub(crate) fn run(what: &[String]) -> Result<(), Failure> {
    let text = leasehold_problems::explain(&what.join(" "))
        .map_err(|message| Failure::usage(vec![message]))?;
    let mut out = stdout();
    writeln!(out, "{}", text.trim_end())?;
    Ok(out.flush()?)
}
