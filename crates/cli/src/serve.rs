//! `leasehold serve`.

use leasehold_server::{Config, ServeArgs};

use crate::outcome::Failure;

/// Runs the server until it is told to stop.
pub(crate) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let config = Config::load(args)
        .map_err(|errors| Failure::usage(errors.0.iter().map(ToString::to_string).collect()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::because(&error, ""))?;
    runtime
        .block_on(leasehold_server::serve(config))
        // With all its causes, in one line.
        .map_err(|error| Failure::failed(format!("{error:#}")))
}
