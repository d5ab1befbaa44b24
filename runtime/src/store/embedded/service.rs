//! etcd's gRPC services, each request handed to the engine.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use etcd_client::proto::{
    PbAlarmRequest, PbAlarmResponse, PbClusterServer, PbClusterService, PbCompactionRequest, PbCompactionResponse,
    PbDefragmentRequest, PbDefragmentResponse, PbDeleteRequest, PbDeleteResponse, PbDowngradeRequest,
    PbDowngradeResponse, PbHashKvRequest, PbHashKvResponse, PbHashRequest, PbHashResponse, PbKvServer, PbKvService,
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse, PbLeaseLeasesRequest,
    PbLeaseLeasesResponse, PbLeaseRevokeRequest, PbLeaseRevokeResponse, PbLeaseServer, PbLeaseService, PbLeaseStatus,
    PbLeaseTimeToLiveRequest, PbLeaseTimeToLiveResponse, PbMaintenanceServer, PbMaintenanceService, PbMember,
    PbMemberAddRequest, PbMemberAddResponse, PbMemberListRequest, PbMemberListResponse, PbMemberPromoteRequest,
    PbMemberPromoteResponse, PbMemberRemoveRequest, PbMemberRemoveResponse, PbMemberUpdateRequest,
    PbMemberUpdateResponse, PbMoveLeaderRequest, PbMoveLeaderResponse, PbPutRequest, PbPutResponse, PbRangeRequest,
    PbRangeResponse, PbRangeStreamResponse, PbResponseHeader, PbSnapshotRequest, PbSnapshotResponse, PbStatusRequest,
    PbStatusResponse, PbTxnRequest, PbTxnResponse, PbWatchRequest, PbWatchRequestUnion, PbWatchResponse, PbWatchServer,
    PbWatchService,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use super::engine::Handle;
use super::query::{self, KeyRange};
use super::state::State;
use super::watches::{RESPONSES_WAITING_MAX, Wanted, WatchCommand};

type Reply<T> = Result<Response<T>, Status>;
type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Keep-alives of one stream that wait for their replies to be read.
const KEEP_ALIVES_WAITING_MAX: usize = 16;

/// The services of one store. Cheap to clone.
#[derive(Clone)]
pub(super) struct Services {
    engine: Handle,
    /// What the member list tells clients to connect to.
    client_url: Arc<str>,
    streams: Arc<AtomicU64>,
}

impl Services {
    pub(super) fn new(engine: Handle, client_url: &str) -> Self {
        Self { engine, client_url: client_url.into(), streams: Arc::default() }
    }

    pub(super) fn routes(self) -> Routes {
        Routes::new(PbKvServer::new(self.clone()))
            .add_service(PbLeaseServer::new(self.clone()))
            .add_service(PbWatchServer::new(self.clone()))
            .add_service(PbClusterServer::new(self.clone()))
            .add_service(PbMaintenanceServer::new(self))
    }

    async fn header(&self) -> Result<PbResponseHeader, Status> {
        self.engine.call(|draft| Ok(draft.state.header())).await
    }
}

fn only_one<T>(what: &str) -> Result<T, Status> {
    Err(Status::unimplemented(format!("etcdserver: the embedded store has one member and no {what}")))
}

#[tonic::async_trait]
impl PbKvService for Services {
    async fn range(&self, request: Request<PbRangeRequest>) -> Reply<PbRangeResponse> {
        let request = request.into_inner();
        self.engine.call(move |draft| query::range(&draft.state, &request)).await.map(Response::new)
    }

    type RangeStreamStream = BoxStream<PbRangeStreamResponse>;

    async fn range_stream(&self, _: Request<PbRangeRequest>) -> Reply<Self::RangeStreamStream> {
        only_one("streamed ranges")
    }

    async fn put(&self, request: Request<PbPutRequest>) -> Reply<PbPutResponse> {
        let request = request.into_inner();
        self.engine.call(move |draft| query::put(draft, request.clone())).await.map(Response::new)
    }

    async fn delete_range(&self, request: Request<PbDeleteRequest>) -> Reply<PbDeleteResponse> {
        let request = request.into_inner();
        self.engine.call(move |draft| query::delete(draft, &request)).await.map(Response::new)
    }

