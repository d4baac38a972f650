//! What a piece of an answer costs in allocations: the message that goes back, and nothing else.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use extproc::proto::core::{HeaderMap, HeaderValue};
use extproc::proto::ext_proc::processing_request::Request as Asked;
use extproc::proto::ext_proc::{HttpBody, HttpHeaders, ProcessingRequest, ProtocolConfiguration};
use extproc::proto::mode::processing_mode::BodySendMode;
use extproc::server::{Picker, PickerOptions, Service};
use fleet::{Fleet, FleetOptions};
use http::Request;
use http_body::{Body, Frame};
use parking_lot::Mutex;
use prost::Message;
use routing::{AppProtocol, EndpointSpec, Host, ModelTable, PoolKey, PoolKind, PoolSpec};
use telemetry::{Metrics, Names};

/// Messages of a proxy, as they come from its connection: slices of the connection's buffer.
struct Wire(Arc<Mutex<VecDeque<Bytes>>>);

impl Body for Wire {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.lock().pop_front() {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None => Poll::Pending,
        }
    }
}

/// A proxy with one stream.
struct Proxy {
    messages: Arc<Mutex<VecDeque<Bytes>>>,
    replies: Pin<Box<tonic::body::Body>>,
    buffer: BytesMut,
}

impl Proxy {
    fn open(service: &Service) -> Self {
        let messages: Arc<Mutex<VecDeque<Bytes>>> = Arc::default();
        let wire = Wire(messages.clone());
        let answer = service.process(Request::new(wire)).unwrap();
        Self {
            messages,
            replies: Box::pin(answer.into_body()),
            buffer: BytesMut::new(),
        }
    }

    fn framed(&mut self, message: &ProcessingRequest) -> Bytes {
        self.buffer.reserve(1 << 20);
        self.buffer.put_u8(0);
        self.buffer.put_u32(message.encoded_len() as u32);
        message.encode(&mut self.buffer).unwrap();
        self.buffer.split().freeze()
    }

    /// Sends a message and takes all that comes back at once; how many bytes, and how many allocations that took.
    fn say(&mut self, message: &ProcessingRequest) -> (usize, u64) {
        let frame = self.framed(message);
        self.messages.lock().push_back(frame);
        let mut cx = Context::from_waker(Waker::noop());
        let mut bytes = 0;
        let took = allocation_counter::measure(|| {
            while let Poll::Ready(Some(Ok(frame))) = self.replies.as_mut().poll_frame(&mut cx) {
                bytes += frame.data_ref().map_or(0, Bytes::len);
            }
        });
        (bytes, took.count_total)
    }
}

fn key() -> PoolKey {
    PoolKey {
        kind: PoolKind::Inference,
        namespace: "ns".into(),
        name: "pool".into(),
    }
}

/// A picker over a server that is never asked anything.
fn picker() -> Service {
    let mut options = FleetOptions {
        learn_models: false,
        ..FleetOptions::default()
    };
    options.scrape.enabled = false;
    options.probe.period = Duration::from_secs(3600);
    options.probe.suspect_period = Duration::from_secs(3600);
    let metrics = Metrics::with_names(Names {
        extproc: true,
        ..Names::default()
    });
    let fleet = Fleet::new(options, metrics.clone());
    let spec = PoolSpec {
        key: key(),
        endpoints: vec![EndpointSpec {
            host: Host::Ip([127, 0, 0, 1].into()),
            port: 9001,
            name: "pod".into(),
            ready: true,
            labels: Arc::default(),
            base_path: None,
        }],
        protocol: AppProtocol::Http,
        tls: None,
        picker: routing::Picker::Inside,
        models: Arc::new(ModelTable::default()),
    };
    fleet.apply([&Arc::new(spec)].into_iter());
    Service::picking(Picker::new(fleet, key(), metrics, PickerOptions::default()))
}

fn message(request: Asked) -> ProcessingRequest {
    ProcessingRequest {
        request: Some(request),
        ..ProcessingRequest::default()
    }
}

