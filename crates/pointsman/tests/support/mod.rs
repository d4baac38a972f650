//! The product from the outside: the real binary on loopback, small servers behind it, a plain client before it.
//!
//! Nothing here knows the product's code. Every wait is for a condition, with a bound that only a broken product
//! reaches; every process and server ends with its guard.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each file of tests uses a part"
)]

pub mod client;
pub mod objects;
pub mod process;
pub mod server;

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use client::{Reply, get, open, post, send};
pub use objects::{Folder, slice};
pub use process::{Check, Pointsman, Sim, check};
pub use server::{Answer, Asked, Server};

/// Longest wait for something that must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A port that nobody has. It lies below the range from which systems give ports to outgoing connections, so that no
/// connection takes it between here and its use.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let turn = std::process::id() * 97 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + u16::try_from(turn % 20_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Asks until the answer is there, which it must be soon.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A chat request for a model.
pub fn chat(model: &str) -> String {
    format!(
        r#"{{"model":"{model}","messages":[{{"role":"user","content":"hello"}}],"max_tokens":4}}"#
    )
}

/// The path of chat requests.
pub const CHAT: &str = "/v1/chat/completions";
