//! A request as the web server of a lab reads it (RFC 9112), by httparse.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// How many fields a header may have.
const FIELDS_MAX: usize = 128;
/// The longest header that is read.
const HEAD_MAX: usize = 1 << 16;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::net) struct Request {
    /// `GET` and its like.
    pub(super) method: String,
    /// The path with the query.
    pub(in crate::net) path: String,
}

/// Reads a request with its body, which is not kept; what is no request is none.
pub(in crate::net) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Request>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let (head, request, length) = loop {
        match parsed(&bytes) {
            Ok(Some(found)) => break found,
            Ok(None) => {}
            Err(_) => return Ok(None),
        }
        let length = from.read(&mut buffer).await?;
        if length == 0 || bytes.len() > HEAD_MAX {
            return Ok(None);
        }
        bytes.extend(&buffer[..length]);
    };
    let mut left = length.saturating_sub(bytes.len() - head);
    while left > 0 {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            break;
        }
        left = left.saturating_sub(length);
    }
    Ok(Some(request))
}

/// Reads a head if all of it is there: its length, what it asks for, and the length of the body.
fn parsed(bytes: &[u8]) -> Result<Option<(usize, Request, usize)>, httparse::Error> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(head) = request.parse(bytes)? else { return Ok(None) };
    let field = request.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let length = field.and_then(|field| std::str::from_utf8(field.value).ok()?.trim().parse().ok()).unwrap_or(0);
    let (method, path) = (request.method.unwrap_or_default().to_string(), request.path.unwrap_or_default().to_string());
    Ok(Some((head, Request { method, path }, length)))
}

/// Returns the words for a status (RFC 9110, 15); empty for one that is not common.
pub(in crate::net) fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::block_on;

    fn request(text: &str) -> Option<(String, String)> {
        let read = block_on(async { read(&mut text.as_bytes()).await }).expect("read");
        read.map(|request| (request.method, request.path))
    }

    #[test]
    fn requests_and_what_is_none() {
        let get = Some(("GET".to_string(), "/a?b=c".to_string()));
        assert_eq!(request("GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n"), get);
        let put = Some(("PUT".to_string(), "/".to_string()));
        assert_eq!(request("PUT / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc"), put);
        for none in ["", "GET", "GET / HTTP/1.1\r\n", "hello there you\r\n\r\n", "\r\n\r\n"] {
            assert_eq!(request(none), None, "{none:?}");
        }
    }
}
