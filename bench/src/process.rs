//! CPU time and memory of a process, from `/proc` (proc(5)).
//!
//! `/proc/PID/stat` gives user and system time in clock ticks of 10 ms, of all threads that ever
//! ran: complete, but coarse against a window of a second. `/proc/PID/task/TID/schedstat` gives
//! nanoseconds on a CPU, of one live thread. The clock here takes the fine one, thread by thread,
//! and falls back on the coarse one where the two differ by more than rounding explains: then a
//! thread has ended in between, or the kernel keeps no schedstat.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Error;

/// Key of the ticks per second in the auxiliary vector (getauxval(3)).
const AT_CLKTCK: u64 = 17;
/// What every Linux architecture of interest uses.
const USUAL_TICKS: u64 = 100;
/// The two readings of `stat` are each rounded twice: user and system time.
const ROUNDING_TICKS: u32 = 4;

/// CPU time that a process had used at one moment.
#[derive(Clone, Debug)]
pub struct CpuClock {
    /// User and system time of the whole process, in ticks.
    ticks: u64,
    tick: Duration,
    /// Nanoseconds on a CPU of each live thread.
    threads: BTreeMap<u32, u64>,
}

impl CpuClock {
    /// Reads the clock of a process.
    ///
    /// # Errors
    /// When the process is gone, or `/proc` is not mounted.
    pub fn read(pid: u32) -> Result<Self, Error> {
        let path = PathBuf::from(format!("/proc/{pid}/stat"));
        let ticks = parse_stat(&read(&path)?).ok_or_else(|| Error::Proc(path))?;
        let tick = Duration::from_secs(1) / u32::try_from(ticks_per_second()).unwrap_or(1);
        Ok(Self {
            ticks,
            tick,
            threads: thread_times(pid),
        })
    }

    /// CPU time used since an earlier reading of the same process.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Duration {
        let coarse =
            self.tick * u32::try_from(self.ticks.saturating_sub(earlier.ticks)).unwrap_or(u32::MAX);
        let nanos = |(tid, now): (&u32, &u64)| {
            now.saturating_sub(earlier.threads.get(tid).copied().unwrap_or(0))
        };
        let fine = Duration::from_nanos(self.threads.iter().map(nanos).sum());
        let incomplete = self.threads.is_empty() || coarse > fine + self.tick * ROUNDING_TICKS;
        if incomplete { coarse } else { fine }
    }
}

/// Memory of a process in MiB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    /// Resident now (`VmRSS`).
    pub resident: f64,
    /// Most ever resident, or since [`reset_peak`] (`VmHWM`).
    pub peak: f64,
}

/// Reads the memory of a process.
///
/// # Errors
/// When the process is gone, or `/proc` is not mounted.
pub fn memory(pid: u32) -> Result<Memory, Error> {
    let path = PathBuf::from(format!("/proc/{pid}/status"));
    parse_memory(&read(&path)?).ok_or(Error::Proc(path))
}

/// Makes the peak start again from what is resident now.
///
/// # Errors
/// When the process is gone, or belongs to somebody else.
pub fn reset_peak(pid: u32) -> Result<(), Error> {
    let path = PathBuf::from(format!("/proc/{pid}/clear_refs"));
    std::fs::write(&path, "5").map_err(Error::file(&path))
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(Error::file(path))
}

/// utime + stime, fields 14 and 15; the name in field 2 may hold anything, so count from its end.
fn parse_stat(stat: &str) -> Option<u64> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace().skip(11);
    let mut field = || fields.next()?.parse::<u64>().ok();
    Some(field()? + field()?)
}

/// Empty where the kernel keeps no schedstat; a thread that just ended is left out.
fn thread_times(pid: u32) -> BTreeMap<u32, u64> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return BTreeMap::new();
    };
    let time = |entry: std::fs::DirEntry| {
        let tid = entry.file_name().to_str()?.parse().ok()?;
        let text = std::fs::read_to_string(entry.path().join("schedstat")).ok()?;
        Some((tid, text.split_whitespace().next()?.parse().ok()?))
    };
    tasks.flatten().filter_map(time).collect()
}

