//! The picker's side over loopback: a proxy's streams in, picks out.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use extproc::metadata::Metadata;
use extproc::proto::core::{HeaderMap, HeaderValue};
use extproc::proto::ext_proc::body_mutation::Mutation;
use extproc::proto::ext_proc::processing_request::Request;
use extproc::proto::ext_proc::processing_response::Response;
use extproc::proto::ext_proc::{
    HttpBody, HttpHeaders, ImmediateResponse, ProcessingRequest, ProcessingResponse,
    ProtocolConfiguration,
};
use extproc::proto::mode::processing_mode::BodySendMode;
use extproc::proto::service::ExternalProcessorClient;
use extproc::server::{Listener, ListenerOptions, Picker, PickerOptions, Service};
use fleet::{Fleet, FleetOptions, Pool};
use futures_util::stream;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use routing::{
    AppProtocol, EndpointSpec, Host, ModelTable, ModelTarget, PoolKey, PoolKind, PoolSpec,
};
use telemetry::{Metrics, Names};
use tokio::sync::mpsc;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

const DESTINATION: &str = "x-gateway-destination-endpoint";
const PATH: &str = "/v1/completions";

struct World {
    listener: Listener,
    pool: Arc<Pool>,
    metrics: Arc<Metrics>,
    client: ExternalProcessorClient<Channel>,
}

