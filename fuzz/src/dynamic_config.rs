//! The key `config`: operators write it by hand. What is accepted keeps the rule of timings, what is refused says why,
//! and what is shown of it as YAML is the same JSON.

use std::time::Duration;

use matriarch::config::{DynamicConfig, to_yaml, yaml};
use serde_json::{Value, json};

/// The target.
pub fn target(data: &[u8]) -> String {
    let Ok(document) = serde_json::from_slice::<Value>(data) else { return "no JSON".into() };
    shown(&document);
    let (config, warnings) = match DynamicConfig::from_json(&document) {
        Ok(accepted) => accepted,
        Err(why) => {
            assert!(!why.is_empty());
            return format!("refused: {why}");
        }
    };
    let (ttl, wait, retry) = (config.ttl, config.loop_wait, config.retry_timeout);
    let second = Duration::from_secs(1);
    assert!(ttl >= second && wait >= second && retry >= second, "{ttl:?} {wait:?} {retry:?} of {document}");
    assert!(wait + 2 * retry <= ttl || ttl < 3 * second, "{ttl:?} {wait:?} {retry:?} of {document}");
    assert!(config.synchronous_node_count >= 1);
    assert!(warnings.iter().all(|warning| !warning.is_empty()));
    // null is absent, and an unknown key changes nothing.
    let mut without = document.clone();
    if let Value::Object(map) = &mut without {
        map.retain(|_, value| !value.is_null());
        map.insert("an unknown key".to_owned(), json!({"a": [1, null]}));
    }
    let (same, _) = DynamicConfig::from_json(&without).expect("nothing that is refused was added");
    assert_eq!(same, config, "{document}");
    format!("a configuration, {} warnings", warnings.len())
}

/// `show-config` and `edit-config` show it so.
fn shown(document: &Value) {
    let text = to_yaml(document);
    let read = yaml::parse(&text).unwrap_or_else(|error| panic!("{error}: {text:?} of {document}"));
    assert_eq!(read.to_json(), *document, "{text}");
}