fn head(fields: &[(&str, &str)]) -> HttpHeaders {
    let header = |(key, value): &(&str, &str)| HeaderValue {
        key: (*key).to_owned(),
        raw_value: Bytes::copy_from_slice(value.as_bytes()),
        ..HeaderValue::default()
    };
    HttpHeaders {
        headers: Some(HeaderMap {
            headers: fields.iter().map(header).collect(),
        }),
        end_of_stream: false,
    }
}

fn piece(body: impl Into<Bytes>, end_of_stream: bool) -> HttpBody {
    HttpBody {
        body: body.into(),
        end_of_stream,
    }
}

/// A stream whose answer has begun.
fn answering(service: &Service, mode: BodySendMode) -> Proxy {
    let mut proxy = Proxy::open(service);
    let fields = [(":method", "POST"), (":path", "/v1/completions")];
    let mut first = message(Asked::RequestHeaders(head(&fields)));
    first.protocol_config = Some(ProtocolConfiguration {
        request_body_mode: BodySendMode::FullDuplexStreamed.into(),
        response_body_mode: mode.into(),
        send_body_without_waiting_for_header_response: false,
    });
    proxy.say(&first);
    let body = &br#"{"model":"m","prompt":"hello","stream":true}"#[..];
    let (picked, _) = proxy.say(&message(Asked::RequestBody(piece(body, true))));
    assert!(picked > 100, "a pick");
    let fields = [(":status", "200"), ("content-type", "text/event-stream")];
    proxy.say(&message(Asked::ResponseHeaders(head(&fields))));
    proxy
}

/// The most allocations that one of some pieces took, after a few that may still fill what is kept.
fn most(proxy: &mut Proxy, pieces: &[&[u8]], echoes: bool) -> u64 {
    let mut most = 0;
    for turn in 0..200 {
        let body = Bytes::copy_from_slice(pieces[turn % pieces.len()]);
        let said = message(Asked::ResponseBody(piece(body.clone(), false)));
        let (bytes, took) = proxy.say(&said);
        assert_eq!(bytes >= body.len(), echoes, "{bytes} bytes came back");
        if turn >= 20 {
            most = took.max(most);
        }
    }
    most
}

#[tokio::test]
async fn a_piece_of_an_answer_costs_the_message_that_goes_back() {
    let service = picker();
    let token = br#"data: {"id":"1","choices":[{"text":" token","index":0}]}

"#;
    let text = "x".repeat(20_000);
    let long = format!("data: {{\"id\":\"1\",\"choices\":[{{\"text\":\"{text}\"}}]}}\n\n");
    let (begin, end) = token.split_at(30);
    for mode in [BodySendMode::FullDuplexStreamed, BodySendMode::Streamed] {
        let echoes = mode == BodySendMode::FullDuplexStreamed;
        for pieces in [&[&token[..]][..], &[begin, end], &[long.as_bytes()]] {
            let mut proxy = answering(&service, mode);
            let took = most(&mut proxy, pieces, echoes);
            assert_eq!(took, 1, "{mode:?}, {} bytes", pieces[0].len());
        }
    }
}

/// Not for each piece of a long body, but for its doublings.
#[tokio::test]
async fn a_piece_of_a_request_costs_less_than_one() {
    let service = picker();
    let mut proxy = Proxy::open(&service);
    let fields = [(":method", "POST"), (":path", "/v1/completions")];
    let mut first = message(Asked::RequestHeaders(head(&fields)));
    first.protocol_config = Some(ProtocolConfiguration {
        request_body_mode: BodySendMode::FullDuplexStreamed.into(),
        response_body_mode: BodySendMode::FullDuplexStreamed.into(),
        send_body_without_waiting_for_header_response: false,
    });
    proxy.say(&first);
    let body = Bytes::from(vec![b' '; 1000]);
    let total: u64 = (0..1000)
        .map(|_| {
            proxy
                .say(&message(Asked::RequestBody(piece(body.clone(), false))))
                .1
        })
        .sum();
    assert!(total <= 40, "{total} allocations for 1000 pieces");
}
