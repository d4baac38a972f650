//! Answers cut into pieces at arbitrary places: the cuts must not matter.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llm::{Dialect, ResponseScanner};

fuzz_target!(|data: &[u8]| {
    let Some((first, stream)) = data.split_first() else { return };
    let dialect = [Dialect::ChatCompletions, Dialect::Responses, Dialect::Messages][usize::from(*first) % 3];
    let kind = if first & 0x40 == 0 { "text/event-stream" } else { "application/json" };
    let mut whole = ResponseScanner::new(dialect, Some(kind), 200);
    let _ = whole.feed(stream);
    let mut pieces = ResponseScanner::new(dialect, Some(kind), 200);
    for piece in stream.chunks(usize::from(*first) % 7 + 1) {
        let _ = pieces.feed(piece);
    }
    assert_eq!(format!("{:?}", whole.finish()), format!("{:?}", pieces.finish()));
});
