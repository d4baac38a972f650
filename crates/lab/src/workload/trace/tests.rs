use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::Job;
use crate::workload::{Options, build};

/// Five requests in Mooncake's manner: one common first block, the fourth goes on from the second.
const MOONCAKE: &str = r#"{"timestamp": 0, "input_length": 1100, "output_length": 50, "hash_ids": [0, 1, 2]}
{"timestamp": 0, "input_length": 1536, "output_length": 9, "hash_ids": [0, 3, 4]}
{"timestamp": 3000, "input_length": 500, "output_length": 0, "hash_ids": [0]}
{"timestamp": 5999, "input_length": 2060, "output_length": 7, "hash_ids": [0, 3, 4, 5, 6]}
{"timestamp": 9000, "input_length": 600, "output_length": 3, "hash_ids": [7]}
"#;

const AZURE: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\r
2023-11-16 23:59:58.5000000,4808,10\r
2023-11-16 23:59:59.0000000,3180,8\r
2023-11-17 00:00:00.2500000,110,27\r
2023-11-17 00:00:00.2500000,7433,14\r
2023-11-17 00:00:03.5000000,34,0\r
";

fn read(format: Format, text: &[u8]) -> Vec<Result<Record, String>> {
    let path = Path::new("t");
    let told = |record: Result<Record, WorkloadError>| record.map_err(|error| error.to_string());
    match format {
        Format::Mooncake => MooncakeReader::new(path, text).map(told).collect(),
        Format::Azure => AzureReader::new(path, text).map(told).collect(),
    }
}

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn with(name: &str, file: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lab-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join(file), text).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn replayed(folder: &Folder, name: &str, load: f64, seed: u64, options: Options<'_>) -> Vec<Job> {
    let options = Options {
        traces_dir: Some(&folder.0),
        ..options
    };
    let mut workload = build(name, load, seed, &options).unwrap();
    std::iter::from_fn(|| workload.next()).collect()
}

