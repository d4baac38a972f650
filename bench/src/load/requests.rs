//! What the generator sends, and how it counts what comes back.

use super::Load;

const WORDS: [&str; 12] = [
    "alpha", "bravo", "carbon", "delta", "ember", "fjord", "gamma", "harbor", "indigo", "jungle",
    "kernel", "lumen",
];

/// What a body needs beside its text.
const FRAME: usize = 200;

/// All different requests of a load, head and body, ready for one write.
pub(super) fn build(load: &Load) -> Vec<Vec<u8>> {
    (0..load.pool.max(1)).map(|i| request(load, i)).collect()
}

fn request(load: &Load, index: usize) -> Vec<u8> {
    let body = body(load, index);
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\ncontent-type: application/json\r\naccept: */*\r\ncontent-length: {}\r\n\r\n",
        load.path,
        load.port,
        body.len()
    );
    let mut request = head.into_bytes();
    request.extend_from_slice(body.as_bytes());
    request
}

/// Half of the text is shared within a group, as a system prompt is, half is the request's own.
fn body(load: &Load, index: usize) -> String {
    let half = load.body.saturating_sub(FRAME) / 2;
    let shared = text(1000 + (index % load.groups.max(1)) as u64, half);
    let own = text(1_000_000 + index as u64, half);
    let model = &load.model;
    let stream = if load.stream { ",\"stream\":true" } else { "" };
    let content = if load.path.ends_with("/chat/completions") {
        format!(
            "\"messages\":[{{\"role\":\"system\",\"content\":\"{shared}\"}},{{\"role\":\"user\",\"content\":\"{own}\"}}]"
        )
    } else {
        format!("\"prompt\":\"{shared}{own}\"")
    };
    let mut body = format!(
        "{{\"model\":\"{model}\",{content},\"max_tokens\":100,\"temperature\":0.7{stream}}}"
    );
    // Trailing spaces are valid JSON; they bring the body to its exact size.
    let missing = load.body.saturating_sub(body.len());
    body.extend(std::iter::repeat_n(' ', missing));
    body
}

/// Words in an order that the seed fixes (Knuth's MMIX linear congruential generator).
fn text(mut seed: u64, len: usize) -> String {
    let mut text = String::with_capacity(len + 8);
    while text.len() < len {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        text.push_str(WORDS[(seed >> 33) as usize % WORDS.len()]);
        text.push(' ');
    }
    text.truncate(len);
    text
}

/// Counts server-sent events by the empty lines that end them, wherever the stream is cut.
#[derive(Default)]
pub(crate) struct EventCounter {
    line_ended: bool,
}

impl EventCounter {
    /// The events that end in this piece.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> u64 {
        let before = |i: usize| match i {
            0 => self.line_ended,
            _ => piece[i - 1] == b'\n',
        };
        let ended = memchr::memchr_iter(b'\n', piece)
            .filter(|&i| before(i))
            .count();
        self.line_ended = piece.last().map_or(self.line_ended, |&b| b == b'\n');
        ended as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_json_of_the_exact_size() {
        for (path, size) in [("/v1/chat/completions", 1024), ("/v1/completions", 65536)] {
            let load = Load {
                path: path.into(),
                body: size,
                stream: true,
                ..Load::default()
            };
            let body = body(&load, 7);
            assert_eq!(body.len(), size);
            let json: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(json["model"], "mock-model");
            assert_eq!(json["stream"], true);
        }
    }

    #[test]
    fn only_a_group_shares_its_first_half() {
        let load = Load {
            groups: 10,
            ..Load::default()
        };
        let start = |i: usize| body(&load, i)[..400].to_owned();
        assert_eq!(start(3), start(13));
        assert_ne!(start(3), start(4));
        assert_ne!(body(&load, 3), body(&load, 13));
    }

    #[test]
    fn events_are_counted_wherever_the_stream_is_cut() {
        let stream = b"data: a\n\ndata: b\n\ndata: [DONE]\n\n";
        for cut in 0..=stream.len() {
            let mut counter = EventCounter::default();
            let n = counter.feed(&stream[..cut]) + counter.feed(b"") + counter.feed(&stream[cut..]);
            assert_eq!(n, 3, "cut at {cut}");
        }
    }
}
