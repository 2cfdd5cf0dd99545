//! Reading an answer or a request: first line and header by httparse, and a body by its length, in chunks, or up to the end (RFC 9112, 6.3).
//!
//! The body is read here: a client such as hyper brings tasks and a pool of connections, and a probe has one connection and one answer.

use std::collections::BTreeMap;
use std::io;

use httparse::Status;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest header that is read.
const HEAD_MAX: usize = 1 << 16;
/// How many fields a header may have.
const FIELDS_MAX: usize = 128;
/// The longest body that is read.
const BODY_MAX: usize = 16 << 20;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The status: 200 and its like.
    pub status: u16,
    /// The server's words for it; may be empty.
    pub reason: String,
    /// The fields of the header, their names in lower case; those that come more than once are joined by `, `.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// `GET` and its like.
    pub method: String,
    /// The path with the query.
    pub path: String,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no answer, or no request.
#[derive(Debug)]
pub(in crate::net) enum Fault {
    /// The connection broke.
    Socket(io::Error),
    /// What came is none, and why.
    NotHttp(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Socket(error)
    }
}

fn not_http<T>(text: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::NotHttp(text.into()))
}

/// Reads one answer; that to a `HEAD` has no body.
pub(super) async fn answer(from: &mut (impl AsyncRead + Unpin), to_head: bool) -> Result<HttpAnswer, Fault> {
    let mut input = HttpInput { from, bytes: Vec::new(), ended: false };
    loop {
        let mut answer = input.head().await?;
        // Of those that come before the answer proper, such as 100 (Continue).
        if (100..200).contains(&answer.status) && answer.status != 101 {
            continue;
        }
        if !to_head && !matches!(answer.status, 101 | 204 | 304) {
            answer.body = input.body(&answer.headers).await?;
        }
        return Ok(answer);
    }
}

/// Reads one request with its body.
pub(in crate::net) async fn request(from: &mut (impl AsyncRead + Unpin)) -> Result<HttpRequest, Fault> {
    let mut input = HttpInput { from, bytes: Vec::new(), ended: false };
    let (mut request, headers) = input.parsed(|_| "the request's header", request_head).await?;
    // Without a length a request has no body (RFC 9112, 6.3), where an answer has all up to the end.
    if ["transfer-encoding", "content-length"].iter().any(|name| headers.contains_key(*name)) {
        request.body = input.body(&headers).await?;
    }
    Ok(request)
}

struct HttpInput<'a, R> {
    from: &'a mut R,
    /// What was read and not used yet.
    bytes: Vec<u8>,
    ended: bool,
}

impl<R: AsyncRead + Unpin> HttpInput<'_, R> {
    async fn more(&mut self) -> Result<(), Fault> {
        let mut buffer = [0; 1 << 14];
        let length = self.from.read(&mut buffer).await?;
        self.bytes.extend(&buffer[..length]);
        self.ended = length == 0;
        Ok(())
    }

    /// Takes what `parse` finds whole at the beginning, which it calls again with more until that is all there.
    async fn parsed<T>(
        &mut self,
        what: impl Fn(&[u8]) -> &'static str,
        parse: impl Fn(&[u8]) -> Result<Option<(usize, T)>, Fault>,
    ) -> Result<T, Fault> {
        loop {
            let found = if self.bytes.is_empty() { None } else { parse(&self.bytes)? };
            if let Some((length, found)) = found {
                self.bytes.drain(..length);
                return Ok(found);
            }
            let (what, length) = (what(&self.bytes), self.bytes.len());
            if length > HEAD_MAX {
                return not_http(format!("{what} is longer than {HEAD_MAX} bytes"));
            }
            if self.ended {
                return not_http(match length {
                    0 => "the far end closed without an answer".to_string(),
                    _ => format!("the far end closed in the middle of {what}"),
                });
            }
            self.more().await?;
        }
    }

    /// Takes `length` bytes.
    async fn take(&mut self, length: usize) -> Result<Vec<u8>, Fault> {
        while self.bytes.len() < length {
            if self.ended {
                return not_http(format!(
                    "the far end closed in the middle of the body: {} bytes are missing",
                    length - self.bytes.len()
                ));
            }
            self.more().await?;
        }
        Ok(self.bytes.drain(..length).collect())
    }

    async fn head(&mut self) -> Result<HttpAnswer, Fault> {
        let what = |bytes: &[u8]| if bytes.contains(&b'\n') { "the header" } else { "the status line" };
        self.parsed(what, head).await
    }

    async fn body(&mut self, headers: &BTreeMap<String, String>) -> Result<Vec<u8>, Fault> {
        // The coding comes before the length (RFC 9112, 6.3).
        if let Some(coding) = headers.get("transfer-encoding") {
            return match coding.trim().eq_ignore_ascii_case("chunked") {
                true => self.chunks().await,
                false => not_http(format!("the body has the transfer coding `{coding}`, which topo can't read")),
            };
        }
        let Some(length) = headers.get("content-length") else {
            while !self.ended {
                if self.bytes.len() > BODY_MAX {
                    return too_long();
                }
                self.more().await?;
            }
            return Ok(std::mem::take(&mut self.bytes));
        };
        let digits = length.bytes().all(|byte| byte.is_ascii_digit());
        match length.parse::<usize>() {
            Ok(length) if digits && length <= BODY_MAX => self.take(length).await,
            Ok(_) if digits => too_long(),
            _ => not_http(format!("its `content-length` is no number: {length:?}")),
        }
    }

    async fn chunks(&mut self) -> Result<Vec<u8>, Fault> {
        let mut body = Vec::new();
        loop {
            let size = self.parsed(|_| "a chunk", chunk_size).await?;
            if size == 0 {
                self.parsed(|_| "the trailer", trailer).await?;
                return Ok(body);
            }
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            if size > BODY_MAX - body.len() {
                return too_long();
            }
            body.extend(self.take(size).await?);
            if self.take(2).await? != *b"\r\n" {
                return not_http("a chunk is longer than its size says");
            }
        }
    }
}

