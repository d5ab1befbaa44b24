//! What must hold of whatever PostgreSQL's programs and a server that claims to be one say (`fuzz/`).

use std::io::Cursor;
use std::time::Duration;

use bytes::BytesMut;
use matriarch_core::id::{Lsn, Timeline};

use super::settings::{Credential, Secret};
use super::waldump::{self, End};
use super::walsender::{ANSWER_BYTES_MAX, WalSender};
use super::{conf, divergence, dynamic, vetting};

pub use monitoring::monitoring_row;

mod monitoring;

const PASSWORD: &str = "cAnArY";
const SEGMENT_BYTES: u64 = 16 << 20;

/// What `pg_waldump` says when it can read no further: a position that is told is in the text, a segment begins where its
/// name says, and a record ends behind its beginning.
pub fn wal_end(said: &str) -> &'static str {
    match waldump::parse(said) {
        None => "no end of WAL",
        Some(End::LastRecord(position)) => {
            let again = format!("pg_waldump: error: error in WAL record at {position}: invalid");
            assert_eq!(waldump::parse(&again), Some(End::LastRecord(position)));
            let (high, low) = (position.0 >> 32, position.0 & 0xffff_ffff);
            let told = said.to_ascii_uppercase();
            assert!(
                told.contains(&format!("{high:X}/")) && told.contains(&format!("{low:X}")),
                "{position} of {said:?}"
            );
            for length in [24, 8192, 1 << 20] {
                let end = divergence::walk(position.0, length, SEGMENT_BYTES, 8192);
                assert!(end.is_none_or(|end| end - position.0 >= length), "{position} to {end:?}");
            }
            "a last record"
        }
        Some(End::Segment(name)) => {
            let start = divergence::segment_start(SEGMENT_BYTES as u32, name);
            let Some(start) = start else { return "a segment that there cannot be" };
            assert_eq!((start.0 % SEGMENT_BYTES, start.0 >> 32), (0, name >> 32), "{said:?}");
            assert_eq!((start.0 & 0xffff_ffff) / SEGMENT_BYTES, name & 0xffff_ffff, "{said:?}");
            "a segment"
        }
    }
}

/// `<base>.conf` with a recovery section at its end: what is read of it is the same once it was written by us.
pub fn recovery_section(text: &str) -> &'static str {
    let read = conf::parse_section(conf::section_of(text));
    let values = read.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let written = format!("work_mem = '4MB'\n{}{}", conf::RECOVERY, conf::render(values));
    assert_eq!(conf::parse_section(conf::section_of(&written)), read, "{written:?} of {text:?}");
    for line in text.lines().filter(|line| conf::is_recovery_setting(line)) {
        assert!(!line.starts_with(['#', ' ', '\'']), "{line:?} is no setting");
    }
    match read.get("primary_conninfo").map(|conninfo| conf::followed(conninfo)) {
        None if read.is_empty() => "no recovery section",
        None => "a recovery section",
        Some(None) => "a recovery section that names no upstream",
        Some(Some((host, port))) => {
            follows(&host, port);
            "a recovery section with an upstream"
        }
    }
}

/// An upstream is found in what we write of it, whatever else is there, and its password by whoever reads the file.
pub fn follows(host: &str, port: u16) {
    if host.is_empty() || host == "''" {
        return;
    }
    let word = conf::escape_dsn(host);
    let conninfo = format!("user={word} passfile={word} host={word} port={port} application_name={word}");
    assert_eq!(conf::followed(&conninfo), Some((host.to_owned(), port)), "{conninfo}");
    let value = conf::parse_section(&conf::render([("primary_conninfo", conninfo.as_str())].into_iter()));
    let whole = !host.contains('\n');
    assert!(!whole || value.get("primary_conninfo") == Some(&conninfo), "{conninfo} is read as {value:?}");
    let line = format!("{}:{port}:*:u:{}", conf::escape_pgpass(host), conf::escape_pgpass(host));
    let fields = crate::ctl::pgpass::fields(&line).into_iter().map(|(field, _)| field);
    assert_eq!(fields.collect::<Vec<_>>(), [host, &port.to_string(), "*", "u", host], "{line}");
}

/// What a server says of its parameters: only what it was given is left out, and never without a reason.
pub fn parameter_faults(said: &str) -> String {
    let given = ["checkpoint_timeout", "DateStyle", "work_mem", "x.y"];
    let parameters = given.map(|name| (name.to_owned(), "1\n2".to_owned())).into();
    let faults = vetting::faults(said, &parameters);
    for fault in &faults {
        assert!(parameters.contains_key(&fault.name) && !fault.why.is_empty(), "{fault:?} of {said:?}");
        let word = |nearest: &String| !nearest.contains(char::is_whitespace) && said.contains(nearest.as_str());
        assert!(fault.nearest.as_ref().is_none_or(word), "{fault:?} of {said:?}");
    }
    assert!(faults.len() <= said.lines().count());
    format!("{} faults", faults.len())
}

/// A server that says `said`, whatever it is asked: it gets an answer that the client believes, or an error that says
/// something. It costs no more memory than is allowed.
pub fn wal_sender(said: &[u8], timeline: Timeline) -> &'static str {
    let stream = tokio::io::join(Cursor::new(said.to_vec()), tokio::io::sink());
    let mut sender = WalSender {
        stream: Box::new(stream),
        received: BytesMut::new(),
        deadline: Duration::from_secs(10),
        end_point: None,
    };
    let credential =
        Credential { user: "replicator".into(), password: Some(Secret(PASSWORD.into())), ..Credential::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let reached = runtime.block_on(async {
        if let Err(error) = sender.authenticate(&credential).await {
            let known = String::from_utf8_lossy(said).contains(PASSWORD);
            assert!(known || !error.to_string().contains(PASSWORD), "the password is told: {error}");
            return "nobody that lets it in";
        }
        let identified = match sender.identify_system().await {
            Ok(identity) => Lsn::parse(&identity.position.to_string()) == Some(identity.position),
            Err(why) => {
                assert!(why.starts_with("IDENTIFY_SYSTEM: "), "{why}");
                false
            }
        };
        match sender.timeline_history(timeline).await {
            Ok(history) => assert_eq!(history.timeline, timeline, "the history of another timeline"),
            Err(why) => assert!(!why.is_empty()),
        }
        if identified { "a server that tells which it is" } else { "a server that does not tell which it is" }
    });
    assert!(sender.received.capacity() <= 2 * ANSWER_BYTES_MAX, "{} bytes are reserved", sender.received.capacity());
    reached
}

/// `patroni.dynamic.json`: a mapping, as the key `config` would be read; what else it is does not count.
pub fn configuration_file(bytes: &[u8]) -> &'static str {
    let Some(config) = dynamic::mapping(bytes) else { return "no configuration" };
    let text = std::str::from_utf8(bytes).expect("JSON is UTF-8");
    assert_eq!(crate::agent::setup::stored(Some(text)), (Some(config.clone()), None), "the key says another thing");
    let written = config.to_string();
    for torn in 0..written.len() {
        assert_eq!(dynamic::mapping(&written.as_bytes()[..torn]), None, "{written}, torn after {torn} bytes, counts");
    }
    "a configuration"
}