#[test]
fn both_formats_are_read() {
    let records: Vec<Record> = read(Format::Mooncake, MOONCAKE.as_bytes())
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let seen: Vec<_> = records
        .iter()
        .map(|record| {
            (
                record.at,
                record.prompt_tokens,
                record.output_tokens,
                record.ids.len(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (0.0, 1100, 50, 3),
            (0.0, 1536, 9, 3),
            (3.0, 500, 1, 1),
            (5.999, 2060, 7, 5),
            (9.0, 600, 3, 1)
        ]
    );
    let seen: Vec<_> = read(Format::Azure, AZURE.as_bytes())
        .into_iter()
        .map(Result::unwrap)
        .map(|record| {
            (
                record.at,
                record.prompt_tokens,
                record.output_tokens,
                record.line,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (0.0, 4808, 10, 2),
            (0.5, 3180, 8, 3),
            (1.75, 110, 27, 4),
            (1.75, 7433, 14, 5),
            (5.0, 34, 1, 6)
        ]
    );
}

#[test]
fn spellings_that_are_no_fault() {
    let moved = "\u{feff}x, generatedtokens ,TIMESTAMP,ContextTokens\n\n9,5,2024-05-10 00:00:00.009930+00:00,7\n";
    let records = read(Format::Azure, moved.as_bytes());
    let record = records[0].as_ref().unwrap();
    assert_eq!(
        (record.prompt_tokens, record.output_tokens, record.line),
        (7, 5, 3)
    );
    let extra =
        br#"  {"hash_ids":[],"output_length":1,"input_length":2,"timestamp":1.5,"type":"chat"}"#;
    let records = read(Format::Mooncake, extra);
    assert_eq!(records[0].as_ref().unwrap().at, 0.0015);
    assert!(read(Format::Mooncake, b"").is_empty());
    assert!(read(Format::Azure, b"\n \n").is_empty());
}

/// Each bad line comes after a good one, and a good one comes after it: the good one is read, the bad one told with
/// its number, and nothing after it is read.
fn assert_told(format: Format, before: &str, cases: &[(&[u8], &str)]) {
    for (bad, what) in cases {
        let mut text = before.as_bytes().to_vec();
        text.extend_from_slice(bad);
        text.push(b'\n');
        text.extend_from_slice(before.lines().last().unwrap().as_bytes());
        let line = before.lines().count() + 1;
        let records = read(format, &text);
        let shown = String::from_utf8_lossy(bad);
        assert_eq!(records.len(), 2, "{shown}: {records:?}");
        assert!(records[0].is_ok(), "{shown}");
        let told = records[1].as_ref().unwrap_err();
        assert!(
            told.starts_with(&format!("t: line {line}: ")),
            "{shown}: {told}"
        );
        assert!(told.contains(what), "{shown}: {told}");
    }
}

#[test]
fn bad_lines_of_mooncake_are_told() {
    let good =
        "{\"timestamp\": 3000, \"input_length\": 5, \"output_length\": 5, \"hash_ids\": []}\n";
    let cases: &[(&[u8], &str)] = &[
        (b"nonsense", "expected"),
        (b"[1,2]", "invalid"),
        (b"{\"timestamp\": 3000", "EOF"),
        (b"\xff\xfe", "expected"),
        (
            br#"{"input_length":5,"output_length":5,"hash_ids":[]}"#,
            "missing field `timestamp`",
        ),
        (
            br#"{"timestamp":3000,"output_length":5,"hash_ids":[]}"#,
            "missing field `input_length`",
        ),
        (
            br#"{"timestamp":3000,"input_length":5,"hash_ids":[]}"#,
            "missing field `output_length`",
        ),
        (
            br#"{"timestamp":3000,"input_length":5,"output_length":5}"#,
            "missing field `hash_ids`",
        ),
        (
            br#"{"timestamp":3000,"input_length":-5,"output_length":5,"hash_ids":[]}"#,
            "input_length is -5",
        ),
        (
            br#"{"timestamp":3000,"input_length":0,"output_length":5,"hash_ids":[]}"#,
            "input_length is 0",
        ),
        (
            br#"{"timestamp":3000,"input_length":5,"output_length":-1,"hash_ids":[]}"#,
            "output_length is -1",
        ),
        (
            br#"{"timestamp":3000,"input_length":99999999,"output_length":5,"hash_ids":[]}"#,
            "99999999",
        ),
        (
            br#"{"timestamp":3000,"input_length":5.5,"output_length":5,"hash_ids":[]}"#,
            "floating point",
        ),
        (
            br#"{"timestamp":3000,"input_length":"5","output_length":5,"hash_ids":[]}"#,
            "string",
        ),
        (
            br#"{"timestamp":3000,"input_length":1025,"output_length":5,"hash_ids":[1]}"#,
            "1 hash_ids for 1025 tokens; there must be 3",
        ),
        (
            br#"{"timestamp":3000,"input_length":5,"output_length":5,"hash_ids":[1,2]}"#,
            "2 hash_ids",
        ),
        (
            br#"{"timestamp":3000,"input_length":5,"output_length":5,"hash_ids":[-1]}"#,
            "-1",
        ),
        (
            br#"{"timestamp":2999,"input_length":5,"output_length":5,"hash_ids":[]}"#,
            "time goes back from 3 s to 2.999 s",
        ),
        (
            br#"{"timestamp":-1,"input_length":5,"output_length":5,"hash_ids":[]}"#,
            "not a time",
        ),
        (
            br#"{"timestamp":1e999,"input_length":5,"output_length":5,"hash_ids":[]}"#,
            "out of range",
        ),
        (
            br#"{"timestamp":null,"input_length":5,"output_length":5,"hash_ids":[]}"#,
            "null",
        ),
    ];
    assert_told(Format::Mooncake, good, cases);
}

#[test]
fn bad_lines_of_azure_are_told() {
    let good = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.97,48,10\n";
    let cases: &[(&[u8], &str)] = &[
        (
            b"2023-11-16 18:17:04,48",
            "it has no field \"GeneratedTokens\"",
        ),
        (b"2023-11-16 18:17:04", "it has no field \"ContextTokens\""),
        (b"2023-11-16 18:17:04,-48,10", "ContextTokens is -48"),
        (b"2023-11-16 18:17:04,0,10", "ContextTokens is 0"),
        (b"2023-11-16 18:17:04,48,-1", "GeneratedTokens is -1"),
        (b"2023-11-16 18:17:04,many,1", "ContextTokens is \"many\""),
        (b"2023-11-16 18:17:04,,1", "ContextTokens is \"\""),
        (b"2023-11-16 18:17:03,48,10", "time goes back"),
        (b"2023-02-30 18:17:04,48,10", "is not a time"),
        (b"noon,48,10", "is not a time"),
        (b"2023-11-16 18:17:04,48,\xff", "not UTF-8"),
    ];
    assert_told(Format::Azure, good, cases);
    let told = read(Format::Azure, b"TIMESTAMP,ContextTokens\n1,2\n");
    assert!(
        told[0]
            .as_ref()
            .unwrap_err()
            .contains("line 1: the header has no column \"GeneratedTokens\"")
    );
    assert_eq!(told.len(), 1);
}

/// A file without end, to see that no more of it is read than needed.
struct Endless {
    line: &'static [u8],
    given: usize,
}

impl Read for Endless {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        for (place, byte) in into
            .iter_mut()
            .zip(self.line.iter().cycle().skip(self.given % self.line.len()))
        {
            *place = *byte;
        }
        self.given += into.len();
        Ok(into.len())
    }
}

#[test]
fn files_without_end_are_streamed_and_lines_without_end_refused() {
    let line = b"{\"timestamp\":1,\"input_length\":5,\"output_length\":5,\"hash_ids\":[]}\n";
    let mut reader =
        MooncakeReader::new(Path::new("t"), BufReader::new(Endless { line, given: 0 }));
    assert!(reader.by_ref().take(1000).all(|record| record.is_ok()));
    let mut reader = MooncakeReader::new(
        Path::new("t"),
        BufReader::new(Endless {
            line: b"[0,",
            given: 0,
        }),
    );
    let told = reader.next().unwrap().unwrap_err().to_string();
    assert!(told.contains("longer than"), "{told}");
    assert!(reader.next().is_none());
}

#[test]
fn a_file_that_cannot_be_read_on_is_told() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("gone"))
        }
    }
    impl BufRead for Broken {
        fn fill_buf(&mut self) -> io::Result<&[u8]> {
            Err(io::Error::other("gone"))
        }
        fn consume(&mut self, _: usize) {}
    }
    let mut reader = AzureReader::new(Path::new("t"), Broken);
    assert_eq!(reader.next().unwrap().unwrap_err().to_string(), "t: gone");
    assert!(reader.next().is_none());
}

