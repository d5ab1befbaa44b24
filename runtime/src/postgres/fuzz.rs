//! What must hold of whatever PostgreSQL's programs and a server that claims to be one say (`fuzz/`).

use std::io::Cursor;
use std::time::Duration;

use bytes::BytesMut;
use matriarch_core::id::{Lsn, Timeline};

use super::settings::{Credential, Secret};
use super::waldump::{End, parse};
use super::walsender::{ANSWER_BYTES_MAX, WalSender};

const PASSWORD: &str = "cAnArY";

/// What `pg_waldump` says when it can read no further: a position that is told is in the text.
pub fn wal_end(said: &str) {
    if let Some(End::LastRecord(position)) = parse(said) {
        let again = format!("pg_waldump: error: error in WAL record at {position}: invalid");
        assert_eq!(parse(&again), Some(End::LastRecord(position)));
        let (high, low) = (position.0 >> 32, position.0 & 0xffff_ffff);
        let told = said.to_ascii_uppercase();
        assert!(told.contains(&format!("{high:X}/")) && told.contains(&format!("{low:X}")), "{position} of {said:?}");
    }
}

/// A server that says `said`, whatever it is asked: it gets an answer that the client believes, or an error that says
/// something. It costs no more memory than is allowed.
pub fn wal_sender(said: &[u8], timeline: Timeline) {
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
    runtime.block_on(async {
        if let Err(error) = sender.authenticate(&credential).await {
            let known = String::from_utf8_lossy(said).contains(PASSWORD);
            assert!(known || !error.to_string().contains(PASSWORD), "the password is told: {error}");
            return;
        }
        match sender.identify_system().await {
            Ok(identity) => assert_eq!(Lsn::parse(&identity.position.to_string()), Some(identity.position)),
            Err(why) => assert!(why.starts_with("IDENTIFY_SYSTEM: "), "{why}"),
        }
        match sender.timeline_history(timeline).await {
            Ok(history) => assert_eq!(history.timeline, timeline, "the history of another timeline"),
            Err(why) => assert!(!why.is_empty()),
        }
    });
    assert!(sender.received.capacity() <= 2 * ANSWER_BYTES_MAX, "{} bytes are reserved", sender.received.capacity());
}
