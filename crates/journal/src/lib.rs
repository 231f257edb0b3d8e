//! The durable log of events, and the follower that indexes it
