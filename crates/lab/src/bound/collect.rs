//! A workload's jobs, played on engines that never wait, for bounds that must know them all beforehand.

use super::{decode_alone, prefill_alone};
use crate::workload::queue::TimeQueue;
use crate::{Job, RunConfig, Workload};

enum Next {
    /// A job is sent; `open`: the one after it does not depend on any answer.
    Sent { job: Box<Job>, open: bool },
    /// A job was answered.
    Answered(Box<Job>),
}

/// All jobs that clients would send before the horizon to a fleet on which each finds an idle engine and an empty
/// cache, in order of time. In an open loop those are the workload's jobs as they are.
#[must_use]
pub fn collect(config: &RunConfig, mut workload: Box<dyn Workload>) -> Vec<Job> {
    let mut queue = TimeQueue::new();
    let mut jobs = Vec::new();
    let seconds = |job: &Job| {
        let each = config.engines.iter().map(|it| {
            let gaps = job.output_tokens.saturating_sub(1);
            prefill_alone(it, job.prompt_tokens, 0) + decode_alone(it, job.prompt_tokens, gaps)
        });
        each.fold(f64::INFINITY, f64::min) + 2.0 * config.network_delay
    };
    let enter = |queue: &mut TimeQueue<Next>, job: Option<Job>, now: f64, open: bool| {
        if let Some(mut job) = job {
            job.at = job.at.max(now);
            if job.at < config.horizon {
                let at = job.at;
                let job = Box::new(job);
                queue.push(at, Next::Sent { job, open });
            }
        }
    };
    enter(&mut queue, workload.next(), 0.0, true);
    while let Some((now, next)) = queue.pop() {
        match next {
            Next::Sent { job, open } => {
                if open {
                    enter(&mut queue, workload.next(), now, true);
                }
                jobs.push((*job).clone());
                queue.push(now + seconds(&job), Next::Answered(job));
            }
            Next::Answered(job) => {
                let follower = workload.finished(&job, now);
                enter(&mut queue, follower, now, false);
            }
        }
    }
    jobs
}
