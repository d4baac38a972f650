//! Where and of what a run was made: machine, date, commit; and pinning to cores by `taskset`.

use std::process::{Command, Stdio};

use serde::Serialize;

/// What a reader must know to judge the figures.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Model of the processor.
    pub processor: String,
    /// Cores of the machine.
    pub cores: usize,
    /// Memory in GiB.
    pub memory_gib: f64,
    /// Release of the kernel.
    pub kernel: String,
    /// Load averages at the start.
    pub load_average: String,
    /// Time of the start, UTC.
    pub date: String,
    /// Commit of the working directory, with `+` when it has uncommitted changes.
    pub commit: String,
    /// The command line.
    pub command: String,
}

impl Machine {
    /// Looks around; what cannot be found out is `unknown`.
    #[must_use]
    pub fn look() -> Self {
        let kib = proc_field("/proc/meminfo", "MemTotal")
            .and_then(|v| v.split(' ').next()?.parse::<f64>().ok());
        let average = proc_text("/proc/loadavg");
        Self {
            processor: proc_field("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
            cores: proc_text("/proc/cpuinfo")
                .lines()
                .filter(|l| l.starts_with("processor"))
                .count(),
            memory_gib: (kib.unwrap_or(0.0) / 1024.0 / 102.4).round() / 10.0,
            kernel: proc_text("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_average: average.split(' ').take(3).collect::<Vec<_>>().join(" "),
            date: jiff::Timestamp::now()
                .strftime("%Y-%m-%d %H:%M:%S UTC")
                .to_string(),
            commit: commit().unwrap_or_else(unknown),
            command: command_line(std::env::args()),
        }
    }
}

fn unknown() -> String {
    "unknown".into()
}

fn proc_text(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|_| unknown())
}

fn proc_field(path: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|l| l.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let out = Command::new("git")
            .args(args)
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let text = String::from_utf8(out.stdout).ok()?;
        out.status.success().then(|| text.trim().to_owned())
    };
    let head = git(&["rev-parse", "--short", "HEAD"])?;
    let dirty = git(&["status", "--porcelain", "-uno"]).is_none_or(|s| !s.is_empty());
    Some(if dirty { head + "+" } else { head })
}

/// The program's name without its folder, and its arguments as a shell would need them.
fn command_line(args: impl Iterator<Item = String>) -> String {
    let quote = |(i, arg): (usize, String)| match arg {
        a if i == 0 => a.rsplit('/').next().unwrap_or("").to_owned(),
        a if a.contains([' ', '{', '"', '$']) => format!("'{a}'"),
        a => a,
    };
    args.enumerate().map(quote).collect::<Vec<_>>().join(" ")
}

/// The cores that this process may run on.
fn allowed_cores() -> Vec<usize> {
    let list = proc_field("/proc/self/status", "Cpus_allowed_list").unwrap_or_default();
    parse_cores(&list)
}

/// `0-2,5` as the kernel writes lists; what does not parse is left out.
fn parse_cores(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.trim().parse().ok()?..=to.trim().parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// Which cores the measured proxies get, and which the rest: the reference method's placement.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// The core of floor and gateway.
    pub proxy: String,
    /// The cores of load generator and mock.
    pub others: String,
}

impl Placement {
    /// One core for the proxies and the others for the rest; `None` where the machine has only
    /// one, or there is no `taskset`.
    #[must_use]
    pub fn one_core() -> Option<Self> {
        let taskset = Command::new("taskset")
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        taskset.ok().filter(std::process::ExitStatus::success)?;
        Self::split(&allowed_cores())
    }

    fn split(cores: &[usize]) -> Option<Self> {
        let (first, rest) = cores.split_first()?;
        let others: Vec<String> = rest.iter().map(ToString::to_string).collect();
        (!rest.is_empty()).then(|| Self {
            proxy: first.to_string(),
            others: others.join(","),
        })
    }

    /// Moves this process off the proxies' core; false when `taskset` would not.
    #[must_use]
    pub fn move_self(&self) -> bool {
        let pid = std::process::id().to_string();
        let moved = Command::new("taskset")
            .args(["-a", "-c", "-p", &self.others, &pid])
            .stdout(Stdio::null())
            .status();
        moved.is_ok_and(|s| s.success())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_cores("0-2,5"), [0, 1, 2, 5]);
        assert_eq!(parse_cores("3"), [3]);
        for bad in ["", "x", "2-1", "-"] {
            assert!(parse_cores(bad).is_empty(), "{bad:?}");
        }
    }

    #[test]
    fn the_proxies_get_the_first_core() {
        let split = Placement::split(&[2, 4, 6]);
        assert_eq!(
            split,
            Some(Placement {
                proxy: "2".into(),
                others: "4,6".into()
            })
        );
        assert_eq!(Placement::split(&[0]), None);
        assert_eq!(Placement::split(&[]), None);
    }

    #[test]
    fn a_command_line_can_be_pasted() {
        let args = [
            "/far/away/bench",
            "--gateway-args",
            "{listen} {backends}",
            "--gate",
        ];
        let line = command_line(args.iter().map(ToString::to_string));
        assert_eq!(line, "bench --gateway-args '{listen} {backends}' --gate");
    }
}
