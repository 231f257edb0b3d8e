//! `leasehold token-key rotate`.

use leasehold_server::config::units;
use leasehold_server::token_key::rotate;

use crate::args::TokenKeyCommand;
use crate::outcome::Failure;
use crate::output::say;

pub(crate) fn run(command: TokenKeyCommand) -> Result<(), Failure> {
    let TokenKeyCommand::Rotate { keep, data } = command;
    let id = rotate(&data.folder, keep).map_err(|error| Failure::because(&error, ""))?;
    say(&format!(
        "Secret {id} makes tokens from now on; those made before it work for {} more,\n\
         or until the next start or SIGHUP after that. A running server takes it on SIGHUP.",
        units::show(keep)
    ));
    Ok(())
}
