//! Model lists of servers: the union of two must be readable again.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (a, b) = data.split_at(data.len() / 2);
    let _ = llm::parse_models(data);
    let union = llm::merge_models(&[data, a, b]);
    assert!(llm::parse_models(&union).is_some());
});
