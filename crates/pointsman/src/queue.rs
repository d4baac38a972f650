//! Flags of the queue: who waits, in which order, for how long.

use std::time::Duration;

use clap::{Args, ValueEnum};
use scheduling::{Band, FlowControl};

/// Flags of the queue.
#[derive(Debug, Args)]
#[command(next_help_heading = "Queue")]
pub(crate) struct QueueArgs {
    /// What happens to a request that cannot go at once.
    #[arg(long, value_enum, default_value_t = Admission::Queue)]
    pub(crate) admission: Admission,
    /// Most requests that wait in the gateway for one pool.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) queue_capacity: usize,
    /// Most bytes of bodies that wait for one pool.
    #[arg(long, default_value_t = 1 << 30)]
    pub(crate) queue_bytes: u64,
    /// Longest wait in the gateway's queue.
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub(crate) queue_ttl: Duration,
    /// Refuse at once what is expected to wait longer than this.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) queue_max_wait: Option<Duration>,
    /// How long a request waits for the first server of an empty pool.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) empty_pool_wait: Duration,
    /// Requests that waited longer take one second of prefill in eight, oldest first, whatever their class.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) starvation_bound: Duration,
    /// How the flows of one class share.
    #[arg(long, value_enum, default_value_t = Fairness::Deficit)]
    pub(crate) fairness: Fairness,
    /// The order within a flow.
    #[arg(long, value_enum, default_value_t = Order::ShortestFirst)]
    pub(crate) queue_order: Order,
    /// Settings of one class, such as `-1:ceiling=0.8,max-requests=100`, or of all others: `default:ttl=10s`. Keys:
    /// max-requests, max-bytes, max-wait, ttl, ceiling, fairness, order. May be repeated.
    #[arg(long, value_name = "PRIORITY:KEY=VALUE,...", allow_hyphen_values = true, value_parser = band)]
    pub(crate) band: Vec<(Option<i32>, Band)>,
    /// End running requests of negative priority when higher ones wait and nothing else makes room.
    #[arg(long)]
    pub(crate) evict_running: bool,
}

/// What happens to a request that cannot go at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Admission {
    /// It waits in the gateway, in order.
    Queue,
    /// It goes to a server's own queue; negative priorities are refused while all are busy.
    Immediate,
}

/// How the flows of one class share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fairness {
    /// Equal uncached tokens to each.
    Deficit,
    /// Equal requests to each.
    RoundRobin,
    /// One order for all.
    Strict,
}

/// The order within a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// Short work first; the starvation bound keeps long work going.
    ShortestFirst,
    /// As they came.
    Fcfs,
    /// Earliest deadline first.
    Deadline,
}

impl From<Fairness> for scheduling::Fairness {
    fn from(fairness: Fairness) -> Self {
        match fairness {
            Fairness::Deficit => Self::Deficit,
            Fairness::RoundRobin => Self::RoundRobin,
            Fairness::Strict => Self::Strict,
        }
    }
}

impl From<Order> for scheduling::Ordering {
    fn from(order: Order) -> Self {
        match order {
            Order::ShortestFirst => Self::ShortestFirst,
            Order::Fcfs => Self::Fcfs,
            Order::Deadline => Self::Deadline,
        }
    }
}

impl QueueArgs {
    /// The settings. Whether they make sense is for [`scheduling::Config::validate`] to say.
    pub(crate) fn flow(&self) -> FlowControl {
        let mut flow = FlowControl {
            admission: match self.admission {
                Admission::Queue => scheduling::Admission::Queue,
                Admission::Immediate => scheduling::Admission::Immediate,
            },
            max_requests: self.queue_capacity,
            max_bytes: self.queue_bytes,
            max_wait: self.queue_max_wait,
            request_ttl: self.queue_ttl,
            empty_ttl: self.empty_pool_wait,
            fairness: self.fairness.into(),
            ordering: self.queue_order.into(),
            starvation_bound: self.starvation_bound,
            evict_running: self.evict_running,
            ..FlowControl::default()
        };
        for (priority, band) in &self.band {
            match priority {
                Some(priority) => {
                    flow.bands.insert(*priority, band.clone());
                }
                None => flow.default_band = band.clone(),
            }
        }
        flow
    }
}

