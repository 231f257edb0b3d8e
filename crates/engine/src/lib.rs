//! The one writer: runs commands through the core, groups commits, answers when durable
