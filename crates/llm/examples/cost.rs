//! What reading a request and watching an answer cost: microseconds, least of many rounds.
//!
//! `cargo run --release -p llm --example cost`

use std::hint::black_box;
use std::time::{Duration, Instant};

use llm::{ChainSeed, Dialect, ResponseScanner, read};

/// A chat of about `bytes` bytes in messages of about 2 KB; with `escapes`, a line end every twelve words.
fn chat(bytes: usize, escapes: bool) -> Vec<u8> {
    let mut body = String::from(r#"{"model":"llama","stream":true,"messages":["#);
    let mut words = 0_usize;
    while body.len() < bytes.saturating_sub(200) {
        if words > 0 {
            body.push(',');
        }
        body.push_str(r#"{"role":"user","content":""#);
        let end = bytes.min(body.len() + 2048);
        while body.len() < end {
            words += 1;
            body.push_str(
                ["the ", "switch ", "of ", "points "]
                    .get(words % 4)
                    .unwrap_or(&""),
            );
            if escapes && words.is_multiple_of(12) {
                body.push_str("\\n");
            }
        }
        body.push_str("\"}");
    }
    body.push_str("]}");
    body.into_bytes()
}

fn least(mut work: impl FnMut()) -> f64 {
    let mut least = Duration::MAX;
    for _ in 0..2000 {
        let start = Instant::now();
        work();
        least = least.min(start.elapsed());
    }
    least.as_secs_f64() * 1e6
}

fn request(name: &str, body: &[u8]) {
    let parse = least(|| {
        drop(black_box(read(
            Dialect::ChatCompletions,
            None,
            black_box(body),
        )));
    });
    let both = least(|| {
        if let Ok(view) = read(Dialect::ChatCompletions, None, black_box(body)) {
            black_box(view.prompt.chain(&ChainSeed {
                model: "llama",
                cache_salt: None,
            }));
        }
    });
    println!(
        "{name:24} {:6} bytes  parse {parse:7.2} us  parse + chain {both:7.2} us",
        body.len()
    );
}

fn stream() {
    let event = concat!(
        r#"data: {"id":"cmpl-b8f0df93096cab2f","object":"text_completion","created":1795225424,"model":"tiny","choices":"#,
        r#"[{"index":0,"text":" under","logprobs":null,"finish_reason":null,"stop_reason":null}],"#,
        r#""usage":{"prompt_tokens":6,"total_tokens":7,"completion_tokens":1}}"#,
        "\n\n",
    );
    let mut scanner = ResponseScanner::new(Dialect::Completions, Some("text/event-stream"), 200);
    let cost = least(|| {
        for _ in 0..16 {
            black_box(scanner.feed(black_box(event.as_bytes())));
        }
    });
    println!(
        "{:24} {:6} bytes  scan  {:7.3} us",
        "stream event",
        event.len(),
        cost / 16.0
    );
}

fn main() {
    request("1 KB", &chat(1024, false));
    request("64 KB", &chat(65_536, false));
    request("64 KB with escapes", &chat(65_536, true));
    stream();
}
