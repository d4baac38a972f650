//! `pointsman epp` as a process: its command lines, its ports, a pick, a reload, its end.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use extproc::proto::core::{HeaderMap, HeaderValue};
use extproc::proto::ext_proc::processing_request::Request;
use extproc::proto::ext_proc::processing_response::Response;
use extproc::proto::ext_proc::{HttpHeaders, ProcessingRequest};
use extproc::proto::health::HealthCheckRequest;
use extproc::proto::health::health_client::HealthClient;
use extproc::proto::service::ExternalProcessorClient;
use futures_util::{StreamExt, stream};

const PATIENCE: Duration = Duration::from_secs(60);

/// The binary under the name of the endpoint picker's.
fn program(folder: &Path) -> PathBuf {
    let link = folder.join("epp");
    if !link.exists() {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_pointsman"), &link).unwrap();
    }
    link
}

struct Epp {
    child: Child,
    /// Ports by what the log says of them.
    ports: BTreeMap<&'static str, SocketAddr>,
}

impl Drop for Epp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Epp {
    fn start(folder: &Path, flags: &[&str]) -> Self {
        let mut child = Command::new(program(folder))
            .arg("-f")
            .arg(folder.join("pool.yaml"))
            .args([
                "-grpcPort=0",
                "--grpc-health-port",
                "0",
                "-metrics-port",
                "0",
            ])
            .args(flags)
            .env_remove("RUST_LOG")
            .env_remove("POINTSMAN_LOG")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut ports = BTreeMap::new();
        let words = [
            ("serving envoy", "grpc"),
            ("gRPC health", "health"),
            ("admin:", "admin"),
        ];
        while ports.len() < words.len() {
            let line = lines.next().expect("the picker has ended").unwrap();
            let Ok(event) = serde_json::from_str::<serde_json::Value>(&line) else {
                continue;
            };
            let message = event["message"].as_str().unwrap_or_default();
            let word = words.iter().find(|(text, _)| message.starts_with(text));
            if let (Some((_, name)), Some(address)) = (word, event["address"].as_str()) {
                ports.insert(*name, address.parse().unwrap());
            }
        }
        // Whoever logs must not wait for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, ports }
    }

    /// The servers picked for a GET, and the status of a refusal.
    async fn pick(&self) -> Result<String, i32> {
        let url = format!("http://{}", self.ports["grpc"]);
        let mut client = ExternalProcessorClient::connect(url).await.unwrap();
        let header = |key: &str, value: &'static str| HeaderValue {
            key: key.to_owned(),
            raw_value: value.into(),
            ..HeaderValue::default()
        };
        let head = ProcessingRequest {
            request: Some(Request::RequestHeaders(HttpHeaders {
                headers: Some(HeaderMap {
                    headers: vec![header(":method", "GET"), header(":path", "/v1/models")],
                }),
                end_of_stream: true,
            })),
            ..ProcessingRequest::default()
        };
        let messages = stream::iter([head]).chain(stream::pending());
        let mut replies = client.process(messages).await.unwrap().into_inner();
        match replies.message().await.unwrap().unwrap().response.unwrap() {
            Response::RequestHeaders(reply) => {
                let set = reply.response.unwrap().header_mutation.unwrap().set_headers;
                let header = set.into_iter().filter_map(|option| option.header);
                let mut found = header.filter(|h| h.key == "x-gateway-destination-endpoint");
                Ok(String::from_utf8(found.next().unwrap().raw_value.to_vec()).unwrap())
            }
            Response::ImmediateResponse(answer) => Err(answer.status.unwrap().code),
            other => panic!("{other:?}"),
        }
    }

    /// Health of a service, by its number.
    async fn health(&self, service: &str) -> i32 {
        let url = format!("http://{}", self.ports["health"]);
        let mut client = HealthClient::connect(url).await.unwrap();
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        client.check(request).await.unwrap().into_inner().status
    }
}

fn pool(name: &str, ports: &[u16]) -> String {
    let mut text = format!(
        "apiVersion: inference.networking.k8s.io/v1\nkind: InferencePool\n\
         metadata: {{name: {name}, namespace: default}}\n\
         spec:\n  selector: {{matchLabels: {{app: {name}}}}}\n  targetPorts: [{{number: 8000}}]\n  \
         endpointPickerRef: {{name: picker, port: {{number: 9002}}}}\n"
    );
    for port in ports {
        text.push_str(&format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: {name}-{port}, namespace: default, labels: {{app: {name}}}}}\n\
             addressType: IPv4\nendpoints: [{{addresses: [127.0.0.1]}}]\nports: [{{port: {port}}}]\n"
        ));
    }
    text
}

