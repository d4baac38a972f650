//! The load generator: HTTP/1.1 over raw sockets to 127.0.0.1, one thread, bounded.
//!
//! Closed loop: every connection sends its next request as soon as it has the last answer. Open
//! loop at R per second: the k-th request is due at k/R whatever happened before; where its
//! connection was late, the latency counts from the due time, so a stall is not hidden by the
//! requests that it kept from being sent (coordinated omission).
//!
//! Requests, chunks and CPU time are counted over one and the same window: it opens after the
//! warm-up, with every CPU clock read at that moment, and closes the same way. A request belongs to
//! the window when it *ends* in it, a chunk or first byte when it *arrives* in it; so a paced stream that
//! is longer than the window still contributes the chunks that the proxy worked on.

mod conn;
mod requests;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::process::CpuClock;
use crate::{Error, mock};
pub(crate) use conn::Conn;
pub(crate) use requests::EventCounter;

/// The longest latency that is told apart, in microseconds (two minutes).
const MAX_LATENCY_US: u64 = 120_000_000;
/// After the window, running requests may end for so long before they are cut.
const GRACE: Duration = Duration::from_millis(1500);
/// Pause after a connection that could not be opened.
const RECONNECT: Duration = Duration::from_millis(5);

/// What to send, and for how long.
#[derive(Clone, Debug)]
pub struct Load {
    /// Port on 127.0.0.1.
    pub port: u16,
    /// Connections.
    pub connections: usize,
    /// Requests per second of an open loop; `None` is a closed loop.
    pub rate: Option<f64>,
    /// Time before the window.
    pub warmup: Duration,
    /// The window.
    pub window: Duration,
    /// Size of a request's body in bytes (a least size: below about 200 it cannot shrink).
    pub body: usize,
    /// Different bodies, sent in turn.
    pub pool: usize,
    /// Groups of bodies that share their first half, as users of one system prompt do.
    pub groups: usize,
    /// Ask for streams.
    pub stream: bool,
    /// Path of the request.
    pub path: String,
    /// Model to ask for.
    pub model: String,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            port: 0,
            connections: 32,
            rate: None,
            warmup: Duration::from_millis(300),
            window: Duration::from_secs(1),
            body: 1024,
            pool: 1000,
            groups: 50,
            stream: false,
            path: "/v1/chat/completions".into(),
            model: mock::MODEL.into(),
        }
    }
}

/// What was counted in the window. Latencies are microseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// Requests that ended with status 200.
    pub ok: u64,
    /// Requests that failed, whatever the way.
    pub errors: u64,
    /// The first failure, in words.
    pub first_error: Option<String>,
    /// Server-sent events that arrived.
    pub events: u64,
    /// Length of the window in seconds.
    pub wall: f64,
    /// Median time to the end of a request.
    pub p50: u64,
    /// 99th percentile of the same.
    pub p99: u64,
    /// Median time to the first byte of a body.
    pub first_byte_p50: u64,
    /// 99th percentile of the same.
    pub first_byte_p99: u64,
    /// CPU seconds of each watched process in the window, in the order given.
    pub cpu: Vec<f64>,
}

/// The counters that all connections share.
struct Tally {
    on: Cell<bool>,
    ok: Cell<u64>,
    errors: Cell<u64>,
    events: Cell<u64>,
    latency: RefCell<Histogram<u64>>,
    first_byte: RefCell<Histogram<u64>>,
    first_error: RefCell<Option<String>>,
}

impl Tally {
    fn new() -> Result<Self, Error> {
        let histogram = || Histogram::new_with_max(MAX_LATENCY_US, 3).map(RefCell::new);
        Ok(Self {
            on: Cell::new(false),
            ok: Cell::new(0),
            errors: Cell::new(0),
            events: Cell::new(0),
            latency: histogram()?,
            first_byte: histogram()?,
            first_error: RefCell::new(None),
        })
    }

    fn add(&self, counter: &Cell<u64>, n: u64) {
        if self.on.get() {
            counter.set(counter.get() + n);
        }
    }

    fn record(&self, histogram: &RefCell<Histogram<u64>>, took: Duration) {
        if self.on.get() {
            let micros = u64::try_from(took.as_micros()).unwrap_or(MAX_LATENCY_US);
            histogram.borrow_mut().saturating_record(micros);
        }
    }

    fn failed(&self, why: String) {
        self.add(&self.errors, 1);
        self.first_error.borrow_mut().get_or_insert(why);
    }

    fn figures(&self, wall: Duration, cpu: Vec<f64>) -> Figures {
        let (latency, first_byte) = (self.latency.borrow(), self.first_byte.borrow());
        Figures {
            ok: self.ok.get(),
            errors: self.errors.get(),
            first_error: self.first_error.borrow().clone(),
            events: self.events.get(),
            wall: wall.as_secs_f64(),
            p50: latency.value_at_quantile(0.5),
            p99: latency.value_at_quantile(0.99),
            first_byte_p50: first_byte.value_at_quantile(0.5),
            first_byte_p99: first_byte.value_at_quantile(0.99),
            cpu,
        }
    }
}

