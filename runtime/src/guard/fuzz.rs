//! What must hold of whatever is said on the guard's socket (`fuzz/`).

use std::io::Write;
use std::os::unix::net::UnixStream;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::connection::Connection;
use super::protocol::{LINE_BYTES_MAX, Order, Report, line};

/// What was said is handed on line by line, whole and in order; what is understood is the same when it is said again. What
/// it was taken for.
pub fn guard_messages(said: &[u8]) -> String {
    let (mut theirs, ours) = UnixStream::pair().expect("a pair of sockets");
    let mut connection =
        Connection::accept(ours, rustix::process::geteuid().as_raw()).expect("the peer is this process");
    let mut heard = Vec::new();
    // In two halves: a line may arrive in pieces.
    let (first, second) = said.split_at(said.len() / 2);
    for half in [first, second] {
        theirs.write_all(half).expect("less than a socket's buffer");
        // What is longer than a line may be is read in several turns.
        for _ in 0..3 {
            let reading = connection.read();
            for line in &reading.lines {
                assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1), "not one line");
            }
            heard.extend(reading.lines);
            if !reading.is_open {
                let longest = said.split(|byte| *byte == b'\n').map(<[u8]>::len).max();
                assert!(longest.is_some_and(|longest| longest > LINE_BYTES_MAX), "closed, and no line is too long");
                return format!("{} lines, and one that is too long", heard.len());
            }
        }
    }
    let whole = said.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    assert_eq!(heard.concat(), said[..whole], "lines are lost or changed");
    let (mut orders, mut reports) = (0, 0);
    for line in &heard {
        orders += usize::from(said_again::<Order>(line));
        reports += usize::from(said_again::<Report>(line));
    }
    format!("{} lines: {orders} orders, {reports} reports", heard.len())
}

fn said_again<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(said: &[u8]) -> bool {
    let Ok(message) = serde_json::from_slice::<T>(said) else { return false };
    let again = line(&message);
    assert_eq!(again.iter().position(|byte| *byte == b'\n'), Some(again.len() - 1), "{message:?} is not one line");
    assert_eq!(serde_json::from_slice::<T>(&again).ok(), Some(message), "{}", String::from_utf8_lossy(&again));
    true
}
