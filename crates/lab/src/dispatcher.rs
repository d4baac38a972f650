//! Who places jobs: the joint between the run and policies.

use scheduling::SharedEvent;

use crate::Job;

/// What a dispatcher is told. All times are the gateway's own (the network's delay is in them already).
#[derive(Debug, Clone, Copy)]
pub enum Told {
    /// The first token of a job passed.
    FirstToken {
        /// The job.
        job: u64,
    },
    /// Tokens passed since the last time.
    Progress {
        /// The job.
        job: u64,
        /// How many.
        tokens: u32,
    },
    /// A job ended well.
    Finished {
        /// The job.
        job: u64,
        /// Tokens of the answer, and cached tokens as the usage reports them.
        output_tokens: u32,
        /// As the usage reports them.
        cached_tokens: u32,
    },
    /// A scrape of an engine came in.
    Scraped {
        /// The engine.
        engine: u32,
        /// Requests running in it, when the page was made.
        running: u32,
        /// Requests waiting in it.
        waiting: u32,
        /// Share of its KV cache in use.
        kv_usage: f64,
    },
}

/// What a dispatcher does with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// Send it there now.
    To {
        /// The job.
        job: u64,
        /// The engine.
        engine: u32,
    },
    /// Refuse it.
    Shed {
        /// The job.
        job: u64,
    },
}

/// A gateway's scheduler: the product's own pool, or a policy of the literature.
pub trait Dispatcher: Send {
    /// A job came. It may be placed at once, later, or never.
    fn arrive(&mut self, now: f64, job: &Job);
    /// Something happened.
    fn tell(&mut self, now: f64, told: Told);
    /// The next placement that is due; asked until `None` after every event and wake-up.
    fn next(&mut self, now: f64) -> Option<Placed>;
    /// The adapters of an engine, as its metrics page has them: those that need no loading, and those that requests
    /// wait for. Comes with [`Told::Scraped`], only from engines that have adapters.
    fn adapters(&mut self, _now: f64, _engine: u32, _resident: &[u32], _wanted: &[u32]) {}
    /// Whether to keep what it does for other gateways over the same engines. Those of the literature do not.
    fn share(&mut self, _on: bool) {}
    /// Moves what other gateways were not told yet into `into`.
    fn shared(&mut self, _into: &mut Vec<SharedEvent>) {}
    /// Seconds of prefill that other gateways were not told of yet.
    fn unshared_seconds(&self) -> f64 {
        0.0
    }
    /// Another gateway told what it did.
    fn hear(&mut self, _now: f64, _gateway: usize, _events: &[SharedEvent]) {}
    /// Discovery tells that an engine is gone, with what it was doing and its cache. All are there at the start.
    fn left(&mut self, _now: f64, _engine: u32) {}
    /// Discovery tells that an engine came, or came back, empty.
    fn joined(&mut self, _now: f64, _engine: u32) {}
    /// An engine failed a job: it could not be reached, its connection broke, or nothing came in time. With `retry` the
    /// answer had not begun, and the job goes to the engine that is named now. Otherwise, or if none is named, the job
    /// has ended, and this is all that is heard of it.
    fn failed(&mut self, now: f64, job: &Job, engine: u32, retry: bool) -> Option<u32> {
        let _ = (engine, retry);
        let (output_tokens, cached_tokens) = (0, 0);
        let job = job.id;
        self.tell(
            now,
            Told::Finished {
                job,
                output_tokens,
                cached_tokens,
            },
        );
        None
    }
    /// When to ask again without an event.
    fn wake_at(&self) -> Option<f64> {
        None
    }
}
