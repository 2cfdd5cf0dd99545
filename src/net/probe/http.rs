//! One request over HTTP/1.1 (RFC 9112), and its answer. Redirects are not followed: where one leads is in its `location`.

pub(in crate::net) mod read;

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout_at};

use super::socket::{self, Outcome, Way};
use super::tcp::{Connected, connect};
use crate::net::{Netns, Result};

pub use read::{HttpAnswer, HttpRequest};

/// A request.
#[derive(Debug, Clone)]
pub struct Http {
    /// Where to.
    pub way: Way,
    /// The host as the URL has it, with the port where that is not 80.
    pub host: String,
    /// The path with the query.
    pub target: String,
    /// `GET` and its like.
    pub method: String,
    /// Fields of the header, beside `host`, `connection` and `content-length`, or instead of them.
    pub headers: Vec<(String, String)>,
    /// What is sent.
    pub body: Option<Vec<u8>>,
    /// The time for all of it.
    pub deadline: Duration,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct HttpReport {
    /// Whether the far end took the connection.
    pub outcome: Outcome,
    /// The whole answer, if it came.
    pub answer: Option<HttpAnswer>,
    /// How long all of it took.
    pub time: Duration,
    /// This end.
    pub local: Option<SocketAddr>,
    /// Why there is no answer.
    pub why: Option<String>,
}

/// Sends one request from inside `netns`, and reads the answer.
///
/// Like `curl`. Fails only if there can be no such socket: ENODEV for an unknown link, EADDRNOTAVAIL for a source address that
/// the namespace does not have. All else is in the report.
pub async fn http(netns: &Netns, http: &Http) -> Result<HttpReport> {
    let start = Instant::now();
    let end = start + http.deadline;
    let report = HttpReport { outcome: Outcome::Silent, answer: None, time: Duration::ZERO, local: None, why: None };
    let (mut stream, socket) = match connect(netns, &http.way, http.deadline, end).await? {
        Connected::Stream(stream, socket) => (stream, socket),
        Connected::Refused(outcome, why) => {
            return Ok(HttpReport { outcome, why: Some(why), time: start.elapsed(), ..report });
        }
    };
    let local = stream.local_addr().ok();
    let talk = async {
        // A server may answer and close before it has read all.
        let sent = stream.write_all(&http.bytes()).await;
        match read::answer(&mut stream, http.method == "HEAD").await {
            Err(_) if sent.is_err() => Err(sent.err().map(|error| socket::refusal(&socket, &error).1)),
            Err(read::Fault::Socket(error)) => Err(Some(socket::refusal(&socket, &error).1)),
            Err(read::Fault::NotHttp(text)) => Err(Some(text)),
            Ok(answer) => Ok(answer),
        }
    };
    let (answer, why) = match timeout_at(end, talk).await {
        Ok(Ok(answer)) => (Some(answer), None),
        Ok(Err(why)) => (None, Some(format!("connected, but {}", why.unwrap_or_default()))),
        Err(_) => (None, Some(format!("connected, but no answer within {}", socket::in_words(http.deadline)))),
    };
    Ok(HttpReport { outcome: Outcome::Answered, answer, time: start.elapsed(), local, why })
}

impl Http {
    /// Returns the request as it is sent.
    fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        let mut field = |name: &str, value: &str| {
            if !self.headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name)) {
                // Writing to a string doesn't fail.
                let _ = write!(head, "{name}: {value}\r\n");
            }
        };
        field("host", &self.host);
        field("user-agent", "topo");
        field("accept", "*/*");
        field("connection", "close");
        if let Some(body) = &self.body {
            field("content-length", &body.len().to_string());
        }
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend(self.body.iter().flatten());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_what_it_needs_once() {
        let http = Http {
            way: Way::to(([10, 0, 0, 1], 80).into()),
            host: "h1".into(),
            target: "/a?b".into(),
            method: "PUT".into(),
            headers: vec![("Host".into(), "other".into()), ("x-a".into(), "1".into())],
            body: Some(b"abc".to_vec()),
            deadline: Duration::from_secs(1),
        };
        let text = String::from_utf8(http.bytes()).expect("text");
        let expected = "PUT /a?b HTTP/1.1\r\nuser-agent: topo\r\naccept: */*\r\nconnection: close\r\ncontent-length: 3\r\n\
            Host: other\r\nx-a: 1\r\n\r\nabc";
        assert_eq!(text, expected);
    }
}
