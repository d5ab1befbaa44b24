//! The API over TLS.

use tokio::net::TcpStream;

use super::*;
use crate::net::BoxStream;
use crate::tls::testing::Certificates;
use crate::tls::{self, ClientSlot, Trust, VerifyClient};

/// A leader that serves by this TLS.
async fn secure(server: tls::Server) -> Node {
    serve_with(leading(Duration::from_secs(20)), ApiSettings { tls: Some(server), ..settings() }).await
}

fn with(client: tls::Client) -> Client {
    Client::with_tls(Connector::tcp(LIMIT), ClientSlot::new(client))
}

#[tokio::test]
async fn certificates_are_asked_for_as_patroni_does() {
    let files = Certificates::make();
    let ca = "ca.pem";
    let clients = [None, Some("client"), Some("foreign")];
    for (verify, anonymous, certified, foreign) in [
        // What a safe and an unsafe endpoint answer; nothing: there is no connection.
        (VerifyClient::None, Some((200, 202)), Some((200, 202)), Some((200, 202))),
        (VerifyClient::Optional, Some((200, 403)), Some((200, 202)), None),
        (VerifyClient::Required, None, Some((200, 202)), None),
    ] {
        let node = secure(files.server("server", verify, ca)).await;
        for (shown, expected) in clients.into_iter().zip([anonymous, certified, foreign]) {
            let client = with(files.client(Trust::Name, ca, shown));
            let ask = async |method, path: &str| {
                client.request(method, &format!("{}{path}", node.base), None, None, LIMIT).await
            };
            let (safe, health) = (ask(Method::GET, "/patroni").await, ask(Method::OPTIONS, "/primary").await);
            let reload = ask(Method::POST, "/reload").await;
            let case = format!("{verify:?} {shown:?}: {safe:?} {reload:?}");
            let Some((safe_code, unsafe_code)) = expected else {
                assert!(safe.is_err() && health.is_err() && reload.is_err(), "{case}");
                continue;
            };
            assert_eq!((safe.unwrap().0, health.unwrap().0), (safe_code, safe_code), "{case}");
            let text = if unsafe_code == 403 { "client certificate required" } else { "reload scheduled" };
            assert_eq!(reload.unwrap(), (unsafe_code, text.to_owned()), "{case}");
        }
    }
}

#[tokio::test]
async fn without_an_authority_no_certificate_opens_the_unsafe_endpoints() {
    let files = Certificates::make();
    let settings = files.server_settings(files.identity("server"), VerifyClient::Optional, "ca.pem");
    let node = secure(tls::Server::load(tls::ServerSettings { authorities: None, ..settings }).unwrap()).await;
    let client = with(files.client(Trust::Name, "ca.pem", Some("client")));
    let url = format!("{}/reload", node.base);
    let answer = client.request(Method::POST, &url, None, None, LIMIT).await.unwrap();
    assert_eq!(answer, (403, "client certificate required".to_owned()));
}

#[tokio::test]
async fn agents_ask_each_other_over_tls() {
    let files = Certificates::make();
    let node = secure(files.server("server", VerifyClient::Required, "ca.pem")).await;
    let url = format!("{}/patroni", node.base);
    let agent = with(files.client(Trust::Chain, "ca.pem", Some("client")));
    let absent_at = Revision(7);
    let answer = Peers::new(agent.clone(), "demo").ask_position(&url, true, absent_at, LIMIT).await;
    assert_eq!(answer, Outcome::Done(pledged(absent_at)));
    let beyond = Peers::new(agent.clone(), "demo").await_replay(&url, true, Lsn(1), LIMIT).await;
    assert!(beyond.done().is_some());
    // Whoever is turned away was not heard.
    let stranger = with(files.client(Trust::Anyone, "ca.pem", None));
    let answer = Peers::new(stranger.clone(), "demo").ask_position(&url, true, absent_at, LIMIT).await;
    assert!(!matches!(answer, Outcome::Done(_)), "{answer:?}");
    assert_eq!(node.told().iter().filter(|told| told.starts_with("PositionAsked")).count(), 1);
}

/// One request and its answer on a connection that is kept.
async fn kept_alive(stream: &mut BoxStream) -> String {
    stream.write_all(b"GET /liveness HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections_and_drops_no_old_one() {
    let files = Certificates::make();
    let server = files.server("server", VerifyClient::None, "ca.pem");
    let node = secure(server.clone()).await;
    let slot = ClientSlot::new(files.client(Trust::Name, "ca.pem", None));
    let address = node.base.trim_start_matches("https://");
    let mut kept = Connector::tcp(LIMIT).over_tls(slot).connect(address).await.unwrap();
    assert!(kept_alive(&mut kept).await.starts_with("HTTP/1.1 200"));

    files.copy("renewed.pem", "server.pem");
    files.copy("renewed.key", "server.key");
    let renewed = server.renewed().unwrap();
    node.settings.send_modify(|settings| settings.tls = renewed);
    assert!(kept_alive(&mut kept).await.starts_with("HTTP/1.1 200"));
    for (authority, is_good) in [("ca.pem", false), ("foreign-ca.pem", true)] {
        let client = with(files.client(Trust::Name, authority, None));
        let url = format!("{}/primary", node.base);
        assert_eq!(client.request(Method::GET, &url, None, None, LIMIT).await.is_ok(), is_good, "{authority}");
    }
}

#[tokio::test]
async fn clients_that_do_not_shake_hands_keep_nobody_waiting_and_are_let_go() {
    let files = Certificates::make();
    let node = secure(files.server("server", VerifyClient::None, "ca.pem")).await;
    let address = node.base.trim_start_matches("https://");
    let mut hung = Vec::new();
    for _ in 0..super::super::CONNECTIONS_MAX / 2 {
        hung.push(TcpStream::connect(address).await.unwrap());
    }
    // Half of a greeting: a record of 512 bytes is announced.
    hung[0].write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    let client = with(files.client(Trust::Name, "ca.pem", None));
    let url = format!("{}/primary", node.base);
    let asked = client.request(Method::GET, &url, None, None, super::super::HANDSHAKE_LIMIT / 2).await;
    assert_eq!(asked.unwrap().0, 200);
    for mut stream in hung {
        let ended = tokio::time::timeout(LIMIT, stream.read(&mut [0; 16])).await;
        assert!(matches!(ended, Ok(Ok(0) | Err(_))), "it is waited for without an end: {ended:?}");
    }
    // Whoever speaks no TLS has no answer, and no place either.
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET /primary HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(LIMIT, plain.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}