#[test]
fn prompts_share_what_the_ids_say() {
    let folder = Folder::with("share", "mooncake_conversation.jsonl", MOONCAKE);
    let options = Options {
        jitter: Some(0.0),
        window: Some(Window::From(0.0)),
        ..Options::default()
    };
    let jobs = replayed(&folder, "mooncake", 1.0, 1, options);
    let shared = |a: usize, b: usize| {
        jobs[a]
            .blocks
            .iter()
            .zip(jobs[b].blocks.iter())
            .take_while(|(x, y)| x == y)
            .count()
    };
    assert_eq!(jobs.len(), 5);
    assert_eq!(jobs[0].blocks.len(), 1100 / 16);
    assert_eq!(shared(0, 1), 512 / 16);
    // All three full blocks of the earlier turn.
    assert_eq!(shared(1, 3), 1536 / 16);
    // Not full, but its 31 full blocks of 16 are the common block's.
    assert_eq!((shared(2, 0), jobs[2].blocks.len()), (31, 31));
    assert_eq!(shared(4, 0), 0);
    // Block 6 of the fourth has no more than 12 tokens: they fill no block of 16.
    assert_eq!(jobs[3].blocks.len(), 128);
    assert_eq!(jobs[1].first_message, jobs[3].first_message);
    assert_ne!(jobs[0].first_message, jobs[1].first_message);
}

#[test]
fn times_are_sped_up_cut_and_spread() {
    let folder = Folder::with("times", "mooncake_conversation.jsonl", MOONCAKE);
    let exact = Options {
        jitter: Some(0.0),
        window: Some(Window::From(2.0)),
        duration: Some(3.0),
        warmup: Some(1.0),
        ..Options::default()
    };
    let jobs = replayed(&folder, "mooncake", 2.0, 1, exact);
    let expected = [(0.5, true), (1.9995, false)];
    assert_eq!(jobs.len(), 2);
    for (job, (at, warmup)) in jobs.iter().zip(expected) {
        assert!((job.at - at).abs() < 1e-9, "{}", job.at);
        assert_eq!(job.warmup, warmup);
    }
    assert_eq!((jobs[0].id, jobs[1].id), (0, 1));

    let spread = Options {
        window: Some(Window::From(0.0)),
        ..Options::default()
    };
    let jobs = replayed(&folder, "mooncake", 1.0, 1, spread);
    let again = replayed(&folder, "mooncake", 1.0, 1, spread);
    let other = replayed(&folder, "mooncake", 1.0, 2, spread);
    let times = |jobs: &[Job]| jobs.iter().map(|job| job.at).collect::<Vec<_>>();
    assert_eq!(times(&jobs), times(&again));
    assert_ne!(times(&jobs), times(&other));
    assert_eq!(jobs.len(), 5);
    assert!(jobs.windows(2).all(|pair| pair[0].at <= pair[1].at));
    assert!(jobs[0].at > 0.0 && jobs[1].at < 3.0 && jobs[4].at >= 9.0 && jobs[4].at < 12.0);
}

