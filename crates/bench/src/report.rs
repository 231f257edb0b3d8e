//! The report of a run: tables for a terminal, for a document, and for programs.

use serde::{Deserialize, Serialize};

use crate::figures::{Figures, Spread};

/// Everything that one call of the program measured.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Report {
    pub(crate) sections: Vec<Section>,
}

/// What one scenario measured.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Section {
    /// The name of the subcommand.
    pub(crate) scenario: String,
    /// What was done, with its sizes.
    pub(crate) about: String,
    pub(crate) rows: Vec<Row>,
    pub(crate) targets: Vec<Target>,
}

/// One server under one load.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Row {
    pub(crate) server: String,
    pub(crate) case: String,
    pub(crate) figures: Vec<Figure>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: Spread,
}

/// What a figure has to reach.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) measured: f64,
    pub(crate) bound: f64,
    pub(crate) direction: Direction,
}

/// On which side of its bound a figure has to be.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Direction {
    AtLeast,
    AtMost,
}

impl Target {
    pub(crate) fn at_least(what: &str, measured: f64, bound: f64) -> Self {
        Self { what: what.to_owned(), measured, bound, direction: Direction::AtLeast }
    }

    pub(crate) fn at_most(what: &str, measured: f64, bound: f64) -> Self {
        Self { what: what.to_owned(), measured, bound, direction: Direction::AtMost }
    }

    pub(crate) fn is_met(&self) -> bool {
        match self.direction {
            Direction::AtLeast => self.bound <= self.measured,
            Direction::AtMost => self.measured <= self.bound,
        }
    }

    pub(crate) fn text(&self) -> String {
        let word = match self.direction {
            Direction::AtLeast => "at least",
            Direction::AtMost => "at most",
        };
        let met = if self.is_met() { "met" } else { "MISSED" };
        let (measured, bound) = (number(self.measured), number(self.bound));
        format!("{}: {measured}, {word} {bound} wanted: {met}", self.what)
    }
}

impl Row {
    /// The medians of several runs, by name. A run that lacks a figure does not count for it.
    pub(crate) fn of_runs(server: &str, case: &str, runs: &[Figures]) -> Self {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in runs.iter().flatten() {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        let figures = names.into_iter().filter_map(|name| {
            let values = runs.iter().flatten().filter(|(other, _)| other == name);
            let value = Spread::of(values.map(|(_, value)| *value).collect())?;
            Some(Figure { name: name.to_owned(), value })
        });
        Self { server: server.to_owned(), case: case.to_owned(), figures: figures.collect() }
    }

    /// The median of a figure.
    pub(crate) fn median(&self, name: &str) -> Option<f64> {
        self.spread(name).map(|value| value.median)
    }

    fn spread(&self, name: &str) -> Option<Spread> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }
}

impl Section {
    /// The median of a figure of a server under a load.
    pub(crate) fn median(&self, server: &str, case: &str, name: &str) -> Option<f64> {
        self.rows
            .iter()
            .find(|row| row.server == server && row.case == case)
            .and_then(|row| row.median(name))
    }

    /// The names of all figures, in order of appearance.
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for figure in self.rows.iter().flat_map(|row| &row.figures) {
            if !names.contains(&figure.name.as_str()) {
                names.push(&figure.name);
            }
        }
        names
    }

    fn cells(&self, show: impl Fn(Spread) -> String) -> Vec<Vec<String>> {
        let names = self.names();
        let mut header = vec![String::new(), String::new()];
        header.extend(names.iter().map(|name| (*name).to_owned()));
        let rows = self.rows.iter().map(|row| {
            let mut cells = vec![row.server.clone(), row.case.clone()];
            cells.extend(names.iter().map(|name| row.spread(name).map_or(String::new(), &show)));
            cells
        });
        std::iter::once(header).chain(rows).collect()
    }

    /// For a terminal: medians, and in brackets the least and the greatest of the runs.
    pub(crate) fn text(&self) -> String {
        let cells = self.cells(|value| {
            let Spread { median, min, max } = value;
            if min < max {
                format!("{} ({}–{})", number(median), number(min), number(max))
            } else {
                number(median)
            }
        });
        let width = |column: usize| {
            cells.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..cells[0].len()).map(width).collect();
        let mut text = format!("{}: {}\n", self.scenario, self.about);
        for row in &cells {
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                text.push_str(&if column < 2 {
                    format!("{cell:<width$}  ")
                } else {
                    format!("{cell:>width$}  ")
                });
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        for target in &self.targets {
            text.push_str(&format!("  {}\n", target.text()));
        }
        text
    }

    /// For a document: a table of medians, and what was wanted.
    fn markdown(&self) -> String {
        let cells = self.cells(|value| number(value.median));
        let mut text = format!("### {}\n\n{}\n\n", self.scenario, self.about);
        for (number, row) in cells.iter().enumerate() {
            text.push_str(&format!("| {} |\n", row.join(" | ")));
            if number == 0 {
                text.push_str(&format!("|---|---|{}\n", "---:|".repeat(row.len() - 2)));
            }
        }
        if !self.targets.is_empty() {
            text.push('\n');
        }
        for target in &self.targets {
            text.push_str(&format!("- {}\n", target.text()));
        }
        text
    }
}

