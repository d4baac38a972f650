//! An endpoint picker that does what a test says, over the real protocol.
#![allow(dead_code, unreachable_pub)]

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use extproc::metadata::text_struct;
use extproc::proto::core::{HeaderMap, HeaderValue, HeaderValueOption};
use extproc::proto::ext_proc::body_mutation::Mutation;
use extproc::proto::ext_proc::processing_request::Request as Part;
use extproc::proto::ext_proc::processing_response::Response as Reply;
use extproc::proto::ext_proc::{
    BodyMutation, BodyResponse, CommonResponse, HeaderMutation, HeadersResponse, HttpBody,
    ImmediateResponse, ProcessingRequest, ProcessingResponse, StreamedBodyResponse,
    TrailersResponse,
};
use extproc::proto::service::{ExternalProcessor, ExternalProcessorServer};
use extproc::proto::typev3::HttpStatus;
use futures_util::Stream;
use parking_lot::Mutex;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

/// Where picks stand.
pub const DESTINATION: &str = "x-gateway-destination-endpoint";

type Sent = Result<ProcessingResponse, Status>;
type Work = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;
type Script = Arc<dyn Fn(Talk) -> Work + Send + Sync>;

/// One call.
pub struct Talk {
    /// How many there were before.
    pub number: usize,
    requests: Streaming<ProcessingRequest>,
    replies: mpsc::UnboundedSender<Sent>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// What a picker was told.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// Whether the request had a body.
    pub had_body: bool,
    /// The servers it was told to choose from.
    pub subset: Option<Vec<String>>,
    /// Who answered, by the proxy's word.
    pub served: Option<String>,
    /// Status of the answer.
    pub status: Option<String>,
    /// Body of the answer.
    pub answer: Bytes,
    /// Its first message told how the proxy is configured.
    pub configured: bool,
    /// The answer was told to its end.
    pub complete: bool,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }
}

/// A running picker. It ends with its guard.
pub struct Picker {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    pub connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
    open: Arc<Mutex<Vec<tokio::task::AbortHandle>>>,
}

impl Drop for Picker {
    fn drop(&mut self) {
        self.kill();
    }
}

#[derive(Clone)]
struct Service {
    script: Script,
    calls: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

struct Replies(mpsc::UnboundedReceiver<Sent>);

impl Stream for Replies {
    type Item = Sent;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Sent>> {
        self.0.poll_recv(cx)
    }
}

#[tonic::async_trait]
impl ExternalProcessor for Service {
    type ProcessStream = Replies;

    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<Replies>, Status> {
        let (replies, receiver) = mpsc::unbounded_channel();
        let talk = Talk {
            number: self.calls.fetch_add(1, Ordering::SeqCst),
            requests: request.into_inner(),
            replies: replies.clone(),
            seen: self.seen.clone(),
        };
        let work = (self.script)(talk);
        tokio::spawn(async move {
            if let Err(status) = work.await {
                let _ = replies.send(Err(status));
            }
        });
        Ok(Response::new(Replies(receiver)))
    }
}

impl Picker {
    /// A picker in cleartext on any port.
    pub async fn start<F, Fut>(script: F) -> Self
    where
        F: Fn(Talk) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Status>> + Send + 'static,
    {
        Self::start_at("127.0.0.1:0", None, script).await
    }

