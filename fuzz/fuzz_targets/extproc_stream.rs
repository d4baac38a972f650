//! A proxy's stream to the picker: malformed messages, and messages in any order. What must hold stands in the file that is
//! shared with the tests of `extproc`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/extproc/tests/common/orders.rs"]
mod orders;

fuzz_target!(|data: &[u8]| orders::drive(data));
