//! What another host answers when it is asked for its position, and the addresses that member records name: whoever writes
//! into the store or listens at a member's port says anything.

use matriarch::fuzz::{api_url, peer_answer};

use crate::input::texts;

/// The target: the body of an answer, and a member's `api_url`.
pub fn target(data: &[u8]) -> String {
    let Some(texts) = texts(data) else { return "no text".into() };
    let text = |index: usize| texts.get(index).copied().unwrap_or_default();
    format!("{}; {}", peer_answer(text(0)), api_url(text(1)))
}
