//! What of an answer is contract: status, headers, keys and types, and texts that do not tell of the moment.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// A restart or a switchover on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);

/// Patroni tells how many records wait to be logged, and how many were lost, while that is many: on a busy machine it is,
/// for a moment. Ours has no such queue.
const OF_THE_MOMENT: &[&str] = &["logger_queue_size", "logger_records_lost"];

/// Whom a request says it comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Login {
    /// Nobody.
    None,
    /// Somebody who is not known.
    Wrong,
    /// The configured user.
    Right,
}

/// What is in a shape: statements of what was answered, one a line.
pub(crate) type Shape = BTreeSet<String>;

/// Sends a request as it is written here, without what a client library adds, and tells the shape of the answer.
pub(crate) async fn ask(address: &str, method: &str, path: &str, login: Login, body: Option<&str>) -> Shape {
    let stream = TcpStream::connect(address).await;
    exchange(stream, &request(address, method, path, login, body)).await
}

/// The text of a request.
pub(crate) fn request(address: &str, method: &str, path: &str, login: Login, body: Option<&str>) -> String {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    match login {
        Login::None => {}
        Login::Wrong => request.push_str("Authorization: Basic d3Jvbmc6d3Jvbmc=\r\n"),
        // admin:secret
        Login::Right => request.push_str("Authorization: Basic YWRtaW46c2VjcmV0\r\n"),
    }
    if let Some(body) = body {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    request.push_str(body.unwrap_or_default());
    request
}

/// Sends a request over a connection, if there is one, and tells the shape of the answer.
pub(crate) async fn exchange(stream: std::io::Result<impl AsyncRead + AsyncWrite + Unpin>, request: &str) -> Shape {
    let exchange = async {
        let mut stream = stream?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        // A reset after the answer, because a body was not read, takes nothing back.
        let read = stream.read_to_end(&mut answer).await;
        if answer.is_empty() { read.map(|_| answer) } else { Ok(answer) }
    };
    of_exchange(
        tokio::time::timeout(LIMIT, exchange).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())),
    )
}

/// The shape of what came back.
pub(crate) fn of_exchange(answer: std::io::Result<Vec<u8>>) -> Shape {
    match answer {
        Ok(answer) if answer.is_empty() => Shape::from(["no answer".to_owned()]),
        Ok(answer) => of(&String::from_utf8_lossy(&answer)),
        Err(error) => Shape::from([format!("no answer: {error}")]),
    }
}

fn of(answer: &str) -> Shape {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let mut shape = Shape::from([format!("status {status}")]);
    let mut kind = "";
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        let name = name.to_lowercase();
        if name == "content-type" {
            kind = value;
        }
        // How the end of a body is found differs between HTTP 1.0 and 1.1, and the time is now.
        if !matches!(name.as_str(), "date" | "content-length" | "connection" | "transfer-encoding") {
            shape.insert(format!("header {name}: {value}"));
        }
    }
    match kind {
        "application/json" => match serde_json::from_str(body) {
            Ok(value) => json("$", &value, &mut shape),
            Err(error) => drop(shape.insert(format!("no JSON: {error}"))),
        },
        "text/plain" => metrics(body, &mut shape),
        _ => shape.extend(body.lines().map(|line| format!("text {}", masked(line)))),
    }
    shape
}

/// Each value by the path to it and its type.
fn json(path: &str, value: &Value, shape: &mut Shape) {
    let told = match value {
        Value::Object(entries) if !entries.is_empty() => {
            let lasting = entries.iter().filter(|(key, _)| !OF_THE_MOMENT.contains(&key.as_str()));
            return lasting.for_each(|(key, value)| json(&format!("{path}.{key}"), value, shape));
        }
        Value::Array(items) if !items.is_empty() => {
            return items.iter().for_each(|item| json(&format!("{path}[]"), item, shape));
        }
        Value::Number(number) if number.is_f64() => "a fraction".to_owned(),
        Value::Number(_) => "an integer".to_owned(),
        Value::String(text) => format!("\"{}\"", masked(text)),
        other => other.to_string(),
    };
    shape.insert(format!("{path}: {told}"));
}

/// Each metric by its name, type, labels and what comes with it. Small numbers are flags and states, and told.
fn metrics(page: &str, shape: &mut Shape) {
    for line in page.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let told = match words.as_slice() {
            // What it says is for people.
            ["#", "HELP", name, _, ..] => format!("help of {name}"),
            ["#", ..] => line.to_owned(),
            [name, value] => format!("metric {} {}", masked(name), number(value)),
            _ => format!("no metric: {line}"),
        };
        shape.insert(told);
    }
}

fn number(text: &str) -> &str {
    match text.parse::<f64>() {
        Err(_) => text,
        Ok(_) if text.len() <= 2 || text.starts_with('0') => text,
        Ok(_) if text.contains('.') => "a fraction",
        Ok(_) => "an integer",
    }
}

/// Without what is of the moment: names of nodes, addresses, positions, times and other long numbers.
fn masked(text: &str) -> String {
    let mut words = Vec::new();
    for word in text.split_inclusive(|c: char| !(c.is_ascii_alphanumeric() || "/:.-_".contains(c))) {
        let kept = word.trim_end_matches(|c: char| !(c.is_ascii_alphanumeric() || "/:.-_".contains(c)));
        let hexadecimal = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        let digits = kept.bytes().filter(u8::is_ascii_digit).count();
        let told = match kept {
            "n1" | "n2" | "n3" => "nX".to_owned(),
            _ if kept.split_once('/').is_some_and(|(high, low)| hexadecimal(high) && hexadecimal(low)) => {
                "LSN".to_owned()
            }
            _ if kept.split('.').count() == 4 && digits >= 4 && !kept.contains('-') => "ADDRESS".to_owned(),
            _ if digits >= 8 && kept.bytes().all(|byte| byte.is_ascii_digit()) => "NUMBER".to_owned(),
            _ if digits >= 4 => kept.replace(|c: char| c.is_ascii_digit(), "9"),
            _ => kept.to_owned(),
        };
        words.push(told + &word[kept.len()..]);
    }
    words.concat()
}
