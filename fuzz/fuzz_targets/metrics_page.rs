//! Metrics pages of servers, by presets of the known engines and by named metrics.
#![no_main]

use fleet::{MetricMapping, PageReader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = PageReader::new(&MetricMapping::default()).read(data);
    let named = MetricMapping { queued: "q{a=b}".parse().expect("a selector"), ..MetricMapping::default() };
    let _ = PageReader::new(&named).read(data);
});