fn folder(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pool.yaml"), text).unwrap();
    folder
}

/// A server that answers everything with an empty page: it is up, and says nothing about its load.
fn server() -> u16 {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
                while stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
                    if stream.write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

async fn eventually(epp: &Epp, wanted: &Result<String, i32>) {
    let begun = Instant::now();
    loop {
        let found = epp.pick().await;
        if found == *wanted {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{found:?} and not {wanted:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn picks_follow_the_files_and_the_end_is_clean() {
    let (one, two) = (server(), server());
    let folder = folder(&pool("llama", &[one]));
    let mut epp = Epp::start(
        folder.path(),
        &["-secureServing=false", "--drain-timeout", "5s"],
    );
    let address = |port: u16| format!("127.0.0.1:{port}");
    eventually(&epp, &Ok(address(one))).await;
    for service in ["", "readiness", "inference-extension", "liveness"] {
        assert_eq!(epp.health(service).await, 1, "{service:?} serves");
    }
    std::fs::write(folder.path().join("pool.yaml"), pool("llama", &[two])).unwrap();
    eventually(&epp, &Ok(address(two))).await;
    // A pool that is taken away is not ready, but alive.
    std::fs::write(folder.path().join("pool.yaml"), pool("other", &[two])).unwrap();
    eventually(&epp, &Err(503)).await;
    assert_eq!(epp.health("readiness").await, 2, "does not serve");
    assert_eq!(epp.health("liveness").await, 1);
    let id = epp.child.id().to_string();
    let told = Command::new("kill").args(["-TERM", &id]).status().unwrap();
    assert!(told.success());
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = epp.child.try_wait().unwrap() {
            break status;
        }
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_pool_may_be_described_by_flags() {
    let (one, two) = (server(), server());
    // The servers of two pools, and no pool.
    let slices = |name, port| {
        let all = pool(name, &[port]);
        all[all.find("---").unwrap()..].to_owned()
    };
    let folder = folder(&(slices("llama", one) + &slices("other", two)));
    let flags = [
        "-secureServing=false",
        "-endpointSelector=app=llama",
        "--endpoint-target-ports=8000",
    ];
    let epp = Epp::start(folder.path(), &flags);
    eventually(&epp, &Ok(format!("127.0.0.1:{one}"))).await;
    std::fs::write(folder.path().join("pool.yaml"), slices("other", two)).unwrap();
    eventually(&epp, &Err(503)).await;
    assert_eq!(
        epp.health("readiness").await,
        1,
        "the pool is there, and empty"
    );
}

#[test]
fn what_cannot_be_served_is_said() {
    let two = format!("{}---\n{}", pool("a", &[]), pool("b", &[]));
    let both = folder(&two);
    let run = |flags: &[&str]| -> Output {
        Command::new(program(both.path()))
            .args(flags)
            .env_remove("KUBECONFIG")
            .env("HOME", both.path())
            .output()
            .unwrap()
    };
    let yaml = both.path().join("pool.yaml");
    let yaml = yaml.to_str().unwrap();
    for (flags, words) in [
        (&["-f", yaml][..], "several pools (default/a, default/b)"),
        (
            &["-f", yaml, "-poolName", "c"],
            "no InferencePool of that name",
        ),
        (
            &["-f", yaml, "--pool-name=a", "--pool-group=x"],
            "--pool-group",
        ),
        (
            &["--config-text", "kind: X", "--pool-name", "a"],
            "EndpointPickerConfig",
        ),
        (&["--endpoint-selector=app=x"], "--endpoint-target-ports"),
        (&["--endpoint-target-ports=1"], "--endpoint-selector"),
        (
            &["-endpointSelector=app", "-endpointTargetPorts=1"],
            "not LABEL=VALUE",
        ),
        (
            &["--endpoint-selector=a=b", "--endpoint-target-ports=1,x"],
            "not a port",
        ),
        (
            &[
                "--endpoint-selector=a=b",
                "--endpoint-target-ports=1",
                "--pool-name=a",
            ],
            "exclude each other",
        ),
        (&[], "--pool-name"),
        (&["--pool-name", "a"], "cluster"),
        (
            &["-f", yaml, "--pool-name=a", "--cert-path=/nowhere"],
            "/nowhere",
        ),
        (&["-f", yaml, "-nonsense"], "nonsense"),
    ] {
        let output = run(flags);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{flags:?}");
        assert!(said.contains(words), "{flags:?}: {said}");
    }
}
