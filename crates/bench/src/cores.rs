//! Which core the load runs on, and which the server.

use crate::target::Target;

/// As long as this lives, the thread that serves is on the first core and the load, the thread that
/// has made this, on the last.
pub(crate) struct Bound(
    /// Where the load was before: what it starts later must be as free as before.
    #[cfg(target_os = "linux")]
    rustix::thread::CpuSet,
);

#[cfg(target_os = "linux")]
impl Bound {
    pub(crate) fn new(target: &Target) -> anyhow::Result<Self> {
        use anyhow::{Context, bail};
        use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

        let free = sched_getaffinity(None).context("cannot tell the cores")?;
        let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| free.is_set(*core)).collect();
        let [first, .., last] = cores[..] else { bail!("`--bound` needs two cores") };
        let only = |core| {
            let mut set = CpuSet::new();
            set.set(core);
            set
        };
        // Of the server its first thread: the one that serves, in each of those that are measured
        // (in Leasehold up to three cores; with more it has others for that). The rest stays free.
        let server = i32::try_from(target.id()).ok().and_then(Pid::from_raw);
        let server = server.context("the server has no process")?;
        sched_setaffinity(Some(server), &only(first)).context("cannot bind the server")?;
        sched_setaffinity(None, &only(last)).context("cannot bind the load")?;
        Ok(Self(free))
    }
}

#[cfg(target_os = "linux")]
impl Drop for Bound {
    fn drop(&mut self) {
        // What it was given before it may have again.
        let _ = rustix::thread::sched_setaffinity(None, &self.0);
    }
}

#[cfg(not(target_os = "linux"))]
impl Bound {
    pub(crate) fn new(_: &Target) -> anyhow::Result<Self> {
        anyhow::bail!("`--bound` is for Linux")
    }
}
