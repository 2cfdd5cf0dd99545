//! Reading an answer: status line, header, and a body by its length, in chunks, or up to the end (RFC 9112, 6.3).

use std::collections::BTreeMap;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest header that is read.
const HEAD_MAX: usize = 1 << 16;
/// The longest body that is read.
const BODY_MAX: usize = 16 << 20;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status: 200 and its like.
    pub status: u16,
    /// The server's words for it; may be empty.
    pub reason: String,
    /// The fields of the header, their names in lower case; those that come more than once are joined by `, `.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// The connection broke.
    Socket(io::Error),
    /// What came is no answer, and why.
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
pub(super) async fn answer(from: &mut (impl AsyncRead + Unpin), to_head: bool) -> Result<Answer, Fault> {
    let mut input = Input { from, bytes: Vec::new(), ended: false };
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

struct Input<'a, R> {
    from: &'a mut R,
    /// What was read and not used yet.
    bytes: Vec<u8>,
    ended: bool,
}

impl<R: AsyncRead + Unpin> Input<'_, R> {
    async fn more(&mut self) -> Result<(), Fault> {
        let mut buffer = [0; 1 << 14];
        let length = self.from.read(&mut buffer).await?;
        self.bytes.extend(&buffer[..length]);
        self.ended = length == 0;
        Ok(())
    }

    /// Takes a line, without its end.
    async fn line(&mut self, what: &str) -> Result<String, Fault> {
        let mut looked = 0;
        loop {
            if let Some(at) = self.bytes[looked..].iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.bytes.drain(..=looked + at).collect();
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            looked = self.bytes.len();
            if looked > HEAD_MAX {
                return not_http(format!("{what} is longer than {HEAD_MAX} bytes"));
            }
            if self.ended {
                return not_http(match looked {
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

    async fn head(&mut self) -> Result<Answer, Fault> {
        let line = self.line("the status line").await?;
        let Some((status, reason)) = status(&line) else {
            return not_http(format!(
                "what answered doesn't speak HTTP/1: {:?}",
                line.chars().take(60).collect::<String>()
            ));
        };
        let headers = self.fields("the header").await?;
        Ok(Answer { status, reason, headers, body: Vec::new() })
    }

    async fn fields(&mut self, what: &str) -> Result<BTreeMap<String, String>, Fault> {
        let mut fields: BTreeMap<String, String> = BTreeMap::new();
        let mut size = 0;
        loop {
            let line = self.line(what).await?;
            if line.is_empty() {
                return Ok(fields);
            }
            size += line.len();
            if size > HEAD_MAX {
                return not_http(format!("{what} is longer than {HEAD_MAX} bytes"));
            }
            let Some((name, value)) = line.split_once(':') else {
                return not_http(format!("a line of {what} has no colon: {line:?}"));
            };
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
            fields.entry(name).and_modify(|had| *had = format!("{had}, {value}")).or_insert_with(|| value.to_string());
        }
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
            let line = self.line("a chunk").await?;
            // Behind the size there may be an extension, which means nothing to us.
            let size = line.split(';').next().unwrap_or("").trim();
            let hexadecimal = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_hexdigit());
            let Some(size) = usize::from_str_radix(size, 16).ok().filter(|_| hexadecimal) else {
                return not_http(format!("the size of a chunk is no number: {line:?}"));
            };
            if size == 0 {
                self.fields("the trailer").await?;
                return Ok(body);
            }
            if size > BODY_MAX || body.len() + size > BODY_MAX {
                return too_long();
            }
            body.extend(self.take(size).await?);
            if !self.line("a chunk").await?.is_empty() {
                return not_http("a chunk is longer than its size says");
            }
        }
    }
}

fn too_long<T>() -> Result<T, Fault> {
    not_http(format!("the body is longer than {BODY_MAX} bytes"))
}

/// Reads a status line: `HTTP/1.1 200 OK`.
fn status(line: &str) -> Option<(u16, String)> {
    let rest = line.strip_prefix("HTTP/1.")?;
    let (minor, rest) = rest.split_once(' ')?;
    let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
    let three = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
    (matches!(minor, "0" | "1") && three).then(|| Some((code.parse().ok()?, reason.trim().to_string())))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::block_on;

    fn read(text: &[u8]) -> Result<Answer, String> {
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
    fn what_is_wrong_is_said() {
        for (text, said) in [
            ("", "closed without an answer"),
            ("SSH-2.0-OpenSSH_9\r\n", "doesn't speak HTTP/1"),
            ("HTTP/2 200 OK\r\n\r\n", "doesn't speak HTTP/1"),
            ("HTTP/1.1 20 OK\r\n\r\n", "doesn't speak HTTP/1"),
            ("HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", "has no colon"),
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
