//! Whatever listens at a leader's port says anything: the client believes it or gives up, within bounds, and tells no
//! password.

use matriarch::fuzz::wal_sender;
use matriarch_core::id::Timeline;

/// The target: a timeline, and what the server says.
pub fn target(data: &[u8]) -> String {
    let Some((timeline, said)) = data.split_first() else { return "nothing".into() };
    wal_sender(said, Timeline(u32::from(*timeline))).into()
}
