//! Recordings of decision cores: read, run again, and turned into a workload.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut reader = recording::Reader::new(data);
    let mut lines = Vec::new();
    while let Ok(Some(line)) = reader.next_line() {
        lines.extend(serde_json::to_vec(&line).expect("what was read is written"));
        lines.push(b'\n');
    }
    // What is read and written is read again.
    let again = recording::Reader::new(&lines[..]).filter(Result::is_ok).count();
    assert_eq!(again, recording::Reader::new(&lines[..]).count());
    let _ = lab::replay::verify(data);
    let _ = lab::replay::traffic(data, None);
});
