//! The virtual clock and what it drives.

use std::time::Instant;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use scheduling::SharedEvent;
use simulator::{Output, OutputKind};

use super::RunConfig;
use super::book::{Book, Stage};
use super::events::{Answer, Event, Events, Page};
use super::host::Host;
use crate::{BLOCK_TOKENS, Dispatcher, End, Job, Placed, RunOutcome, Sample, Told, Workload};

/// Seconds from one sample of the fleet to the next.
const SAMPLE_EVERY: f64 = 1.0;
/// A dispatcher that wants to be asked at once is asked after this: time must go on.
const SHORTEST_WAKE: f64 = 1e-6;
/// A dispatcher that places nothing but nonsense is asked no more than so often at a time.
const MOST_NONSENSE: u64 = 1000;

pub(super) struct Gateway {
    pub(super) dispatcher: Box<dyn Dispatcher>,
    wake: Option<f64>,
}

pub(super) struct Fleet {
    pub(super) config: RunConfig,
    pub(super) now: f64,
    over: f64,
    window: [f64; 2],
    pub(super) events: Events,
    pub(super) hosts: Vec<Host>,
    pub(super) gateways: Vec<Gateway>,
    workload: Box<dyn Workload>,
    pub(super) book: Book,
    /// Arrivals that are planned.
    coming: usize,
    rng: ChaCha8Rng,
    /// Chance of the weather, apart from the other so that a calm run is what it was.
    pub(super) storm: ChaCha8Rng,
    outputs: Vec<Output>,
    samples: Vec<Sample>,
    pub(super) misplaced: u64,
    pub(super) dead_picks: u64,
    pub(super) retries: u64,
}

impl Fleet {
    pub(super) fn new(
        config: RunConfig,
        workload: Box<dyn Workload>,
        dispatchers: Vec<Box<dyn Dispatcher>>,
    ) -> Self {
        let hosts = config.engines.iter().enumerate().map(|(index, engine)| {
            let mut engine = engine.clone();
            engine.step_noise = config.step_noise;
            engine.report_every = config.progress_tokens;
            Host::new(engine, mix(config.seed, index as u64 + 1))
        });
        let gateways = dispatchers.into_iter().take(config.gateways.max(1));
        Self {
            now: 0.0,
            over: config.horizon + config.drain.max(0.0),
            // Opens with the first measured job.
            window: [f64::INFINITY, config.horizon],
            events: Events::default(),
            hosts: hosts.collect(),
            gateways: gateways
                .map(|dispatcher| Gateway {
                    dispatcher,
                    wake: None,
                })
                .collect(),
            workload,
            book: Book::default(),
            coming: 0,
            rng: ChaCha8Rng::seed_from_u64(mix(config.seed, 0)),
            storm: ChaCha8Rng::seed_from_u64(mix(config.seed, u64::MAX)),
            outputs: Vec::new(),
            samples: Vec::new(),
            misplaced: 0,
            dead_picks: 0,
            retries: 0,
            config,
        }
    }

    pub(super) fn run(mut self) -> RunOutcome {
        let began = Instant::now();
        self.begin();
        while self.coming + self.book.live > 0 {
            let Some((at, event)) = self.events.pop() else {
                break;
            };
            if at > self.over {
                self.now = self.over;
                break;
            }
            self.now = at;
            self.happen(event);
        }
        self.outcome(began)
    }

