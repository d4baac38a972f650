use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use scheduling::{Config, EndpointProfile, Event, Load, Pool, Request, Time};

use super::*;

fn read(text: &str) -> (Vec<Line>, Option<ReadError>, bool) {
    let mut reader = Reader::new(Cursor::new(text.as_bytes()));
    let mut lines = Vec::new();
    loop {
        match reader.next_line() {
            Ok(Some(line)) => lines.push(line),
            Ok(None) => return (lines, None, reader.cut()),
            Err(error) => return (lines, Some(error), reader.cut()),
        }
    }
}

/// A pool of two servers and some requests, recorded.
fn record(limit: u64, requests: u32) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recording");
    let recorder = Recorder::create(&path, limit).unwrap();
    let config = Config::default();
    let mut track = recorder.pool("default/urls", 7, &config, None);
    let mut pool = Pool::new(config, 7);
    let mut now = Time::from_nanos(1);
    for _ in 0..2 {
        let profile = EndpointProfile::default();
        let endpoint = pool.join(now, profile);
        track.told(now, What::Join { endpoint, profile });
        track.asked(now, pool.next(now).as_ref());
    }
    for nth in 0..requests {
        now = now + Duration::from_micros(1234);
        let request = Request {
            prefix: Arc::from([u64::MAX, u64::from(nth)]),
            prompt_tokens: 180,
            streams: true,
            ..Request::default()
        };
        let ticket = pool.arrive(now, request.clone());
        let request = Box::new(request);
        track.told(now, What::Arrive { ticket, request });
        let decision = pool.next(now);
        track.asked(now, decision.as_ref());
        track.asked(now, pool.next(now).as_ref());
        for event in [Event::FirstToken { ticket }, Event::Abandoned { ticket }] {
            pool.observe(now, event);
            track.event(now, event);
        }
        track.asked(now, pool.next(now).as_ref());
    }
    track.asked(now, pool.next(now).as_ref());
    drop(track);
    std::fs::read_to_string(&path).unwrap()
}

#[test]
fn what_is_written_is_read() {
    let text = record(1 << 20, 3);
    let (lines, error, cut) = read(&text);
    assert!(error.is_none() && !cut);
    let again: String = lines
        .iter()
        .map(|line| serde_json::to_string(line).unwrap() + "\n")
        .collect();
    assert_eq!(text, again);
    let dispatched = lines.iter().filter(|line| line.what.is_said()).count();
    assert_eq!(dispatched, 3);
    // First token and end were told before the core was asked again.
    assert_eq!(lines.iter().filter(|line| line.more).count(), 1 + 3);
    assert!(matches!(lines.last().unwrap().what, What::Tick));
}

#[test]
fn a_recording_is_bounded_and_says_so() {
    let text = record(4096, 1000);
    assert!(text.len() <= 4096 && text.len() > 3000, "{}", text.len());
    let (lines, error, cut) = read(&text);
    assert!(error.is_none() && !cut);
    assert!(matches!(lines.last().unwrap().what, What::Full));
}

#[test]
fn bad_lines_are_named() {
    let first = record(1 << 20, 0).lines().next().unwrap().to_owned();
    for (text, line, why) in [
        ("x\n", 1, "expected value"),
        ("{}\n", 1, "expected [pool, nanoseconds"),
        ("[0]\n", 1, "length 1"),
        ("[0,1,\"tick\"]\n", 1, "pool 0 was not opened"),
        ("FIRST\n[1,1,\"tick\"]\n", 2, "pool 1 was not opened"),
        ("FIRST\nFIRST\n", 2, "pool 0 opens, 1 was due"),
        ("FIRST\n[0,-1,\"tick\"]\n", 2, "invalid value"),
        ("FIRST\n\n[0,1,\"sneeze\"]\n", 3, "unknown variant"),
        (
            "FIRST\n[0,1,{\"left\":{}}]\n",
            2,
            "missing field `endpoint`",
        ),
        (
            "FIRST\n[0,1,{\"arrive\":{\"ticket\":0,\"request\":{\"prefix\":[-1]}}}]\n",
            2,
            "invalid value",
        ),
        ("FIRST\n[0,1,\"tick\"]]\n", 2, "trailing characters"),
        (
            "[0,0,{\"pool\":{\"version\":2,\"name\":\"\",\"seed\":0,\"config\":{}}}]\n",
            1,
            "version 2",
        ),
    ] {
        let (_, error, _) = read(&text.replace("FIRST", &first));
        let error = error.unwrap().to_string();
        assert!(
            error.starts_with(&format!("line {line}: ")) && error.contains(why),
            "{text}: {error}"
        );
    }
}

#[test]
fn a_cut_last_line_is_left_out() {
    let text = record(1 << 20, 2);
    let (whole, _, _) = read(&text);
    for cut in [1, 2, 5] {
        let (lines, error, was_cut) = read(&text[..text.len() - cut]);
        // Without its line feed the last line is still whole.
        assert_eq!(was_cut, cut > 1, "{cut}");
        assert!(error.is_none());
        assert_eq!(lines.len(), whole.len() - usize::from(was_cut));
    }
}

proptest! {
    #[test]
    fn numbers_are_the_same_to_the_last_bit(kv in 0.0_f64..1.0, waiting: u32) {
        let load = Load { waiting: Some(waiting), running: None, kv_usage: Some(kv) };
        let text = serde_json::to_string(&load).unwrap();
        prop_assert_eq!(serde_json::from_str::<Load>(&text).unwrap(), load);
    }

    #[test]
    fn nothing_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut reader = Reader::new(Cursor::new(bytes));
        while let Ok(Some(_)) = reader.next_line() {}
    }
}
