//! Waiting for something to become true.

use std::time::{Duration, Instant};

/// Asks `condition` again and again until it answers; `what` and the last objection are the message of the panic if it
/// does not within `limit`.
pub async fn eventually<T>(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> Result<T, String>) -> T {
    let until = Instant::now() + limit;
    loop {
        match condition().await {
            Ok(value) => return value,
            Err(objection) if Instant::now() >= until => {
                panic!("not within {} s: {what}: {objection}", limit.as_secs_f32())
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// [`eventually`] for a condition that is true or false.
pub async fn wait_until(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> bool) {
    eventually(what, limit, async || if condition().await { Ok(()) } else { Err("it is not so".to_owned()) }).await;
}
