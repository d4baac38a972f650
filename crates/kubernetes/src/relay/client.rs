//! The data plane's side.
//!
//! It asks the controller for its Gateway's objects and keeps them up to date. A stream that breaks, falls silent or
//! skips a line is begun anew, with growing pauses; what was known goes on being served. The authority's certificate
//! and the token are read at every attempt: both are replaced now and then.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::{Object, ObjectKey, Objects};
use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, HOST};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use super::authority::host_of;
use super::line::Line;
use super::server::ALIVE;
use crate::store::Problem;
use crate::watch::Pause;

/// To reach the controller, and for the head of its answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// A stream on which not even a sign of life has come for this long is dead.
const SILENCE: Duration = ALIVE.saturating_mul(3);
/// The longest line that is read, in bytes.
const LONGEST: usize = 512 << 20;

/// Settings of a [`Relayed`].
#[derive(Debug, Clone)]
pub struct RelayedOptions {
    /// The Gateway to serve.
    pub gateway: ObjectKey,
    /// `HOST:PORT` of the controller.
    pub controller: String,
    /// File with the certificates in PEM that the controller's must be signed by.
    pub authority: PathBuf,
    /// File with the token to show.
    pub token: PathBuf,
}

/// The objects of one Gateway, as a controller tells them. Dropping it ends the following.
#[derive(Debug)]
pub struct Relayed {
    shared: Arc<Shared>,
    revision: watch::Receiver<u64>,
    task: AbortHandle,
}

impl Drop for Relayed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct Shared {
    known: Mutex<Known>,
    revision: watch::Sender<u64>,
}

#[derive(Default)]
struct Known {
    objects: Arc<Objects>,
    problems: Vec<Problem>,
    sharing: Option<String>,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Known")
            .field("objects", &self.objects.len())
            .finish_non_exhaustive()
    }
}

