//! What a start finds in a data folder, and what it does about it.
//!
//! [`classify`] is a pure function from the state of the files to one [`Case`]. The whole table;
//! `*` is any state, and the first line that fits decides:
//!
//! | `log.db` | `log.db-wal` | `index.db` | the rest | case |
//! |---|---|---|---|---|
//! | missing | absent | missing | new | `Create`: a new data folder |
//! | missing | `*` | `*` | `*` | `RefuseLost`: there was a log, so fences would start again |
//! | empty | `*` | missing | new | `Create`: a crash while the folder was made; nothing was acknowledged |
//! | empty | `*` | `*` | `*` | `RefuseLost` |
//! | damaged | `*` | `*` | `*` | `RefuseDamaged` |
//! | newer | `*` | `*` | `*` | `RefuseNewer` |
//! | usable | `*` | not looked at yet | `*` | `LookAtIndex` |
//! | usable | `*` | current | `*` | `UseIndex`: its rows are the table |
//! | usable | `*` | behind | `*` | `FoldTail`: its rows, then the events after them |
//! | usable | `*` | anything else | `*` | `RebuildIndex`: the base, then every event |
//!
//! The write-ahead file needs no case of its own beside a usable log: SQLite takes its committed
//! frames and drops what follows the first torn one, which was never acknowledged. What its
//! checksums cannot see, the chain over the last events does (the log is then damaged).
//! Of `documents.db`, which is another package's, only that it is there is looked at: it is made
//! after the log, and a restore puts it there before the log.

/// The state of `log.db`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogState {
    /// There is no such file.
    Missing,
    /// A file without a schema: it was being made.
    Empty,
    /// A log of a version that can be read.
    Usable,
    /// No log, a torn one, or one whose last events are no chain.
    Damaged,
    /// A log of a newer version.
    Newer,
}

/// Whether there is a `log.db-wal`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WalState {
    /// There is none, or one without any bytes.
    Absent,
    /// There is one.
    Present,
}

/// The state of `index.db`, as seen from the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IndexState {
    /// There is no such file.
    Missing,
    /// There is one, and it has not been looked at.
    Unread,
    /// Its rows are the fold up to the head.
    Current,
    /// Its rows are the fold up to an event that is still in the log, or is the last trimmed.
    Behind,
    /// Its rows end before the trail begins.
    BeforeTrim,
    /// Its rows have reached an event that the log does not have.
    Ahead,
    /// Its rows have reached an event that is another one in this log.
    Foreign,
    /// It cannot be read, or does not add up.
    Damaged,
    /// It is of another version.
    OtherVersion,
}

/// Whether the folder has something else that comes only after a log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RestState {
    /// Nothing: it may be a new folder.
    New,
    /// Documents, or half a restore.
    Used,
}

/// What is done at a start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Case {
    /// Make a new log.
    Create,
    /// Refuse: the log has gone.
    RefuseLost,
    /// Refuse: the log is damaged; a backup has to be restored.
    RefuseDamaged,
    /// Refuse: the log is of a newer version.
    RefuseNewer,
    /// Open the log, then look at the index.
    LookAtIndex,
    /// Take the rows of the index.
    UseIndex,
    /// Take the rows of the index and fold the events after them.
    FoldTail,
    /// Drop the index; take the base and fold every event of the log.
    RebuildIndex,
}

/// Which case the files are.
#[must_use]
pub fn classify(log: LogState, wal: WalState, index: IndexState, rest: RestState) -> Case {
    match (log, wal, index) {
        (LogState::Missing, WalState::Absent, IndexState::Missing)
        | (LogState::Empty, _, IndexState::Missing)
            if rest == RestState::New =>
        {
            Case::Create
        }
        (LogState::Missing | LogState::Empty, _, _) => Case::RefuseLost,
        (LogState::Damaged, _, _) => Case::RefuseDamaged,
        (LogState::Newer, _, _) => Case::RefuseNewer,
        (LogState::Usable, _, IndexState::Unread) => Case::LookAtIndex,
        (LogState::Usable, _, IndexState::Current) => Case::UseIndex,
        (LogState::Usable, _, IndexState::Behind) => Case::FoldTail,
        (
            LogState::Usable,
            _,
            IndexState::Missing
            | IndexState::BeforeTrim
            | IndexState::Ahead
            | IndexState::Foreign
            | IndexState::Damaged
            | IndexState::OtherVersion,
        ) => Case::RebuildIndex,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGS: [LogState; 5] =
        [LogState::Missing, LogState::Empty, LogState::Usable, LogState::Damaged, LogState::Newer];
    const RESTS: [RestState; 2] = [RestState::New, RestState::Used];
    const WALS: [WalState; 2] = [WalState::Absent, WalState::Present];
    const INDEXES: [IndexState; 9] = [
        IndexState::Missing,
        IndexState::Unread,
        IndexState::Current,
        IndexState::Behind,
        IndexState::BeforeTrim,
        IndexState::Ahead,
        IndexState::Foreign,
        IndexState::Damaged,
        IndexState::OtherVersion,
    ];

    /// The table of the module's documentation, written as independent conditions.
    fn cases(log: LogState, wal: WalState, index: IndexState, rest: RestState) -> Vec<Case> {
        let no_index = index == IndexState::Missing;
        let usable = log == LogState::Usable;
        let new = no_index
            && rest == RestState::New
            && (log == LogState::Empty || (log == LogState::Missing && wal == WalState::Absent));
        let lost = matches!(log, LogState::Missing | LogState::Empty) && !new;
        let bad = matches!(
            index,
            IndexState::Missing
                | IndexState::BeforeTrim
                | IndexState::Ahead
                | IndexState::Foreign
                | IndexState::Damaged
                | IndexState::OtherVersion
        );
        [
            (new, Case::Create),
            (lost, Case::RefuseLost),
            (log == LogState::Damaged, Case::RefuseDamaged),
            (log == LogState::Newer, Case::RefuseNewer),
            (usable && index == IndexState::Unread, Case::LookAtIndex),
            (usable && index == IndexState::Current, Case::UseIndex),
            (usable && index == IndexState::Behind, Case::FoldTail),
            (usable && bad, Case::RebuildIndex),
        ]
        .into_iter()
        .filter_map(|(holds, case)| holds.then_some(case))
        .collect()
    }

    #[test]
    fn every_combination_of_files_is_exactly_one_case() {
        for log in LOGS {
            for wal in WALS {
                for index in INDEXES {
                    for rest in RESTS {
                        assert_eq!(
                            cases(log, wal, index, rest),
                            [classify(log, wal, index, rest)],
                            "{log:?} {wal:?} {index:?} {rest:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_log_that_was_ever_used_is_never_started_anew() {
        for wal in WALS {
            for index in INDEXES {
                for log in LOGS {
                    let fresh = classify(log, wal, index, RestState::New) == Case::Create;
                    assert!(!fresh || index == IndexState::Missing, "{log:?} {wal:?} {index:?}");
                    assert!(!fresh || matches!(log, LogState::Missing | LogState::Empty));
                    assert_ne!(classify(log, wal, index, RestState::Used), Case::Create);
                }
            }
        }
    }
}
