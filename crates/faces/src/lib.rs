//! The dialects: wire in, commands out, outcomes back to wire
