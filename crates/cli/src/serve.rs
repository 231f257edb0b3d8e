//! `leasehold serve`.

use leasehold_server::{Config, ServeArgs};
use tokio::runtime::Builder;

use crate::outcome::Failure;

/// Runs the server until it is told to stop.
pub(crate) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let config = Config::load(args)
        .map_err(|errors| Failure::usage(errors.0.iter().map(ToString::to_string).collect()))?;
    let runtime = runtime().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::because(&error, ""))?;
    runtime
        .block_on(leasehold_server::serve(config))
        // With all its causes, in one line.
        .map_err(|error| Failure::failed(format!("{error:#}")))
}

/// Half of the cores serve requests; the journal, the index and the documents have threads of
/// their own. With one thread there is no hand-off between threads: on two cores that does more
/// than a second thread.
fn runtime() -> Builder {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if cores <= 2 {
        return Builder::new_current_thread();
    }
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(cores / 2);
    builder
}
