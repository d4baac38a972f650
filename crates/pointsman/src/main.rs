//! The inference gateway.
fn main() {}