/// Reads a status line and a header.
fn head(bytes: &[u8]) -> Result<Option<(usize, HttpAnswer)>, Fault> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(bytes) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(error) if response.code.is_some() => return not_http(wrong("header", &error)),
        Err(_) => {
            let text = String::from_utf8_lossy(bytes);
            let line: String = text.lines().next().unwrap_or_default().chars().take(60).collect();
            return not_http(format!("what answered doesn't speak HTTP/1: {line:?}"));
        }
    };
    let headers = named(response.headers);
    let (status, reason) = (response.code.unwrap_or_default(), response.reason.unwrap_or_default().trim().to_string());
    Ok(Some((length, HttpAnswer { status, reason, headers, body: Vec::new() })))
}

/// A request without its body, and the fields of its header.
type RequestHead = (HttpRequest, BTreeMap<String, String>);

/// Reads a request line and a header.
fn request_head(bytes: &[u8]) -> Result<Option<(usize, RequestHead)>, Fault> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(Status::Complete(length)) => {
            let (method, path) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
            let asked = HttpRequest { method: method.into(), path: path.into(), body: Vec::new() };
            Ok(Some((length, (asked, named(request.headers)))))
        }
        Ok(Status::Partial) => Ok(None),
        Err(error) => not_http(wrong("request's header", &error)),
    }
}

