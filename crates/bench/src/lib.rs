//! Load programs that measure the server beside a no-op floor
