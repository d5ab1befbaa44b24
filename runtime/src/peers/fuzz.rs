//! What must hold of whatever another host answers, and of the address at which it is asked (`fuzz/`).

use hyper::Method;
use hyper::header::{HOST, HeaderValue};
use matriarch_core::id::{Lsn, Timeline};
use matriarch_core::op::Outcome;
use matriarch_core::view::peers::PeerAnswer;
use serde_json::Value;

use super::{TOLD_CHARS, from_position, from_status, no_position, position_document, understood};
use crate::{ctl, http};

/// The longest text of a refusal, beside the URL that it names.
const REFUSAL_CHARS_MAX: usize = TOLD_CHARS + 100;

/// The body of an answer, read as a position of ours and as Patroni's status, and shown as `why` shows it; what it was taken
/// for.
pub fn peer_answer(body: &str) -> &'static str {
    let document: Value = serde_json::from_str(body).unwrap_or_default();
    let shown = ctl::why::told(&document);
    assert!(shown.ends_with('\n'), "{shown:?} of {body}");
    let position = understood("http://n", body, from_position);
    if let Outcome::Done(answer) = &position {
        position_of(answer, &document);
    }
    let status = understood("http://n", body, |document| from_status(document, "demo"));
    if let Outcome::Done(answer) = &status {
        status_of(answer, &document);
    }
    for refusal in [&position, &status, &no_position("http://n", 404, body)] {
        match refusal {
            Outcome::Done(_) => {}
            Outcome::Refused(why) => assert!(why.to_string().chars().count() <= REFUSAL_CHARS_MAX, "{why}"),
            Outcome::Unknown(why) => panic!("an answer that came is known: {why}"),
        }
    }
    match (position, status) {
        (Outcome::Done(_), Outcome::Done(_)) => "both",
        (Outcome::Done(answer), _) if answer.pledge.is_some() => "a position with a pledge",
        (Outcome::Done(_), _) => "a position",
        (_, Outcome::Done(answer)) if answer.primary => "the status of a primary",
        (_, Outcome::Done(_)) => "the status of a standby",
        _ if document.get("rungs").is_some() => "an explanation",
        _ => "no position",
    }
}

/// No number is another than the one that was told, what is compared along is in order, and it is the same told again.
fn position_of(answer: &PeerAnswer, document: &Value) {
    let again = position_document(answer).to_string();
    assert_eq!(understood("http://n", &again, from_position).done().as_ref(), Some(answer), "{document}");
    let number = |value: &Value| value.as_u64().map(u128::from);
    assert_eq!(number(&document["timeline"]), Some(u128::from(answer.history.timeline.0)), "{document}");
    let mut last = (Timeline(0), Lsn(0));
    for (index, ancestor) in answer.history.ancestors.iter().enumerate() {
        let line = &document["history"][index];
        assert_eq!(number(&line[0]), Some(u128::from(ancestor.timeline.0)), "{document}");
        assert!(index == 0 || last.0 < ancestor.timeline, "timelines in no order: {document}");
        assert!(last.1 <= ancestor.end && ancestor.timeline < answer.history.timeline, "in no order: {document}");
        last = (ancestor.timeline, ancestor.end);
    }
    assert_eq!(document["history"].as_array().map(Vec::len), Some(answer.history.ancestors.len()));
    for (key, read) in [("flushed", answer.flushed), ("replayed", answer.replayed)] {
        let (high, low) = document[key].as_str().and_then(|text| text.trim().split_once('/')).expect("a position");
        let digits = |text: &str| u128::from_str_radix(text, 16).expect("digits");
        assert_eq!((digits(high) << 32) + digits(low), u128::from(read.0), "{document}");
    }
    assert_eq!(answer.pledge.map(|pledge| pledge.0), document["pledge"].as_i64(), "{document}");
}

/// Patroni gives no pledge and tells no history, and every number is one of the document.
fn status_of(answer: &PeerAnswer, document: &Value) {
    assert_eq!((answer.pledge, answer.history.ancestors.len()), (None, 0));
    assert_ne!(answer.primary, answer.receives);
    let xlog = document.get("wal").unwrap_or(&document["xlog"]);
    let told = |lsn: Lsn| lsn == Lsn(0) || xlog.as_object().is_some_and(|all| all.values().any(|v| *v == lsn.0));
    assert!(told(answer.flushed) && told(answer.replayed), "{answer:?} of {document}");
    assert!(answer.primary || answer.flushed >= answer.replayed, "it has replayed what it has not: {document}");
    let timeline = answer.history.timeline;
    assert!(timeline == Timeline(0) || document["timeline"] == timeline.0, "{timeline} of {document}");
    assert!(answer.barred || document["tags"]["nofailover"] != true, "one that may not lead could: {document}");
}

/// The `api_url` of a member record: what is asked there is asked at that authority and by that path, or not at all.
pub fn api_url(text: &str) -> &'static str {
    if let Err(error) = http::build(Method::GET, text, None, None) {
        assert!(error.to_string().contains(text) && !error.is_ambiguous(), "{error}");
    }
    let Some(base) = http::base_url(text) else { return "no base" };
    assert!(text.starts_with(base), "{base} of {text}");
    assert_eq!(http::base_url(base), Some(base), "of {text}");
    let path = "/matriarch/position";
    let Ok((address, secure, request)) = http::build(Method::POST, &format!("{base}{path}"), None, None) else {
        return "no address";
    };
    assert_eq!(request.uri().to_string(), path, "{text} leads elsewhere");
    assert_eq!(secure, text.to_ascii_lowercase().starts_with("https:"), "{text}");
    let authority = base.split_once("://").map(|(_, authority)| authority).unwrap_or_default();
    assert_eq!(request.headers().get(HOST).map(HeaderValue::as_bytes), Some(authority.as_bytes()), "{text}");
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    assert!(port.is_some(), "{address} of {text} has no port");
    "an address"
}
