//! Keep-alives of a lease. Not through `etcd_client`, which consumes the first reply with its ttl and term. etcd asks
//! for no token here.

use std::time::Duration;

use etcd_client::proto::{PbLeaseKeepAliveRequest as Question, PbLeaseKeepAliveResponse as Reply};
use matriarch_core::id::{LeaseId, Revision};
use matriarch_core::op::Refusal;
use matriarch_core::time::Instant;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::Renewed;
use super::member::{Fault, Member};

/// One keep-alive on a stream of its own, so that a broken stream costs one attempt and no more.
pub(super) async fn once(member: &Member, lease: LeaseId) -> Result<Renewed, Fault> {
    let (mut replies, asked) = open(member, tokio_stream::once(Question { id: lease.0 })).await?;
    answer(member, lease, &mut replies, asked).await
}

/// A stream that is kept from one keep-alive to the next: a question on it is one packet and no new request, and an idle
/// primary asks it for ever.
pub(super) struct Keeper {
    questions: mpsc::Sender<Question>,
    replies: Streaming<Reply>,
}

/// One keep-alive on the stream that is kept, or on a new one. Whoever gives up waiting takes the stream with him: the
/// reply that came too late would be taken for the next one's.
pub(super) async fn again(member: &Member, lease: LeaseId) -> Result<Renewed, Fault> {
    let kept = member.take_keeper();
    if let Some(mut keeper) = kept {
        let asked = member.clock.now();
        // What ended the stream, perhaps long ago, is no answer: a new one tells.
        if keeper.questions.try_send(Question { id: lease.0 }).is_ok()
            && let Ok(Some(reply)) = keeper.replies.message().await
        {
            let renewed = judged(member, lease, reply, asked)?;
            member.keep(keeper);
            return Ok(renewed);
        }
    }
    let (questions, asked) = mpsc::channel(1);
    // There is room for one.
    questions.try_send(Question { id: lease.0 }).ok();
    let (mut replies, asked) = open(member, ReceiverStream::new(asked)).await?;
    let renewed = answer(member, lease, &mut replies, asked).await?;
    member.keep(Keeper { questions, replies });
    Ok(renewed)
}

/// Opens a stream, and tells when what is to be asked on it was handed over. Returns when the first reply begins.
async fn open(
    member: &Member,
    questions: impl Stream<Item = Question> + Send + 'static,
) -> Result<(Streaming<Reply>, Instant), Fault> {
    let mut grpc = Grpc::new(member.channel());
    grpc.ready().await.map_err(|error| member.status(&Status::from_error(error.into())))?;
    let mut request = Request::new(questions);
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    let path = http::uri::PathAndQuery::from_static("/etcdserverpb.Lease/LeaseKeepAlive");
    let asked = member.clock.now();
    let codec = ProstCodec::<Question, Reply>::default();
    let reply = grpc.streaming(request, path, codec).await.map_err(|status| member.status(&status))?;
    Ok((reply.into_inner(), asked))
}

async fn answer(
    member: &Member,
    lease: LeaseId,
    replies: &mut Streaming<Reply>,
    asked: Instant,
) -> Result<Renewed, Fault> {
    let reply = replies.message().await.map_err(|status| member.status(&status))?;
    let reply = reply.ok_or_else(|| Fault::Ambiguous(format!("{}: no reply to a keep-alive", member.host)))?;
    judged(member, lease, reply, asked)
}

fn judged(member: &Member, lease: LeaseId, reply: Reply, asked: Instant) -> Result<Renewed, Fault> {
    let heard = member.clock.now();
    let Some(head) = reply.header.filter(|_| reply.id == lease.0) else {
        return Err(Fault::Ambiguous(format!(
            "{}: a keep-alive's reply without a header, or for another",
            member.host
        )));
    };
    if reply.ttl <= 0 {
        return Err(Fault::Refused(Refusal::LeaseGone));
    }
    let ttl = Duration::from_secs(reply.ttl.unsigned_abs());
    Ok(Renewed { ttl, asked, heard, raft_term: head.raft_term, revision: Revision(head.revision) })
}
