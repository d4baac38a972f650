//! EndpointPickerConfig.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &str| {
    if let Err(error) = api::PickerConfig::read(data) {
        // The end of the text may be one line further.
        let lines = data.lines().count() + 1;
        assert!(error.line().is_none_or(|line| line <= lines));
    }
});
