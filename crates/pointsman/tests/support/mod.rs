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
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

pub use client::{Opened, Reply, get, open, post, send};
pub use objects::{Folder, slice};
pub use process::{Check, Pointsman, Sim, check};
pub use server::{Answer, Asked, Server};

/// Longest wait for something that must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Ports that one process of tests has for itself.
const BLOCK: u16 = 100;

/// A port that nobody has. It lies below the range from which systems give ports to outgoing connections, so that no
/// connection takes it between here and its use; and in a block that this process holds by its first port, so that no
/// other process of tests takes it.
pub fn free_port() -> u16 {
    static HELD: OnceLock<TcpListener> = OnceLock::new();
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let held = HELD.get_or_init(|| {
        let start = std::process::id() % 200;
        (start..start + 200)
            .map(|turn| 12_000 + u16::try_from(turn % 200).unwrap() * BLOCK)
            .find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok())
            .expect("a free block of ports")
    });
    let first = held.local_addr().expect("bound").port();
    loop {
        let port = first + 1 + NEXT.fetch_add(1, Ordering::Relaxed) % (BLOCK - 1);
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