    /// A picker at an address, with TLS where that is given.
    pub async fn start_at<F, Fut>(
        address: &str,
        tls: Option<Arc<rustls::ServerConfig>>,
        script: F,
    ) -> Self
    where
        F: Fn(Talk) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.expect("bind");
        let address = listener.local_addr().expect("bound");
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let connections: Arc<AtomicUsize> = Arc::default();
        let open: Arc<Mutex<Vec<tokio::task::AbortHandle>>> = Arc::default();
        let service = Service {
            script: Arc::new(move |talk| Box::pin(script(talk))),
            calls: Arc::default(),
            seen: seen.clone(),
        };
        let (count, tasks) = (connections.clone(), open.clone());
        let task = tokio::spawn(async move {
            let acceptor = tls.map(tokio_rustls::TlsAcceptor::from);
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = stream.set_nodelay(true);
                let (service, acceptor) = (service.clone(), acceptor.clone());
                let serving = tokio::spawn(async move {
                    match acceptor {
                        None => serve(stream, service).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, service).await;
                            }
                        }
                    }
                });
                tasks.lock().push(serving.abort_handle());
            }
        });
        Self {
            address,
            seen,
            connections,
            task,
            open,
        }
    }

    /// A picker that sends everything to these servers and all bodies back as they are.
    pub async fn echo(list: impl Into<String>) -> Self {
        let list = list.into();
        Self::start(move |talk| talk.serve(list.clone())).await
    }

    /// Its process ends: nobody listens, and connections break.
    pub fn kill(&self) {
        self.task.abort();
        self.open.lock().drain(..).for_each(|task| task.abort());
    }

    /// Calls so far that told something.
    pub fn count(&self) -> usize {
        self.seen.lock().len()
    }

    pub fn last(&self) -> Seen {
        self.seen.lock().last().cloned().expect("a call")
    }
}

async fn serve<I>(stream: I, service: Service)
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service =
        hyper_util::service::TowerToHyperService::new(ExternalProcessorServer::new(service));
    let _ = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
        .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
        .await;
}

impl Talk {
    /// The next part.
    pub async fn next(&mut self) -> Result<Option<ProcessingRequest>, Status> {
        self.requests.message().await
    }

    /// Reads the request to its end.
    pub async fn request(&mut self) -> Result<Seen, Status> {
        let mut seen = Seen::default();
        let mut body = BytesMut::new();
        while let Some(message) = self.next().await? {
            seen.configured |= message.protocol_config.is_some();
            if let Some(metadata) = &message.metadata_context {
                seen.subset = metadata
                    .get(
                        "envoy.lb.subset_hint",
                        "x-gateway-destination-endpoint-subset",
                    )
                    .map(texts);
            }
            match message.request {
                Some(Part::RequestHeaders(head)) => {
                    seen.headers = pairs(head.headers);
                    seen.had_body = !head.end_of_stream;
                    if head.end_of_stream {
                        break;
                    }
                }
                Some(Part::RequestBody(HttpBody {
                    body: data,
                    end_of_stream,
                })) => {
                    body.extend_from_slice(&data);
                    if end_of_stream {
                        break;
                    }
                }
                other => return Err(Status::internal(format!("{other:?}"))),
            }
        }
        seen.body = body.freeze();
        self.seen.lock().push(seen.clone());
        Ok(seen)
    }

    /// Says something.
    pub fn say(&self, reply: ProcessingResponse) {
        let _ = self.replies.send(Ok(reply));
    }

    /// Names servers in header and metadata, with more header changes.
    pub fn pick(&self, list: &str, more: &[(&str, &str)]) {
        self.say(pick(list, Some(list), more));
    }

    /// Sends a request's body back in pieces.
    pub fn echo(&self, body: &Bytes) {
        let mut rest = body.clone();
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(62_000));
            self.say(request_body(Some(streamed(piece, rest.is_empty()))));
        }
    }

    /// Picks, sends the body back, and everything of the answer.
    pub async fn serve(mut self, list: String) -> Result<(), Status> {
        let seen = self.request().await?;
        self.pick(&list, &[]);
        self.echo(&seen.body);
        self.answers().await
    }

    /// Sends everything of the answer back as it is.
    pub async fn answers(&mut self) -> Result<(), Status> {
        while let Some(message) = self.next().await? {
            if let Some(reply) = self.answered(message) {
                self.say(reply);
            }
        }
        Ok(())
    }

    /// Notes a part of an answer, and what sends it back.
    pub fn answered(&self, message: ProcessingRequest) -> Option<ProcessingResponse> {
        let mut all = self.seen.lock();
        let seen = all.get_mut(self.number)?;
        if let Some(metadata) = &message.metadata_context {
            seen.served = metadata.text("envoy.lb", "x-gateway-destination-endpoint-served");
        }
        match message.request? {
            Part::ResponseHeaders(head) => {
                let status = pairs(head.headers)
                    .into_iter()
                    .find(|(name, _)| name == ":status");
                seen.status = status.map(|(_, value)| value);
                seen.complete |= head.end_of_stream;
                Some(response_head(&[]))
            }
            Part::ResponseBody(body) => {
                seen.answer = [&seen.answer[..], &body.body].concat().into();
                seen.complete |= body.end_of_stream;
                Some(response_body(Some(streamed(body.body, body.end_of_stream))))
            }
            Part::ResponseTrailers(_) => {
                seen.complete = true;
                Some(reply(Reply::ResponseTrailers(TrailersResponse::default())))
            }
            _ => None,
        }
    }
}

