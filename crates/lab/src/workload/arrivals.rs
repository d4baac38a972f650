//! When requests come, if nobody waits for answers.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Gamma};

use super::random::{Purpose, exponential, stream};

/// The law of the arrivals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pace {
    /// Independent arrivals at a rate a second.
    Poisson(f64),
    /// Independent gaps with a coefficient of variation: Gamma of shape `1/cv^2` (BurstGPT, arXiv 2401.17644, fits
    /// Gamma gaps). Above 1 they come in clusters.
    Bursty { rate: f64, cv: f64 },
    /// Independent arrivals whose rate jumps: `peak` times the trough's for `duty` of each `period` seconds. The mean
    /// is `rate`.
    Square {
        rate: f64,
        peak: f64,
        duty: f64,
        period: f64,
    },
    /// Independent arrivals whose rate grows by `rate` each `length` seconds, from `rate` to `steps` times as much.
    Stairs { rate: f64, steps: u32, length: f64 },
}

/// Times of arrivals, rising, without end.
#[derive(Debug, Clone)]
pub(super) struct Arrivals {
    pace: Pace,
    gaps: Option<Gamma<f64>>,
    rng: ChaCha8Rng,
    now: f64,
}

impl Arrivals {
    /// From `start` seconds on; `number` keeps several streams of one seed apart.
    pub(super) fn new(pace: Pace, seed: u64, number: u64, start: f64) -> Self {
        let gaps = match pace {
            Pace::Bursty { rate, cv } => Gamma::new(1.0 / (cv * cv), cv * cv / rate).ok(),
            _ => None,
        };
        Self {
            pace,
            gaps,
            rng: stream(seed, Purpose::Arrivals, number),
            now: start,
        }
    }

    /// The next time, seconds.
    pub(super) fn next(&mut self) -> f64 {
        let ceiling = self.ceiling();
        loop {
            self.now += match &self.gaps {
                Some(gaps) => gaps.sample(&mut self.rng),
                None => exponential(&mut self.rng) / ceiling,
            };
            // A rate that changes: draw at its highest and keep with probability rate/highest (thinning).
            let keep = self.rate_at(self.now) / ceiling;
            if keep >= 1.0 || self.rng.random::<f64>() < keep {
                return self.now;
            }
        }
    }

    fn ceiling(&self) -> f64 {
        match self.pace {
            Pace::Poisson(rate) | Pace::Bursty { rate, .. } => rate,
            Pace::Square {
                rate, peak, duty, ..
            } => peak * trough(rate, peak, duty),
            Pace::Stairs { rate, steps, .. } => rate * f64::from(steps),
        }
    }

    fn rate_at(&self, now: f64) -> f64 {
        match self.pace {
            Pace::Poisson(rate) | Pace::Bursty { rate, .. } => rate,
            Pace::Square {
                rate,
                peak,
                duty,
                period,
            } => {
                let low = trough(rate, peak, duty);
                // The burst is the end of each period, so that a run begins at rest.
                if (now / period).rem_euclid(1.0) >= 1.0 - duty {
                    low * peak
                } else {
                    low
                }
            }
            Pace::Stairs {
                rate,
                steps,
                length,
            } => rate * ((now / length).floor() + 1.0).clamp(1.0, f64::from(steps)),
        }
    }
}

/// The rate outside bursts that makes the mean `rate`.
fn trough(rate: f64, peak: f64, duty: f64) -> f64 {
    rate / (1.0 - duty + duty * peak)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(pace: Pace, until: f64) -> Vec<f64> {
        let mut arrivals = Arrivals::new(pace, 7, 0, 0.0);
        std::iter::repeat_with(|| arrivals.next())
            .take_while(|at| *at < until)
            .collect()
    }

    fn cv_of_gaps(times: &[f64]) -> f64 {
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        variance.sqrt() / mean
    }

    #[test]
    fn every_pace_keeps_its_mean_rate_and_its_order() {
        let paces = [
            Pace::Poisson(20.0),
            Pace::Bursty {
                rate: 20.0,
                cv: 2.0,
            },
            Pace::Square {
                rate: 20.0,
                peak: 4.0,
                duty: 0.25,
                period: 60.0,
            },
        ];
        for pace in paces {
            let times = times(pace, 3000.0);
            let rate = times.len() as f64 / 3000.0;
            assert!((rate / 20.0 - 1.0).abs() < 0.05, "{pace:?}: {rate}");
            assert!(times.windows(2).all(|pair| pair[0] <= pair[1]), "{pace:?}");
        }
    }

    #[test]
    fn gaps_vary_as_asked() {
        assert!((cv_of_gaps(&times(Pace::Poisson(20.0), 3000.0)) - 1.0).abs() < 0.05);
        let bursty = Pace::Bursty {
            rate: 20.0,
            cv: 4.0,
        };
        assert!((cv_of_gaps(&times(bursty, 20_000.0)) / 4.0 - 1.0).abs() < 0.15);
    }

    #[test]
    fn stairs_climb_step_by_step_and_stay_at_the_top() {
        let stairs = Pace::Stairs {
            rate: 10.0,
            steps: 4,
            length: 100.0,
        };
        let times = times(stairs, 500.0);
        for (step, expected) in [10.0, 20.0, 30.0, 40.0, 40.0].into_iter().enumerate() {
            let own = times.iter().filter(|at| (*at / 100.0) as usize == step);
            let rate = own.count() as f64 / 100.0;
            assert!((rate / expected - 1.0).abs() < 0.1, "{step}: {rate}");
        }
    }

    #[test]
    fn a_square_wave_has_its_burst_at_the_end_of_the_period() {
        let square = Pace::Square {
            rate: 20.0,
            peak: 4.0,
            duty: 0.25,
            period: 60.0,
        };
        let times = times(square, 3000.0);
        let burst = times.iter().filter(|at| *at % 60.0 >= 45.0).count() as f64;
        // 3 of 4 quarters at the trough, 1 at 4 times of it: 4/7 of all.
        assert!((burst / times.len() as f64 - 4.0 / 7.0).abs() < 0.02);
    }
}
