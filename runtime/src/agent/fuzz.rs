//! What must hold of whatever stands in the state directory (`fuzz/`).

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::promises::{Epoch, Pause, Pledge, Slots, understood};

/// The bytes of a file, as each of those that a node keeps: what is no such value does not count, and a value is the same
/// once it was written. What they were taken for.
pub fn state_file(bytes: &[u8]) -> String {
    let kinds = [
        ("epoch", kept_again::<Epoch>(bytes)),
        ("promises", kept_again::<Pledge>(bytes)),
        ("pause", kept_again::<Pause>(bytes)),
        ("slots", kept_again::<Slots>(bytes)),
    ];
    let taken: Vec<_> = kinds.into_iter().filter(|(_, counts)| *counts).map(|(name, _)| name).collect();
    if taken.is_empty() { "nothing".to_owned() } else { taken.join(", ") }
}

fn kept_again<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> bool {
    let Ok(value) = understood::<T>(bytes) else { return false };
    let written = serde_json::to_vec(&value).expect("memory");
    for torn in 0..written.len() {
        assert!(understood::<T>(&written[..torn]).is_err(), "{value:?}, torn after {torn} bytes, counts");
    }
    assert_eq!(understood::<T>(&written).ok(), Some(value), "{}", String::from_utf8_lossy(bytes));
    true
}
