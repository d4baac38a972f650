//! Both halves of the protocol over loopback: our own picker, asked as a gateway asks it.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use extproc::client::{Call, Dialogue, Event, Failure, RequestHead, Switchboard, Verdict};
use extproc::server::{Certificate, Listener, ListenerOptions, Picker, PickerOptions, Service};
use fleet::{Fleet, FleetOptions, Pool};
use http::{HeaderMap, Method, StatusCode};
use rcgen::{CertificateParams, KeyPair};
use routing::{
    AppProtocol, EndpointSpec, Host, ModelTable, PickerTls, PoolKey, PoolKind, PoolSpec,
    UpstreamTls, Verify,
};
use telemetry::Metrics;
use tonic::service::Routes;

const BODY: &[u8] = br#"{"model":"m","prompt":"hello","stream":true}"#;
const CONNECT: Duration = Duration::from_secs(5);
const PICK: Duration = Duration::from_secs(10);

fn endpoint(address: SocketAddr) -> EndpointSpec {
    EndpointSpec {
        host: Host::Ip(address.ip()),
        port: address.port(),
        name: "it".into(),
        ready: true,
        labels: Arc::default(),
        base_path: None,
    }
}

struct World {
    listener: Listener,
    pool: Arc<Pool>,
    /// The one server there is. Nobody asks it anything.
    server: SocketAddr,
}

impl World {
    async fn new(certificate: Option<Arc<Certificate>>) -> Self {
        let key = PoolKey {
            kind: PoolKind::Inference,
            namespace: "ns".into(),
            name: "pool".into(),
        };
        let server: SocketAddr = "127.0.0.1:9001".parse().unwrap();
        let mut options = FleetOptions {
            learn_models: false,
            ..FleetOptions::default()
        };
        options.scrape.enabled = false;
        options.probe.period = Duration::from_secs(3600);
        options.probe.suspect_period = Duration::from_secs(3600);
        let metrics = Metrics::new();
        let fleet = Fleet::new(options, metrics.clone());
        let spec = Arc::new(PoolSpec {
            key: key.clone(),
            endpoints: vec![endpoint(server)],
            protocol: AppProtocol::Http,
            tls: None,
            picker: routing::Picker::Inside,
            models: Arc::new(ModelTable::default()),
        });
        fleet.apply([&spec].into_iter());
        let pool = fleet.pool(&key).unwrap();
        let picker = Picker::new(fleet, key, metrics, PickerOptions::default());
        let listen = ListenerOptions {
            address: "127.0.0.1:0".parse().unwrap(),
            certificate,
            threads: 1,
        };
        let service = Service::picking(picker);
        let listener = Listener::start(listen, Some(service), Routes::default())
            .await
            .unwrap();
        Self {
            listener,
            pool,
            server,
        }
    }
}

fn call() -> Call {
    let head = RequestHead {
        method: &Method::POST,
        scheme: "http",
        authority: "llm.example",
        path: "/v1/completions",
        headers: &HeaderMap::new(),
        more: &[],
    };
    Call::new(&head, Some(BODY.into()), None, 1 << 20)
}

/// Asks the picker at this address; the call, and where the request goes.
async fn ask(
    board: &Switchboard,
    address: SocketAddr,
    tls: &PickerTls,
) -> Result<(Dialogue, Vec<SocketAddr>), Failure> {
    let lines = board.lines(&[endpoint(address)], tls);
    let (mut dialogue, _) = lines.begin(call, CONNECT, true).await?;
    match dialogue.verdict(PICK).await? {
        Verdict::Pick(pick) => Ok((dialogue, pick.destination.endpoints)),
        Verdict::Immediate(answer) => panic!("{answer:?}"),
    }
}