fn server(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn spec(ports: &[u16]) -> Arc<PoolSpec> {
    let mut models = ModelTable::default();
    let target = |name: &str| ModelTarget {
        name: name.to_owned(),
        weight: 1,
    };
    models.add_model("public", 0, vec![target("private-v1")]);
    models.add_model("plain", 0, vec![]);
    models.add_objective("gold", 7);
    models.add_objective("scrap", -1);
    Arc::new(PoolSpec {
        key: key(),
        endpoints: ports
            .iter()
            .map(|port| EndpointSpec {
                host: Host::Ip(server(*port).ip()),
                port: *port,
                name: format!("pod-{port}"),
                ready: true,
                labels: Arc::default(),
                base_path: None,
            })
            .collect(),
        protocol: AppProtocol::Http,
        tls: None,
        picker: routing::Picker::Inside,
        models: Arc::new(models),
    })
}

fn key() -> PoolKey {
    PoolKey {
        kind: PoolKind::Inference,
        namespace: "ns".into(),
        name: "pool".into(),
    }
}

impl World {
    /// A picker over servers that are never asked: their load is unknown, and they count as well.
    async fn new(ports: &[u16], options: PickerOptions) -> Self {
        Self::with(ports, options, |_| ()).await
    }

    async fn with(
        ports: &[u16],
        options: PickerOptions,
        adjust: impl FnOnce(&mut FleetOptions),
    ) -> Self {
        let mut fleet_options = FleetOptions {
            learn_models: false,
            seed: 7,
            ..FleetOptions::default()
        };
        fleet_options.scrape.enabled = false;
        fleet_options.probe.period = Duration::from_secs(3600);
        fleet_options.probe.suspect_period = Duration::from_secs(3600);
        fleet_options.scheduling.prefill_gate_tokens = u32::MAX;
        fleet_options.scheduling.flow.empty_ttl = Duration::from_millis(20);
        adjust(&mut fleet_options);
        let metrics = Metrics::with_names(Names {
            extproc: true,
            ..Names::default()
        });
        let fleet = Fleet::new(fleet_options, metrics.clone());
        fleet.apply([&spec(ports)].into_iter());
        let pool = fleet.pool(&key()).unwrap();
        let picker = Picker::new(fleet.clone(), key(), metrics.clone(), options);
        let listen = ListenerOptions {
            address: server(0),
            certificate: None,
            threads: 1,
        };
        let service = Service::picking(picker);
        let listener = Listener::start(listen, Some(service), Routes::default())
            .await
            .unwrap();
        let url = format!("http://{}", listener.address());
        let client = ExternalProcessorClient::connect(url).await.unwrap();
        Self {
            listener,
            pool,
            metrics,
            client,
        }
    }

    async fn call(&self) -> Call {
        Call::open(&self.client).await
    }

    /// Waits until all charges have gone back.
    async fn idle(&self) {
        for _ in 0..500 {
            if self.pool.in_flight() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} requests stay in flight", self.pool.in_flight());
    }
}

/// One stream, from the proxy's side.
struct Call {
    messages: mpsc::UnboundedSender<ProcessingRequest>,
    replies: Streaming<ProcessingResponse>,
}

impl Call {
    async fn open(client: &ExternalProcessorClient<Channel>) -> Self {
        let (messages, mut queue) = mpsc::unbounded_channel();
        let inbound = stream::poll_fn(move |cx| queue.poll_recv(cx));
        let replies = client.clone().process(inbound).await.unwrap().into_inner();
        Self { messages, replies }
    }

    fn send(&self, request: Request) {
        self.send_with(request, None);
    }

    fn send_with(&self, request: Request, metadata: Option<Metadata>) {
        let message = ProcessingRequest {
            request: Some(request),
            metadata_context: metadata,
            ..ProcessingRequest::default()
        };
        self.messages.send(message).unwrap();
    }

    fn head(
        &self,
        mode: BodySendMode,
        fields: &[(&str, &str)],
        end: bool,
        metadata: Option<Metadata>,
    ) {
        let message = ProcessingRequest {
            request: Some(Request::RequestHeaders(headers(fields, end))),
            metadata_context: metadata,
            protocol_config: Some(ProtocolConfiguration {
                request_body_mode: mode.into(),
                response_body_mode: mode.into(),
                send_body_without_waiting_for_header_response: false,
            }),
            ..ProcessingRequest::default()
        };
        self.messages.send(message).unwrap();
    }

    fn post(&self, fields: &[(&str, &str)], metadata: Option<Metadata>) {
        let mut all = vec![(":method", "POST"), (":path", PATH)];
        all.extend(fields);
        self.head(BodySendMode::FullDuplexStreamed, &all, false, metadata);
    }

    fn body(&self, bytes: impl Into<Bytes>, end_of_stream: bool) {
        self.send(Request::RequestBody(HttpBody {
            body: bytes.into(),
            end_of_stream,
        }));
    }

    async fn next(&mut self) -> Result<ProcessingResponse, Status> {
        let limit = Duration::from_secs(30);
        let next = tokio::time::timeout(limit, self.replies.message()).await;
        next.expect("no reply in time")
            .map(|reply| reply.expect("the stream has ended"))
    }

    /// The pick: servers in order, after checking that header and metadata say the same, and the headers set.
    async fn pick(&mut self) -> Pick {
        let reply = self.next().await.unwrap();
        let in_metadata = reply.dynamic_metadata.as_ref().map(|all| {
            let Some(Kind::StructValue(lb)) = &all.fields["envoy.lb"].kind else {
                panic!("a namespace");
            };
            let Some(Kind::StringValue(text)) = &lb.fields[DESTINATION].kind else {
                panic!("a text");
            };
            text.clone()
        });
        let common = match reply.response.unwrap() {
            Response::RequestHeaders(head) => head.response.unwrap(),
            Response::RequestBody(body) => body.response.unwrap(),
            other => panic!("{other:?}"),
        };
        let mutation = common.header_mutation.clone().unwrap();
        let set: Vec<(String, Bytes)> = mutation
            .set_headers
            .into_iter()
            .map(|option| option.header.unwrap())
            .map(|header| (header.key, header.raw_value))
            .collect();
        let header = set.iter().find(|(name, _)| name == DESTINATION);
        let header = String::from_utf8(header.unwrap().1.to_vec()).unwrap();
        assert_eq!(Some(&header), in_metadata.as_ref());
        assert!(common.clear_route_cache);
        Pick {
            servers: header.split(',').map(|s| s.parse().unwrap()).collect(),
            set,
            removed: mutation.remove_headers,
            body: common.body_mutation.and_then(|m| m.mutation),
        }
    }

    /// The request's body as it comes back.
    async fn echoed(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let Some(Response::RequestBody(reply)) = self.next().await.unwrap().response else {
                panic!("a piece");
            };
            let Some(Mutation::StreamedResponse(piece)) =
                reply.response.and_then(|c| c.body_mutation?.mutation)
            else {
                panic!("a streamed piece");
            };
            assert!(piece.body.len() <= 62_000);
            all.extend_from_slice(&piece.body);
            if piece.end_of_stream {
                return all;
            }
        }
    }

    async fn refused(&mut self) -> ImmediateResponse {
        match self.next().await.unwrap().response {
            Some(Response::ImmediateResponse(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }
}

struct Pick {
    servers: Vec<SocketAddr>,
    set: Vec<(String, Bytes)>,
    removed: Vec<String>,
    body: Option<Mutation>,
}

impl Pick {
    fn header(&self, name: &str) -> Option<&[u8]> {
        let found = self.set.iter().find(|(key, _)| key == name)?;
        Some(&found.1)
    }
}

fn headers(fields: &[(&str, &str)], end_of_stream: bool) -> HttpHeaders {
    let header = |(key, value): &(&str, &str)| HeaderValue {
        key: (*key).to_owned(),
        raw_value: Bytes::copy_from_slice(value.as_bytes()),
        ..HeaderValue::default()
    };
    HttpHeaders {
        headers: Some(HeaderMap {
            headers: fields.iter().map(header).collect(),
        }),
        end_of_stream,
    }
}

fn subset(entries: &[&str]) -> Option<Metadata> {
    let text = |entry: &&str| Value {
        kind: Some(Kind::StringValue((*entry).to_owned())),
    };
    let list = ListValue {
        values: entries.iter().map(text).collect(),
    };
    let value = Value {
        kind: Some(Kind::ListValue(list)),
    };
    let content = Struct {
        fields: [("x-gateway-destination-endpoint-subset".to_owned(), value)].into(),
    };
    Some(Metadata::default().with("envoy.lb.subset_hint", content))
}

fn served(address: SocketAddr) -> Option<Metadata> {
    let key = "x-gateway-destination-endpoint-served";
    Some(Metadata::default().with_text("envoy.lb", key, &address.to_string()))
}

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "one request from its head to its record"
)]
async fn a_request_is_picked_for_rewritten_and_followed_to_its_end() {
    let world = World::new(&[9001, 9002], PickerOptions::default()).await;
    let mut call = world.call().await;
    call.post(
        &[
            ("x-gateway-inference-objective", "gold"),
            ("x-gateway-inference-fairness-id", "team"),
            (DESTINATION, "6.6.6.6:1"),
            ("x-gateway-destination-endpoint-subset", "6.6.6.6:1"),
            ("content-length", "99"),
        ],
        None,
    );
    let body = br#"{"prompt":"hello", "model":"public","stream":true}"#;
    call.body(&body[..20], false);
    call.body(&body[20..], true);
    let pick = call.pick().await;
    assert_eq!(pick.servers.len(), 2, "a pick and a fallback");
    let expected = br#"{"prompt":"hello", "model":"private-v1","stream":true}"#;
    assert_eq!(call.echoed().await, expected);
    let length = expected.len().to_string();
    assert_eq!(pick.header("content-length"), Some(length.as_bytes()));
    assert_eq!(pick.header("x-request-id").map(<[u8]>::len), Some(36));
    assert_eq!(
        pick.removed,
        [
            "x-gateway-inference-objective",
            "x-gateway-inference-fairness-id",
            "x-gateway-destination-endpoint-subset",
        ]
    );
    assert_eq!(world.pool.in_flight(), 1);

    // Another server than the first of the list has answered.
    let other = pick.servers[1];
    call.send_with(
        Request::ResponseHeaders(headers(
            &[(":status", "200"), ("content-type", "text/event-stream")],
            false,
        )),
        served(other),
    );
    let Some(Response::ResponseHeaders(reply)) = call.next().await.unwrap().response else {
        panic!("a head");
    };
    let set = reply.response.unwrap().header_mutation.unwrap().set_headers;
    assert_eq!(set[0].header.as_ref().unwrap().key, "x-request-id");
    let events = [
        &br#"data: {"id":"1","choices":[{"text":"a"}]}"#[..],
        b"\n\n",
        br#"data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#,
        b"\n\ndata: [DONE]\n\n",
    ];
    for event in events {
        call.send(Request::ResponseBody(HttpBody {
            body: Bytes::copy_from_slice(event),
            end_of_stream: false,
        }));
        let Some(Response::ResponseBody(reply)) = call.next().await.unwrap().response else {
            panic!("a piece");
        };
        let Some(Mutation::StreamedResponse(piece)) =
            reply.response.and_then(|c| c.body_mutation?.mutation)
        else {
            panic!("a streamed piece");
        };
        assert_eq!((&piece.body[..], piece.end_of_stream), (event, false));
    }
    let loads: Vec<(SocketAddr, u32)> = world
        .pool
        .endpoints()
        .iter()
        .map(|e| (e.address, e.in_flight))
        .collect();
    assert!(
        loads.contains(&(other, 1)),
        "the charge has moved: {loads:?}"
    );
    call.send(Request::ResponseBody(HttpBody {
        body: Bytes::new(),
        end_of_stream: true,
    }));
    call.next().await.unwrap();
    world.idle().await;
    drop(call);
    let line = "inference_objective_request_total{model_name=\"public\",target_model_name=\"private-v1\"} 1";
    for _ in 0..200 {
        if world.metrics.encode_text().contains(line) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let page = world.metrics.encode_text();
    assert!(page.contains(line), "{page}");
    assert!(
        page.contains("llm_d_epp_request_output_tokens_sum"),
        "{page}"
    );
    assert!(page.contains("priority=\"7\""), "{page}");
    world.listener.drain(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn each_mode_gets_its_pick() {
    let world = World::new(&[9001, 9002], PickerOptions::default()).await;
    let fields = [(":method", "POST"), (":path", PATH)];
    let body = r#"{"model":"public","prompt":"x"}"#;
    // Buffered: an empty reply, then the pick with the body.
    let mut call = world.call().await;
    call.head(BodySendMode::Buffered, &fields, false, None);
    let Some(Response::RequestHeaders(_)) = call.next().await.unwrap().response else {
        panic!("a head");
    };
    call.body(body, true);
    let pick = call.pick().await;
    let Some(Mutation::Body(replaced)) = &pick.body else {
        panic!("{:?}", pick.body);
    };
    assert_eq!(&replaced[..], br#"{"model":"private-v1","prompt":"x"}"#);
    assert_eq!(
        pick.header("content-length"),
        Some(replaced.len().to_string().as_bytes())
    );
    drop(call);
    // The others: with the head.
    for mode in [BodySendMode::Streamed, BodySendMode::None] {
        let mut call = world.call().await;
        call.head(mode, &fields, false, None);
        assert_eq!(call.pick().await.servers.len(), 2);
    }
    let mut call = world.call().await;
    let get = [(":method", "GET"), (":path", "/v1/models")];
    call.head(BodySendMode::FullDuplexStreamed, &get, true, None);
    assert!(!call.pick().await.servers.is_empty());
    drop(call);
    world.idle().await;
}

#[tokio::test]
async fn the_subset_is_heeded_and_an_empty_one_refused() {
    let world = World::new(&[9001, 9002, 9003], PickerOptions::default()).await;
    let body = r#"{"model":"plain","prompt":"x"}"#;
    for entries in [&["127.0.0.1:9002"][..], &["10.0.0.1:80", "127.0.0.1:9002"]] {
        for _ in 0..5 {
            let mut call = world.call().await;
            call.post(&[], subset(entries));
            call.body(body, true);
            assert_eq!(call.pick().await.servers, [server(9002)], "{entries:?}");
        }
    }
    let mut call = world.call().await;
    call.post(&[], subset(&["127.0.0.1"]));
    call.body(body, true);
    assert_eq!(call.pick().await.servers.len(), 3);
    drop(call);
    for entries in [&[][..], &["10.0.0.1:80"], &["nonsense"]] {
        let mut call = world.call().await;
        call.post(&[], subset(entries));
        call.body(body, true);
        let answer = call.refused().await;
        assert_eq!(answer.status.unwrap().code, 503, "{entries:?}");
    }
    world.idle().await;
}

#[tokio::test]
async fn bad_requests_are_answered_and_bad_streams_end_with_an_error() {
    let options = PickerOptions {
        max_body: 1000,
        ..PickerOptions::default()
    };
    let world = World::new(&[9001], options).await;
    let large = "x".repeat(1001);
    for (body, status, code) in [
        ("", 400, "invalid_json"),
        ("{", 400, "invalid_json"),
        (r#"{"prompt":"x"}"#, 400, "model_missing"),
        (
            r#"{"model":"plain","prompt":"x","kv_transfer_params":{}}"#,
            400,
            "reserved_field",
        ),
        (large.as_str(), 413, "body_too_large"),
    ] {
        let mut call = world.call().await;
        call.post(&[("x-request-id", "mine")], None);
        call.body(body.to_owned(), true);
        let answer = call.refused().await;
        assert_eq!(answer.status.unwrap().code, status, "{body}");
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["error"]["code"], code, "{body}");
        let set = answer.headers.unwrap().set_headers;
        assert!(
            set.iter()
                .any(|o| o.header.as_ref().unwrap().raw_value == "mine")
        );
        assert!(
            call.replies.message().await.unwrap().is_none(),
            "then a clean end"
        );
    }
    type Send = fn(&Call);
    let streams: [(Send, Code); 4] = [
        (|call| call.body("x", true), Code::InvalidArgument),
        (
            |call| {
                call.post(&[], None);
                call.post(&[], None);
            },
            Code::InvalidArgument,
        ),
        (
            |call| call.head(BodySendMode::Grpc, &[], false, None),
            Code::Unimplemented,
        ),
        (
            |call| call.messages.send(ProcessingRequest::default()).unwrap(),
            Code::InvalidArgument,
        ),
    ];
    for (send, code) in streams {
        let mut call = world.call().await;
        send(&call);
        assert_eq!(call.next().await.unwrap_err().code(), code);
    }
    // A proxy that stops in the middle.
    let mut call = world.call().await;
    call.post(&[], None);
    call.body("{", false);
    call.messages = mpsc::unbounded_channel().0;
    assert_eq!(call.next().await.unwrap_err().code(), Code::Aborted);
    world.idle().await;
}

#[tokio::test]
async fn a_stream_that_is_ended_for_others_says_so_as_its_last_event() {
    let world = World::with(&[9001], PickerOptions::default(), |options| {
        options.scheduling.flow.evict_running = true;
        options.scheduling.detector = scheduling::Detector::Concurrency {
            requests: Some(1.0),
            tokens: None,
        };
    })
    .await;
    let objective = "x-gateway-inference-objective";
    let mut low = world.call().await;
    low.post(&[(objective, "scrap")], None);
    low.body(r#"{"model":"plain","prompt":"x","stream":true}"#, true);
    low.pick().await;
    low.echoed().await;
    let fields = [(":status", "200"), ("content-type", "text/event-stream")];
    low.send(Request::ResponseHeaders(headers(&fields, false)));
    low.next().await.unwrap();
    // The last line is not over yet.
    let begun = &br#"data: {"id":"1","choices":[{"text":"a"}]}

data: {"cho"#[..];
    low.send(Request::ResponseBody(HttpBody {
        body: begun.into(),
        end_of_stream: false,
    }));
    low.next().await.unwrap();

    let mut high = world.call().await;
    high.post(&[(objective, "gold")], None);
    high.body(r#"{"model":"plain","prompt":"y"}"#, true);
    let Some(Response::ResponseBody(reply)) = low.next().await.unwrap().response else {
        panic!("a piece");
    };
    let Some(Mutation::StreamedResponse(piece)) =
        reply.response.and_then(|c| c.body_mutation?.mutation)
    else {
        panic!("a streamed piece");
    };
    assert!(piece.end_of_stream);
    let text = String::from_utf8(piece.body.to_vec()).unwrap();
    assert!(text.starts_with('\n') && text.ends_with("\n\n"), "{text:?}");
    let event = text.trim().strip_prefix("data: ").unwrap();
    let event: serde_json::Value = serde_json::from_str(event).unwrap();
    assert_eq!(event["error"]["code"], "evicted");
    high.pick().await;
}

#[tokio::test]
async fn a_pool_without_servers_is_503_and_says_when_to_come_again() {
    let world = World::new(&[], PickerOptions::default()).await;
    let mut call = world.call().await;
    call.post(&[], None);
    call.body(r#"{"model":"plain","prompt":"x"}"#, true);
    let answer = call.refused().await;
    assert_eq!(answer.status.unwrap().code, 503);
    let names: Vec<String> = answer
        .headers
        .unwrap()
        .set_headers
        .into_iter()
        .map(|option| option.header.unwrap().key)
        .collect();
    for name in [
        "retry-after",
        "x-llm-d-request-dropped-reason",
        "content-type",
    ] {
        assert!(names.iter().any(|n| n == name), "{names:?}");
    }
}

/// Kilobytes of this process in memory.
fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Streams that are held, and the length of their prompts.
const HELD: [(usize, usize); 2] = [(10_000, 1 << 10), (1000, 64 << 10)];

/// Not a test by itself: the proxy of [`idle_streams_cost_little`], in a process of its own.
#[tokio::test]
#[ignore = "run by idle_streams_cost_little"]
async fn hold_streams() {
    use std::io::Read;
    let url = std::env::var("PICKER").unwrap();
    let streams: usize = std::env::var("STREAMS").unwrap().parse().unwrap();
    let prompt = "x".repeat(std::env::var("PROMPT").unwrap().parse().unwrap());
    let client = ExternalProcessorClient::connect(url).await.unwrap();
    let body = format!(r#"{{"model":"plain","prompt":"{prompt}","stream":true}}"#);
    let mut calls = Vec::with_capacity(streams);
    for _ in 0..streams {
        let mut call = Call::open(&client).await;
        call.post(&[("x-request-id", "idle")], None);
        call.body(body.clone(), true);
        call.pick().await;
        call.echoed().await;
        let fields = [(":status", "200"), ("content-type", "text/event-stream")];
        call.send(Request::ResponseHeaders(headers(&fields, false)));
        call.next().await.unwrap();
        calls.push(call);
    }
    println!("held");
    // Until the other side has looked.
    let _ = std::io::stdin().read(&mut [0]);
}

/// Answers that are being generated, ten thousand of them, and some to long prompts.
#[test]
fn idle_streams_cost_little() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    const LIMIT_KIB: f64 = 12.0;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    for (streams, prompt) in HELD {
        // Engines whose batch is full are not given more: enough of them for all.
        let ports: Vec<u16> = (9001..9061).collect();
        let world = runtime.block_on(World::new(&ports, PickerOptions::default()));
        let before = resident_kib();
        let mut proxy = Command::new(std::env::current_exe().unwrap())
            .args(["hold_streams", "--exact", "--ignored", "--nocapture"])
            .env("PICKER", format!("http://{}", world.listener.address()))
            .env("STREAMS", streams.to_string())
            .env("PROMPT", prompt.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(proxy.stdout.take().unwrap()).lines();
        let held = lines
            .by_ref()
            .map_while(Result::ok)
            .any(|line| line.contains("held"));
        assert!(held, "the proxy has failed");
        let each = resident_kib().saturating_sub(before) as f64 / streams as f64;
        println!("{each:.1} KiB for each of {streams} streams with prompts of {prompt} bytes");
        assert_eq!(world.pool.in_flight(), streams);
        drop(proxy.stdin.take());
        lines.for_each(drop);
        proxy.wait().unwrap();
        runtime.block_on(world.idle());
        assert!(each < LIMIT_KIB, "{each:.1} KiB for a stream");
    }
}
