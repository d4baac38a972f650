//! Settings of flow control.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::ConfigError;

/// What happens to a request that cannot go at once.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Admission {
    /// It waits here, in order. The default.
    #[default]
    Queue,
    /// It goes all the same, into the engine's own queue; only negative priorities are refused while the pool is
    /// saturated. This is what the Go endpoint picker does unless its flow control is switched on.
    Immediate,
}

/// How the flows of one band share its dispatches.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Fairness {
    /// Equal uncached tokens to each flow that waits (deficit round robin). The default.
    #[default]
    Deficit,
    /// Equal numbers of requests.
    RoundRobin,
    /// None: one order for all, whoever asks.
    Strict,
}

/// The order within a flow, and of all flows when there is no fairness between them.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Ordering {
    /// Short work first; those with a deadline by the time that is left. The default.
    #[default]
    ShortestFirst,
    /// First come first served.
    Fcfs,
    /// Earliest deadline first; those without a deadline after them, as they came.
    Deadline,
}

/// Settings of one band: all requests of one priority. What is `None` is as in [`FlowControl::default_band`], and what
/// is `None` there is without a limit of its own, or as in [`FlowControl`].
#[derive(Clone, PartialEq, Debug, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default)
)]
pub struct Band {
    /// Most requests that wait.
    pub max_requests: Option<usize>,
    /// Most bytes of bodies that wait.
    pub max_bytes: Option<u64>,
    /// Longest wait to expect: a request that would have to wait longer is refused at once.
    pub max_wait: Option<Duration>,
    /// Longest wait.
    pub ttl: Option<Duration>,
    /// How its flows share.
    pub fairness: Option<Fairness>,
    /// The order within a flow.
    pub ordering: Option<Ordering>,
    /// Saturation of the pool, 0 to 1, from which on requests of this band are held back. 1 holds nothing back: then
    /// only the endpoints themselves say when they are full.
    pub ceiling: Option<f64>,
}

/// Settings of flow control. Every default is argued where it stands.
#[derive(Clone, PartialEq, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default)
)]
pub struct FlowControl {
    /// What happens to a request that cannot go at once.
    pub admission: Admission,
    /// Most requests that wait, in all bands.
    pub max_requests: usize,
    /// Most bytes of bodies that wait, in all bands: they are held in memory.
    pub max_bytes: u64,
    /// Longest wait to expect, in all bands.
    pub max_wait: Option<Duration>,
    /// Bands that are not in `bands` are like this one.
    pub default_band: Band,
    /// Those of negative priorities that are not in `bands` are like this one, where there is one.
    pub negative_band: Option<Band>,
    /// Bands by priority. Any other priority gets its band when it is first seen.
    pub bands: BTreeMap<i32, Band>,
    /// Longest wait of a request for an open endpoint.
    pub request_ttl: Duration,
    /// How long a request waits for an endpoint when there is none. Each time the pool becomes empty, or is no longer,
    /// the wait begins anew.
    pub empty_ttl: Duration,
    /// How the flows of a band share.
    pub fairness: Fairness,
    /// The order within a flow.
    pub ordering: Ordering,
    /// Seconds of prefill that a second of waiting makes up for, where short work goes first. With 0 long work waits for
    /// all that is shorter, but for the starvation bound.
    pub aging: f64,
    /// Requests that waited longer than this take one second of prefill in eight, oldest first, whatever their class: the
    /// bound on starvation under a constant stream of a higher class, or of shorter work.
    pub starvation_bound: Duration,
    /// How many waiting requests are looked at when capacity frees.
    pub window: usize,
    /// Whether requests of negative priority that already run may be ended for higher ones that wait.
    pub evict_running: bool,
}

