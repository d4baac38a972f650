//! A model server that does what a test says and remembers what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::mpsc::Receiver;

use parking_lot::Mutex;

use super::{eventually, free_port};

/// What a server was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Asked {
    /// The first value of a header; empty without one.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map_or("", |(_, value)| value)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body's model.
    pub fn model(&self) -> String {
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        json["model"].as_str().unwrap_or_default().to_owned()
    }
}

/// What a server answers.
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Body,
}

enum Body {
    Whole(Vec<u8>),
    /// Pieces as they are sent; the end of the channel is the end of the body.
    Pieces(Receiver<String>),
}

impl Answer {
    pub fn json(status: u16, body: impl Into<String>) -> Self {
        let headers = vec![("content-type".into(), "application/json".into())];
        Self {
            status,
            headers,
            body: Body::Whole(body.into().into_bytes()),
        }
    }

    /// Server-sent events as they come.
    pub fn events(pieces: Receiver<String>) -> Self {
        let headers = vec![("content-type".into(), "text/event-stream".into())];
        Self {
            status: 200,
            headers,
            body: Body::Pieces(pieces),
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    fn write(self, stream: &mut TcpStream) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} x\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match self.body {
            Body::Whole(body) => {
                head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
                stream.write_all(&[head.as_bytes(), &body].concat())
            }
            Body::Pieces(pieces) => {
                head.push_str("transfer-encoding: chunked\r\n\r\n");
                stream.write_all(head.as_bytes())?;
                for piece in pieces {
                    stream.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes())?;
                }
                stream.write_all(b"0\r\n\r\n")
            }
        }
    }
}

type Handler = dyn Fn(&Asked) -> Answer + Send + Sync;

/// State that connections share.
struct Shared {
    handler: Box<Handler>,
    asked: Mutex<Vec<Asked>>,
    models: Mutex<Vec<String>>,
    waiting: AtomicU16,
    stopped: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
}

/// The server. What a gateway asks for on its own account (health, load, models) is answered and not remembered.
pub struct Server {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Server {
    /// A server with these models whose answers `handler` makes.
    pub fn start(
        models: &[&str],
        handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let shared = Shared {
            handler: Box::new(handler),
            asked: Mutex::default(),
            models: Mutex::new(models.iter().map(|&name| name.into()).collect()),
            waiting: AtomicU16::new(0),
            stopped: AtomicBool::new(true),
            connections: Mutex::default(),
        };
        // Nobody may take the port between finding and using it.
        let listener = eventually("a free port", || {
            TcpListener::bind(("127.0.0.1", free_port())).ok()
        });
        let server = Self {
            address: listener.local_addr().expect("bound"),
            shared: Arc::new(shared),
        };
        server.listen(listener);
        server
    }

    /// A server that answers chat requests with its own name.
    pub fn named(name: &str, models: &[&str]) -> Self {
        let answer = completion(name);
        Self::start(models, move |_| Answer::json(200, answer.clone()))
    }

    /// Listens, again after [`Self::stop`].
    pub fn resume(&self) {
        self.listen(eventually("the port is free", || {
            TcpListener::bind(self.address).ok()
        }));
    }

    fn listen(&self, listener: TcpListener) {
        self.shared.stopped.store(false, Ordering::SeqCst);
        let shared = self.shared.clone();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let _ = stream.set_nodelay(true);
                shared
                    .connections
                    .lock()
                    .push(stream.try_clone().expect("clones"));
                let shared = shared.clone();
                std::thread::spawn(move || serve(&shared, stream));
            }
        });
    }

    /// Closes the listener and every connection, as a killed process does.
    pub fn stop(&self) {
        if self.shared.stopped.swap(true, Ordering::SeqCst) {
            return;
        }
        // The listener looks whether it should end when somebody comes.
        let _ = TcpStream::connect(self.address);
        for connection in self.shared.connections.lock().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        while TcpStream::connect(self.address).is_ok() {
            std::thread::yield_now();
        }
    }

    /// Reports so many requests waiting from now on.
    pub fn report_waiting(&self, count: u16) {
        self.shared.waiting.store(count, Ordering::SeqCst);
    }

    /// Requests so far.
    pub fn count(&self) -> usize {
        self.shared.asked.lock().len()
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().clone()
    }

    /// The last request.
    pub fn last(&self) -> Asked {
        self.shared.asked.lock().last().cloned().expect("a request")
    }
}

/// A chat completion that says which server made it.
pub fn completion(name: &str) -> String {
    format!(
        r#"{{"id":"c","object":"chat.completion","model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"{name}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}}}"#
    )
}

/// The name in a completion.
pub fn served_by(reply: &super::Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["choices"][0]["message"]["content"]
        .as_str()
        .expect("a name")
        .to_owned()
}

fn serve(shared: &Shared, stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().expect("clones"));
    let mut stream = stream;
    while let Some(asked) = read(&mut reader) {
        let answer = probed(shared, &asked).unwrap_or_else(|| {
            shared.asked.lock().push(asked.clone());
            (shared.handler)(&asked)
        });
        if answer.write(&mut stream).is_err() {
            return;
        }
    }
}

/// Answers to the gateway's own questions.
fn probed(shared: &Shared, asked: &Asked) -> Option<Answer> {
    if asked.method != "GET" {
        return None;
    }
    // A base path may stand before them.
    let target = asked.target.trim_start_matches("/llm");
    match target {
        "/metrics" => {
            let waiting = shared.waiting.load(Ordering::SeqCst);
            let page = format!(
                "vllm:num_requests_waiting{{model_name=\"m\"}} {waiting}\nvllm:num_requests_running{{model_name=\"m\"}} 0\n\
                 vllm:kv_cache_usage_perc{{model_name=\"m\"}} 0.1\n"
            );
            Some(Answer::json(200, page).header("x-kind", "metrics"))
        }
        "/health" => Some(Answer::json(200, "")),
        "/v1/models" => {
            let models = shared.models.lock();
            let list: Vec<String> = models
                .iter()
                .map(|name| {
                    format!(r#"{{"id":"{name}","object":"model","created":1,"owned_by":"test"}}"#)
                })
                .collect();
            Some(Answer::json(
                200,
                format!(r#"{{"object":"list","data":[{}]}}"#, list.join(",")),
            ))
        }
        _ => None,
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut asked = Asked {
        method,
        target,
        headers,
        body: Vec::new(),
    };
    if asked.header("transfer-encoding") == "chunked" {
        asked.body = chunks(reader)?;
    } else {
        asked.body = vec![0; asked.header("content-length").parse().unwrap_or(0)];
        reader.read_exact(&mut asked.body).ok()?;
    }
    Some(asked)
}

fn chunks(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let size = usize::from_str_radix(line.trim(), 16).ok()?;
        let mut piece = vec![0; size + 2];
        reader.read_exact(&mut piece).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend(&piece[..size]);
    }
}
