//! An HTTP/1.1 client over any stream, one request a connection, that shows what came and nothing else.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use serde_json::Value;

use super::PATIENCE;

/// An answer read to its end.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The body ended before its end.
    pub broken: bool,
}

impl Reply {
    /// The only value of a header; empty without one.
    pub fn header<'a>(&'a self, name: &str) -> &'a str {
        let mut values = self.all(name);
        let value = values.next().unwrap_or_default();
        assert_eq!(values.next(), None, "{name} twice");
        value
    }

    /// All values of a header.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let named = self.headers.iter().filter(|(known, _)| known == name);
        named
            .map(|(_, value)| value.as_str())
            .collect::<Vec<_>>()
            .into_iter()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// `error.code` of the body.
    pub fn code(&self) -> String {
        self.json()["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// `error.message` of the body.
    pub fn message(&self) -> String {
        self.json()["error"]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// `Retry-After` in seconds, which must be there.
    pub fn retry_after(&self) -> u64 {
        self.header("retry-after")
            .parse()
            .unwrap_or_else(|_| panic!("no Retry-After: {self:?}"))
    }
}

/// What a connection must be able to do.
pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// An answer whose body is still to come.
pub struct Opened {
    pub head: Reply,
    reader: BufReader<Box<dyn Stream>>,
    left: Left,
}

/// How the end of a body is known.
enum Left {
    Bytes(usize),
    Chunks,
    Close,
    None,
}

impl Opened {
    /// The next piece of the body; empty at its end, nothing when it broke off.
    pub fn piece(&mut self) -> Option<Vec<u8>> {
        match self.left {
            Left::None => Some(Vec::new()),
            Left::Bytes(count) => {
                let mut piece = vec![0; count];
                self.left = Left::None;
                self.reader.read_exact(&mut piece).ok()?;
                Some(piece)
            }
            Left::Chunks => self.chunk(),
            Left::Close => {
                let mut piece = Vec::new();
                self.left = Left::None;
                self.reader.read_to_end(&mut piece).ok()?;
                Some(piece)
            }
        }
    }

    fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut line = String::new();
        self.reader.read_line(&mut line).ok()?;
        let size = usize::from_str_radix(line.trim().split(';').next()?, 16).ok()?;
        let mut piece = vec![0; size + 2];
        self.reader.read_exact(&mut piece).ok()?;
        piece.truncate(size);
        if size == 0 {
            self.left = Left::None;
        }
        Some(piece)
    }

    /// Reads until a text has come.
    pub fn until(&mut self, text: &str) {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(text) {
            let piece = self.piece().unwrap_or_default();
            assert!(
                !piece.is_empty(),
                "ended without {text:?}: {}",
                String::from_utf8_lossy(&seen)
            );
            seen.extend(piece);
        }
    }

    /// Reads the rest.
    pub fn finish(mut self) -> Reply {
        let mut reply = self.head.clone();
        loop {
            match self.piece() {
                Some(piece) if piece.is_empty() => return reply,
                Some(piece) => reply.body.extend(piece),
                None => {
                    reply.broken = true;
                    return reply;
                }
            }
        }
    }
}

/// A request as bytes. `content-length` and `host` are put in unless given.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let given = |name: &str| {
        headers
            .iter()
            .any(|(known, _)| known.eq_ignore_ascii_case(name))
    };
    let mut text = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
    if !given("host") {
        text.push_str("host: gateway.test\r\n");
    }
    let empty = body.is_empty() && method == "GET";
    if !(empty || given("content-length") || given("transfer-encoding")) {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    [text.as_bytes(), body].concat()
}

/// Sends a request over a stream and reads the head of the answer.
pub fn open_on(mut stream: Box<dyn Stream>, method: &str, bytes: &[u8]) -> Option<Opened> {
    // A refusing server may answer and close before it has read everything.
    let _ = stream.write_all(bytes);
    let _ = stream.flush();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let status = line.split(' ').nth(1)?.parse().ok()?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let head = Reply {
        status,
        headers,
        body: Vec::new(),
        broken: false,
    };
    let length = head.header("content-length").parse().ok();
    let left = match length {
        _ if method == "HEAD" || status == 204 || status == 304 => Left::None,
        _ if head.header("transfer-encoding") == "chunked" => Left::Chunks,
        Some(length) => Left::Bytes(length),
        None => Left::Close,
    };
    Some(Opened { head, reader, left })
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The head of an answer, its body still to come; nothing if there is no connection or no answer.
pub fn try_open(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Option<Opened> {
    let stream = connect(address).ok()?;
    open_on(
        Box::new(stream),
        method,
        &request(method, path, headers, body),
    )
}

/// The same, where there must be an answer.
pub fn open(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Opened {
    try_open(address, method, path, headers, body.as_bytes())
        .unwrap_or_else(|| panic!("no answer to {method} {path}"))
}

/// One request, and the whole answer.
pub fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Reply {
    open(address, method, path, headers, body).finish()
}

/// `GET`.
pub fn get(address: SocketAddr, path: &str) -> Reply {
    send(address, "GET", path, &[], "")
}

/// `POST` of JSON.
pub fn post(address: SocketAddr, path: &str, body: &str) -> Reply {
    send(
        address,
        "POST",
        path,
        &[("content-type", "application/json")],
        body,
    )
}

/// Whether somebody listens.
pub fn listens(address: SocketAddr) -> bool {
    connect(address).is_ok()
}

/// `GET /` over TLS with one trusted root. The certificate that was shown, in DER, and the answer.
pub fn get_tls(address: SocketAddr, name: &str, root: &[u8]) -> Result<(Vec<u8>, Reply), String> {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(root.to_vec().into())
        .map_err(|error| error.to_string())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name_of = rustls::pki_types::ServerName::try_from(name.to_owned())
        .map_err(|error| error.to_string())?;
    let mut client = rustls::ClientConnection::new(Arc::new(config), name_of)
        .map_err(|error| error.to_string())?;
    let mut stream = connect(address).map_err(|error| error.to_string())?;
    while client.is_handshaking() {
        client
            .complete_io(&mut stream)
            .map_err(|error| error.to_string())?;
    }
    let shown = client
        .peer_certificates()
        .and_then(|chain| chain.first())
        .map(|leaf| leaf.to_vec());
    let bytes = request("GET", "/", &[("host", name)], &[]);
    let tls = rustls::StreamOwned::new(client, stream);
    let opened = open_on(Box::new(tls), "GET", &bytes).ok_or("no answer")?;
    Ok((shown.ok_or("no certificate")?, opened.finish()))
}
