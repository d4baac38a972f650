//! Connections to pickers: one HTTP/2 connection for each thread and replica, shared by all calls.
//!
//! Calls go round the replicas that can be reached. The first connection to a replica is waited for; one that failed is
//! tried again after a pause that doubles, and whoever can do without the picker does not wait for that attempt. A stream
//! has a window of 64 KiB and the connection one of 64 MiB, so that one stalled answer neither starves nor kills the
//! others. No pings are sent: gRPC servers take them for abuse when they come often enough to be of use. A picker that
//! falls silent is found out by the deadline of a pick, and its connection is then not used again.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use http::Uri;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use routing::{EndpointSpec, Host, PickerTls};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tonic::codegen::Service;

use super::tls::Tls;
use super::{Call, Dialogue, Failure};

/// Window of one stream.
const STREAM_WINDOW: u32 = 64 << 10;
/// Window of a connection.
const CONNECTION_WINDOW: u32 = 64 << 20;
/// First pause after a failed connection.
const PAUSE: Duration = Duration::from_millis(50);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A connection to one replica.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    sender: http2::SendRequest<Body>,
    origin: Uri,
}

impl Connection {
    /// Scheme and authority of calls.
    pub(super) fn origin(&self) -> Uri {
        self.origin.clone()
    }
}

impl Service<http::Request<Body>> for Connection {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, hyper::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.sender.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.sender.send_request(request).boxed()
    }
}

type Connecting = Shared<BoxFuture<'static, Result<Connection, Failure>>>;

/// Where a replica is and how to speak to it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    host: Host,
    port: u16,
    tls: PickerTls,
}

/// One replica.
struct Line {
    place: Place,
    state: RefCell<State>,
}

enum State {
    /// Not connected; `failures` attempts in a row have failed, and the next may begin then.
    Down {
        failures: u32,
        until: Option<Instant>,
    },
    Connecting {
        failures: u32,
        attempt: Connecting,
    },
    Up(Connection),
}

/// All connections to pickers of one thread.
#[derive(Default)]
pub struct Switchboard {
    lines: RefCell<Vec<Weak<Line>>>,
}

impl std::fmt::Debug for Switchboard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Switchboard").finish_non_exhaustive()
    }
}

/// The lines to one picker: its ready replicas.
pub struct Lines {
    lines: Vec<Rc<Line>>,
    turn: Cell<usize>,
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines")
            .field("replicas", &self.lines.len())
            .finish_non_exhaustive()
    }
}

impl Switchboard {
    /// The lines to a picker at these addresses. Lines that stand are shared; those that nobody asks for any more close
    /// when their last call is over.
    pub fn lines(&self, endpoints: &[EndpointSpec], tls: &PickerTls) -> Lines {
        let mut known = self.lines.borrow_mut();
        known.retain(|line| line.strong_count() > 0);
        let ready = endpoints.iter().filter(|endpoint| endpoint.ready);
        let lines = ready.map(|endpoint| {
            let place = Place {
                host: endpoint.host.clone(),
                port: endpoint.port,
                tls: tls.clone(),
            };
            let found = known
                .iter()
                .filter_map(Weak::upgrade)
                .find(|line| line.place == place);
            found.unwrap_or_else(|| {
                let line = Rc::new(Line::new(place));
                known.push(Rc::downgrade(&line));
                line
            })
        });
        Lines {
            lines: lines.collect(),
            turn: Cell::new(0),
        }
    }
}

impl Lines {
    /// Begins a call with the next replica that can be reached. `connect` is the time for connecting to one; `waits`:
    /// also wait for a replica that could not be reached before.
    ///
    /// # Errors
    /// There is no replica, or none that takes a connection.
    pub async fn begin(
        &self,
        call: impl FnOnce() -> Call,
        connect: Duration,
        waits: bool,
    ) -> Result<(Dialogue, Used), Failure> {
        let start = self.turn.get();
        self.turn.set(start.wrapping_add(1));
        let mut last = Failure::NoAddress;
        for step in 0..self.lines.len() {
            let line = &self.lines[start.wrapping_add(step) % self.lines.len()];
            match line.connection(connect, waits).await {
                Ok(connection) => {
                    let dialogue = Dialogue::begin(call(), &connection);
                    return Ok((dialogue, Used(line.clone())));
                }
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }
}

/// The line that a call was made on.
pub struct Used(Rc<Line>);

impl Used {
    /// The call failed for the connection's sake, or nobody answered: later calls get a new connection.
    pub fn hang_up(&self) {
        let mut state = self.0.state.borrow_mut();
        if matches!(*state, State::Up(_)) {
            *state = State::Down {
                failures: 0,
                until: None,
            };
        }
    }
}

impl std::fmt::Debug for Used {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Used").finish_non_exhaustive()
    }
}

impl Line {
    fn new(place: Place) -> Self {
        Self {
            place,
            state: RefCell::new(State::Down {
                failures: 0,
                until: None,
            }),
        }
    }

