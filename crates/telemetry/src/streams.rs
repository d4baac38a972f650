//! Streams of proxies that ask us to pick, and what a body-based router made of bodies.
//!
//! The names are llm-d's and the inference extension's. They exist only in a process that serves such streams.

use std::time::Instant;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::families::{self as f, Counters, FloatGauge};

/// The families of a process that serves external processing.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    inflight: FloatGauge,
    duration: Histogram,
    by_code: Counters,
    routed: [Counter; 3],
}

/// What a body-based router made of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyRouted {
    /// The model was told.
    Success,
    /// The body names none.
    NoModel,
    /// The body is no JSON.
    NotParsed,
}

impl Streams {
    pub(crate) fn new(r: &mut Registry) -> Self {
        let inflight = FloatGauge::default();
        r.register(
            "llm_d_epp_extproc_streams_inflight",
            "Streams of proxies that are open",
            inflight.clone(),
        );
        let duration = Histogram::new(f::LATENCY.iter().copied());
        r.register(
            "llm_d_epp_extproc_stream_duration_seconds",
            "How long streams of proxies were open",
            duration.clone(),
        );
        let routed = [
            ("bbr_success", "Bodies whose model was told"),
            ("bbr_model_not_in_body", "Bodies that name no model"),
            ("bbr_model_not_parsed", "Bodies that are no JSON"),
        ]
        .map(|(name, help)| {
            let counter = Counter::default();
            r.register(name, help, counter.clone());
            counter
        });
        Self {
            inflight,
            duration,
            by_code: f::counters(
                r,
                "llm_d_epp_extproc_streams",
                "Streams of proxies that ended, by gRPC code",
            ),
            routed,
        }
    }

    pub(crate) fn routed(&self, outcome: BodyRouted) {
        self.routed[outcome as usize].inc();
    }
}

/// A stream that is open until it is dropped. A proxy ends its streams with a reset, so that is a good end too.
#[derive(Debug)]
pub struct Stream {
    streams: Option<Streams>,
    since: Instant,
    code: &'static str,
}

impl Stream {
    pub(crate) fn new(streams: Option<Streams>) -> Self {
        if let Some(streams) = &streams {
            streams.inflight.inc();
        }
        Self {
            streams,
            since: Instant::now(),
            code: "OK",
        }
    }

    /// It ends with this gRPC code, as its name is written in the gRPC documentation.
    pub fn failed(&mut self, code: &'static str) {
        self.code = code;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(streams) = &self.streams {
            streams.inflight.dec();
            streams.duration.observe(self.since.elapsed().as_secs_f64());
            streams
                .by_code
                .get_or_create(&vec![("code", self.code.into())])
                .inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{BodyRouted, Metrics, Names};

    #[test]
    fn streams_are_counted_while_open_and_by_code_when_over() {
        let metrics = Metrics::with_names(Names {
            extproc: true,
            ..Names::default()
        });
        let open = metrics.stream();
        let mut failed = metrics.stream();
        failed.failed("INVALID_ARGUMENT");
        drop(failed);
        metrics.body_routed(BodyRouted::NoModel);
        let page = metrics.encode_text();
        for line in [
            "llm_d_epp_extproc_streams_inflight 1.0",
            "llm_d_epp_extproc_streams_total{code=\"INVALID_ARGUMENT\"} 1",
            "llm_d_epp_extproc_stream_duration_seconds_count 1",
            "bbr_model_not_in_body_total 1",
            "bbr_success_total 0",
        ] {
            assert!(page.contains(line), "{line} in {page}");
        }
        drop(open);
        assert!(!Metrics::new().encode_text().contains("extproc_streams"));
    }
}
