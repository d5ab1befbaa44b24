//! Whoever reaches the guard's socket says anything.

use matriarch::fuzz::guard_messages;

/// The longest input: twice the longest line, within what a socket's buffer holds.
const BYTES_MAX: usize = 130 * 1024;

/// The target.
pub fn target(data: &[u8]) -> String {
    guard_messages(&data[..data.len().min(BYTES_MAX)])
}
