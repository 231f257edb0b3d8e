//! `leasehold rules check`.

use std::io::{self, IsTerminal as _, Write as _};

use leasehold_server::Config;
use leasehold_server::rules_check::{Verdict, check};
use serde_json::json;

use crate::args::{RulesCheckArgs, RulesCommand};
use crate::outcome::Failure;
use crate::output::{plain, stdout, table};

pub(crate) fn run(command: RulesCommand) -> Result<(), Failure> {
    let RulesCommand::Check(args) = command;
    let config = Config::load(&args.serve)
        .map_err(|errors| Failure::usage(errors.0.iter().map(ToString::to_string).collect()))?;
    let verdicts = verdicts(&config, &args)?;
    let is_human = args.output.human || (!args.output.json && io::stdout().is_terminal());
    let rules = config.rules.count();
    let mut out = stdout();
    if !is_human {
        writeln!(out, "{}", json!({ "rules": rules, "requests": verdicts }))?;
    } else if verdicts.is_empty() {
        let plural = if rules == 1 { "" } else { "s" };
        writeln!(out, "{rules} rule{plural}, no mistake")?;
    } else {
        write!(out, "{}", shown(&verdicts))?;
    }
    Ok(out.flush()?)
}

fn verdicts(config: &Config, args: &RulesCheckArgs) -> Result<Vec<Verdict>, Failure> {
    let mut verdicts = Vec::new();
    for request in args.requests.chunks(2) {
        let [method, url] = request else {
            let line =
                format!("`{}` is no request: give a method and a URL each", request.concat());
            return Err(Failure::usage(vec![line]));
        };
        let verdict = check(config, method, url);
        verdicts.push(verdict.map_err(|line| Failure::usage(vec![line]))?);
    }
    Ok(verdicts)
}

/// One request a line.
fn shown(verdicts: &[Verdict]) -> String {
    let cells = |cells: [&str; 6]| cells.map(str::to_owned).to_vec();
    let mut rows = vec![cells(["METHOD", "URL", "RULE", "DECISION", "RESOURCE", "NOTES"])];
    for verdict in verdicts {
        let rule = match verdict.rule {
            0 => "defaults".to_owned(),
            number => number.to_string(),
        };
        rows.push(vec![
            plain(&verdict.method),
            plain(&verdict.url),
            rule,
            decision(verdict),
            verdict.resource.clone().unwrap_or_else(|| "-".to_owned()),
            notes(verdict),
        ]);
    }
    table(&rows)
}

fn decision(verdict: &Verdict) -> String {
    match &verdict.refusal {
        Some(refusal) => format!("{} {}", refusal.status, refusal.name),
        None => match verdict.decision {
            "own" => "the server's own".to_owned(),
            "lock" => "lock endpoint".to_owned(),
            other => other.to_owned(),
        },
    }
}

fn notes(verdict: &Verdict) -> String {
    if let Some(refusal) = &verdict.refusal {
        return refusal.detail.clone();
    }
    let mut notes = Vec::new();
    if verdict.lockable == Some(false) {
        notes.push("not lockable".to_owned());
    }
    if verdict.precondition_required {
        notes.push("needs a token or a precondition".to_owned());
    }
    let covered: Vec<String> = verdict
        .tokens_of
        .iter()
        .map(|covered| match covered.what {
            "members" => format!("the list of children of {}", covered.resource),
            "subtree" => format!("{} and all below", covered.resource),
            _ => covered.resource.clone(),
        })
        .collect();
    if !covered.is_empty() {
        notes.push(format!("needs the tokens of locks on {}", covered.join(", ")));
    }
    notes.join("; ")
}