/// Returns the fields of a header by their names in lower case.
fn named(fields: &[httparse::Header<'_>]) -> BTreeMap<String, String> {
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for field in fields {
        let value = String::from_utf8_lossy(field.value);
        let had = headers.entry(field.name.to_ascii_lowercase());
        had.and_modify(|had| *had = format!("{had}, {value}")).or_insert_with(|| value.to_string());
    }
    headers
}

/// Reads the line before a chunk. Behind the size there may be an extension, which means nothing to us.
fn chunk_size(bytes: &[u8]) -> Result<Option<(usize, u64)>, Fault> {
    match httparse::parse_chunk_size(bytes) {
        Ok(Status::Complete((length, size))) => Ok(Some((length, size))),
        Ok(Status::Partial) => Ok(None),
        Err(_) => {
            let text = String::from_utf8_lossy(bytes);
            not_http(format!("the size of a chunk is no number: {:?}", text.lines().next().unwrap_or_default()))
        }
    }
}

/// Reads the fields behind the last chunk.
fn trailer(bytes: &[u8]) -> Result<Option<(usize, ())>, Fault> {
    match httparse::parse_headers(bytes, &mut [httparse::EMPTY_HEADER; FIELDS_MAX]) {
        Ok(Status::Complete((length, _))) => Ok(Some((length, ()))),
        Ok(Status::Partial) => Ok(None),
        Err(error) => not_http(wrong("trailer", &error)),
    }
}

fn wrong(what: &str, error: &httparse::Error) -> String {
    match error {
        httparse::Error::TooManyHeaders => format!("the {what} has more than {FIELDS_MAX} fields"),
        error => format!("the {what} can't be read: {error}"),
    }
}

fn too_long<T>() -> Result<T, Fault> {
    not_http(format!("the body is longer than {BODY_MAX} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::block_on;

    fn read(text: &[u8]) -> Result<HttpAnswer, String> {
        block_on(async {
            let mut text = text;
            answer(&mut text, false).await.map_err(|fault| match fault {
                Fault::Socket(error) => error.to_string(),
                Fault::NotHttp(text) => text,
            })
        })
    }

    fn body(text: &str) -> Result<String, String> {
        read(text.as_bytes()).map(|answer| String::from_utf8(answer.body).expect("text"))
    }

    #[test]
    fn a_body_ends_where_it_says() {
        let ok = |text: &str| body(text).expect(text);
        assert_eq!(ok("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef"), "abc");
        assert_eq!(ok("HTTP/1.0 200 OK\r\n\r\nall of it"), "all of it");
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n";
        assert_eq!(ok(&format!("{chunked}3;x=y\r\nabc\r\n0A\r\n0123456789\r\n0\r\nx: y\r\n\r\n")), "abc0123456789");
        assert_eq!(ok("HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n"), "");
        assert_eq!(ok("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200\r\nContent-Length: 1\r\n\r\na"), "a");
    }

    #[test]
    fn fields_are_found_in_lower_case_and_joined() {
        let answer =
            read(b"HTTP/1.1 301 Moved For Good\nLocation: /x\nA: 1\na:2\ncontent-length: 0\n\n").expect("read");
        assert_eq!((answer.status, answer.reason.as_str()), (301, "Moved For Good"));
        assert_eq!((answer.headers["location"].as_str(), answer.headers["a"].as_str()), ("/x", "1, 2"));
    }

    #[test]
    fn requests_with_bodies() {
        let asked = |text: &str| {
            let read = block_on(async { request(&mut text.as_bytes()).await });
            read.ok().map(|request| (request.path, String::from_utf8(request.body).expect("text")))
        };
        let is = |path: &str, body: &str| Some((path.to_string(), body.to_string()));
        assert_eq!(asked("POST /Plugin.Activate HTTP/1.1\r\nHost: x\r\n\r\n"), is("/Plugin.Activate", ""));
        assert_eq!(asked("POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcd"), is("/a", "abc"));
        assert_eq!(asked("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"), is("/a", "ab"));
        for none in ["", "POST", "hello\r\n\r\n", "POST /a HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc"] {
            assert_eq!(asked(none), None, "{none:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, said) in [
            ("", "closed without an answer"),
            ("SSH-2.0-OpenSSH_9\r\n", "doesn't speak HTTP/1"),
            ("HTTP/2 200 OK\r\n\r\n", "doesn't speak HTTP/1"),
            ("HTTP/1.1 20 OK\r\n\r\n", "doesn't speak HTTP/1"),
            ("HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", "the header can't be read: invalid header name"),
            ("HTTP/1.1 200 OK\r\nA : 1\r\n\r\n", "the header can't be read: invalid header name"),
            ("HTTP/1.1 200 OK\r\nA: \u{7}\r\n\r\n", "the header can't be read: invalid header value"),
            (&format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(129)), "more than 128 fields"),
            (&format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(1 << 17)), "the header is longer than 65536 bytes"),
            ("HTTP/1.1 20", "in the middle of the status line"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", "2 bytes are missing"),
            ("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nabcde", "no number"),
            ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabc", "no number"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nabc", "longer"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc", "gzip"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", "no number"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n", "longer than its size"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n", "longer"),
            ("HTTP/1.1 200 OK\r\nContent-", "in the middle of the header"),
        ] {
            let why = body(text).expect_err(text);
            assert!(why.contains(said), "{text:?}: {why}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_answer_is_too_odd(bytes: Vec<u8>, chunked: bool) {
            let mut text = b"HTTP/1.1 200 OK\r\n".to_vec();
            if chunked {
                text.extend(b"transfer-encoding: chunked\r\n\r\n");
            }
            text.extend(bytes);
            let _ = read(&text);
        }
    }
}