    fn begin(&mut self) {
        if self.gateways.is_empty() {
            return;
        }
        self.forecast();
        self.next_arrival();
        self.events.plan(0.0, Event::Sample);
        if let Some(scrape) = self.config.scrape {
            let count = self.hosts.len().max(1) as f64;
            for engine in 0..self.hosts.len() {
                // Pages of different engines are not read in the same instant.
                let at = scrape.period * (engine as f64 + 0.5) / count;
                self.events.plan(at, Event::Scrape { engine });
            }
        }
        if let Some(sharing) = self.config.sharing.filter(|_| self.gateways.len() > 1) {
            let count = self.gateways.len();
            for (gateway, it) in self.gateways.iter_mut().enumerate() {
                it.dispatcher.share(true);
                let at = sharing.period * (gateway as f64 + 0.5) / count as f64;
                self.events.plan(at, Event::Share { gateway });
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrival { job, open } => self.arrival(job, open),
            Event::Delivered { slot, attempt } => self.delivered(slot, attempt),
            Event::StepDone { engine, life } if life == self.hosts[engine].life => {
                self.step_done(engine);
            }
            Event::StepDone { .. } => {}
            Event::Answer {
                slot,
                attempt,
                answer,
            } => self.answer(slot, attempt, answer),
            Event::Change { engine, kind } => self.change(engine, kind),
            Event::Discovered { engine, there } => self.discovered(engine, there),
            Event::Scrape { engine } => self.scrape(engine),
            Event::Page(page) => self.page(&page),
            Event::Share { gateway } => self.share(gateway),
            Event::Shared { gateway, events } => self.shared(gateway, &events),
            Event::Wake { gateway } => self.wake(gateway),
            Event::Sample => self.sample(),
        }
    }

    /// Plans the next job that depends on no answer.
    fn next_arrival(&mut self) {
        if let Some(job) = self.workload.next() {
            self.expect(job, true);
        }
    }

    /// Plans a job, unless nobody sends it any more. Time does not run backwards, whatever a trace says.
    fn expect(&mut self, mut job: Job, open: bool) {
        job.at = job.at.max(self.now);
        if job.at < self.config.horizon {
            self.coming += 1;
            let job = Box::new(job);
            self.events.plan(job.at, Event::Arrival { job, open });
        }
    }

    fn arrival(&mut self, job: Box<Job>, open: bool) {
        self.coming -= 1;
        if open {
            self.next_arrival();
        }
        let gateway = match self.gateways.len() {
            1 => 0,
            many => self.rng.random_range(0..many),
        };
        let Some(slot) = self.book.enter(job, gateway, self.config.warmup) else {
            self.misplaced += 1;
            return;
        };
        let record = self.book.get(slot);
        if record.measured {
            self.window[0] = self.window[0].min(self.now);
        }
        let dispatcher = &mut self.gateways[gateway].dispatcher;
        dispatcher.arrive(self.now, &record.job);
        self.poke(gateway);
    }

    /// Takes what a dispatcher has decided by now.
    pub(super) fn poke(&mut self, gateway: usize) {
        let nonsense = self.misplaced + MOST_NONSENSE;
        while self.misplaced < nonsense {
            match self.gateways[gateway].dispatcher.next(self.now) {
                Some(Placed::To { job, engine }) => self.place(gateway, job, engine),
                Some(Placed::Shed { job }) => self.shed(gateway, job),
                None => break,
            }
        }
        let at_once = self.config.sharing.map(|it| it.at_once);
        if at_once.is_some_and(|limit| self.gateways[gateway].dispatcher.unshared_seconds() > limit)
        {
            self.tell(gateway);
        }
        self.arm(gateway);
    }

    /// A gateway tells the others what it did.
    fn tell(&mut self, gateway: usize) {
        let mut events = Vec::new();
        self.gateways[gateway].dispatcher.shared(&mut events);
        if !events.is_empty() {
            let at = self.now + self.config.network_delay;
            self.events.plan(at, Event::Shared { gateway, events });
        }
    }

    fn share(&mut self, gateway: usize) {
        self.tell(gateway);
        if let Some(sharing) = self.config.sharing {
            let next = self.now + sharing.period.max(1e-3);
            self.events.plan(next, Event::Share { gateway });
        }
    }

    fn shared(&mut self, from: usize, events: &[SharedEvent]) {
        for gateway in (0..self.gateways.len()).filter(|&it| it != from) {
            self.gateways[gateway]
                .dispatcher
                .hear(self.now, from, events);
            self.poke(gateway);
        }
    }

    fn place(&mut self, gateway: usize, job: u64, engine: u32) {
        let Some(slot) = self.book.queued_at(gateway, job) else {
            self.misplaced += 1;
            return;
        };
        if engine as usize >= self.hosts.len() {
            self.misplaced += 1;
            self.end(slot, End::Shed);
            return;
        }
        self.send(slot, engine);
    }

    fn shed(&mut self, gateway: usize, job: u64) {
        match self.book.queued_at(gateway, job) {
            Some(slot) => self.end(slot, End::Shed),
            None => self.misplaced += 1,
        }
    }

    /// A job has its outcome; what its client does next follows from that.
    pub(super) fn end(&mut self, slot: usize, end: End) {
        self.book.end(slot, self.now, end);
        let next = self.workload.finished(&self.book.get(slot).job, self.now);
        if let Some(job) = next {
            self.expect(job, false);
        }
    }

    /// Plans the time at which the dispatcher wants to be asked again.
    fn arm(&mut self, gateway: usize) {
        let it = &mut self.gateways[gateway];
        let wanted = it.dispatcher.wake_at().filter(|at| at.is_finite());
        let Some(at) = wanted.map(|at| at.max(self.now + SHORTEST_WAKE)) else {
            return;
        };
        if it.wake.is_none_or(|planned| at < planned) {
            it.wake = Some(at);
            self.events.plan(at, Event::Wake { gateway });
        }
    }

    fn wake(&mut self, gateway: usize) {
        let it = &mut self.gateways[gateway];
        // One that an earlier wake-up has replaced does no harm, but is not needed.
        if it.wake.is_some_and(|at| at <= self.now) {
            it.wake = None;
            self.poke(gateway);
        }
    }

    fn delivered(&mut self, slot: usize, attempt: u32) {
        let record = self.book.get(slot);
        if record.stage != Stage::Sent || record.attempt != attempt {
            return;
        }
        let Some(engine) = record.engine.map(|engine| engine as usize) else {
            return;
        };
        if !self.hosts[engine].there {
            self.send_back(slot, Answer::Broken { retry: true });
            return;
        }
        if self.strikes(self.config.weather.lost) {
            let at = self.now + self.config.weather.first_byte;
            let answer = Answer::Broken { retry: false };
            self.events.plan(
                at,
                Event::Answer {
                    slot,
                    attempt,
                    answer,
                },
            );
            return;
        }
        let unstreamed = self.strikes(self.config.weather.unstreamed);
        let given = self.given(slot);
        let record = self.book.get(slot);
        record.unstreamed = unstreamed;
        if self.hosts[engine].submit(self.now, slot, &record.job, given) {
            self.step(engine);
        } else {
            self.send_back(slot, Answer::Refused);
        }
    }

    /// Blocks of a job's prompt that some engine has, where they share.
    fn given(&mut self, slot: usize) -> u32 {
        if !self.config.shared_kv {
            return 0;
        }
        let job = &self.book.get(slot).job;
        let full = (job.prompt_tokens / BLOCK_TOKENS) as usize;
        let prompt = &job.blocks[..full.min(job.blocks.len())];
        let cached = |host: &Host| host.engine.cached_prefix_blocks(prompt) as u32;
        self.hosts.iter().map(cached).max().unwrap_or(0)
    }

    pub(super) fn send_back(&mut self, slot: usize, answer: Answer) {
        let at = self.now + self.crossing();
        let record = self.book.get(slot);
        record.reached = at.max(record.reached);
        let (at, attempt) = (record.reached, record.attempt);
        self.events.plan(
            at,
            Event::Answer {
                slot,
                attempt,
                answer,
            },
        );
    }

    fn step(&mut self, engine: usize) {
        if let Some(end) = self.hosts[engine].start(self.now, self.window) {
            let life = self.hosts[engine].life;
            self.events.plan(end, Event::StepDone { engine, life });
        }
    }

    fn step_done(&mut self, engine: usize) {
        let mut outputs = std::mem::take(&mut self.outputs);
        self.hosts[engine].finish(self.now, &mut outputs);
        for output in outputs.drain(..) {
            self.output(output);
        }
        self.outputs = outputs;
        self.step(engine);
    }

    fn output(&mut self, output: Output) {
        let slot = output.id as usize;
        match output.kind {
            OutputKind::FirstToken { cached_tokens, .. } => {
                let cached = cached_tokens;
                self.send_back(slot, Answer::First { cached });
            }
            OutputKind::Tokens(tokens) => self.send_back(slot, Answer::Tokens(tokens)),
            OutputKind::Finished { .. } => self.send_back(slot, Answer::Finished),
            OutputKind::Preempted => {}
        }
    }

    fn answer(&mut self, slot: usize, attempt: u32, answer: Answer) {
        let record = self.book.get(slot);
        if record.stage != Stage::Sent || record.attempt != attempt {
            return;
        }
        let (gateway, job, unstreamed) = (record.gateway, record.id, record.unstreamed);
        let told = match answer {
            Answer::First { cached } => {
                self.book.first(slot, self.now, cached);
                Told::FirstToken { job }
            }
            Answer::Tokens(tokens) => {
                record.seen += tokens;
                Told::Progress { job, tokens }
            }
            Answer::Finished | Answer::Refused => {
                let told = Told::Finished {
                    job,
                    output_tokens: record.seen,
                    cached_tokens: record.cached,
                };
                let refused = matches!(answer, Answer::Refused);
                self.end(slot, if refused { End::Shed } else { End::Finished });
                told
            }
            Answer::Broken { retry } => return self.broken(slot, retry),
        };
        let ended = matches!(told, Told::Finished { .. });
        if unstreamed && !ended {
            return;
        }
        self.gateways[gateway].dispatcher.tell(self.now, told);
        // Tokens in mid-stream free nothing.
        if !matches!(answer, Answer::Tokens(_)) {
            self.poke(gateway);
        }
    }

    fn scrape(&mut self, engine: usize) {
        let Some(scrape) = self.config.scrape else {
            return;
        };
        if let Some((page, delay)) = self.shown(engine, scrape.delay.max(0.0)) {
            let at = self.now + delay;
            self.events.plan(at, Event::Page(Box::new(page)));
        }
        let next = self.now + scrape.period.max(1e-3);
        self.events.plan(next, Event::Scrape { engine });
    }

    fn page(&mut self, page: &Page) {
        let engine = page.engine as u32;
        let told = Told::Scraped {
            engine,
            running: page.running,
            waiting: page.waiting,
            kv_usage: page.kv_usage,
        };
        let lora = self.hosts[page.engine].engine.config().lora.max_loras > 0;
        for gateway in 0..self.gateways.len() {
            let dispatcher = &mut self.gateways[gateway].dispatcher;
            dispatcher.tell(self.now, told);
            if lora {
                dispatcher.adapters(self.now, engine, &page.resident, &page.wanted);
            }
            self.poke(gateway);
        }
    }

    fn sample(&mut self) {
        let mut sample = Sample {
            at: self.now,
            running: Vec::with_capacity(self.hosts.len()),
            waiting: Vec::with_capacity(self.hosts.len()),
            kv_usage: Vec::with_capacity(self.hosts.len()),
            queued: self.book.queued,
        };
        for host in &self.hosts {
            let stats = host.engine.stats();
            sample.running.push(stats.running as u32);
            sample.waiting.push(stats.waiting as u32);
            sample.kv_usage.push(stats.kv_usage as f32);
        }
        self.samples.push(sample);
        self.events.plan(self.now + SAMPLE_EVERY, Event::Sample);
    }

    fn outcome(self, began: Instant) -> RunOutcome {
        let counted = self.hosts.iter().map(Host::counted);
        let [preemptions, adapter_loads] =
            counted.fold([0; 2], |sum, it| [sum[0] + it[0], sum[1] + it[1]]);
        RunOutcome {
            policy: String::new(),
            workload: String::new(),
            load: 0.0,
            seed: self.config.seed,
            virtual_seconds: self.now,
            real_seconds: began.elapsed().as_secs_f64(),
            jobs: self.book.outcomes(self.now),
            preemptions,
            adapter_loads,
            busy: self.hosts.iter().map(|host| host.busy).collect(),
            samples: self.samples,
            window: [self.window[0].min(self.now), self.window[1].min(self.now)],
            misplaced: self.misplaced,
            dead_picks: self.dead_picks,
            retries: self.retries,
        }
    }
}

/// Seeds that have nothing to do with each other, from one (the finaliser of SplitMix64).
pub(super) fn mix(seed: u64, stream: u64) -> u64 {
    let mut z = seed
        .wrapping_add(stream.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
