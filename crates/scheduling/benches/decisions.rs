//! What the decision core costs: time by size of the pool and of the prompt, and exact instruction counts.
//!
//! ```text
//! cargo bench -p scheduling                    a table of microseconds
//! cargo bench -p scheduling -- NAME TIMES      one scenario so many times, without a clock: for valgrind
//! crates/scheduling/benches/instructions       instruction counts against those on record
//! ```
//!
//! Half of the prompts continue one of two hundred conversations, half are new, and each endpoint has a few requests in
//! flight. Hashing the prompt is the host's and has a table of its own.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use scheduling::{
    Config, Decision, EndpointId, EndpointProfile, Event, FlowControl, Load, Pool, Request,
    SharedEvent, SiblingId, Ticket, Time,
};

const BLOCK_TOKENS: usize = 64;
const WARM_UP: usize = 600;

/// A pool in the middle of its work.
struct World {
    pool: Pool,
    ids: Vec<EndpointId>,
    tokens: usize,
    at: u64,
    flights: Vec<Ticket>,
    shared: u64,
}

/// What is measured: `prepare` makes ready for one time, `run` is the time.
struct Scenario {
    name: &'static str,
    endpoints: usize,
    tokens: usize,
    queued: usize,
    action: Action,
}

#[derive(Copy, Clone, PartialEq)]
enum Action {
    /// A request arrives and is dispatched.
    Decide,
    /// The first token of one.
    FirstToken,
    /// The end of one.
    Finish,
    /// The end of one that was in its prefill, which opens its endpoint to one that waits.
    Drain,
    /// A sibling's dispatch and release.
    Sibling,
    /// An endpoint's metrics.
    Scrape,
}

const fn scenario(name: &'static str, endpoints: usize, tokens: usize, action: Action) -> Scenario {
    Scenario {
        name,
        endpoints,
        tokens,
        queued: 0,
        action,
    }
}

const SCENARIOS: [Scenario; 18] = [
    scenario("decide-10-1k", 10, 1_000, Action::Decide),
    scenario("decide-10-32k", 10, 32_000, Action::Decide),
    scenario("decide-10-128k", 10, 128_000, Action::Decide),
    scenario("decide-100-1k", 100, 1_000, Action::Decide),
    scenario("decide-100-32k", 100, 32_000, Action::Decide),
    scenario("decide-100-128k", 100, 128_000, Action::Decide),
    scenario("decide-1000-1k", 1_000, 1_000, Action::Decide),
    scenario("decide-1000-32k", 1_000, 32_000, Action::Decide),
    scenario("decide-1000-128k", 1_000, 128_000, Action::Decide),
    scenario("first-token-100-32k", 100, 32_000, Action::FirstToken),
    scenario("finish-100-1k", 100, 1_000, Action::Finish),
    scenario("finish-100-128k", 100, 128_000, Action::Finish),
    scenario("sibling-100-32k", 100, 32_000, Action::Sibling),
    scenario("scrape-100-1k", 100, 1_000, Action::Scrape),
    queued("queued-10-finish", 10),
    queued("queued-100-finish", 100),
    queued("queued-1000-finish", 1_000),
    queued("queued-4000-finish", 4_000),
];

/// So many requests wait for a hundred endpoints, and one that runs ends.
const fn queued(name: &'static str, queued: usize) -> Scenario {
    Scenario {
        queued,
        ..scenario(name, 100, 8_000, Action::Drain)
    }
}

impl World {
    fn new(scenario: &Scenario) -> Self {
        let gate = if scenario.queued > 0 { 8192 } else { u32::MAX };
        let config = Config {
            prefill_gate_tokens: gate,
            flow: FlowControl {
                request_ttl: Duration::from_secs(86_400),
                ..FlowControl::default()
            },
            ..Config::default()
        };
        let mut pool = Pool::new(config, 1);
        let profile = EndpointProfile {
            kv_capacity_tokens: Some(1_000_000),
            ..EndpointProfile::default()
        };
        let ids = (0..scenario.endpoints).map(|_| pool.join(Time::ZERO, profile));
        let ids = ids.collect();
        let (at, shared, flights) = (0, 0, Vec::new());
        let tokens = scenario.tokens;
        let mut world = Self {
            pool,
            ids,
            tokens,
            at,
            flights,
            shared,
        };
        world.fill(scenario.queued);
        world
    }

    /// A few requests in flight on each endpoint, and then so many that wait.
    fn fill(&mut self, queued: usize) {
        for _ in 0..WARM_UP {
            self.dispatch();
            self.keep_some();
        }
        while self.pool.stats().queued < queued {
            self.dispatch();
        }
    }

    fn now(&self) -> Time {
        Time::from_nanos(self.at * 1_000_000)
    }

    fn request(&mut self) -> Request {
        self.at += 1;
        Request {
            prompt_tokens: self.tokens as u32,
            prefix: prompt(self.at, self.tokens / BLOCK_TOKENS),
            streams: true,
            ..Request::default()
        }
    }

    fn dispatch(&mut self) {
        let request = self.request();
        self.pool.arrive(self.now(), request);
        self.take();
    }

    fn take(&mut self) {
        while let Some(decision) = self.pool.next(self.now()) {
            if let Decision::Dispatch { ticket, .. } = decision {
                self.flights.push(ticket);
            }
        }
    }

    /// Ends the oldest, as if each endpoint worked on four at a time.
    fn keep_some(&mut self) {
        if let Some(&ticket) = self.flights.last() {
            let now = self.now();
            self.pool.observe(now, Event::FirstToken { ticket });
        }
        if self.flights.len() > self.ids.len() * 4 {
            let event = finished(self.flights.remove(0));
            let now = self.now();
            self.pool.observe(now, event);
        }
    }

