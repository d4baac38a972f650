//! The trivial picker: round robin, the pick as header and metadata, and every piece of a body sent back as it came.
//!
//! It does what the protocol asks of a picker and nothing else: with full-duplex bodies it holds the head's reply until
//! the whole request has come, as one must that reads prompts. No parsing, no state of servers, no metrics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use extproc::proto::core::{HeaderValue, HeaderValueOption};
use extproc::proto::ext_proc::body_mutation::Mutation;
use extproc::proto::ext_proc::processing_request::Request as Asked;
use extproc::proto::ext_proc::processing_response::Response as Said;
use extproc::proto::ext_proc::{
    BodyMutation, BodyResponse, CommonResponse, HeaderMutation, HeadersResponse, ProcessingRequest,
    ProcessingResponse, StreamedBodyResponse, TrailersResponse,
};
use extproc::proto::service::{ExternalProcessor, ExternalProcessorServer};
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::tokio_stream::{Stream, StreamExt};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

const DESTINATION: &str = "x-gateway-destination-endpoint";
/// Largest piece of a body in one message, as in the Go endpoint picker.
const PIECE: usize = 62_000;
/// tonic's own limit of 4 MiB is less than what Envoy sends in one message.
const MESSAGE: usize = 128 << 20;

/// Serves until the future is dropped.
pub async fn serve(listener: TcpListener, servers: Vec<SocketAddr>) {
    let picker = Trivial {
        servers: servers.iter().map(ToString::to_string).collect(),
        next: Arc::default(),
    };
    let service = ExternalProcessorServer::new(picker).max_decoding_message_size(MESSAGE);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    // An error is the end of the process that the bench watches.
    let _ = tonic::transport::Server::builder()
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(1 << 24)
        .add_service(service)
        .serve_with_incoming(incoming)
        .await;
}

#[derive(Clone)]
struct Trivial {
    servers: Arc<[String]>,
    next: Arc<AtomicUsize>,
}

impl Trivial {
    fn pick(&self) -> ProcessingResponse {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let server = self.servers[turn % self.servers.len()].clone();
        let text = |text: &str| Value {
            kind: Some(Kind::StringValue(text.to_owned())),
        };
        let fields = |name: &str, value| Struct {
            fields: BTreeMap::from([(name.to_owned(), value)]),
        };
        let inner = Value {
            kind: Some(Kind::StructValue(fields(DESTINATION, text(&server)))),
        };
        let header = HeaderValueOption {
            header: Some(HeaderValue {
                key: DESTINATION.to_owned(),
                raw_value: server.into(),
                ..HeaderValue::default()
            }),
            ..HeaderValueOption::default()
        };
        let common = CommonResponse {
            header_mutation: Some(HeaderMutation {
                set_headers: vec![header],
                ..HeaderMutation::default()
            }),
            clear_route_cache: true,
            ..CommonResponse::default()
        };
        ProcessingResponse {
            dynamic_metadata: Some(fields("envoy.lb", inner)),
            ..said(Said::RequestHeaders(HeadersResponse {
                response: Some(common),
            }))
        }
    }

    /// What to say to a message. `held`: the request's body so far.
    fn answer(&self, asked: Asked, held: &mut BytesMut, replies: &mut Vec<ProcessingResponse>) {
        match asked {
            Asked::RequestHeaders(head) if head.end_of_stream => replies.push(self.pick()),
            Asked::RequestHeaders(_) => {}
            Asked::RequestBody(body) => {
                held.extend_from_slice(&body.body);
                if body.end_of_stream {
                    replies.push(self.pick());
                    let mut whole = held.split().freeze();
                    while whole.len() > PIECE {
                        replies.push(said(Said::RequestBody(piece(whole.split_to(PIECE), false))));
                    }
                    replies.push(said(Said::RequestBody(piece(whole, true))));
                }
            }
            Asked::RequestTrailers(_) => {
                replies.push(said(Said::RequestTrailers(TrailersResponse::default())));
            }
            Asked::ResponseHeaders(_) => {
                replies.push(said(Said::ResponseHeaders(HeadersResponse::default())));
            }
            Asked::ResponseBody(body) => {
                replies.push(said(Said::ResponseBody(piece(
                    body.body,
                    body.end_of_stream,
                ))));
            }
            Asked::ResponseTrailers(_) => {
                replies.push(said(Said::ResponseTrailers(TrailersResponse::default())));
            }
        }
    }
}

fn said(response: Said) -> ProcessingResponse {
    ProcessingResponse {
        response: Some(response),
        ..ProcessingResponse::default()
    }
}

fn piece(body: Bytes, end_of_stream: bool) -> BodyResponse {
    let streamed = StreamedBodyResponse {
        body,
        end_of_stream,
    };
    BodyResponse {
        response: Some(CommonResponse {
            body_mutation: Some(BodyMutation {
                mutation: Some(Mutation::StreamedResponse(streamed)),
            }),
            ..CommonResponse::default()
        }),
    }
}

#[tonic::async_trait]
impl ExternalProcessor for Trivial {
    type ProcessStream = Pin<Box<dyn Stream<Item = Result<ProcessingResponse, Status>> + Send>>;

    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<Self::ProcessStream>, Status> {
        let (picker, mut inbound) = (self.clone(), request.into_inner());
        let (outbound, replies) = mpsc::channel(16);
        tokio::spawn(async move {
            let mut held = BytesMut::new();
            // Envoy ends each stream with a reset, which is an error here and nothing to speak of.
            while let Some(Ok(message)) = inbound.next().await {
                let mut out = Vec::with_capacity(3);
                if let Some(asked) = message.request {
                    picker.answer(asked, &mut held, &mut out);
                }
                for reply in out {
                    if outbound.send(Ok(reply)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(replies))))
    }
}
