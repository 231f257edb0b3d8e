//! What stands behind the guard: the embedded documents