    fn measure(&mut self, action: Action, clock: &mut Clock) {
        match action {
            Action::Decide => {
                let request = self.request();
                let now = self.now();
                let decision = clock.time(|| {
                    self.pool.arrive(now, request);
                    self.pool.next(now)
                });
                if let Some(Decision::Dispatch { ticket, .. }) = decision {
                    self.flights.push(ticket);
                }
                self.keep_some();
            }
            Action::FirstToken => {
                self.dispatch();
                let (now, ticket) = (self.now(), self.flights[self.flights.len() - 1]);
                clock.time(|| {
                    self.pool.observe(now, Event::FirstToken { ticket });
                    self.pool.next(now)
                });
                self.keep_some();
            }
            Action::Finish | Action::Drain => {
                self.dispatch();
                let which = match action {
                    Action::Drain => self.flights.len() - 1,
                    _ => 0,
                };
                let (now, event) = (self.now(), finished(self.flights.remove(which)));
                let decision = clock.time(|| {
                    self.pool.observe(now, event);
                    self.pool.next(now)
                });
                if let Some(Decision::Dispatch { ticket, .. }) = decision {
                    self.flights.push(ticket);
                }
                self.take();
            }
            Action::Sibling => self.sibling(clock),
            Action::Scrape => {
                self.at += 1;
                let (now, endpoint) = (self.now(), self.ids[self.at as usize % self.ids.len()]);
                let load = Load {
                    waiting: Some(0),
                    running: Some(4),
                    kv_usage: Some(0.3),
                };
                clock.time(|| {
                    self.pool.observe(now, Event::Scraped { endpoint, load });
                    self.pool.next(now)
                });
            }
        }
    }

    fn sibling(&mut self, clock: &mut Clock) {
        let request = self.request();
        let now = self.now();
        let endpoint = self.ids[self.at as usize % self.ids.len()];
        self.shared += 1;
        let dispatched = SharedEvent::Dispatched {
            ticket: self.shared,
            endpoint,
            prefix: request.prefix,
            prompt_tokens: request.prompt_tokens,
            uncached_tokens: request.prompt_tokens,
            output_tokens: 200,
            adapter: None,
        };
        let released = SharedEvent::Released {
            ticket: self.shared.saturating_sub(8),
            output_tokens: 200,
            computed: true,
        };
        clock.time(|| {
            for event in [&dispatched, &released] {
                let sibling = SiblingId(1);
                self.pool.observe(now, Event::Sibling { sibling, event });
            }
        });
    }
}

fn finished(ticket: Ticket) -> Event<'static> {
    Event::Finished {
        ticket,
        usage: None,
        ok: true,
    }
}

/// Chained hashes: every second prompt shares most of its blocks with one of two hundred others.
fn prompt(number: u64, blocks: usize) -> Arc<[u64]> {
    let text = if number.is_multiple_of(2) {
        number.wrapping_mul(0x2545_f491_4f6c_dd1d) % 200
    } else {
        1000 + number
    };
    let fork = blocks * 9 / 10;
    let mut hash = text.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..blocks)
        .map(|at| {
            hash = (hash ^ if at == fork { number } else { 0 })
                .wrapping_mul(0xbf58_476d_1ce4_e5b9)
                .rotate_left(27);
            hash
        })
        .collect()
}

/// Times, or only runs.
enum Clock {
    Times(Vec<Duration>),
    Counts,
}

impl Clock {
    fn time<R>(&mut self, run: impl FnOnce() -> R) -> R {
        match self {
            Self::Times(times) => {
                let start = Instant::now();
                let out = run();
                times.push(start.elapsed());
                out
            }
            Self::Counts => counted_by_valgrind(run),
        }
    }
}

/// `benches/instructions` counts what happens in functions of this name.
#[inline(never)]
fn counted_by_valgrind<R>(run: impl FnOnce() -> R) -> R {
    black_box(run())
}

fn table(filter: Option<&str>) {
    println!(
        "{:<24} {:>9} {:>9} {:>9}",
        "microseconds", "p50", "p99", "max"
    );
    let chosen = |it: &&Scenario| filter.is_none_or(|part| it.name.contains(part));
    for scenario in SCENARIOS.iter().filter(chosen) {
        let times = if scenario.endpoints >= 1000 || scenario.queued > 0 {
            500
        } else {
            2000
        };
        let mut clock = Clock::Times(Vec::with_capacity(times));
        let mut world = World::new(scenario);
        for _ in 0..times {
            world.measure(scenario.action, &mut clock);
        }
        let Clock::Times(spent) = clock else { return };
        print(scenario.name, spent);
    }
}

fn print(name: &str, mut spent: Vec<Duration>) {
    spent.sort();
    let last = spent.len().saturating_sub(1) as f64;
    let micros = |share: f64| spent[(last * share) as usize].as_secs_f64() * 1e6;
    let (p50, p99, max) = (micros(0.5), micros(0.99), micros(1.0));
    println!("{name:<24} {p50:>9.1} {p99:>9.1} {max:>9.1}");
}

fn main() {
    // Cargo adds flags of its own.
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|it| !it.starts_with('-'))
        .collect();
    match args.as_slice() {
        [name, times] => {
            let Some(scenario) = SCENARIOS.iter().find(|it| it.name == name) else {
                eprintln!("no scenario {name}");
                std::process::exit(2);
            };
            let mut world = World::new(scenario);
            for _ in 0..times.parse().unwrap_or(1) {
                world.measure(scenario.action, &mut Clock::Counts);
            }
        }
        [name] if name == "list" => SCENARIOS.iter().for_each(|it| println!("{}", it.name)),
        rest => table(rest.first().map(String::as_str)),
    }
}
