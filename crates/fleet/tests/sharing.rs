//! Replicas that tell each other what they sent to servers.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{Server, World, eventually, options};
use fleet::{Fleet, Lease, PickRequest, Sharing, SharingOptions};
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Settings that do not make tests wait. A sibling that is lost is given up soon.
fn quick() -> SharingOptions {
    SharingOptions {
        resolve: Duration::from_millis(50),
        period: Duration::from_millis(10),
        forget_after: Duration::from_millis(50),
        ..SharingOptions::default()
    }
}

/// A replica, and where it listens.
struct Replica {
    world: World,
    ear: Sharing,
    mouth: Option<Sharing>,
}

impl Replica {
    async fn over(servers: &[&Server], sharing: SharingOptions) -> Self {
        let mut options = options();
        options.share = true;
        let endpoints = servers.iter().map(|server| server.spec()).collect();
        let world = World::new(options, endpoints).await;
        let listen = Some("127.0.0.1:0".parse().unwrap());
        let ear = Sharing::start(&world.fleet, SharingOptions { listen, ..sharing })
            .await
            .unwrap();
        Self {
            world,
            ear,
            mouth: None,
        }
    }

    fn address(&self) -> SocketAddr {
        self.ear.address().unwrap()
    }

    /// Begins to tell the others.
    async fn tell(&mut self, others: &[&Self], sharing: SharingOptions) {
        let siblings = others
            .iter()
            .map(|it| it.address().to_string().parse().unwrap());
        let options = SharingOptions {
            siblings: siblings.collect(),
            ..sharing
        };
        self.mouth = Some(Sharing::start(&self.world.fleet, options).await.unwrap());
    }

    async fn pick(&self) -> Lease {
        let request = PickRequest {
            prefix: Arc::from((1..=50).collect::<Vec<u64>>()),
            prompt_tokens: 3210,
            streams: true,
            ..PickRequest::default()
        };
        self.world.pool().pick(request).await.unwrap()
    }

    /// Requests of siblings in flight at each server, by its address.
    fn foreign(&self) -> Vec<(SocketAddr, u32)> {
        let statuses = self.world.pool().endpoints();
        let busy = statuses.iter().filter(|it| it.siblings_in_flight > 0);
        busy.map(|it| (it.address, it.siblings_in_flight)).collect()
    }

    fn sum(&self) -> u32 {
        self.foreign().iter().map(|(_, count)| count).sum()
    }

    fn told(&self, outcome: &str) -> f64 {
        let series = format!("pointsman_sharing_events_total{{outcome=\"{outcome}\"}}");
        self.world.sample(&series).unwrap()
    }

    fn siblings(&self) -> f64 {
        self.world.sample("pointsman_siblings").unwrap()
    }
}

#[tokio::test]
async fn a_charge_is_seen_by_the_other_replica_and_goes_back() {
    let (a, b) = (Server::start(&["m"]).await, Server::start(&["m"]).await);
    let mut one = Replica::over(&[&a, &b], quick()).await;
    let two = Replica::over(&[&b, &a], quick()).await;
    one.tell(&[&two], quick()).await;
    let lease = one.pick().await;
    let at = lease.endpoint().address();
    eventually("the charge is told", || two.foreign() == [(at, 1)]).await;
    assert_eq!(one.sum(), 0, "nobody tells the first");
    // The prompt counts as cached there: the same one goes to the same server.
    let same = two.pick().await;
    assert_eq!(same.endpoint().address(), at);
    drop(same);
    lease.finish(None, true);
    eventually("the release is told", || two.sum() == 0).await;
    assert_eq!(one.siblings(), 1.0);
    assert_eq!((one.told("dropped"), two.told("dropped")), (0.0, 0.0));
    assert!(one.told("sent") >= 2.0 && two.told("received") >= 2.0);
}

#[tokio::test]
async fn three_replicas_know_of_each_other() {
    let server = Server::start(&["m"]).await;
    let mut one = Replica::over(&[&server], quick()).await;
    let mut two = Replica::over(&[&server], quick()).await;
    let mut three = Replica::over(&[&server], quick()).await;
    one.tell(&[&two, &three], quick()).await;
    two.tell(&[&one, &three], quick()).await;
    three.tell(&[&one, &two], quick()).await;
    let leases = [one.pick().await, two.pick().await, three.pick().await];
    eventually("all know of all", || {
        [&one, &two, &three].iter().all(|it| it.sum() == 2)
    })
    .await;
    drop(leases);
    eventually("all is given back", || {
        [&one, &two, &three].iter().all(|it| it.sum() == 0)
    })
    .await;
}

