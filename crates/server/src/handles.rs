//! How many files and connections the process may have open.
//!
//! Where connections could take every handle, the log could not be opened again after a failed
//! commit, and nothing would work until they go by themselves. So some are kept from them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is kept for everything but connections: databases with their readers, sockets, and those
/// that are turned away.
pub(crate) const KEPT: u64 = 192;

/// Raises the process's own limit as far as it may, and says how many connections it has room for,
/// `wanted` at most.
pub(crate) fn room_for(wanted: usize) -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // None: there is no limit.
    let needed = (wanted as u64).saturating_add(KEPT);
    let Some(current) = current.filter(|current| *current < needed) else { return wanted };
    let raised = maximum.map_or(needed, |maximum| maximum.min(needed));
    let current = match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }) {
        Ok(()) => raised,
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of open files");
            current
        }
    };
    let room = connections(current).min(wanted as u64);
    usize::try_from(room).unwrap_or(wanted)
}

/// How many connections there are within a limit of `handles`.
fn connections(handles: u64) -> u64 {
    // Of few handles, half.
    handles.saturating_sub(KEPT).max(handles / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::connections;

    #[test]
    fn some_handles_are_kept_from_connections_and_there_is_always_room_for_one() {
        for (handles, expected) in [(0, 1), (1, 1), (128, 64), (1024, 832), (20_192, 20_000)] {
            assert_eq!(connections(handles), expected, "{handles}");
        }
    }
}