#[test]
fn a_window_that_the_seed_chooses_lies_within_the_trace() {
    let folder = Folder::with("window", "azure_code_2023.csv", AZURE);
    let options = Options {
        duration: Some(4.0),
        ..Options::default()
    };
    let counts: Vec<usize> = (0..20)
        .map(|seed| replayed(&folder, "azure-code", 1.0, seed, options).len())
        .collect();
    assert!(counts.iter().any(|count| *count != counts[0]), "{counts:?}");
    // A window longer than the trace takes it whole.
    let jobs = replayed(&folder, "azure-code", 1.0, 5, Options::default());
    assert_eq!((jobs.len(), jobs[4].at), (5, 5.0));
    // Nothing was recorded about reuse.
    assert_ne!(jobs[0].blocks[0], jobs[1].blocks[0]);
    let options = Options {
        traces_dir: Some(&folder.0),
        window: Some(Window::From(60.0)),
        ..options
    };
    let told = build("azure:azure_code_2023.csv", 1.0, 1, &options)
        .err()
        .unwrap();
    assert!(matches!(told, WorkloadError::Empty { .. }), "{told}");
}

#[test]
fn a_fault_in_the_window_is_told_before_the_run() {
    let text = format!("{MOONCAKE}{{\"timestamp\": 8000}}\n");
    let folder = Folder::with("fault", "bad.jsonl", &text);
    let options = Options {
        traces_dir: Some(&folder.0),
        ..Options::default()
    };
    let told = build("mooncake:bad.jsonl", 1.0, 1, &options)
        .err()
        .unwrap()
        .to_string();
    assert!(told.contains("bad.jsonl: line 6: missing field"), "{told}");
    // A window that ends before it does not meet it.
    let options = Options {
        window: Some(Window::From(0.0)),
        duration: Some(4.0),
        ..options
    };
    assert!(build("mooncake:bad.jsonl", 1.0, 1, &options).is_ok());
}

proptest! {
    #[test]
    fn nothing_in_a_file_makes_a_reader_panic(text in prop::collection::vec(any::<u8>(), 0..400)) {
        for format in [Format::Mooncake, Format::Azure] {
            let records = read(format, &text);
            // At most one error, and it is the last.
            prop_assert!(records.iter().rev().skip(1).all(Result::is_ok));
        }
    }

    #[test]
    fn nothing_like_a_line_makes_a_reader_panic(
        times in prop::collection::vec(any::<f64>(), 1..4),
        lengths in prop::collection::vec((any::<i64>(), any::<i32>()), 1..4),
        ids in prop::collection::vec(any::<u64>(), 0..4),
        date in "[0-9]{1,5}-[0-9]{1,2}-[0-9]{1,2} [0-9:.]{0,20}",
    ) {
        let mut json = String::new();
        let mut csv = String::from("TIMESTAMP,ContextTokens,GeneratedTokens\n");
        for (time, (input, output)) in times.iter().zip(&lengths) {
            json += &format!("{{\"timestamp\":{time:e},\"input_length\":{input},\"output_length\":{output},\"hash_ids\":{ids:?}}}\n");
            csv += &format!("{date},{input},{output}\n");
        }
        for record in read(Format::Mooncake, json.as_bytes()).into_iter().flatten() {
            prop_assert!(record.at >= 0.0 && record.prompt_tokens >= 1 && record.output_tokens >= 1);
        }
        for record in read(Format::Azure, csv.as_bytes()).into_iter().flatten() {
            prop_assert!(record.at >= 0.0 && record.prompt_tokens >= 1);
        }
    }
}
