//! A request as the web server of a lab reads it (RFC 9112).

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest header that is read.
const HEAD_MAX: usize = 1 << 16;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// `GET` and its like.
    pub(super) method: String,
    /// The path with the query.
    pub(super) path: String,
}

/// Reads a request with its body, which is not kept; what is no request is none.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Request>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        let length = from.read(&mut buffer).await?;
        if length == 0 || bytes.len() > HEAD_MAX {
            return Ok(None);
        }
        bytes.extend(&buffer[..length]);
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let mut lines = text.lines();
    let mut words = lines.next().unwrap_or("").split(' ');
    let (Some(method), Some(path), Some(version)) = (words.next(), words.next(), words.next()) else { return Ok(None) };
    if !version.starts_with("HTTP/1.") {
        return Ok(None);
    }
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let mut left = length.unwrap_or(0).saturating_sub(bytes.len() - head);
    while left > 0 {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            break;
        }
        left = left.saturating_sub(length);
    }
    Ok(Some(Request { method: method.to_string(), path: path.to_string() }))
}

/// Returns the words for a status (RFC 9110, 15); empty for one that is not common.
pub(super) fn reason(status: u16) -> &'static str {
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
