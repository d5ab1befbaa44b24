//! Load for a REST API, with nothing but the standard library: `rustc -O` makes it.
//!
//!     rest_load HOST:PORT PATH CONNECTIONS REQUESTS keep|close
//!
//! So many connections at once send so many requests together, one after the other each. `keep` keeps a connection,
//! `close` makes a new one for each request, and its time counts. Tells requests a second, percentiles in milliseconds,
//! and how many answers were not 200.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, path, connections, requests, mode] = words.as_slice() else {
        panic!("rest_load HOST:PORT PATH CONNECTIONS REQUESTS keep|close")
    };
    let (connections, requests): (usize, usize) = (connections.parse().unwrap(), requests.parse().unwrap());
    let keep = mode == "keep";
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: {}\r\n\r\n",
        if keep { "keep-alive" } else { "close" }
    );
    let begin = Instant::now();
    let threads: Vec<_> = (0..connections)
        .map(|_| {
            let (address, request) = (address.clone(), request.clone());
            std::thread::spawn(move || ask(&address, &request, requests / connections, keep))
        })
        .collect();
    let mut times = Vec::with_capacity(requests);
    let mut wrong = 0;
    for thread in threads {
        let (some, bad) = thread.join().expect("a connection's thread");
        times.extend(some);
        wrong += bad;
    }
    let seconds = begin.elapsed().as_secs_f64();
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    println!(
        "{{\"requests\": {}, \"per_second\": {:.0}, \"p50_ms\": {:.3}, \"p99_ms\": {:.3}, \"max_ms\": {:.3}, \"wrong\": {wrong}}}",
        times.len(),
        times.len() as f64 / seconds,
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

fn ask(address: &str, request: &str, requests: usize, keep: bool) -> (Vec<Duration>, usize) {
    let mut times = Vec::with_capacity(requests);
    let mut wrong = 0;
    let mut kept = None;
    for _ in 0..requests {
        let begin = Instant::now();
        let mut stream = kept.take().unwrap_or_else(|| connect(address));
        stream.get_mut().write_all(request.as_bytes()).expect("a request is sent");
        let ok = answer(&mut stream, keep);
        times.push(begin.elapsed());
        wrong += usize::from(!ok);
        kept = keep.then_some(stream);
    }
    (times, wrong)
}

fn connect(address: &str) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    BufReader::new(stream)
}

/// Reads one answer; whether it is 200.
fn answer(stream: &mut BufReader<TcpStream>, keep: bool) -> bool {
    let mut line = String::new();
    stream.read_line(&mut line).expect("a status line");
    let ok = line.split(' ').nth(1) == Some("200");
    let mut length = None;
    loop {
        line.clear();
        stream.read_line(&mut line).expect("a header");
        if line.trim_end().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse::<usize>().ok();
            }
        }
    }
    let mut body = Vec::new();
    if keep {
        body.resize(length.expect("a kept connection tells the length"), 0);
        stream.read_exact(&mut body).expect("a body");
    } else {
        stream.read_to_end(&mut body).expect("a body");
    }
    ok
}
