//! What of a report is told first: the few figures for a reader in a hurry, beside the floor and
//! the peer, and which targets are met.

use crate::report::{Report, Row, number};

/// One line of the short table. Without a case, the first row that has the figure counts.
struct Headline {
    what: &'static str,
    scenario: &'static str,
    case: Option<&'static str>,
    figure: &'static str,
}

const fn line(
    what: &'static str,
    scenario: &'static str,
    case: Option<&'static str>,
    figure: &'static str,
) -> Headline {
    Headline { what, scenario, case, figure }
}

const HEADLINES: [Headline; 20] = [
    line("durable cycles/s", "cycles", Some("1 client"), "cycles/s"),
    line("durable cycles/s", "cycles", Some("16 clients"), "cycles/s"),
    line("durable cycles/s", "cycles", Some("64 clients"), "cycles/s"),
    line("durable cycles/s", "cycles", Some("256 clients"), "cycles/s"),
    line("a cycle's median, µs", "cycles", Some("1 client"), "cycle p50 µs"),
    line("an acquire's 99th percentile, µs", "cycles", Some("64 clients"), "acquire p99 µs"),
    line("server CPU seconds per 100,000 cycles", "cycles", Some("64 clients"), "CPU s/100k"),
    line("requests/s, nine in ten renewals", "mix", None, "requests/s"),
    line("fail-fast attempts/s", "contended", None, "attempts/s"),
    line("hand-overs/s", "handover", None, "hand-overs/s"),
    line("document reads/s", "documents", Some("GET"), "requests/s"),
    line("document writes/s", "documents", Some("PUT with If-Match"), "requests/s"),
    line("document writes/s", "documents", Some("PUT under a lock"), "requests/s"),
    line("bytes of memory for each lock", "many", None, "RSS bytes each"),
    line("seconds until ready after a kill", "many", None, "ready after kill s"),
    line("cycles/s beside them, % of an empty table's", "many", None, "of an empty table %"),
    line("ms until the last is free", "expiry", None, "free after deadline max ms"),
    line("p99 of other cycles meanwhile, ms", "expiry", None, "cycle p99 ms meanwhile"),
    line("ms for a question to a long trail", "audit", Some("by resource, newest first"), "p50 ms"),
    line("ms for a question to a long trail", "audit", Some("by lock_id"), "p50 ms"),
];

/// The columns: what a server is called in a report, and in the table.
const COLUMNS: [(&str, &str); 3] =
    [("leasehold", "Leasehold"), ("floor", "no-op floor"), ("redis", "Redis, always fsync")];

/// A short table for the README.
pub(crate) fn readme(report: &Report) -> String {
    let known = |server: &str| {
        let mut rows = report.sections.iter().flat_map(|section| &section.rows);
        rows.any(|row| row.server == server)
    };
    let columns: Vec<_> = COLUMNS.into_iter().filter(|(server, _)| known(server)).collect();
    let mut text = String::from("| |");
    columns.iter().for_each(|(_, name)| text.push_str(&format!(" {name} |")));
    text.push_str("\n|---|");
    columns.iter().for_each(|_| text.push_str("---:|"));
    text.push('\n');
    for headline in &HEADLINES {
        let found: Vec<Option<&Row>> =
            columns.iter().map(|(server, _)| row(report, headline, server)).collect();
        let Some(case) = found.iter().flatten().map(|row| &row.case).next() else { continue };
        text.push_str(&format!("| {}: {case} |", headline.what));
        for row in found {
            let value = row.and_then(|row| row.median(headline.figure));
            text.push_str(&format!(" {} |", value.map_or(String::new(), number)));
        }
        text.push('\n');
    }
    text
}

fn row<'a>(report: &'a Report, headline: &Headline, server: &str) -> Option<&'a Row> {
    let sections = report.sections.iter().filter(|section| section.scenario == headline.scenario);
    sections.flat_map(|section| &section.rows).find(|row| {
        row.server == server
            && headline.case.is_none_or(|case| row.case == case)
            && row.median(headline.figure).is_some()
    })
}

/// Every target, and how many are met.
pub(crate) fn targets(report: &Report) -> String {
    let mut text = String::from("targets:\n");
    let (mut met, mut all) = (0, 0);
    for section in &report.sections {
        for target in &section.targets {
            text.push_str(&format!("  {}: {}\n", section.scenario, target.text()));
            met += usize::from(target.is_met());
            all += 1;
        }
    }
    text.push_str(&format!("{met} of {all} are met\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Section, Target};

    fn report() -> Report {
        let figures = |value| vec![vec![("cycles/s".to_owned(), value)]];
        Report {
            sections: vec![Section {
                scenario: "cycles".to_owned(),
                about: String::new(),
                rows: vec![
                    Row::of_runs("floor", "64 clients", &figures(100_000.0)),
                    Row::of_runs("leasehold", "64 clients", &figures(40_000.0)),
                    Row::of_runs("leasehold", "256 clients", &figures(50_000.0)),
                ],
                targets: vec![
                    Target::at_least("%", 40.0, 36.0),
                    Target::at_most("times the CPU", 4.0, 3.3),
                ],
            }],
        }
    }

    #[test]
    fn the_short_table_has_the_lines_and_columns_that_were_measured() {
        assert_eq!(
            readme(&report()),
            "| | Leasehold | no-op floor |\n|---|---:|---:|\n\
             | durable cycles/s: 64 clients | 40,000 | 100,000 |\n\
             | durable cycles/s: 256 clients | 50,000 |  |\n"
        );
    }

    #[test]
    fn targets_are_judged_and_counted() {
        assert_eq!(
            targets(&report()),
            "targets:\n  cycles: %: 40, at least 36 wanted: met\n  \
             cycles: times the CPU: 4, at most 3.3 wanted: MISSED\n1 of 2 are met\n"
        );
    }
}
