//! The client: one streamed request over HTTP, and what came of it.
//!
//! Nothing here knows the gateway from the inside. Why a request went where it went stands in the answer's
//! `x-pointsman-decision`, because the request asked with `x-pointsman-explain: 1`, as any client may.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pooled;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::decision::Decision;

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The whole stream came.
    Answered(Box<Answered>),
    /// Refused with 429, to be asked again later.
    Shed {
        /// `error.code`.
        code: String,
        /// Seconds.
        retry_after: u64,
    },
    /// Anything else: the demo has failed.
    Failed(String),
}

/// A request that was answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answered {
    /// The server's name.
    pub(crate) server: String,
    /// From the moment at which it should have been sent to the first word.
    pub(crate) ttft: Duration,
    /// As the server counted them.
    pub(crate) prompt_tokens: u64,
    /// Of those, found in its prefix cache.
    pub(crate) cached_tokens: u64,
    /// The gateway's reasons.
    pub(crate) decision: Decision,
}

/// A client with a pool of connections.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: Pooled<HttpConnector, Full<Bytes>>,
    url: String,
}

impl Client {
    pub(crate) fn new(gateway: SocketAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = Pooled::builder(TokioExecutor::new()).build(connector);
        Self {
            http,
            url: format!("http://{gateway}/v1/chat/completions"),
        }
    }

    /// Asks; `due` is when the request should have been sent, so that a late sender does not flatter anybody.
    pub(crate) async fn ask(&self, due: Instant, body: Bytes) -> Outcome {
        self.exchange(due, body)
            .await
            .unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")))
    }

    async fn exchange(&self, due: Instant, body: Bytes) -> anyhow::Result<Outcome> {
        let request = Request::post(&self.url)
            .header(CONTENT_TYPE, "application/json")
            .header("x-pointsman-explain", "1")
            .body(Full::new(body))?;
        let response = self.http.request(request).await.context("no answer")?;
        match response.status() {
            StatusCode::OK => read_stream(due, response).await,
            StatusCode::TOO_MANY_REQUESTS => read_refusal(response).await,
            status => {
                let body = response
                    .into_body()
                    .collect()
                    .await
                    .context("a broken error")?
                    .to_bytes();
                bail!("status {status}: {}", String::from_utf8_lossy(&body))
            }
        }
    }
}

async fn read_refusal(response: Response<Incoming>) -> anyhow::Result<Outcome> {
    let retry_after = header(response.headers(), RETRY_AFTER.as_str()).parse();
    let body = response
        .into_body()
        .collect()
        .await
        .context("a broken refusal")?
        .to_bytes();
    let body: Value = serde_json::from_slice(&body).context("a refusal that is no JSON")?;
    let code = body["error"]["code"]
        .as_str()
        .context("a refusal without error.code")?
        .to_owned();
    Ok(Outcome::Shed {
        code,
        retry_after: retry_after.context("a refusal without Retry-After")?,
    })
}

async fn read_stream(due: Instant, response: Response<Incoming>) -> anyhow::Result<Outcome> {
    let server = header(response.headers(), "x-pointsman-endpoint").to_owned();
    ensure!(!server.is_empty(), "no x-pointsman-endpoint in the answer");
    let decision = serde_json::from_str(header(response.headers(), "x-pointsman-decision"))
        .context("x-pointsman-decision cannot be read")?;
    let mut answered = Answered {
        server,
        decision,
        ..Answered::default()
    };
    let mut stream = Stream::default();
    let mut lines = Lines::default();
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.context("the stream broke off")?.into_data() else {
            continue;
        };
        lines.feed(&data, |event| stream.event(event, due, &mut answered))?;
    }
    ensure!(stream.done, "the stream ended without [DONE]");
    ensure!(
        stream.first_word && answered.prompt_tokens > 0,
        "the stream had no words or no usage"
    );
    Ok(Outcome::Answered(Box::new(answered)))
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// How far a stream is.
#[derive(Debug, Default)]
struct Stream {
    first_word: bool,
    done: bool,
}

impl Stream {
    fn event(&mut self, data: &str, due: Instant, answered: &mut Answered) -> anyhow::Result<()> {
        if data == "[DONE]" {
            self.done = true;
            return Ok(());
        }
        // Between the first word and the usage there is nothing to learn from a chunk but that it is no error.
        if self.first_word && !data.contains("\"usage\"") && !data.contains("\"error\"") {
            return Ok(());
        }
        let chunk: Value = serde_json::from_str(data).context("a chunk that is no JSON")?;
        ensure!(
            chunk.get("error").is_none(),
            "an error in the stream: {data}"
        );
        let word = chunk["choices"][0]["delta"]["content"]
            .as_str()
            .unwrap_or_default();
        if !self.first_word && !word.is_empty() {
            self.first_word = true;
            answered.ttft = due.elapsed();
        }
        if let Some(tokens) = chunk["usage"]["prompt_tokens"].as_u64() {
            answered.prompt_tokens = tokens;
            answered.cached_tokens = chunk["usage"]["prompt_tokens_details"]["cached_tokens"]
                .as_u64()
                .unwrap_or(0);
        }
        Ok(())
    }
}

/// Cuts a stream of server-sent events into the values of its `data` lines.
#[derive(Debug, Default)]
struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    fn feed(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.partial.extend_from_slice(bytes);
        let mut from = 0;
        while let Some(length) = self.partial[from..].iter().position(|byte| *byte == b'\n') {
            let line =
                std::str::from_utf8(&self.partial[from..from + length]).context("not UTF-8")?;
            if let Some(data) = line.strip_prefix("data:") {
                each(data.trim())?;
            }
            from += length + 1;
        }
        self.partial.drain(..from);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"\"}}]}\r\n\r\n: a comment\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"w\u{f6}rd\"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"s\"}}]}\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\ndata: [DONE]\n\n";

    #[test]
    fn a_stream_may_come_in_any_pieces() {
        for size in [1, 2, 3, 7, 64, 4096] {
            let (mut stream, mut lines, mut answered) =
                (Stream::default(), Lines::default(), Answered::default());
            for piece in STREAM.as_bytes().chunks(size) {
                lines
                    .feed(piece, |data| {
                        stream.event(data, Instant::now(), &mut answered)
                    })
                    .unwrap();
            }
            assert!(stream.done && stream.first_word, "{size}");
            assert_eq!(
                (answered.prompt_tokens, answered.cached_tokens),
                (9, 4),
                "{size}"
            );
        }
    }

    #[test]
    fn errors_in_a_stream_are_errors() {
        for bad in ["{\"error\":{\"message\":\"aborted\"}}", "{", "no"] {
            for first_word in [false, true] {
                let mut stream = Stream {
                    first_word,
                    done: false,
                };
                let said = stream.event(bad, Instant::now(), &mut Answered::default());
                assert_eq!(said.is_err(), !first_word || bad.contains("error"), "{bad}");
            }
        }
    }
}
