//! The processes that the bench starts: found beside it, killed and reaped when dropped.
//!
//! The guard runs on every way out: a normal end, an error, a panic that unwinds, a signal that
//! the bench catches. Floor and mock moreover end by themselves after a time.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::load::Conn;
use crate::{Error, mock};

/// How much of a child's output an error shows.
const TAIL_BYTES: u64 = 2000;
/// Between two attempts to get an answer.
const ATTEMPT_EVERY: Duration = Duration::from_millis(100);
/// For one attempt.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(3);

/// A running child process. Dropping it kills it, by its id, and waits for its end.
pub struct Child {
    name: &'static str,
    process: std::process::Child,
    log: PathBuf,
}

impl Child {
    /// Starts a program with its output in a file of `logs`, on `cores` only where given.
    ///
    /// # Errors
    /// When the program is missing or does not start.
    pub fn start(
        name: &'static str,
        program: &Path,
        args: &[String],
        cores: Option<&str>,
        logs: &Path,
    ) -> Result<Self, Error> {
        if !program.is_file() {
            return Err(Error::NoBinary(program.to_owned()));
        }
        let log = logs.join(name);
        let output = File::create(&log).map_err(Error::file(&log))?;
        let errors = output.try_clone().map_err(Error::file(&log))?;
        let process = pinned(program, cores)
            .args(args)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(Error::file(program))?;
        Ok(Self { name, process, log })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits until a chat completion through `port` is answered with 200.
    ///
    /// # Errors
    /// When the process ends first, or the limit passes.
    pub async fn ready(&mut self, port: u16, limit: Duration) -> Result<(), Error> {
        let end = Instant::now() + limit;
        loop {
            self.check_alive()?;
            let why = match timeout(ATTEMPT_LIMIT, complete_once(port)).await {
                Ok(Ok(200)) => return Ok(()),
                Ok(Ok(status)) => format!("status {status}"),
                Ok(Err(e)) => e.to_string(),
                Err(_) => "no answer".into(),
            };
            if Instant::now() >= end {
                return Err(Error::NotReady {
                    name: self.name,
                    limit,
                    why,
                    tail: self.tail(),
                });
            }
            sleep(ATTEMPT_EVERY).await;
        }
    }

    /// An error when the process has ended.
    ///
    /// # Errors
    /// [`Error::Ended`] with the last lines of its output.
    pub fn check_alive(&mut self) -> Result<(), Error> {
        match self.process.try_wait().map_err(Error::io(self.name))? {
            Some(status) => Err(Error::Ended {
                name: self.name,
                status,
                tail: self.tail(),
            }),
            None => Ok(()),
        }
    }

    fn tail(&self) -> String {
        tail(&self.log).unwrap_or_default()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only when it is already gone and reaped.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `taskset` replaces itself by the program, so the child's id is the program's.
fn pinned(program: &Path, cores: Option<&str>) -> Command {
    match cores {
        Some(cores) => {
            let mut command = Command::new("taskset");
            command.arg("-c").arg(cores).arg(program);
            command
        }
        None => Command::new(program),
    }
}

fn tail(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// One small chat completion on a fresh connection; its status.
async fn complete_once(port: u16) -> Result<u16, Error> {
    let model = mock::MODEL;
    let body = format!(
        "{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"hi\"}}],\"max_tokens\":4}}"
    );
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut conn = Conn::open(port).await?;
    let head = conn.send(request.as_bytes()).await?;
    conn.body(&head, &mut |_| ()).await?;
    Ok(head.status)
}

/// A binary in the folder of the running one.
///
/// # Errors
/// When this process cannot tell its own path.
pub fn sibling(name: &str) -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(Error::io("the bench's own path"))?;
    Ok(own.with_file_name(name))
}

/// Ports that systems do not give to outgoing connections, so that none takes a port between its choice and its use.
const LISTENING: std::ops::Range<u16> = 12_000..32_000;

/// Different ports of 127.0.0.1 that are free now.
///
/// # Errors
/// When the system has none.
pub fn free_ports(count: usize) -> Result<Vec<u16>, Error> {
    // Programs that run side by side begin at different places.
    let start = (std::process::id() % 200) as usize * 100;
    // All are held at once, so that none comes twice.
    let held: Vec<_> = LISTENING
        .cycle()
        .skip(start)
        .take(LISTENING.len())
        .filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok())
        .take(count)
        .collect();
    if held.len() < count {
        return Err(Error::io("a free port")(ErrorKind::AddrInUse.into()));
    }
    let port = |l: &TcpListener| Ok(l.local_addr().map_err(Error::io("a free port"))?.port());
    held.iter().map(port).collect()
}

/// Fills `{listen}`, `{admin}` and `{backends}` into a template of arguments.
///
/// The template is cut at white space. `{backends}` alone becomes one argument per backend;
/// inside an argument it becomes a list with commas.
#[must_use]
pub fn expand(template: &str, listen: &str, admin: &str, backends: &[String]) -> Vec<String> {
    let fill = |arg: &str| {
        arg.replace("{listen}", listen)
            .replace("{admin}", admin)
            .replace("{backends}", &backends.join(","))
    };
    let mut args = Vec::new();
    for arg in template.split_whitespace() {
        match arg {
            "{backends}" => args.extend_from_slice(backends),
            _ => args.push(fill(arg)),
        }
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled() {
        let backends = ["http://a:1".to_owned(), "http://b:2".to_owned()];
        let expand = |t| expand(t, "l:1", "a:2", &backends).join(" ");
        assert_eq!(
            expand("serve {backends} --listen {listen}  --admin={admin}"),
            "serve http://a:1 http://b:2 --listen l:1 --admin=a:2"
        );
        assert_eq!(expand("--to={backends}"), "--to=http://a:1,http://b:2");
        assert_eq!(expand(""), "");
    }

    #[test]
    fn free_ports_differ() {
        let mut ports = free_ports(6).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 6);
    }

    #[test]
    fn a_dropped_child_is_gone() {
        let logs = tempfile::tempdir().unwrap();
        let child = Child::start(
            "sleep",
            Path::new("/bin/sleep"),
            &["60".into()],
            None,
            logs.path(),
        )
        .unwrap();
        let stat = PathBuf::from(format!("/proc/{}/stat", child.pid()));
        assert!(stat.exists());
        drop(child);
        assert!(!stat.exists());
    }

    #[tokio::test]
    async fn a_child_that_ends_is_named_with_its_last_words() {
        let logs = tempfile::tempdir().unwrap();
        let args = ["-c".to_owned(), "echo out of luck; exit 3".to_owned()];
        let mut child =
            Child::start("luckless", Path::new("/bin/sh"), &args, None, logs.path()).unwrap();
        let port = free_ports(1).unwrap()[0];
        let error = child
            .ready(port, Duration::from_secs(20))
            .await
            .unwrap_err();
        assert!(
            matches!(&error, Error::Ended { tail, .. } if tail == "out of luck\n"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_binary_says_how_to_build_it() {
        let logs = tempfile::tempdir().unwrap();
        let missing = Child::start("x", &logs.path().join("none"), &[], None, logs.path());
        assert!(matches!(missing, Err(Error::NoBinary(_))));
    }
}