/// A flag that cannot be read.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum FlagError {
    /// No `PRIORITY:`.
    #[error("write PRIORITY:KEY=VALUE,..., with an integer or `default` as priority")]
    Priority,
    /// A part without `=`.
    #[error("`{0}` is not KEY=VALUE")]
    Pair(String),
    /// No such key.
    #[error("`{0}` is none of max-requests, max-bytes, max-wait, ttl, ceiling, fairness, order")]
    Key(String),
    /// A value of the wrong kind.
    #[error("`{value}` is no value of {key}")]
    Value {
        /// Of which key.
        key: String,
        /// The value.
        value: String,
    },
    /// A duration of zero.
    #[error("must be over zero")]
    Zero,
    /// No duration.
    #[error(transparent)]
    Duration(#[from] humantime::DurationError),
}

fn duration(text: &str) -> Result<Duration, FlagError> {
    let duration = humantime::parse_duration(text)?;
    if duration.is_zero() {
        return Err(FlagError::Zero);
    }
    Ok(duration)
}

/// `PRIORITY:KEY=VALUE,...`
fn band(text: &str) -> Result<(Option<i32>, Band), FlagError> {
    let (priority, rest) = text.split_once(':').ok_or(FlagError::Priority)?;
    let priority = match priority {
        "default" => None,
        number => Some(number.parse().map_err(|_| FlagError::Priority)?),
    };
    let mut band = Band::default();
    for pair in rest.split(',') {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| FlagError::Pair(pair.to_owned()))?;
        set(&mut band, key, value)?;
    }
    Ok((priority, band))
}

fn set(band: &mut Band, key: &str, value: &str) -> Result<(), FlagError> {
    let wrong = || FlagError::Value {
        key: key.to_owned(),
        value: value.to_owned(),
    };
    match key {
        "max-requests" => band.max_requests = Some(value.parse().map_err(|_| wrong())?),
        "max-bytes" => band.max_bytes = Some(value.parse().map_err(|_| wrong())?),
        "max-wait" => band.max_wait = Some(duration(value).map_err(|_| wrong())?),
        "ttl" => band.ttl = Some(duration(value).map_err(|_| wrong())?),
        "ceiling" => {
            let ceiling: f64 = value.parse().map_err(|_| wrong())?;
            if !(ceiling > 0.0 && ceiling <= 1.0) {
                return Err(wrong());
            }
            band.ceiling = Some(ceiling);
        }
        "fairness" => {
            let fairness = Fairness::from_str(value, false).map_err(|_| wrong())?;
            band.fairness = Some(fairness.into());
        }
        "order" => {
            let order = Order::from_str(value, false).map_err(|_| wrong())?;
            band.ordering = Some(order.into());
        }
        _ => return Err(FlagError::Key(key.to_owned())),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_are_read() {
        let (priority, read) = band("-1:ceiling=0.8,max-requests=9,max-bytes=10,max-wait=2s,ttl=3s,fairness=strict,order=fcfs")
            .expect("well formed");
        assert_eq!(priority, Some(-1));
        assert_eq!(
            read,
            Band {
                max_requests: Some(9),
                max_bytes: Some(10),
                max_wait: Some(Duration::from_secs(2)),
                ttl: Some(Duration::from_secs(3)),
                fairness: Some(scheduling::Fairness::Strict),
                ordering: Some(scheduling::Ordering::Fcfs),
                ceiling: Some(0.8),
            }
        );
        assert_eq!(band("default:ttl=1s").expect("well formed").0, None);
    }

    #[test]
    fn nonsense_is_named() {
        for (text, message) in [
            ("ttl=1s", "write PRIORITY:KEY=VALUE"),
            ("high:ttl=1s", "write PRIORITY:KEY=VALUE"),
            ("1:ttl", "`ttl` is not KEY=VALUE"),
            ("1:", "`` is not KEY=VALUE"),
            ("1:weight=3", "`weight` is none of"),
            ("1:ttl=0s", "`0s` is no value of ttl"),
            ("1:max-requests=-3", "`-3` is no value of max-requests"),
            ("1:ceiling=1.5", "`1.5` is no value of ceiling"),
            ("1:ceiling=NaN", "`NaN` is no value of ceiling"),
            ("1:order=random", "`random` is no value of order"),
        ] {
            let error = band(text).expect_err(text).to_string();
            assert!(error.starts_with(message), "{text}: {error}");
        }
        assert_eq!(duration("0s"), Err(FlagError::Zero));
    }
}
