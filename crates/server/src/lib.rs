//! Configuration, identity, routes, listener, shutdown, metrics