fn texts(value: Value) -> Vec<String> {
    let Some(Kind::ListValue(list)) = value.kind else {
        return Vec::new();
    };
    let text = |value: Value| match value.kind {
        Some(Kind::StringValue(text)) => Some(text),
        _ => None,
    };
    list.values.into_iter().filter_map(text).collect()
}

fn pairs(headers: Option<HeaderMap>) -> Vec<(String, String)> {
    let fields = headers.unwrap_or_default().headers.into_iter();
    fields
        .map(|field| {
            (
                field.key,
                String::from_utf8_lossy(&field.raw_value).into_owned(),
            )
        })
        .collect()
}

pub fn reply(response: Reply) -> ProcessingResponse {
    ProcessingResponse {
        response: Some(response),
        ..ProcessingResponse::default()
    }
}

pub fn set(pairs: &[(&str, &str)]) -> HeaderMutation {
    let option = |(name, value): &(&str, &str)| HeaderValueOption {
        header: Some(HeaderValue {
            key: (*name).to_owned(),
            value: String::new(),
            raw_value: Bytes::copy_from_slice(value.as_bytes()),
        }),
        ..HeaderValueOption::default()
    };
    HeaderMutation {
        set_headers: pairs.iter().map(option).collect(),
        remove_headers: Vec::new(),
    }
}

/// A reply to a request's head: the header's list, the metadata's, other headers.
pub fn pick(header: &str, metadata: Option<&str>, more: &[(&str, &str)]) -> ProcessingResponse {
    let mut headers = more.to_vec();
    if !header.is_empty() {
        headers.push((DESTINATION, header));
    }
    let mut reply = reply(Reply::RequestHeaders(HeadersResponse {
        response: Some(CommonResponse {
            header_mutation: Some(set(&headers)),
            clear_route_cache: true,
            ..CommonResponse::default()
        }),
    }));
    reply.dynamic_metadata = metadata.map(|list| {
        let namespace = Kind::StructValue(text_struct(DESTINATION, list));
        let value = Value {
            kind: Some(namespace),
        };
        Struct {
            fields: [("envoy.lb".to_owned(), value)].into(),
        }
    });
    reply
}

pub fn streamed(body: impl Into<Bytes>, end_of_stream: bool) -> Mutation {
    Mutation::StreamedResponse(StreamedBodyResponse {
        body: body.into(),
        end_of_stream,
    })
}

fn body(mutation: Option<Mutation>) -> BodyResponse {
    BodyResponse {
        response: Some(CommonResponse {
            body_mutation: mutation.map(|mutation| BodyMutation {
                mutation: Some(mutation),
            }),
            ..CommonResponse::default()
        }),
    }
}

pub fn request_body(mutation: Option<Mutation>) -> ProcessingResponse {
    reply(Reply::RequestBody(body(mutation)))
}

pub fn response_body(mutation: Option<Mutation>) -> ProcessingResponse {
    reply(Reply::ResponseBody(body(mutation)))
}

pub fn response_head(pairs: &[(&str, &str)]) -> ProcessingResponse {
    reply(Reply::ResponseHeaders(HeadersResponse {
        response: Some(CommonResponse {
            header_mutation: Some(set(pairs)),
            ..CommonResponse::default()
        }),
    }))
}

pub fn immediate(code: i32, headers: &[(&str, &str)], text: &'static str) -> ProcessingResponse {
    reply(Reply::ImmediateResponse(ImmediateResponse {
        status: Some(HttpStatus { code }),
        headers: Some(set(headers)),
        body: Bytes::from_static(text.as_bytes()),
        ..ImmediateResponse::default()
    }))
}
