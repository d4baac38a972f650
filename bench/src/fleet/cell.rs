//! One run: a scenario, a policy and a seed, on fresh processes.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::Error;
use crate::fleet::bound::EndlessCache;
use crate::fleet::client::{Client, Timed, unexpected};
use crate::fleet::counters::Counters;
use crate::fleet::scenario::Policy;
use crate::fleet::servers::Servers;
use crate::fleet::workload::Request;

/// Between the preparation and the first arrival.
const LEAD: Duration = Duration::from_millis(100);
/// A request must be answered within this time.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// What one run showed.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// The policy.
    pub policy: Policy,
    /// The seed of the requests.
    pub seed: u64,
    /// Requests that were sent.
    pub requests: usize,
    /// Requests that failed.
    pub errors: usize,
    /// The first failure.
    pub first_error: Option<String>,
    /// From the first arrival to the last answer, seconds.
    pub seconds: f64,
    /// Median, 90th and 99th percentile of the time to the first token, milliseconds.
    pub ttft_ms: [f64; 3],
    /// The same of the time to the end.
    pub whole_ms: [f64; 3],
    /// 99th percentile of how late the generator sent a request, milliseconds.
    pub late_p99_ms: f64,
    /// Prompt tokens found in a prefix cache, as a share of all.
    pub hit_ratio: f64,
    /// The hit ratio of one endless cache, where that was asked for.
    pub best_hit_ratio: Option<f64>,
    /// Requests by server.
    pub requests_by_server: Vec<f64>,
    /// Prompt tokens computed, by server.
    pub computed_by_server: Vec<f64>,
    /// Adapters that ran, by server.
    pub adapters_by_server: Vec<f64>,
}

/// An answered request.
struct Answered {
    due: Instant,
    sent: Instant,
    timed: Timed,
}

/// Sends the requests when they are due, and waits for all answers.
///
/// # Errors
/// When a process ends or does not tell its counters; a request that fails is a figure.
pub async fn run(
    servers: &mut Servers,
    client: &Rc<Client>,
    requests: &[Request],
    (policy, seed): (Policy, u64),
) -> Result<Figures, Error> {
    let bodies: Vec<Bytes> = requests.iter().map(Request::body).collect();
    let before = servers.counters(client).await?;
    let start = Instant::now() + LEAD;
    let mut running = JoinSet::new();
    for (i, (request, body)) in requests.iter().zip(bodies).enumerate() {
        let due = start + request.due;
        sleep_until(due).await;
        let target = servers.targets[i % servers.targets.len()];
        running.spawn_local(answer(Rc::clone(client), target, body, due));
    }
    let mut answers = Vec::with_capacity(requests.len());
    while let Some(joined) = running.join_next().await {
        answers.push(joined.unwrap_or_else(|e| Err(Error::io("a request")(e.into()))));
    }
    let end = Instant::now();
    servers.check_alive()?;
    let after = servers.counters(client).await?;
    let mut figures = summarize(answers, (policy, seed));
    figures.seconds = (end - start).as_secs_f64();
    figures.by_server(&before, &after);
    Ok(figures)
}

async fn answer(
    client: Rc<Client>,
    port: u16,
    body: Bytes,
    due: Instant,
) -> Result<Answered, Error> {
    let sent = Instant::now();
    let late = |_| Error::io("a request")(std::io::ErrorKind::TimedOut.into());
    let timed = timeout(ANSWER_WITHIN, client.chat(port, body))
        .await
        .map_err(late)??;
    Ok(Answered { due, sent, timed })
}

