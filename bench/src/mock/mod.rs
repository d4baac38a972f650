//! Mock model servers with the HTTP surface of vLLM: one thread, one server per port.
//!
//! A completion's body is read in full, as a real server does, and then looked at only for
//! `"stream":true`. `/v1/models` names [`MODEL`]; `/metrics` has the gauges that endpoint pickers
//! read (names: vLLM's metrics documentation), with a true count of running requests.

mod body;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use memchr::memmem;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use body::MockBody;

/// The one model that every mock server serves.
pub const MODEL: &str = "mock-model";

const JSON: &str = "application/json";
const CHAT: &str = "{\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion\",\"created\":1790000000,\"model\":\"mock-model\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"ok\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":1,\"total_tokens\":11}}";
const TEXT: &str = "{\"id\":\"cmpl-0123456789abcdef\",\"object\":\"text_completion\",\"created\":1790000000,\"model\":\"mock-model\",\"choices\":[{\"index\":0,\"text\":\"ok\",\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":1,\"total_tokens\":11}}";
const MODELS: &str = "{\"object\":\"list\",\"data\":[{\"id\":\"mock-model\",\"object\":\"model\",\"created\":1790000000,\"owned_by\":\"vllm\",\"root\":\"mock-model\",\"max_model_len\":32768}]}";

/// How a mock server streams.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Content chunks of a stream; the chunk with the usage and `[DONE]` follow them.
    pub chunks: usize,
    /// Time between two chunks. Zero still makes each chunk a write of its own.
    pub every: Duration,
}

/// One mock server: its pace, and the requests that it is working on.
struct Server {
    pace: Pace,
    running: Cell<u64>,
}

/// Counts a request as running until its body has been sent or dropped.
struct Running(Rc<Server>);

impl Running {
    fn start(server: &Rc<Server>) -> Self {
        server.running.set(server.running.get() + 1);
        Self(Rc::clone(server))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
    }
}

/// Serves until dropped, one server per listener. Must run inside a [`tokio::task::LocalSet`].
pub async fn serve(listeners: Vec<TcpListener>, pace: Pace) {
    let mut servers = JoinSet::new();
    for listener in listeners {
        let server = Rc::new(Server {
            pace,
            running: Cell::new(0),
        });
        servers.spawn_local(accept(listener, server));
    }
    while servers.join_next().await.is_some() {}
}

async fn accept(listener: TcpListener, server: Rc<Server>) {
    loop {
        if let Ok((io, _)) = listener.accept().await {
            tokio::task::spawn_local(serve_connection(io, Rc::clone(&server)));
        }
    }
}

async fn serve_connection(io: TcpStream, server: Rc<Server>) {
    // A connection that fails is its client's business.
    let _ = io.set_nodelay(true);
    let service = service_fn(move |request| answer(Rc::clone(&server), request));
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(io), service)
        .await;
}

async fn answer(
    server: Rc<Server>,
    request: Request<Incoming>,
) -> Result<Response<MockBody>, hyper::Error> {
    let (head, body) = request.into_parts();
    Ok(match head.uri.path() {
        "/v1/chat/completions" => complete(&server, body, CHAT).await?,
        "/v1/completions" => complete(&server, body, TEXT).await?,
        "/v1/models" => reply(JSON, MODELS),
        "/metrics" => reply(
            "text/plain; version=0.0.4; charset=utf-8",
            metrics(server.running.get()),
        ),
        "/version" => reply(JSON, "{\"version\":\"0.11.0\"}"),
        "/health" | "/ping" => reply("text/plain", ""),
        _ => {
            let mut response = reply("text/plain", "not found");
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    })
}

/// Reads the body and answers with `whole`, or with a stream where the body asks for one.
async fn complete(
    server: &Rc<Server>,
    body: Incoming,
    whole: &'static str,
) -> Result<Response<MockBody>, hyper::Error> {
    let body = body.collect().await?.to_bytes();
    let running = Running::start(server);
    Ok(if wants_stream(&body) {
        with_type(
            "text/event-stream; charset=utf-8",
            MockBody::stream(server.pace, running),
        )
    } else {
        with_type(
            JSON,
            MockBody::whole(Bytes::from_static(whole.as_bytes())).held_by(running),
        )
    })
}

/// A search, not a parse: the mock must stay far cheaper than what is measured.
fn wants_stream(body: &[u8]) -> bool {
    [b"\"stream\":true".as_slice(), b"\"stream\": true"]
        .iter()
        .any(|needle| memmem::find(body, needle).is_some())
}

fn reply(content_type: &'static str, body: impl Into<Bytes>) -> Response<MockBody> {
    with_type(content_type, MockBody::whole(body.into()))
}

fn with_type(content_type: &'static str, body: MockBody) -> Response<MockBody> {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn metrics(running: u64) -> String {
    format!(
        "# HELP vllm:num_requests_running Number of requests in model execution batches.\n\
         # TYPE vllm:num_requests_running gauge\n\
         vllm:num_requests_running{{engine=\"0\",model_name=\"{MODEL}\"}} {running}.0\n\
         # HELP vllm:num_requests_waiting Number of requests waiting to be processed.\n\
         # TYPE vllm:num_requests_waiting gauge\n\
         vllm:num_requests_waiting{{engine=\"0\",model_name=\"{MODEL}\"}} 0.0\n\
         # HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.\n\
         # TYPE vllm:kv_cache_usage_perc gauge\n\
         vllm:kv_cache_usage_perc{{engine=\"0\",model_name=\"{MODEL}\"}} 0.01\n\
         # HELP vllm:cache_config_info Information of the LLMEngine CacheConfig\n\
         # TYPE vllm:cache_config_info gauge\n\
         vllm:cache_config_info{{block_size=\"16\",num_gpu_blocks=\"10000\",engine=\"0\"}} 1.0\n\
         # HELP vllm:lora_requests_info Running stats on lora requests.\n\
         # TYPE vllm:lora_requests_info gauge\n\
         vllm:lora_requests_info{{max_lora=\"4\",running_lora_adapters=\"\",waiting_lora_adapters=\"\"}} 1790000000.0\n"
    )
}
