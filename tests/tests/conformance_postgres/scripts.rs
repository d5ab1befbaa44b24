//! What is done to servers, and what is observed of them.

use matriarch_core::action::PostgresAction;
use matriarch_core::view::postgres::StopMode;

use crate::Servers;
use crate::facts::Script;

const A: usize = 0;
const B: usize = 1;

pub(crate) async fn handover<S: Servers>(s: &mut Script<S>) {
    s.begin(A).await;
    s.commit(A).await;
    s.copy(B, A).await;
    s.commit(A).await;
    s.level(B, A).await;
    s.look(A).await;
    s.look(B).await;

    s.stop(A, StopMode::Fast).await;
    s.look(A).await;
    let shutdown = s.servers.cluster(A).await.checkpoint;
    let received = s.sql(B).await.received;
    s.note("b has received the checkpoint of the shutdown", received > shutdown);
    s.until("b has replayed it", B, |sql| sql.replayed > shutdown).await;
    s.order(B, PostgresAction::Promote).await;
    s.look(B).await;
    let begun = s.servers.cluster(B).await.history.ancestors[0].end;
    s.note("b begins its timeline there", begun == received);
    s.commit(B).await;

    let upstream = s.servers.upstream(B);
    s.order(A, PostgresAction::Compare(upstream)).await;
    s.follows(A, B).await;
    s.level(A, B).await;
    s.look(A).await;
    s.look(B).await;
}
