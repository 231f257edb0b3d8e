//! `leasehold backup` and `leasehold restore`.

use std::io::Write as _;

use leasehold_journal::backup::{self, BackupError, BackupReport, DOCUMENTS_FILE};
use leasehold_journal::log::hex;

use crate::args::{BackupArgs, RestoreArgs};
use crate::outcome::Failure;
use crate::output::{say, stdout};

pub(crate) fn backup(args: &BackupArgs) -> Result<(), Failure> {
    let folder = &args.data.folder;
    let documents = folder.join(DOCUMENTS_FILE);
    let documents = documents.exists().then_some(documents.as_path());
    let report = backup::backup(folder, documents, &args.file, args.include_token_key)
        .map_err(|error| failure(&error))?;
    say(&format!("Wrote {}: {}", args.file.display(), contents(&report)));
    print_head(&report)
}

pub(crate) fn restore(args: &RestoreArgs) -> Result<(), Failure> {
    let report = backup::restore(&args.file, &args.data.folder).map_err(|error| failure(&error))?;
    say(&format!("Restored {}: {}", args.data.folder.display(), contents(&report)));
    print_head(&report)
}

fn contents(report: &BackupReport) -> String {
    format!(
        "{}, {} bytes. Its head, for `leasehold audit verify --head`:",
        report.files.join(", "),
        report.bytes
    )
}

fn print_head(report: &BackupReport) -> Result<(), Failure> {
    let mut out = stdout();
    writeln!(out, "{}:{}", report.head.seq, hex(&report.head.hash))?;
    Ok(out.flush()?)
}

fn failure(error: &BackupError) -> Failure {
    let hint = match error {
        BackupError::NotEmpty { .. } => "name a new folder with --data",
        BackupError::NotABackup { .. } | BackupError::Log(_) => "try another backup",
        BackupError::Store(_) => "check the paths, the space and the permissions",
    };
    Failure::because(error, hint)
}