#[tokio::test]
async fn what_a_lost_sibling_had_charged_goes_back() {
    let server = Server::start(&["m"]).await;
    let mut one = Replica::over(&[&server], quick()).await;
    let two = Replica::over(&[&server], quick()).await;
    one.tell(&[&two], quick()).await;
    let _held = [one.pick().await, one.pick().await];
    eventually("the charges are told", || two.sum() == 2).await;
    one.mouth = None;
    eventually("the sibling is forgotten", || two.sum() == 0).await;
    assert_eq!(one.siblings(), 0.0);
}

#[tokio::test]
async fn a_sibling_that_comes_back_soon_was_never_lost() {
    let server = Server::start(&["m"]).await;
    let patient = SharingOptions {
        forget_after: Duration::from_secs(600),
        ..quick()
    };
    let mut one = Replica::over(&[&server], quick()).await;
    let two = Replica::over(&[&server], patient).await;
    one.tell(&[&two], quick()).await;
    let held = one.pick().await;
    eventually("the charge is told", || two.sum() == 1).await;
    one.mouth = None;
    eventually("the connection is gone", || one.siblings() == 0.0).await;
    assert_eq!(two.sum(), 1);
    // What ended meanwhile is learned from being told everything anew.
    let second = one.pick().await;
    drop(held);
    one.tell(&[&two], quick()).await;
    eventually("it is told again", || one.siblings() == 1.0).await;
    drop(second);
    eventually("all is given back", || two.sum() == 0).await;
}

#[tokio::test]
async fn who_comes_late_is_told_what_is_charged_already() {
    let server = Server::start(&["m"]).await;
    let mut one = Replica::over(&[&server], quick()).await;
    let two = Replica::over(&[&server], quick()).await;
    // Nobody hears of it: the address is one where nobody listens.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let siblings = vec![nobody.local_addr().unwrap().to_string().parse().unwrap()];
    drop(nobody);
    let alone = SharingOptions {
        siblings,
        ..quick()
    };
    one.mouth = Some(Sharing::start(&one.world.fleet, alone).await.unwrap());
    let mut early = one.pick().await;
    early.first_token();
    tokio::time::sleep(Duration::from_millis(50)).await;
    one.mouth = None;
    one.tell(&[&two], quick()).await;
    eventually("the old charge is told", || two.sum() == 1).await;
    let status = &two.world.pool().endpoints()[0];
    eventually("so is its first token", || {
        two.world.pool().endpoints()[0].decoding == 1
    })
    .await;
    assert_eq!(status.address, server.address);
    drop(early);
    eventually("it is given back", || two.sum() == 0).await;
}

#[tokio::test]
async fn a_server_that_becomes_known_later_gets_its_charges() {
    let (a, b) = (Server::start(&["m"]).await, Server::start(&["m"]).await);
    let mut one = Replica::over(&[&b], quick()).await;
    let two = Replica::over(&[&a], quick()).await;
    one.tell(&[&two], quick()).await;
    let _held = one.pick().await;
    eventually("it is told", || two.told("received") >= 1.0).await;
    assert_eq!(two.sum(), 0, "the server is not known here");
    two.world.apply(vec![a.spec(), b.spec()]);
    eventually("it is asked for and told again", || {
        two.foreign() == [(b.address, 1)]
    })
    .await;
}

#[tokio::test]
async fn pools_that_go_give_their_charges_back() {
    let server = Server::start(&["m"]).await;
    let mut one = Replica::over(&[&server], quick()).await;
    let two = Replica::over(&[&server], quick()).await;
    one.tell(&[&two], quick()).await;
    let _held = one.pick().await;
    eventually("the charge is told", || two.sum() == 1).await;
    one.world.fleet.apply([].into_iter());
    eventually("the pool is forgotten", || two.sum() == 0).await;
    one.world.apply(vec![server.spec()]);
    one.world.fleet.learned(Duration::from_secs(10)).await;
    let _again = one.pick().await;
    eventually("a pool of that name is another one", || two.sum() == 1).await;
}

fn token_file(folder: &tempfile::TempDir, name: &str, text: &str) -> Option<PathBuf> {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    Some(path)
}

#[tokio::test]
async fn only_who_knows_the_token_is_heard() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&["m"]).await;
    let right = SharingOptions {
        token_file: token_file(&folder, "right", "open sesame\n".replace(' ', "-").as_str()),
        ..quick()
    };
    let wrong = SharingOptions {
        token_file: token_file(&folder, "wrong", "something-else"),
        ..quick()
    };
    let mut one = Replica::over(&[&server], quick()).await;
    let two = Replica::over(&[&server], right).await;
    let lease = one.pick().await;
    for sharing in [quick(), wrong.clone()] {
        one.tell(&[&two], sharing).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!((two.sum(), one.siblings()), (0, 0.0));
    }
    // The file is read again: a token may be changed while both run.
    token_file(&folder, "wrong", "  open-sesame  \n");
    eventually("the charge is told", || two.sum() == 1).await;
    drop(lease);
    let fleet: &Arc<Fleet> = &one.world.fleet;
    for bad in ["", "\n", "two words", "t\u{f6}ken"] {
        let token_file = token_file(&folder, "bad", bad);
        let started = Sharing::start(
            fleet,
            SharingOptions {
                token_file,
                ..quick()
            },
        )
        .await;
        assert!(started.is_err(), "{bad:?}");
    }
    let token_file = Some(folder.path().join("absent"));
    let started = Sharing::start(
        fleet,
        SharingOptions {
            token_file,
            ..quick()
        },
    )
    .await;
    assert!(started.is_err());
}

