//! Calls in tables: what a picker says, and what becomes of the request and of its answer.