/// Runs a load and reads the CPU clocks of `pids` at both ends of its window.
///
/// Takes warm-up and window, and at most 1.5 s more in which running requests may end.
///
/// # Errors
/// When a CPU clock cannot be read. Failed requests are counted, not returned.
pub async fn run(load: &Load, pids: &[u32]) -> Result<Figures, Error> {
    let tally = Rc::new(Tally::new()?);
    let requests: Rc<[Vec<u8>]> = requests::build(load).into();
    let begin = Instant::now();
    let open = begin + load.warmup;
    let end = open + load.window;
    LocalSet::new()
        .run_until(async {
            let mut workers = JoinSet::new();
            for index in 0..load.connections {
                let worker = Worker::new(index, load, &requests, &tally);
                workers.spawn_local(worker.run(begin, end));
            }
            let figures = watch(&tally, pids, open, end).await;
            let _ = timeout(GRACE, async {
                while workers.join_next().await.is_some() {}
            })
            .await;
            figures
        })
        .await
}

/// Opens and closes the window, and reads the clocks at both moments.
async fn watch(tally: &Tally, pids: &[u32], open: Instant, end: Instant) -> Result<Figures, Error> {
    sleep_until(open).await;
    let before = pids
        .iter()
        .map(|&p| CpuClock::read(p))
        .collect::<Result<Vec<_>, _>>()?;
    tally.on.set(true);
    let opened = Instant::now();
    sleep_until(end).await;
    tally.on.set(false);
    let wall = opened.elapsed();
    let used = pids
        .iter()
        .zip(&before)
        .map(|(&p, b)| Ok(CpuClock::read(p)?.since(b).as_secs_f64()));
    Ok(tally.figures(wall, used.collect::<Result<_, Error>>()?))
}

/// One connection, and its share of the requests.
struct Worker {
    port: u16,
    rate: Option<f64>,
    stride: usize,
    next_slot: usize,
    next_request: usize,
    requests: Rc<[Vec<u8>]>,
    tally: Rc<Tally>,
}

impl Worker {
    fn new(index: usize, load: &Load, requests: &Rc<[Vec<u8>]>, tally: &Rc<Tally>) -> Self {
        Self {
            port: load.port,
            rate: load.rate,
            stride: load.connections,
            next_slot: index,
            next_request: index,
            requests: Rc::clone(requests),
            tally: Rc::clone(tally),
        }
    }

    async fn run(mut self, begin: Instant, end: Instant) {
        let mut idle: Option<Conn> = None;
        while let Some(due) = self.wait_for_turn(begin, end).await {
            let opened = match idle.take() {
                Some(conn) => Ok(conn),
                None => Conn::open(self.port).await,
            };
            match opened {
                Ok(conn) => idle = self.exchange(conn, due).await,
                Err(e) => {
                    self.tally.failed(e.to_string());
                    sleep(RECONNECT).await;
                }
            }
        }
    }

    /// The time from which the next request's latency counts; `None` at the end.
    async fn wait_for_turn(&mut self, begin: Instant, end: Instant) -> Option<Instant> {
        let mut from = Instant::now();
        if let Some(rate) = self.rate {
            let due = begin + Duration::from_secs_f64(self.next_slot as f64 / rate);
            self.next_slot += self.stride;
            sleep_until(due.min(end)).await;
            // A timer that fires late is the generator's fault, a busy connection is not.
            from = if due < from { due } else { Instant::now() };
        }
        (Instant::now() < end).then_some(from)
    }

    /// One request and its answer; gives the connection back where it can be used again.
    async fn exchange(&mut self, mut conn: Conn, due: Instant) -> Option<Conn> {
        let request = self.next_request % self.requests.len();
        self.next_request += self.stride;
        let reusable = self.try_exchange(&mut conn, request, due).await;
        match reusable {
            Ok(reusable) => reusable.then_some(conn),
            Err(e) => {
                self.tally.failed(e.to_string());
                None
            }
        }
    }

    async fn try_exchange(
        &self,
        conn: &mut Conn,
        request: usize,
        due: Instant,
    ) -> Result<bool, Error> {
        let tally = &self.tally;
        let head = conn.send(&self.requests[request]).await?;
        let (ok, mut any) = (head.status == 200, false);
        let (mut events, mut refusal) = (EventCounter::default(), Vec::new());
        let mut saw = |piece: &[u8]| {
            if !ok {
                refusal.extend_from_slice(&piece[..piece.len().min(300)]);
                refusal.truncate(300);
                return;
            }
            if !any {
                any = true;
                tally.record(&tally.first_byte, due.elapsed());
            }
            tally.add(&tally.events, events.feed(piece));
        };
        let reusable = conn.body(&head, &mut saw).await?;
        if ok {
            tally.add(&tally.ok, 1);
            tally.record(&tally.latency, due.elapsed());
        } else {
            tally.failed(format!(
                "status {}: {}",
                head.status,
                String::from_utf8_lossy(&refusal)
            ));
        }
        Ok(reusable)
    }
}