/// Shows the picker an answer with trailers; what may go on to the client.
async fn answer(dialogue: &mut Dialogue, served: SocketAddr) -> Vec<String> {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "text/event-stream".parse().unwrap());
    dialogue.answer_head(StatusCode::OK, &headers, false, Some(served));
    dialogue.answer_data(Bytes::from_static(b"data: {}\n\n"), false);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-end", "1".parse().unwrap());
    dialogue.answer_end(Some(&trailers));
    let mut words = Vec::new();
    loop {
        while let Some(event) = dialogue.next_event() {
            words.push(match event {
                Event::Head(_) => "head".to_owned(),
                Event::Data(data) => String::from_utf8(data.to_vec()).unwrap(),
                Event::Trailers(_) => "trailers".to_owned(),
                Event::End => "end".to_owned(),
                Event::Immediate(answer) => panic!("{answer:?}"),
            });
        }
        if dialogue.is_done() || words.last().is_some_and(|word| word == "end") {
            return words;
        }
        let received = poll_fn(|cx| dialogue.poll_receive(cx));
        tokio::time::timeout(PICK, received).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn an_answer_with_trailers_passes_and_its_charge_goes_back() {
    let world = World::new(None).await;
    let board = Switchboard::default();
    let (mut dialogue, servers) = ask(&board, world.listener.address(), &PickerTls::Plaintext)
        .await
        .unwrap();
    assert_eq!(servers, [world.server]);
    assert_eq!(world.pool.in_flight(), 1);
    let words = answer(&mut dialogue, world.server).await;
    assert_eq!(words[..3], ["head", "data: {}\n\n", "trailers"]);
    for _ in 0..500 {
        if world.pool.in_flight() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the charge stays");
}

#[tokio::test]
async fn a_picker_that_drains_ends_what_runs_and_takes_nothing_new() {
    let world = World::new(None).await;
    let address = world.listener.address();
    let board = Switchboard::default();
    let (mut dialogue, _) = ask(&board, address, &PickerTls::Plaintext).await.unwrap();
    let drain = tokio::spawn(world.listener.drain(Duration::from_secs(60)));
    // It says GOAWAY: the line that stands takes no more calls, and there is no other.
    let mut refused = None;
    for _ in 0..500 {
        if let Err(failure) = ask(&board, address, &PickerTls::Plaintext).await {
            refused = Some(failure);
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let refused = refused.expect("a picker that drains takes calls");
    assert!(
        refused.is_of_the_connection() || refused.code() == "unreachable",
        "{refused}"
    );
    assert!(!drain.is_finished(), "one call still runs");
    let words = answer(&mut dialogue, world.server).await;
    assert_eq!(words[..3], ["head", "data: {}\n\n", "trailers"]);
    dialogue.finish();
    tokio::time::timeout(Duration::from_secs(10), drain)
        .await
        .expect("nothing runs any more")
        .unwrap();
}

/// A folder with a certificate of its own for loopback, and that certificate.
fn identity() -> (tempfile::TempDir, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["picker.example".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(folder.path().join("tls.crt"), certificate.pem()).unwrap();
    std::fs::write(folder.path().join("tls.key"), key.serialize_pem()).unwrap();
    let pem = certificate.pem().into_bytes();
    (folder, pem)
}

#[tokio::test]
async fn certificates_are_verified_where_that_is_asked_for() {
    let (folder, pem) = identity();
    let (_, stranger) = identity();
    let certificate = Certificate::from_folder(folder.path()).unwrap();
    let world = World::new(Some(certificate)).await;
    let address = world.listener.address();
    let verified = |pem: &[u8], name: &str| {
        PickerTls::Verified(UpstreamTls {
            server_name: Some(name.to_owned()),
            verify: Verify::Roots(pem.into()),
            ..UpstreamTls::default()
        })
    };
    for (tls, fine) in [
        (PickerTls::Unverified, true),
        (verified(&pem, "picker.example"), true),
        (verified(&pem, "other.example"), false),
        (verified(&stranger, "picker.example"), false),
        (PickerTls::Plaintext, false),
    ] {
        let asked = ask(&Switchboard::default(), address, &tls).await;
        assert_eq!(asked.is_ok(), fine, "{tls:?}");
    }
    // One of our own making will do for whoever does not look.
    let own = World::new(Some(Certificate::self_signed().unwrap())).await;
    let (board, address) = (Switchboard::default(), own.listener.address());
    let asked = ask(&board, address, &PickerTls::Unverified).await;
    assert_eq!(asked.unwrap().1, [own.server]);
}