impl Default for FlowControl {
    fn default() -> Self {
        Self {
            admission: Admission::Queue,
            max_requests: 4096,
            // 4096 prompts of a quarter MiB, which is some 60,000 tokens each.
            max_bytes: 1 << 30,
            max_wait: None,
            default_band: Band::default(),
            negative_band: None,
            bands: BTreeMap::new(),
            // As long as the Go endpoint picker's `defaultRequestTTL`.
            request_ttl: Duration::from_secs(60),
            empty_ttl: Duration::from_secs(5),
            fairness: Fairness::Deficit,
            ordering: Ordering::ShortestFirst,
            // Under overload the few that take long would else hold up all others sooner or later.
            aging: 0.0,
            starvation_bound: Duration::from_secs(10),
            window: 32,
            // Ending what runs throws its work away.
            evict_running: false,
        }
    }
}

/// What holds for one band: its own settings (or those for negative ones), the default band's, and the pool's, in this
/// order.
#[derive(Copy, Clone, PartialEq, Debug)]
pub(crate) struct Rules {
    pub(crate) max_requests: usize,
    pub(crate) max_bytes: u64,
    pub(crate) max_wait: Option<Duration>,
    pub(crate) ttl: Duration,
    pub(crate) fairness: Fairness,
    pub(crate) ordering: Ordering,
    pub(crate) aging: f64,
    pub(crate) ceiling: f64,
}

impl FlowControl {
    /// What holds for requests of this priority.
    pub(crate) fn rules(&self, priority: i32) -> Rules {
        let negative = self.negative_band.as_ref().filter(|_| priority < 0);
        let (default, own) = (&self.default_band, self.bands.get(&priority).or(negative));
        fn pick<T: Copy>(
            own: Option<&Band>,
            default: &Band,
            get: impl Fn(&Band) -> Option<T>,
        ) -> Option<T> {
            own.and_then(&get).or_else(|| get(default))
        }
        let max_wait = pick(own, default, |it| it.max_wait);
        Rules {
            max_requests: pick(own, default, |it| it.max_requests).unwrap_or(usize::MAX),
            max_bytes: pick(own, default, |it| it.max_bytes).unwrap_or(u64::MAX),
            max_wait: [max_wait, self.max_wait].into_iter().flatten().min(),
            ttl: pick(own, default, |it| it.ttl).unwrap_or(self.request_ttl),
            fairness: pick(own, default, |it| it.fairness).unwrap_or(self.fairness),
            ordering: pick(own, default, |it| it.ordering).unwrap_or(self.ordering),
            aging: self.aging,
            ceiling: pick(own, default, |it| it.ceiling).unwrap_or(1.0),
        }
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        self.default_band.validate("flow.default_band")?;
        if let Some(band) = &self.negative_band {
            band.validate("flow.negative_band")?;
        }
        for (priority, band) in &self.bands {
            band.validate(&format!("flow.bands[{priority}]"))?;
        }
        let check = |field: &str, fine: bool, problem| ConfigError::unless(fine, field, problem);
        check("flow.window", self.window > 0, "must be at least 1")?;
        check(
            "flow.request_ttl",
            !self.request_ttl.is_zero(),
            "must be over zero",
        )?;
        check(
            "flow.aging",
            self.aging.is_finite() && self.aging >= 0.0,
            "must be a number from 0 up",
        )?;
        check(
            "flow.max_wait",
            self.max_wait.is_none_or(|it| !it.is_zero()),
            "must be over zero",
        )
    }
}

impl Band {
    fn validate(&self, name: &str) -> Result<(), ConfigError> {
        let check = |field: &str, fine: bool, problem| {
            ConfigError::unless(fine, &format!("{name}.{field}"), problem)
        };
        let positive = |it: Option<Duration>| it.is_none_or(|it| !it.is_zero());
        check("ttl", positive(self.ttl), "must be over zero")?;
        check("max_wait", positive(self.max_wait), "must be over zero")?;
        check(
            "ceiling",
            self.ceiling.is_none_or(|it| it > 0.0 && it <= 1.0),
            "must be over 0 and at most 1",
        )
    }
}
