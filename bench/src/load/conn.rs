//! One keep-alive connection of the generator: the least HTTP/1.1 client that frames correctly.
//!
//! A general client would cost as much as the proxies that it measures. This one writes a ready
//! request, parses the head in its read buffer, and hands the pieces of the body to a callback
//! without copying them. Framing is RFC 9112 section 6.3; trailers are not expected.

use httparse::{EMPTY_HEADER, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Error;

const BUFFER: usize = 64 * 1024;
const MAX_HEADERS: usize = 64;

/// How the end of a body is known.
#[derive(Debug, PartialEq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// What the generator needs of a response's head.
#[derive(Debug)]
pub(crate) struct Head {
    /// Status code.
    pub(crate) status: u16,
    framing: Framing,
    close: bool,
}

/// A connection and its read buffer; `at..filled` has been read and not yet used.
pub(crate) struct Conn {
    io: TcpStream,
    buffer: Vec<u8>,
    at: usize,
    filled: usize,
}

impl Conn {
    /// Connects to 127.0.0.1.
    pub(crate) async fn open(port: u16) -> Result<Self, Error> {
        let io = TcpStream::connect(("127.0.0.1", port))
            .await
            .map_err(Error::io("connect"))?;
        io.set_nodelay(true).map_err(Error::io("connect"))?;
        Ok(Self {
            io,
            buffer: vec![0; BUFFER],
            at: 0,
            filled: 0,
        })
    }

    /// Writes a whole request and reads the head of the final response.
    pub(crate) async fn send(&mut self, request: &[u8]) -> Result<Head, Error> {
        self.io
            .write_all(request)
            .await
            .map_err(Error::io("write"))?;
        loop {
            match self.parse_head()? {
                Some(head) if head.status < 200 => {}
                Some(head) => return Ok(head),
                None => self.fill("the head").await?,
            }
        }
    }

    /// Reads the body to its end; true when the connection can be used again.
    pub(crate) async fn body(
        &mut self,
        head: &Head,
        saw: &mut impl FnMut(&[u8]),
    ) -> Result<bool, Error> {
        match head.framing {
            Framing::Length(n) => self.pass(n, saw).await?,
            Framing::Chunked => self.chunks(saw).await?,
            Framing::UntilClose => self.until_close(saw).await?,
        }
        Ok(!head.close && head.framing != Framing::UntilClose)
    }

    fn parse_head(&mut self) -> Result<Option<Head>, Error> {
        let mut headers = [EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let Status::Complete(len) = response.parse(&self.buffer[self.at..self.filled])? else {
            return Ok(None);
        };
        let mut head = Head {
            status: response.code.unwrap_or(0),
            framing: Framing::UntilClose,
            close: false,
        };
        for header in response.headers.iter() {
            head.read(header.name, header.value)?;
        }
        self.at += len;
        Ok(Some(head))
    }

    /// Hands on exactly `left` bytes.
    async fn pass(&mut self, mut left: usize, saw: &mut impl FnMut(&[u8])) -> Result<(), Error> {
        while left > 0 {
            if self.at == self.filled {
                self.fill("a body").await?;
            }
            let n = left.min(self.filled - self.at);
            saw(&self.buffer[self.at..self.at + n]);
            self.at += n;
            left -= n;
        }
        Ok(())
    }

    async fn chunks(&mut self, saw: &mut impl FnMut(&[u8])) -> Result<(), Error> {
        loop {
            let size = self.chunk_size().await?;
            self.pass(size, saw).await?;
            self.pass(2, &mut |_| ()).await?;
            if size == 0 {
                return Ok(());
            }
        }
    }

    async fn chunk_size(&mut self) -> Result<usize, Error> {
        loop {
            let unread = &self.buffer[self.at..self.filled];
            if let Some(end) = memchr::memchr(b'\n', unread) {
                let size = parse_chunk_size(&unread[..end])?;
                self.at += end + 1;
                return Ok(size);
            }
            self.fill("a chunk size").await?;
        }
    }

    async fn until_close(&mut self, saw: &mut impl FnMut(&[u8])) -> Result<(), Error> {
        loop {
            saw(&self.buffer[self.at..self.filled]);
            self.at = self.filled;
            if self.read().await? == 0 {
                return Ok(());
            }
        }
    }

    /// Reads some more; the end of the connection here is an error that names the place.
    async fn fill(&mut self, place: &'static str) -> Result<(), Error> {
        match self.read().await? {
            0 => Err(Error::Closed(place)),
            _ => Ok(()),
        }
    }

    async fn read(&mut self) -> Result<usize, Error> {
        if self.at == self.filled {
            (self.at, self.filled) = (0, 0);
        } else if self.filled == self.buffer.len() {
            self.buffer.copy_within(self.at..self.filled, 0);
            (self.at, self.filled) = (0, self.filled - self.at);
        }
        if self.filled == self.buffer.len() {
            return Err(Error::Reply(
                "a head or a chunk size larger than the buffer",
            ));
        }
        let n = self
            .io
            .read(&mut self.buffer[self.filled..])
            .await
            .map_err(Error::io("read"))?;
        self.filled += n;
        Ok(n)
    }
}

impl Head {
    fn read(&mut self, name: &str, value: &[u8]) -> Result<(), Error> {
        if name.eq_ignore_ascii_case("content-length") {
            let length = std::str::from_utf8(value)
                .ok()
                .and_then(|v| v.trim().parse().ok());
            self.framing =
                Framing::Length(length.ok_or(Error::Reply("content-length is not a number"))?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            self.framing = Framing::Chunked;
        } else if name.eq_ignore_ascii_case("connection") {
            self.close |= value.eq_ignore_ascii_case(b"close");
        }
        Ok(())
    }
}

fn parse_chunk_size(line: &[u8]) -> Result<usize, Error> {
    let line = std::str::from_utf8(line).unwrap_or("");
    let digits = line.split(';').next().unwrap_or("").trim();
    usize::from_str_radix(digits, 16).map_err(|_| Error::Reply("a chunk size is not hexadecimal"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// Plays `answer` to one connection, cut into pieces of `size`, and reads it back.
    async fn read_back(answer: &'static [u8], size: usize) -> Result<(u16, Vec<u8>, bool), Error> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = async move {
            let (mut io, _) = listener.accept().await.unwrap();
            io.set_nodelay(true).unwrap();
            // What stays unread when a socket closes would reset the connection.
            assert_eq!(io.read_u8().await.unwrap(), b'x');
            for piece in answer.chunks(size) {
                io.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let client = async move {
            let mut conn = Conn::open(port).await?;
            let head = conn.send(b"x").await?;
            let mut body = Vec::new();
            let reusable = conn
                .body(&head, &mut |piece: &[u8]| body.extend_from_slice(piece))
                .await?;
            Ok((head.status, body, reusable))
        };
        tokio::join!(server, client).1
    }

    #[tokio::test]
    async fn every_framing_is_read_to_its_end_however_it_is_cut() {
        let cases: [(&[u8], u16, &[u8], bool); 5] = [
            (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, b"ok", true),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok", 200, b"ok", false),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", 503, b"", true),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n", 200, b"abc0123456789", true),
            (b"HTTP/1.1 200 OK\r\n\r\nto the end", 200, b"to the end", false),
        ];
        for (answer, status, body, reusable) in cases {
            for size in [1, 7, answer.len()] {
                let got = read_back(answer, size).await.unwrap();
                assert_eq!(
                    got,
                    (status, body.to_vec(), reusable),
                    "{}",
                    answer.escape_ascii()
                );
            }
        }
    }

    #[tokio::test]
    async fn broken_answers_are_errors() {
        let cases: [&[u8]; 5] = [
            b"",
            b"nonsense\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: two\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nok\r\n",
        ];
        for answer in cases {
            assert!(
                read_back(answer, 4096).await.is_err(),
                "{}",
                answer.escape_ascii()
            );
        }
    }
}
