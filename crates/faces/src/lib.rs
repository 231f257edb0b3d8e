//! The dialects: wire in, commands out, outcomes back to wire.
//!
//! One module a dialect. Deliberately absent: deciding anything about locks.
//!
//! And what a server of any dialect needs: what each request is called ([`request_id`]), what it is
//! by the rules ([`judge`]), and the trail ([`trail`]).

pub mod json_api;
pub mod judge;
pub mod request_id;
pub mod trail;