    /// The connection, made if need be.
    async fn connection(&self, limit: Duration, waits: bool) -> Result<Connection, Failure> {
        let (failures, attempt) = match self.attempt(limit)? {
            Attempt::Up(connection) => return Ok(connection),
            Attempt::Connecting(failures, attempt) => (failures, attempt),
        };
        let outcome = if failures > 0 && !waits {
            // It goes on by itself; whoever comes when it is done will see.
            attempt.clone().now_or_never().unwrap_or_else(|| {
                Err(Failure::Connect(
                    "the picker could not be reached before".to_owned(),
                ))
            })
        } else {
            attempt.clone().await
        };
        self.settle(&attempt, failures);
        outcome
    }

    /// What there is: a connection, an attempt at one, or a pause.
    fn attempt(&self, limit: Duration) -> Result<Attempt, Failure> {
        let mut state = self.state.borrow_mut();
        let failures = match &*state {
            State::Up(connection) if !connection.sender.is_closed() => {
                return Ok(Attempt::Up(connection.clone()));
            }
            State::Connecting { failures, attempt } => {
                return Ok(Attempt::Connecting(*failures, attempt.clone()));
            }
            State::Down {
                until: Some(until), ..
            } if Instant::now() < *until => {
                return Err(Failure::Connect(
                    "the picker could not be reached just now".to_owned(),
                ));
            }
            State::Down { failures, .. } => *failures,
            State::Up(_) => 0,
        };
        let place = self.place.clone();
        // A task of its own, so that it goes on when whoever asked first goes away.
        let task = tokio::spawn(async move {
            timeout(limit, place.connect())
                .await
                .unwrap_or_else(|_| Err(Failure::Connect(format!("not within {limit:?}"))))
        });
        let attempt = task
            .map(|joined| joined.unwrap_or_else(|error| Err(Failure::Connect(error.to_string()))))
            .boxed()
            .shared();
        *state = State::Connecting {
            failures,
            attempt: attempt.clone(),
        };
        Ok(Attempt::Connecting(failures, attempt))
    }

    /// Takes the outcome of an attempt up, once.
    fn settle(&self, attempt: &Connecting, failures: u32) {
        let mut state = self.state.borrow_mut();
        let current = matches!(&*state, State::Connecting { attempt: current, .. } if current.ptr_eq(attempt));
        match attempt.peek() {
            Some(outcome) if current => {
                *state = match outcome {
                    Ok(connection) => State::Up(connection.clone()),
                    Err(failure) => {
                        tracing::warn!(picker = %self.place.authority(), %failure, "endpoint picker");
                        let pause = PAUSE
                            .saturating_mul(1 << failures.min(8))
                            .min(LONGEST_PAUSE);
                        State::Down {
                            failures: failures.saturating_add(1),
                            until: Some(Instant::now() + pause),
                        }
                    }
                };
            }
            _ => {}
        }
    }
}

enum Attempt {
    Up(Connection),
    Connecting(u32, Connecting),
}

impl Place {
    fn authority(&self) -> String {
        match &self.host {
            Host::Ip(std::net::IpAddr::V6(ip)) => format!("[{ip}]:{}", self.port),
            Host::Ip(ip) => format!("{ip}:{}", self.port),
            Host::Dns(name) => format!("{name}:{}", self.port),
        }
    }

    async fn connect(self) -> Result<Connection, Failure> {
        let broken = |error: std::io::Error| Failure::Connect(error.to_string());
        let authority = self.authority();
        let host = match &self.host {
            Host::Ip(ip) => ip.to_string(),
            Host::Dns(name) => name.clone(),
        };
        let tls = Tls::new(&self.tls, &host)?;
        let tcp = TcpStream::connect((host.as_str(), self.port))
            .await
            .map_err(broken)?;
        tcp.set_nodelay(true).map_err(broken)?;
        match tls {
            None => handshake(TokioIo::new(tcp), "http", &authority).await,
            Some(tls) => {
                let connector = TlsConnector::from(tls.config);
                let stream = connector.connect(tls.name, tcp).await.map_err(broken)?;
                handshake(TokioIo::new(stream), "https", &authority).await
            }
        }
    }
}

async fn handshake<I>(io: I, scheme: &str, authority: &str) -> Result<Connection, Failure>
where
    I: Read + Write + Unpin + Send + 'static,
{
    let origin = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query("/")
        .build()
        .map_err(|error| Failure::Connect(error.to_string()))?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(io)
        .await
        .map_err(|error| Failure::Connect(error.to_string()))?;
    // Ends by itself when nobody holds the sender and no call is left.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to an endpoint picker ended");
        }
    });
    Ok(Connection { sender, origin })
}
