//! Kubernetes YAML.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &str| {
    for document in api::decode_yaml(data) {
        if let Ok(object) = document.result {
            let _ = api::validate(&object);
        }
    }
});