impl Report {
    /// Adds sections, and prints them: what comes next may take minutes.
    #[expect(clippy::print_stdout, reason = "it is what the program is for")]
    pub(crate) fn add(&mut self, sections: impl IntoIterator<Item = Section>) {
        for section in sections {
            println!("{}", section.text());
            self.sections.push(section);
        }
    }

    /// For a document.
    pub(crate) fn markdown(&self) -> String {
        let sections: Vec<String> = self.sections.iter().map(Section::markdown).collect();
        sections.join("\n")
    }
}

/// Three digits that mean something, and no digit of a whole number lost.
pub(crate) fn number(value: f64) -> String {
    if value.abs() >= 1000.0 {
        return grouped(value);
    }
    let decimals = match value.abs() {
        size if size == 0.0 || size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = if value < 0.0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section() -> Section {
        let rate = |value: f64| ("cycles/s".to_owned(), value);
        let floor = [vec![rate(100_000.0)], vec![rate(110_000.0)]];
        let server = [vec![rate(41_234.0), ("of floor %".to_owned(), 41.2)]];
        Section {
            scenario: "cycles".to_owned(),
            about: "acquire and release".to_owned(),
            rows: vec![
                Row::of_runs("floor", "64 clients", &floor),
                Row::of_runs("leasehold", "64 clients", &server),
            ],
            targets: vec![
                Target::at_least("of the floor, %", 41.2, 36.0),
                Target::at_most("bytes", 500.0, 450.0),
            ],
        }
    }

    #[test]
    fn a_number_keeps_three_digits_and_all_of_a_whole_number() {
        for (value, text) in [
            (0.0, "0"),
            (0.123, "0.12"),
            (2.0, "2"),
            (45.67, "45.7"),
            (100.4, "100"),
            (999.6, "1000"),
            (1_234.5, "1,234"),
            (1_000_000.0, "1,000,000"),
            (-12_345.0, "-12,345"),
        ] {
            assert_eq!(number(value), text, "{value}");
        }
    }

    #[test]
    fn a_table_has_a_column_for_each_figure_and_a_hole_where_there_is_none() {
        let expected = "\
cycles: acquire and release
                              cycles/s  of floor %
floor      64 clients  105,000 (100,000–110,000)
leasehold  64 clients                     41,234        41.2
  of the floor, %: 41.2, at least 36 wanted: met
  bytes: 500, at most 450 wanted: MISSED
";
        let squeeze = |text: &str| {
            text.lines()
                .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
                .collect::<Vec<_>>()
        };
        assert_eq!(squeeze(&section().text()), squeeze(expected));
        assert_eq!(
            section().markdown(),
            "### cycles\n\nacquire and release\n\n\
             |  |  | cycles/s | of floor % |\n|---|---|---:|---:|\n\
             | floor | 64 clients | 105,000 |  |\n\
             | leasehold | 64 clients | 41,234 | 41.2 |\n\n\
             - of the floor, %: 41.2, at least 36 wanted: met\n\
             - bytes: 500, at most 450 wanted: MISSED\n"
        );
    }

    #[test]
    fn a_report_is_the_same_after_a_way_through_json() {
        let report = Report { sections: vec![section()] };
        let json = serde_json::to_string(&report).unwrap();
        let read: Report = serde_json::from_str(&json).unwrap();
        assert_eq!(read.markdown(), report.markdown());
        assert_eq!(read.sections[0].text(), report.sections[0].text());
    }
}
