//! What a node finds of its last agent: the small files of the state directory, and the configuration in the data directory.
//! A crash tears them, a disk garbles them; what is no whole value counts for nothing.

use matriarch::fuzz::{configuration_file, state_file};

/// The target: a file's bytes, whichever it is.
pub fn target(data: &[u8]) -> String {
    format!("{}; {}", state_file(data), configuration_file(data))
}
