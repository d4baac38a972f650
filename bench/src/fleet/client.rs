//! A small HTTP/1.1 client: hyper's connections in a pool per port, and chat completions timed.
//!
//! Everything runs on one thread, so the pool needs no lock. A connection that has rested for long is not used
//! again: servers close idle ones after 5 s (vLLM's default), and a request sent into that would fail.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::Error;
use crate::fleet::sse::{Scanner, Usage};

/// Connections that have rested for longer are dropped.
const REST: Duration = Duration::from_secs(3);
/// How much of an unexpected answer an error shows.
const SHOWN: usize = 300;

type Sender = SendRequest<Full<Bytes>>;

/// A pool of connections to ports of 127.0.0.1. Use it inside a [`tokio::task::LocalSet`].
#[derive(Default)]
pub struct Client {
    idle: RefCell<HashMap<u16, Vec<(Sender, Instant)>>>,
}

/// A chat completion, timed.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    /// When its first content arrived.
    pub first: Instant,
    /// When it ended.
    pub end: Instant,
    /// What the server counted.
    pub usage: Usage,
}

impl Client {
    /// Sends a body to a path, or asks for it when there is none; the status and the whole answer.
    ///
    /// # Errors
    /// When no connection is to be had, or it breaks.
    pub async fn call(
        &self,
        port: u16,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<(StatusCode, Bytes), Error> {
        let (response, sender) = self.send(port, path, body).await?;
        let status = response.status();
        let answer = response
            .into_body()
            .collect()
            .await
            .map_err(broken(port))?
            .to_bytes();
        self.give_back(port, sender);
        Ok((status, answer))
    }

    /// A streamed chat completion.
    ///
    /// # Errors
    /// When the connection fails, the status is not 200, or the stream is not whole.
    pub async fn chat(&self, port: u16, body: Bytes) -> Result<Timed, Error> {
        let (response, sender) = self.send(port, "/v1/chat/completions", Some(body)).await?;
        let status = response.status();
        let mut stream = response.into_body();
        if status != StatusCode::OK {
            let answer = stream.collect().await.map_err(broken(port))?.to_bytes();
            return Err(unexpected(status, &answer));
        }
        let mut scanner = Scanner::default();
        let mut first = None;
        while let Some(frame) = stream.frame().await {
            let frame = frame.map_err(broken(port))?;
            if let Some(data) = frame.data_ref()
                && scanner.feed(data)?
                && first.is_none()
            {
                first = Some(Instant::now());
            }
        }
        let end = Instant::now();
        let usage = scanner.finish()?;
        self.give_back(port, sender);
        Ok(Timed {
            first: first.unwrap_or(end),
            end,
            usage,
        })
    }

    async fn send(
        &self,
        port: u16,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<(Response<Incoming>, Sender), Error> {
        let method = if body.is_some() {
            Method::POST
        } else {
            Method::GET
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, format!("127.0.0.1:{port}"))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body.unwrap_or_default()))?;
        let mut sender = match self.rested(port) {
            Some(sender) => sender,
            None => connect(port).await?,
        };
        let response = sender.send_request(request).await.map_err(broken(port))?;
        Ok((response, sender))
    }

    /// The connection used last, if any is fit.
    fn rested(&self, port: u16) -> Option<Sender> {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(&port)?;
        while let Some((sender, since)) = connections.pop() {
            if sender.is_ready() && since.elapsed() < REST {
                return Some(sender);
            }
        }
        None
    }

    fn give_back(&self, port: u16, sender: Sender) {
        let mut idle = self.idle.borrow_mut();
        idle.entry(port).or_default().push((sender, Instant::now()));
    }
}

async fn connect(port: u16) -> Result<Sender, Error> {
    let named = || format!("127.0.0.1:{port}");
    let stream = TcpStream::connect(("127.0.0.1", port))
        .await
        .map_err(Error::io(named()))?;
    stream.set_nodelay(true).map_err(Error::io(named()))?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken(port))?;
    // It ends when the sender is dropped or the peer closes; what went wrong, the request in flight is told.
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

fn broken(port: u16) -> impl FnOnce(hyper::Error) -> Error {
    move |e| Error::io(format!("127.0.0.1:{port}"))(std::io::Error::other(e))
}

/// An answer with a status that was not wanted.
pub(crate) fn unexpected(status: StatusCode, answer: &[u8]) -> Error {
    let shown = String::from_utf8_lossy(&answer[..answer.len().min(SHOWN)]).into_owned();
    Error::io(format!("status {status}"))(std::io::Error::other(shown))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::{self, Pace};
    use tokio::net::TcpListener;
    use tokio::task::LocalSet;

    async fn with_mock<T>(run: impl AsyncFnOnce(u16) -> T) -> T {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let pace = Pace {
            chunks: 3,
            every: Duration::ZERO,
        };
        let serve = async {
            mock::serve(vec![listener], pace).await;
            std::future::pending().await
        };
        LocalSet::new()
            .run_until(async {
                tokio::select! {
                    told = run(port) => told,
                    never = serve => never,
                }
            })
            .await
    }

    #[tokio::test]
    async fn a_connection_is_used_again() {
        with_mock(async |port| {
            let client = Client::default();
            for _ in 0..3 {
                let (status, page) = client.call(port, "/v1/models", None).await.unwrap();
                assert!(status.is_success() && page.starts_with(b"{\"object\":\"list\""));
                tokio::task::yield_now().await;
            }
            assert_eq!(client.idle.borrow()[&port].len(), 1);
        })
        .await;
    }

    #[tokio::test]
    async fn a_stream_is_timed_to_its_end() {
        with_mock(async |port| {
            let body =
                Bytes::from_static(b"{\"model\":\"mock-model\",\"stream\":true,\"messages\":[]}");
            let timed = Client::default().chat(port, body).await.unwrap();
            assert!(timed.first <= timed.end && timed.usage.prompt_tokens > 0);
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_not_a_stream_is_an_error() {
        with_mock(async |port| {
            let body = Bytes::from_static(b"{\"model\":\"mock-model\",\"messages\":[]}");
            let error = Client::default().chat(port, body).await.unwrap_err();
            assert!(matches!(error, Error::Closed(_)), "{error}");
        })
        .await;
    }

    #[test]
    fn an_unexpected_answer_is_shown() {
        let told = unexpected(StatusCode::SERVICE_UNAVAILABLE, b"no servers").to_string();
        assert!(
            told.contains("503") && told.contains("no servers"),
            "{told}"
        );
    }
}