fn parse_memory(status: &str) -> Option<Memory> {
    let mib = |key: &str| {
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
        let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib / 1024.0)
    };
    Some(Memory {
        resident: mib("VmRSS")?,
        peak: mib("VmHWM")?,
    })
}

/// From this process's auxiliary vector: pairs of native words.
fn ticks_per_second() -> u64 {
    let vector = std::fs::read("/proc/self/auxv").unwrap_or_default();
    auxv(&vector, AT_CLKTCK)
        .filter(|&t| t > 0)
        .unwrap_or(USUAL_TICKS)
}

fn auxv(vector: &[u8], key: u64) -> Option<u64> {
    const WORD: usize = size_of::<usize>();
    let word = |bytes: &[u8]| Some(usize::from_ne_bytes(bytes.try_into().ok()?) as u64);
    vector
        .chunks_exact(2 * WORD)
        .find(|pair| word(&pair[..WORD]) == Some(key))
        .and_then(|pair| word(&pair[WORD..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_any_name() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0";
        assert_eq!(parse_stat(&format!("77 (plain) {rest}")), Some(300));
        assert_eq!(parse_stat(&format!("77 (a) b (c d) {rest}")), Some(300));
        for bad in [
            "",
            "77 plain",
            "77 (x) S 1 2",
            "77 (x) S 1 2 3 4 5 6 7 8 9 10 a b",
        ] {
            assert_eq!(parse_stat(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn memory_is_in_mib() {
        let status = "Name:\tx\nVmHWM:\t   10240 kB\nVmRSS:\t    2048 kB\n";
        assert_eq!(
            parse_memory(status),
            Some(Memory {
                resident: 2.0,
                peak: 10.0
            })
        );
        assert_eq!(parse_memory("VmRSS: 1 kB\n"), None);
        assert_eq!(parse_memory("VmRSS: x kB\nVmHWM: 1 kB\n"), None);
    }

    #[test]
    fn the_auxiliary_vector_is_searched_by_key() {
        let words: Vec<u8> = [6usize, 4096, 17, 100, 0, 0]
            .iter()
            .flat_map(|w| w.to_ne_bytes())
            .collect();
        assert_eq!(auxv(&words, AT_CLKTCK), Some(100));
        assert_eq!(auxv(&words, 99), None);
        assert_eq!(auxv(&words[..7], 6), None);
    }

    #[test]
    fn the_fine_clock_counts_unless_a_thread_has_ended() {
        let clock = |ticks, threads: &[(u32, u64)]| CpuClock {
            ticks,
            tick: Duration::from_millis(10),
            threads: threads.iter().copied().collect(),
        };
        let before = clock(10, &[(1, 100_000_000), (2, 5_000_000)]);
        let same = clock(15, &[(1, 140_000_000), (2, 5_000_000), (3, 7_000_000)]);
        assert_eq!(same.since(&before), Duration::from_millis(47));
        assert_eq!(
            clock(12, &[]).since(&clock(10, &[])),
            Duration::from_millis(20)
        );
        let ended = clock(60, &[(1, 140_000_000)]);
        assert_eq!(ended.since(&before), Duration::from_millis(500));
        assert_eq!(before.since(&same), Duration::ZERO);
    }

    #[test]
    fn work_of_this_process_is_seen() {
        let pid = std::process::id();
        let before = CpuClock::read(pid).unwrap();
        let mut used = Duration::ZERO;
        let mut x = 1u64;
        // Bounded by rounds, not by time: each is about a millisecond of work.
        for _ in 0..10_000 {
            for _ in 0..1_000_000 {
                x = std::hint::black_box(x.wrapping_mul(3));
            }
            used = CpuClock::read(pid).unwrap().since(&before);
            if used > Duration::from_millis(1) {
                break;
            }
        }
        assert!(used > Duration::from_millis(1), "{used:?}");
        let memory = memory(pid).unwrap();
        assert!(memory.peak >= memory.resident && memory.resident > 0.1);
    }
}