/// Asks the port for siblings something else.
async fn ask(address: SocketAddr, method: &str, path: &str) -> StatusCode {
    let tcp = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tcp))
            .await
            .unwrap();
    let driver = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(format!("http://{address}{path}"))
        .body(Empty::<Bytes>::new())
        .unwrap();
    let status = sender.send_request(request).await.unwrap().status();
    driver.abort();
    status
}

#[tokio::test]
async fn nonsense_on_the_port_harms_nobody() {
    let server = Server::start(&["m"]).await;
    let mut one = Replica::over(&[&server], quick()).await;
    let two = Replica::over(&[&server], quick()).await;
    one.tell(&[&two], quick()).await;
    let path = "/pointsman.sharing.v1.Sharing/Tell";
    let later = "/pointsman.sharing.v2.Sharing/Tell";
    assert_eq!(ask(two.address(), "POST", later).await, 404);
    assert_eq!(ask(two.address(), "GET", path).await, 404);
    assert_eq!(
        ask(two.address(), "POST", path).await,
        200,
        "it says nothing more"
    );
    let garbage = [0xff_u8; 4096];
    let words = [
        &b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &garbage,
        b"",
    ];
    for word in words {
        let mut stream = TcpStream::connect(two.address()).await.unwrap();
        // The other side may close before all is written.
        let _ = stream.write_all(word).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
    }
    let lease = one.pick().await;
    eventually("siblings are heard all the same", || two.sum() == 1).await;
    drop(lease);
    eventually("and their releases", || two.sum() == 0).await;
}

#[tokio::test]
async fn a_sibling_that_hangs_does_not_hold_up_the_others() {
    let server = Server::start(&["m"]).await;
    let mut one = Replica::over(&[&server], quick()).await;
    let two = Replica::over(&[&server], quick()).await;
    // It takes connections and says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = [mute.local_addr().unwrap(), two.address()];
    let siblings = addresses.map(|it| it.to_string().parse().unwrap()).to_vec();
    let sharing = SharingOptions {
        siblings,
        ..quick()
    };
    one.mouth = Some(Sharing::start(&one.world.fleet, sharing).await.unwrap());
    for _ in 0..100 {
        drop(one.pick().await);
    }
    let _held = one.pick().await;
    eventually("the other one is told", || two.sum() == 1).await;
    assert_eq!(one.siblings(), 1.0);
}

/// A folder with a certificate for loopback of this authority.
fn certificates(issuer: &Issuer<'_, KeyPair>, ca: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let params = CertificateParams::new(names).unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    std::fs::write(folder.path().join("tls.crt"), certificate.pem()).unwrap();
    std::fs::write(folder.path().join("tls.key"), key.serialize_pem()).unwrap();
    std::fs::write(folder.path().join("ca.crt"), ca).unwrap();
    folder
}

fn authority() -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

#[tokio::test]
async fn with_certificates_each_side_verifies_the_other() {
    let server = Server::start(&["m"]).await;
    let (issuer, ca) = authority();
    let (other_issuer, other_ca) = authority();
    let with = |folder: &tempfile::TempDir| SharingOptions {
        certificates: Some(folder.path().to_owned()),
        ..quick()
    };
    let (mine, yours) = (certificates(&issuer, &ca), certificates(&issuer, &ca));
    let stranger = certificates(&other_issuer, &other_ca);
    let mut one = Replica::over(&[&server], quick()).await;
    let two = Replica::over(&[&server], with(&yours)).await;
    let lease = one.pick().await;
    for sharing in [quick(), with(&stranger)] {
        one.tell(&[&two], sharing).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!((two.sum(), one.siblings()), (0, 0.0));
    }
    one.tell(&[&two], with(&mine)).await;
    eventually("the charge is told", || two.sum() == 1).await;
    drop(lease);
    eventually("it is given back", || two.sum() == 0).await;
    std::fs::remove_file(mine.path().join("ca.crt")).unwrap();
    assert!(Sharing::start(&one.world.fleet, with(&mine)).await.is_err());
}