    async fn txn(&self, request: Request<PbTxnRequest>) -> Reply<PbTxnResponse> {
        let request = request.into_inner();
        self.engine.call(move |draft| query::transact(draft, request.clone())).await.map(Response::new)
    }

    async fn compact(&self, request: Request<PbCompactionRequest>) -> Reply<PbCompactionResponse> {
        let revision = request.into_inner().revision;
        let header = self.header().await?;
        if revision > header.revision {
            return Err(Status::out_of_range("etcdserver: mvcc: required revision is a future revision"));
        }
        self.engine.watch(WatchCommand::Compact { revision }).await?;
        Ok(Response::new(PbCompactionResponse { header: Some(header) }))
    }
}

#[tonic::async_trait]
impl PbLeaseService for Services {
    async fn lease_grant(&self, request: Request<PbLeaseGrantRequest>) -> Reply<PbLeaseGrantResponse> {
        let request = request.into_inner();
        let grant = self.engine.call(move |draft| {
            let (id, ttl) = draft.grant(request.id, request.ttl)?;
            Ok(PbLeaseGrantResponse { header: Some(draft.state.header()), id, ttl, error: String::new() })
        });
        grant.await.map(Response::new)
    }

    async fn lease_revoke(&self, request: Request<PbLeaseRevokeRequest>) -> Reply<PbLeaseRevokeResponse> {
        let id = request.into_inner().id;
        let revoke = self.engine.call(move |draft| {
            draft.revoke(id)?;
            Ok(PbLeaseRevokeResponse { header: Some(draft.state.header()) })
        });
        revoke.await.map(Response::new)
    }

    type LeaseKeepAliveStream = BoxStream<PbLeaseKeepAliveResponse>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<PbLeaseKeepAliveRequest>>,
    ) -> Reply<Self::LeaseKeepAliveStream> {
        let (engine, mut requests) = (self.engine.clone(), request.into_inner());
        let (out, replies) = mpsc::channel(KEEP_ALIVES_WAITING_MAX);
        tokio::spawn(async move {
            while let Some(Ok(PbLeaseKeepAliveRequest { id })) = requests.next().await {
                let reply = engine.call(move |draft| {
                    let ttl = draft.keep_alive(id);
                    Ok(PbLeaseKeepAliveResponse { header: Some(draft.state.header()), id, ttl })
                });
                if out.send(reply.await).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(replies))))
    }

    async fn lease_time_to_live(&self, request: Request<PbLeaseTimeToLiveRequest>) -> Reply<PbLeaseTimeToLiveResponse> {
        let PbLeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let tell = self.engine.call(move |draft| {
            let none =
                PbLeaseTimeToLiveResponse { header: Some(draft.state.header()), id, ttl: -1, ..Default::default() };
            let lease = draft.state.leases.get(&id);
            Ok(lease.map_or(none.clone(), |lease| PbLeaseTimeToLiveResponse {
                ttl: lease.deadline.since(draft.now).as_secs() as i64,
                granted_ttl: lease.ttl_seconds,
                keys: lease.keys.iter().filter(|_| keys).cloned().collect(),
                ..none
            }))
        });
        tell.await.map(Response::new)
    }

    async fn lease_leases(&self, _: Request<PbLeaseLeasesRequest>) -> Reply<PbLeaseLeasesResponse> {
        let list = self.engine.call(|draft| {
            let leases = draft.state.leases.keys().map(|id| PbLeaseStatus { id: *id }).collect();
            Ok(PbLeaseLeasesResponse { header: Some(draft.state.header()), leases })
        });
        list.await.map(Response::new)
    }
}

#[tonic::async_trait]
impl PbWatchService for Services {
    type WatchStream = BoxStream<PbWatchResponse>;

    async fn watch(&self, request: Request<Streaming<PbWatchRequest>>) -> Reply<Self::WatchStream> {
        let (engine, mut requests) = (self.engine.clone(), request.into_inner());
        let stream = self.streams.fetch_add(1, Ordering::Relaxed);
        let (out, responses) = mpsc::channel(RESPONSES_WAITING_MAX);
        engine.watch(WatchCommand::Open { stream, out }).await?;
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                let Some(command) = watch_command(stream, request) else { continue };
                if engine.watch(command).await.is_err() {
                    return;
                }
            }
            // If the engine is gone, so is the stream.
            drop(engine.watch(WatchCommand::Close { stream }).await);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }
}