impl Relayed {
    /// Begins to follow. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(options: RelayedOptions) -> Self {
        let (sender, revision) = watch::channel(0);
        let shared = Arc::new(Shared {
            known: Mutex::default(),
            revision: sender,
        });
        let following = Following {
            options,
            shared: Arc::clone(&shared),
        };
        Self {
            shared,
            revision,
            task: tokio::spawn(following.run()).abort_handle(),
        }
    }

    /// The objects as of now; none before the first picture.
    #[must_use]
    pub fn objects(&self) -> Arc<Objects> {
        Arc::clone(&self.shared.known.lock().objects)
    }

    /// Objects that this version cannot read. Their last good states, where there are any, are among
    /// [`Self::objects`].
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        self.shared.known.lock().problems.clone()
    }

    /// The token by which the data planes of this Gateway know each other, once it has been told.
    #[must_use]
    pub fn sharing(&self) -> Option<String> {
        self.shared.known.lock().sharing.clone()
    }

    /// Resolves when objects have changed since the last call. May be dropped and called again.
    pub async fn changed(&mut self) {
        // The sender lives in `shared`.
        if self.revision.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether there has been a picture.
    #[must_use]
    pub fn synced(&self) -> bool {
        *self.revision.borrow() > 0
    }
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("{path}: {source}")]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} holds no usable certificate")]
    Authority { path: PathBuf },
    #[error("{0:?} is no host name")]
    Host(String),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("no answer in time")]
    Late,
    #[error("the stream fell silent")]
    Silent,
    #[error("the stream ended")]
    Ended,
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("the request cannot be made: {0}")]
    Request(#[from] http::Error),
    #[error("the controller answers {status}: {sentence}")]
    Refused {
        status: StatusCode,
        sentence: String,
    },
    #[error("line {number} came where {expected} was due")]
    Skipped { number: u64, expected: u64 },
    #[error("a line is too long")]
    Long,
    #[error("a line cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

struct Following {
    options: RelayedOptions,
    shared: Arc<Shared>,
}

impl Following {
    async fn run(self) {
        let mut pauses = Pause::default();
        let mut last = String::new();
        loop {
            let before = *self.shared.revision.borrow();
            let Err(broken) = self.follow().await;
            let followed = *self.shared.revision.borrow() != before;
            if followed {
                pauses = Pause::default();
                last.clear();
            }
            // Said once, not at each of many attempts.
            let why = broken.to_string();
            if why != last {
                tracing::warn!(
                    controller = self.options.controller,
                    why,
                    "the controller is away; what is known goes on being served"
                );
                last = why;
            }
            if let Some(pause) = pauses.next() {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Follows one stream until it breaks.
    async fn follow(&self) -> Result<std::convert::Infallible, Broken> {
        let (mut body, driver) = tokio::time::timeout(PATIENCE, self.ask())
            .await
            .map_err(|_| Broken::Late)??;
        let _driver = driver;
        let mut gathered = BytesMut::new();
        // How much of `gathered` holds no end of a line.
        let mut searched = 0;
        let mut expected = 0;
        loop {
            let frame = tokio::time::timeout(SILENCE, body.frame())
                .await
                .map_err(|_| Broken::Silent)?;
            let frame = frame.ok_or(Broken::Ended)??;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            gathered.extend_from_slice(&data);
            while let Some(at) = gathered[searched..].iter().position(|byte| *byte == b'\n') {
                let text = gathered.split_to(searched + at + 1);
                searched = 0;
                if text.len() > 1 {
                    self.take(&text, expected)?;
                    expected += 1;
                }
            }
            searched = gathered.len();
            if searched > LONGEST {
                return Err(Broken::Long);
            }
        }
    }

    /// Asks for the stream; whoever drops the second part ends the connection.
    async fn ask(&self) -> Result<(Incoming, Driver), Broken> {
        let RelayedOptions {
            gateway,
            controller,
            token,
            ..
        } = &self.options;
        let connector = self.connector().await?;
        let token = read(token).await?;
        let token = String::from_utf8_lossy(&token);
        let host = host_of(controller);
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_| Broken::Host(host.to_owned()))?;
        let stream = TcpStream::connect(controller)
            .await
            .map_err(Broken::Connect)?;
        let _ = stream.set_nodelay(true);
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(Broken::Connect)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = Driver(
            tokio::spawn(async move {
                let _ = connection.await;
            })
            .abort_handle(),
        );
        let request = Request::get(format!(
            "/v1/gateways/{}/{}",
            gateway.namespace, gateway.name
        ))
        .header(HOST, controller)
        .header(AUTHORIZATION, format!("Bearer {}", token.trim()))
        .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok((response.into_body(), driver));
        }
        let body = http_body_util::Limited::new(response.into_body(), 1 << 10);
        let said = body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes);
        let sentence = said.unwrap_or_default();
        Err(Broken::Refused {
            status,
            sentence: String::from_utf8_lossy(&sentence).trim().to_owned(),
        })
    }

    async fn connector(&self) -> Result<TlsConnector, Broken> {
        let path = &self.options.authority;
        let pem = read(path).await?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem).flatten() {
            let _ = roots.add(certificate);
        }
        if roots.is_empty() {
            return Err(Broken::Authority { path: path.clone() });
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }

    /// Takes a line.
    fn take(&self, text: &[u8], expected: u64) -> Result<(), Broken> {
        let line: Line = serde_json::from_slice(text)?;
        if line.number != expected || line.complete != (expected == 0) {
            return Err(Broken::Skipped {
                number: line.number,
                expected,
            });
        }
        if expected == 0 {
            tracing::info!(
                controller = self.options.controller,
                objects = line.objects.len(),
                "following the controller"
            );
        }
        self.shared.known.lock().take(line);
        self.shared.revision.send_modify(|revision| *revision += 1);
        Ok(())
    }
}

impl Known {
    fn take(&mut self, line: Line) {
        if line.sharing.is_some() {
            self.sharing = line.sharing;
        }
        let before = Arc::clone(&self.objects);
        let mut objects = if line.complete {
            self.problems.clear();
            Objects::new()
        } else {
            (*before).clone()
        };
        for key in line.gone.into_iter().map(ObjectKey::from) {
            objects.remove(&key);
            self.problems.retain(|problem| problem.object != key);
        }
        for value in line.objects {
            let key = key_of(&value);
            self.problems.retain(|problem| problem.object != key);
            match api::decode_value(value) {
                Ok(object) => {
                    objects.insert(object);
                }
                Err(error) => {
                    if let Some(last) = before.get(&key) {
                        objects.insert(Object::clone(last));
                    }
                    let reason = error.to_string();
                    tracing::warn!(object = %key, reason, "an object cannot be read; its last good state stays");
                    self.problems.push(Problem {
                        object: key,
                        uid: String::new(),
                        reason,
                    });
                }
            }
        }
        self.objects = Arc::new(objects);
    }
}

fn key_of(value: &serde_json::Value) -> ObjectKey {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let version = text(&value["apiVersion"]);
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let meta = &value["metadata"];
    ObjectKey::new(
        group,
        text(&value["kind"]),
        text(&meta["namespace"]),
        text(&meta["name"]),
    )
}

async fn read(path: &PathBuf) -> Result<Vec<u8>, Broken> {
    tokio::fs::read(path).await.map_err(|source| Broken::File {
        path: path.clone(),
        source,
    })
}

/// Drives a connection while it lives.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How a controller answers: with a stream, or with a status; without one where it cannot be asked.
#[cfg(test)]
pub(super) async fn answer(options: RelayedOptions) -> Result<(), Option<StatusCode>> {
    let following = Following {
        options,
        shared: Arc::new(Shared {
            known: Mutex::default(),
            revision: watch::channel(0).0,
        }),
    };
    match following.ask().await {
        Ok(_) => Ok(()),
        Err(Broken::Refused { status, .. }) => Err(Some(status)),
        Err(_) => Err(None),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(name: &str, port: serde_json::Value) -> serde_json::Value {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "n"},
            "spec": {"ports": [{"port": port}]},
        })
    }

    fn following() -> Following {
        Following {
            options: RelayedOptions {
                gateway: ObjectKey::new("", "", "", ""),
                controller: String::new(),
                authority: PathBuf::new(),
                token: PathBuf::new(),
            },
            shared: Arc::new(Shared {
                known: Mutex::default(),
                revision: watch::channel(0).0,
            }),
        }
    }

    #[test]
    fn what_cannot_be_read_keeps_its_last_good_state() {
        let following = following();
        let take = |number: u64, objects: serde_json::Value, gone: &[&str]| {
            let gone: Vec<_> = gone
                .iter()
                .map(|name| json!({"group": "", "kind": "Service", "namespace": "n", "name": name}))
                .collect();
            let line = json!({"number": number, "complete": number == 0, "objects": objects, "gone": gone});
            following
                .take(line.to_string().as_bytes(), number)
                .expect("a line");
        };
        let ports = || {
            let known = following.shared.known.lock();
            let ports: Vec<_> = known
                .objects
                .services()
                .map(|one| (one.meta.name.clone(), one.spec.ports[0].port))
                .collect();
            (ports, known.problems.len())
        };
        take(
            0,
            json!([service("a", json!(1)), service("b", json!(1))]),
            &[],
        );
        take(1, json!([service("a", json!("no"))]), &["b"]);
        assert_eq!(ports(), (vec![("a".to_owned(), 1)], 1));
        // A complete line takes everything away that it does not have, but not a last good state.
        take(
            0,
            json!([service("a", json!("no")), service("c", json!(3))]),
            &[],
        );
        assert_eq!(ports(), (vec![("a".to_owned(), 1), ("c".to_owned(), 3)], 1));
        take(1, json!([service("a", json!(2))]), &[]);
        assert_eq!(ports().1, 0);
    }

    #[test]
    fn lines_out_of_order_are_refused() {
        let line = |number: u64, complete: bool| {
            json!({"number": number, "complete": complete, "objects": []}).to_string()
        };
        for (text, expected, is_good) in [
            (line(0, true), 0, true),
            (line(1, false), 1, true),
            (line(0, false), 0, false),
            (line(2, false), 1, false),
            (line(1, true), 1, false),
            ("{}".to_owned(), 0, false),
            ("no JSON".to_owned(), 0, false),
        ] {
            let taken = following().take(text.as_bytes(), expected);
            assert_eq!(taken.is_ok(), is_good, "{text} {taken:?}");
        }
    }
}