fn summarize(answers: Vec<Result<Answered, Error>>, (policy, seed): (Policy, u64)) -> Figures {
    let requests = answers.len();
    let mut first_error = None;
    let mut good = Vec::with_capacity(requests);
    for answer in answers {
        match answer {
            Ok(answered) => good.push(answered),
            Err(e) => first_error = first_error.or_else(|| Some(e.to_string())),
        }
    }
    let millis = |of: fn(&Answered) -> Duration| {
        let mut sorted: Vec<f64> = good.iter().map(|a| of(a).as_secs_f64() * 1e3).collect();
        sorted.sort_by(f64::total_cmp);
        [0.5, 0.9, 0.99].map(|q| quantile(&sorted, q))
    };
    let tokens = |of: fn(&Answered) -> u32| good.iter().map(|a| f64::from(of(a))).sum::<f64>();
    Figures {
        policy,
        seed,
        requests,
        errors: requests - good.len(),
        first_error,
        seconds: 0.0,
        ttft_ms: millis(|a| a.timed.first - a.due),
        whole_ms: millis(|a| a.timed.end - a.due),
        late_p99_ms: millis(|a| a.sent - a.due)[2],
        hit_ratio: tokens(|a| a.timed.usage.cached_tokens())
            / tokens(|a| a.timed.usage.prompt_tokens).max(1.0),
        best_hit_ratio: None,
        requests_by_server: Vec::new(),
        computed_by_server: Vec::new(),
        adapters_by_server: Vec::new(),
    }
}

impl Figures {
    fn by_server(&mut self, before: &[Counters], after: &[Counters]) {
        let grown = |of: fn(&Counters) -> f64| {
            let pairs = before.iter().zip(after);
            pairs.map(|(b, a)| of(a) - of(b)).collect()
        };
        self.requests_by_server = grown(|c| c.requests);
        self.computed_by_server = grown(|c| c.computed);
        self.adapters_by_server = after.iter().map(|c| c.adapters.len() as f64).collect();
    }
}

/// The value at a rank of sorted values (nearest rank); not a number when there are none.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or(f64::NAN)
}

/// The requests' tokens as a server cuts them.
///
/// # Errors
/// When the server does not tokenize.
pub async fn tokens(
    server: u16,
    client: &Client,
    requests: &[Request],
) -> Result<Vec<Vec<u32>>, Error> {
    #[derive(Deserialize)]
    struct Tokens {
        tokens: Vec<u32>,
    }
    let mut all = Vec::with_capacity(requests.len());
    for request in requests {
        let body = Some(request.tokenize_body());
        let (status, answer) = client.call(server, "/tokenize", body).await?;
        if status != StatusCode::OK {
            return Err(unexpected(status, &answer));
        }
        let Tokens { tokens } = serde_json::from_slice(&answer)?;
        all.push(tokens);
    }
    Ok(all)
}

/// The best possible hit ratio of the requests.
#[must_use]
pub fn best_hit_ratio(tokens: &[Vec<u32>]) -> f64 {
    let mut cache = EndlessCache::default();
    for prompt in tokens {
        cache.prompt(prompt);
    }
    cache.hit_ratio()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_nearest_rank() {
        let values: Vec<f64> = (1..=10).map(f64::from).collect();
        for (q, value) in [(0.5, 5.0), (0.9, 9.0), (0.99, 10.0), (0.01, 1.0)] {
            assert_eq!(quantile(&values, q), value, "{q}");
        }
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn latency_counts_from_the_time_it_was_due() {
        let due = Instant::now();
        let after = |ms| due + Duration::from_millis(ms);
        let answered = Answered {
            due,
            sent: after(3),
            timed: Timed {
                first: after(20),
                end: after(50),
                usage: serde_json::from_str(
                    r#"{"prompt_tokens":100,"prompt_tokens_details":{"cached_tokens":25}}"#,
                )
                .unwrap(),
            },
        };
        let failed = Err(Error::Closed("a stream"));
        let figures = summarize(vec![Ok(answered), failed], (Policy::RoundRobin, 1));
        assert_eq!((figures.requests, figures.errors), (2, 1));
        assert_eq!((figures.ttft_ms, figures.whole_ms), ([20.0; 3], [50.0; 3]));
        assert_eq!((figures.late_p99_ms, figures.hit_ratio), (3.0, 0.25));
        assert!(figures.first_error.unwrap().contains("a stream"));
    }

    #[test]
    fn counters_are_differences() {
        let counters = |requests, computed| Counters {
            requests,
            computed,
            ..Counters::default()
        };
        let mut figures = summarize(Vec::new(), (Policy::RoundRobin, 1));
        figures.by_server(
            &[counters(1.0, 5.0), counters(0.0, 0.0)],
            &[counters(4.0, 9.0), counters(2.0, 7.0)],
        );
        assert_eq!(figures.requests_by_server, [3.0, 2.0]);
        assert_eq!(figures.computed_by_server, [4.0, 7.0]);
    }
}
