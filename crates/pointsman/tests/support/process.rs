//! The binary as a child process.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::Value;

use super::{PATIENCE, Reply, eventually, get};

/// A child that ends with its guard, and the lines of its log.
struct Process {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!(
                "--- log of process {} ---\n{}",
                self.child.id(),
                self.log.lock().join("\n")
            );
        }
    }
}

/// The binary, with nothing of the tester's environment in its settings.
fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("POINTSMAN_")) {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

impl Process {
    /// Its log is JSON, since nobody sits at a terminal.
    fn start(args: &[&str]) -> Self {
        let mut child = command()
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let (stderr, lines) = (child.stderr.take().expect("piped"), log.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().push(line);
            }
        });
        Self { child, log }
    }

    /// The log's lines that are JSON.
    fn events(&self) -> Vec<Value> {
        self.log
            .lock()
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// The addresses in events with this message.
    fn addresses(&self, message: &str) -> Vec<SocketAddr> {
        let told = |event: &Value| {
            event["message"]
                .as_str()
                .is_some_and(|text| text.starts_with(message))
        };
        let address = |event: Value| event["address"].as_str()?.parse().ok();
        self.events()
            .into_iter()
            .filter(told)
            .filter_map(address)
            .collect()
    }

    fn wait_for(&mut self, message: &str) -> Vec<SocketAddr> {
        eventually(message, || {
            let ended = self.child.try_wait().expect("waits");
            assert!(
                ended.is_none(),
                "ended with {ended:?}: {}",
                self.log.lock().join("\n")
            );
            Some(self.addresses(message)).filter(|found| !found.is_empty())
        })
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &kill]).status().expect("sh");
        assert!(sent.success());
    }
}

/// A running `pointsman serve`.
pub struct Pointsman {
    process: Process,
    /// The first data address.
    pub data: SocketAddr,
    pub admin: SocketAddr,
}

impl Pointsman {
    /// `serve` with these arguments on free ports, once it serves. Settings are such that tests need not wait long.
    pub fn serve(args: &[&str]) -> Self {
        let fixed = [
            "serve",
            "--admin",
            "127.0.0.1:0",
            "--threads",
            "1",
            "--refresh-metrics-interval",
            "20ms",
        ];
        let mut args = [&fixed, args].concat();
        if !args.contains(&"--listen") {
            args.extend(["--listen", "127.0.0.1:0"]);
        }
        let mut process = Process::start(&args);
        // The admin address is told last.
        let admin = process.wait_for("admin:")[0];
        let data = process.addresses("serving").first().copied();
        Self {
            process,
            data: data.unwrap_or(admin),
            admin,
        }
    }

    /// `epp` with these arguments on free ports, once it picks.
    pub fn epp(path: &Path, more: &[&str]) -> Self {
        let path = path.to_str().expect("UTF-8");
        let fixed = [
            "epp",
            "-f",
            path,
            "--threads",
            "1",
            "--secure-serving=false",
        ];
        let ports = ["--grpc-port=0", "--grpc-health-port=0", "--metrics-port=0"];
        let mut process = Process::start(&[&fixed[..], &ports[..], more].concat());
        let admin = process.wait_for("admin:")[0];
        let data = process.addresses("serving")[0];
        Self {
            process,
            data,
            admin,
        }
    }

    /// In front of servers by URL.
    pub fn urls(servers: &[SocketAddr], more: &[&str]) -> Self {
        let urls: Vec<String> = servers
            .iter()
            .map(|address| format!("http://{address}"))
            .collect();
        let args: Vec<&str> = urls
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied())
            .collect();
        Self::serve(&args)
    }

    /// From files.
    pub fn files(path: &Path, more: &[&str]) -> Self {
        let path = path.to_str().expect("UTF-8");
        Self::serve(&[&["-f", path], more].concat())
    }

    /// `/readyz`.
    pub fn readyz(&self) -> Reply {
        get(self.admin, "/readyz")
    }

    /// What `/readyz` names as wrong, in one text.
    pub fn problems(&self) -> String {
        let ready = self.readyz();
        assert_eq!(ready.status, 200, "{}", ready.text());
        ready.json()["problems"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Waits until so many servers are ready in all pools together.
    pub fn wait_ready(&self, servers: u64) {
        eventually(&format!("{servers} ready servers"), || {
            let ready = self.readyz().json();
            let pools = ready["pools"].as_array()?;
            let sum: u64 = pools
                .iter()
                .filter_map(|pool| pool["ready_endpoints"].as_u64())
                .sum();
            (sum == servers).then_some(())
        });
    }

    /// The text page of `/metrics`.
    pub fn metrics(&self) -> String {
        get(self.admin, "/metrics").text()
    }

    /// Sum of the samples of a metric whose labels hold all these texts.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let page = self.metrics();
        let values: Vec<f64> = page
            .lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
            })
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// The events of the log.
    pub fn events(&self) -> Vec<Value> {
        self.process.events()
    }

    /// The whole log as text.
    pub fn log(&self) -> String {
        self.process.log.lock().join("\n")
    }

    /// The line of the access log for a request, once it is there.
    pub fn access(&self, request_id: &str) -> Value {
        eventually(&format!("access log of {request_id}"), || {
            self.events()
                .into_iter()
                .find(|event| event["target"] == "access" && event["request_id"] == request_id)
        })
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.process.signal("TERM");
    }

    /// Waits for the end.
    pub fn exit(&mut self) -> ExitStatus {
        let child = &mut self.process.child;
        eventually("the process ends", || child.try_wait().expect("waits"))
    }
}

/// A running `pointsman sim`.
pub struct Sim {
    _process: Process,
    pub address: SocketAddr,
}

impl Sim {
    /// A simulated server with these arguments, twenty times as fast as the real one.
    pub fn start(args: &[&str]) -> Self {
        let mut process =
            Process::start(&[&["sim", "--port", "0", "--speed", "20"], args].concat());
        let address = process.wait_for("simulated server is listening")[0];
        Self {
            _process: process,
            address,
        }
    }
}

/// What `pointsman check` said.
#[derive(Debug)]
pub struct Check {
    pub code: i32,
    pub text: String,
}

/// `pointsman check` of files.
pub fn check(path: &Path, more: &[&str]) -> Check {
    let start = Instant::now();
    let mut child = command()
        .arg("check")
        .arg("-f")
        .arg(path)
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let mut text = String::new();
    child
        .stdout
        .take()
        .expect("piped")
        .read_to_string(&mut text)
        .expect("UTF-8");
    let status = child.wait().expect("waits");
    assert!(start.elapsed() < PATIENCE);
    Check {
        code: status.code().expect("no signal"),
        text,
    }
}
