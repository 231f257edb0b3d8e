//! What may happen, as data: small numbers that pick from what is there when the step is taken, so
//! that a shorter history still makes sense.

#![expect(missing_docs, reason = "the members are those of the commands, which say what they mean")]

/// One step: time passes, the table may tick, and one thing happens.
#[derive(Clone, Debug)]
pub struct Step {
    pub passes_ms: u64,
    /// How much a tick before the command may do; none: there is no tick.
    pub budget: Option<usize>,
    /// Whether everything so far becomes durable first.
    pub settles: bool,
    pub what: What,
}

/// A token: of the how many-th newest grant, or a false one.
#[derive(Clone, Copy, Debug)]
pub enum Pick {
    Newest(usize),
    WrongFence(usize),
    Forged,
}

/// What happens, in numbers.
#[derive(Clone, Debug)]
pub enum What {
    Nothing,
    Acquire {
        who: usize,
        resources: Vec<usize>,
        any_of: bool,
        shared: bool,
        depth_0: bool,
        ttl_ms: Option<u64>,
        wait_ms: u64,
        key: Option<usize>,
        holds: Vec<Pick>,
        hold_ms: Option<u64>,
    },
    Renew {
        who: Option<usize>,
        token: Pick,
        ttl_ms: Option<u64>,
        elsewhere: Option<usize>,
    },
    Release {
        who: Option<usize>,
        token: Pick,
    },
    Transfer {
        who: Option<usize>,
        token: Pick,
        to: usize,
    },
    Request {
        who: usize,
        resource: usize,
    },
    Break {
        resource: usize,
        named: Option<Pick>,
        grace_ms: u64,
    },
    Freeze {
        resource: usize,
        for_ms: u64,
    },
    Unfreeze {
        resource: usize,
    },
    /// Targets are a resource and which part of it.
    Write {
        who: Option<usize>,
        targets: Vec<(usize, u8)>,
        tokens: Vec<Pick>,
        at_lock: bool,
    },
    Complete {
        pick: usize,
        sent: bool,
    },
    /// Nobody will say how a write ended.
    Vanish {
        pick: usize,
    },
    /// One of the newest acquires with a key, sent again.
    Again {
        pick: usize,
        wait_ms: u64,
    },
    Leave {
        pick: usize,
    },
    Undelivered {
        pick: usize,
    },
    Reload,
    /// The process ends and another begins, which does not know what was on its way.
    Crash {
        recovers_ms: u64,
    },
}