fn watch_command(stream: u64, request: PbWatchRequest) -> Option<WatchCommand> {
    Some(match request.request_union? {
        PbWatchRequestUnion::CreateRequest(create) => {
            let wanted = Wanted {
                range: KeyRange::new(&create.key, &create.range_end),
                from: create.start_revision,
                watch_id: create.watch_id,
                prev_kv: create.prev_kv,
                no_puts: create.filters.contains(&0),
                no_deletes: create.filters.contains(&1),
            };
            WatchCommand::Create { stream, wanted }
        }
        PbWatchRequestUnion::CancelRequest(cancel) => WatchCommand::Cancel { stream, watch_id: cancel.watch_id },
        PbWatchRequestUnion::ProgressRequest(_) => WatchCommand::Progress { stream },
    })
}

#[tonic::async_trait]
impl PbClusterService for Services {
    async fn member_list(&self, _: Request<PbMemberListRequest>) -> Reply<PbMemberListResponse> {
        let header = self.header().await?;
        let member = PbMember {
            id: header.member_id,
            name: "matriarch-store".to_owned(),
            client_ur_ls: vec![self.client_url.to_string()],
            ..PbMember::default()
        };
        Ok(Response::new(PbMemberListResponse { header: Some(header), members: vec![member] }))
    }

    async fn member_add(&self, _: Request<PbMemberAddRequest>) -> Reply<PbMemberAddResponse> {
        only_one("change of members")
    }

    async fn member_remove(&self, _: Request<PbMemberRemoveRequest>) -> Reply<PbMemberRemoveResponse> {
        only_one("change of members")
    }

    async fn member_update(&self, _: Request<PbMemberUpdateRequest>) -> Reply<PbMemberUpdateResponse> {
        only_one("change of members")
    }

    async fn member_promote(&self, _: Request<PbMemberPromoteRequest>) -> Reply<PbMemberPromoteResponse> {
        only_one("change of members")
    }
}

#[tonic::async_trait]
impl PbMaintenanceService for Services {
    async fn status(&self, _: Request<PbStatusRequest>) -> Reply<PbStatusResponse> {
        let size = |state: &State| -> usize { state.keys.values().map(|kv| kv.key.len() + kv.value.len()).sum() };
        let tell = self.engine.call(move |draft| {
            let header = draft.state.header();
            Ok(PbStatusResponse {
                version: concat!("3.5.0-matriarch-", env!("CARGO_PKG_VERSION")).to_owned(),
                db_size: size(&draft.state) as i64,
                leader: header.member_id,
                raft_term: header.raft_term,
                raft_index: header.revision.unsigned_abs(),
                header: Some(header),
                ..PbStatusResponse::default()
            })
        });
        tell.await.map(Response::new)
    }

    async fn alarm(&self, _: Request<PbAlarmRequest>) -> Reply<PbAlarmResponse> {
        let header = Some(self.header().await?);
        Ok(Response::new(PbAlarmResponse { header, ..PbAlarmResponse::default() }))
    }

    async fn defragment(&self, _: Request<PbDefragmentRequest>) -> Reply<PbDefragmentResponse> {
        only_one("defragmentation")
    }

    async fn hash(&self, _: Request<PbHashRequest>) -> Reply<PbHashResponse> {
        only_one("hashes")
    }

    async fn hash_kv(&self, _: Request<PbHashKvRequest>) -> Reply<PbHashKvResponse> {
        only_one("hashes")
    }

    type SnapshotStream = BoxStream<PbSnapshotResponse>;

    async fn snapshot(&self, _: Request<PbSnapshotRequest>) -> Reply<Self::SnapshotStream> {
        only_one("etcd snapshots: copy its data directory instead")
    }

    async fn move_leader(&self, _: Request<PbMoveLeaderRequest>) -> Reply<PbMoveLeaderResponse> {
        only_one("other leader")
    }

    async fn downgrade(&self, _: Request<PbDowngradeRequest>) -> Reply<PbDowngradeResponse> {
        only_one("downgrade")
    }
}
