//! api
use std::sync::Arc; use std::pin::Pin; use std::future::Future;
/// x
pub struct Fresh;
/// x
pub type FreshRead = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Fresh, String>> + Send>> + Send + Sync + 'static>;
/// x
#[derive(Clone)]
pub struct ApiSettings { /// x
 pub authentication: Option<crate::http::BasicAuth>, /// x
 pub extra_headers: Vec<(String,String)>, /// x
 pub server_tokens: String, /// x
 pub fresh: FreshRead }
/// x
pub async fn read_fresh(_s: &crate::store::EtcdStore, _b: &str) -> Result<Fresh, String> { Err(String::new()) }
/// x
pub async fn serve(_l: tokio::net::TcpListener, _h: crate::agent::handle::Handle, _s: tokio::sync::watch::Receiver<ApiSettings>) { std::future::pending::<()>().await }
