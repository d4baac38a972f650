//! Paths of any kind.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &str| {
    let _ = llm::route(&http::Method::POST, data);
    let _ = llm::route(&http::Method::GET, data);
    let _ = llm::style_of(data);
});
