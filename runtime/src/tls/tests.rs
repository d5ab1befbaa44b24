//! Handshakes over a pipe, and files that cannot be used.

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::testing::Certificates;
use super::*;

/// What came of a handshake: at the server whether the client has shown a certificate, at the client the server's first
/// byte. A client of TLS 1.3 has shaken hands before the server has looked at its certificate.
async fn shake(server: &Server, client: &Client, address: &str) -> (Result<bool, String>, Result<u8, String>) {
    let (ours, theirs) = duplex(1 << 16);
    let slot = ClientSlot::new(client.clone());
    let serve = async {
        let (mut stream, certified) = server.accept(Box::new(ours)).await.map_err(|error| error.to_string())?;
        stream.write_all(b"x").await.map_err(|error| error.to_string())?;
        stream.shutdown().await.map_err(|error| error.to_string())?;
        Ok(certified)
    };
    let connect = async {
        let mut stream = slot.connect(address, Box::new(theirs)).await.map_err(|error| error.to_string())?;
        stream.read_u8().await.map_err(|error| error.to_string())
    };
    tokio::join!(serve, connect)
}

#[tokio::test]
async fn clients_are_asked_for_what_is_configured() {
    use VerifyClient::{None as Nothing, Optional, Required};
    let files = Certificates::make();
    for (verify, shown, expected) in [
        (Nothing, None, Some(false)),
        (Nothing, Some("client"), Some(false)),
        (Optional, None, Some(false)),
        (Optional, Some("client"), Some(true)),
        (Optional, Some("foreign"), None),
        (Required, None, None),
        (Required, Some("client"), Some(true)),
        (Required, Some("foreign"), None),
    ] {
        let server = files.server("server", verify, "ca.pem");
        let client = files.client(Trust::Name, "ca.pem", shown);
        let (served, answered) = shake(&server, &client, "127.0.0.1:1").await;
        assert_eq!(served.clone().ok(), expected, "{verify:?} {shown:?}: {served:?}");
        assert_eq!(answered.is_ok(), expected.is_some(), "{verify:?} {shown:?}: {answered:?}");
    }
}

#[tokio::test]
async fn servers_are_verified_as_far_as_is_asked() {
    let files = Certificates::make();
    let server = |name: &str| files.server(name, VerifyClient::None, "ca.pem");
    for (trust, shown, address, good) in [
        (Trust::Name, "server", "127.0.0.1:1", true),
        (Trust::Name, "server", "[::1]:1", true),
        (Trust::Name, "server", "localhost:1", true),
        (Trust::Name, "server", "127.0.0.2:1", false),
        (Trust::Name, "server", "elsewhere:1", false),
        (Trust::Name, "renewed", "127.0.0.1:1", false),
        (Trust::Chain, "server", "elsewhere:1", true),
        (Trust::Chain, "renewed", "127.0.0.1:1", false),
        (Trust::Anyone, "renewed", "elsewhere:1", true),
        (Trust::Anyone, "v1", "elsewhere:1", true),
        (Trust::Anyone, "expired", "elsewhere:1", true),
    ] {
        let client = files.client(trust, "ca.pem", None);
        let (_, answered) = shake(&server(shown), &client, address).await;
        assert_eq!(answered.is_ok(), good, "{trust:?} {shown} {address}: {answered:?}");
    }
    let refused = shake(&server("renewed"), &files.client(Trust::Chain, "ca.pem", None), "h:8008").await.1.unwrap_err();
    assert!(
        refused.contains("no TLS with h:8008") && refused.contains("UnknownIssuer; no authority that is trusted"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_certificate_that_signed_itself_is_taken_where_it_is_trusted_itself() {
    let files = Certificates::make();
    let server = files.server("self", VerifyClient::Required, "self.pem");
    let client = files.client(Trust::Name, "self.pem", Some("self"));
    assert_eq!(shake(&server, &client, "localhost:1").await, (Ok(true), Ok(b'x')));
    assert!(shake(&server, &client, "elsewhere:1").await.1.is_err(), "the name counts all the same");
    let stranger = files.client(Trust::Chain, "ca.pem", Some("self"));
    assert!(shake(&server, &stranger, "localhost:1").await.1.is_err());

    let expired = files.server("expired", VerifyClient::None, "ca.pem");
    let client = files.client(Trust::Chain, "expired.pem", None);
    let refused = shake(&expired, &client, "localhost:1").await.1.unwrap_err();
    assert!(refused.to_lowercase().contains("expired"), "{refused}");
}

#[tokio::test]
async fn a_key_is_read_in_every_form_that_is_supported() {
    let files = Certificates::make();
    let bundle = Identity { certificate: files.path("bundle.pem"), key: None, password: None };
    for identity in [bundle, files.with_key("encrypted.key", Some("secret"))] {
        let settings = files.server_settings(identity, VerifyClient::None, "ca.pem");
        let server = Server::load(settings).unwrap();
        let client = files.client(Trust::Name, "ca.pem", None);
        assert_eq!(shake(&server, &client, "127.0.0.1:1").await, (Ok(false), Ok(b'x')));
    }
}

#[test]
fn what_cannot_be_used_is_named() {
    let files = Certificates::make();
    std::fs::write(files.path("empty"), "").unwrap();
    std::fs::write(files.path("garbled"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    std::fs::write(files.path("large"), vec![b'x'; 2 << 20]).unwrap();
    let certificate = |file: &str| Identity { certificate: files.path(file), ..files.identity("server") };
    let keyless = Identity { key: None, ..files.identity("server") };
    for (identity, part, file, why) in [
        (certificate("missing"), Part::Certificate, "missing", "No such file"),
        (certificate("empty"), Part::Certificate, "empty", "holds no certificate"),
        (certificate("garbled"), Part::Certificate, "garbled", "not one of X.509"),
        (certificate("large"), Part::Certificate, "large", "is it the right file?"),
        (certificate("client.pem"), Part::Key, "server.key", "does not belong to the certificate in"),
        (keyless, Part::Key, "server.pem", "holds no private key"),
        (files.with_key("missing", None), Part::Key, "missing", "No such file"),
        (files.with_key("ca.pem", None), Part::Key, "ca.pem", "holds no private key"),
        (files.with_key("encrypted.key", None), Part::Key, "encrypted.key", "no password is configured"),
        (files.with_key("encrypted.key", Some("wrong")), Part::Password, "encrypted.key", "cannot be decrypted"),
        (files.with_key("old.key", Some("secret")), Part::Key, "old.key", "openssl pkcs8 -topk8"),
    ] {
        let settings = files.server_settings(identity, VerifyClient::Optional, "ca.pem");
        let unusable = Server::load(settings).unwrap_err();
        assert_eq!(unusable.part, part, "{unusable}");
        let text = unusable.to_string();
        assert!(text.contains(&files.path(file).display().to_string()) && text.contains(why), "{text}");
    }
    for file in ["missing", "empty", "garbled", "client.key"] {
        let settings = files.server_settings(files.identity("server"), VerifyClient::Optional, file);
        let unusable = Server::load(settings).unwrap_err();
        assert!(unusable.part == Part::Authorities && unusable.to_string().contains(file), "{unusable}");
    }
}

#[tokio::test]
async fn files_that_changed_are_taken_in_once_they_fit_each_other() {
    let files = Certificates::make();
    let server = files.server("server", VerifyClient::None, "ca.pem");
    assert_eq!(server.renewed(), Ok(None));
    files.copy("renewed.pem", "server.pem");
    let unusable = server.renewed().unwrap_err();
    assert_eq!(unusable.part, Part::Key, "{unusable}");
    files.copy("renewed.key", "server.key");
    let renewed = server.renewed().unwrap().unwrap();
    assert!(renewed == server && !renewed.is_as(&server), "the same configuration, and other contents");
    for (server, authority) in [(&server, "ca.pem"), (&renewed, "foreign-ca.pem")] {
        let client = files.client(Trust::Name, authority, None);
        assert_eq!(shake(server, &client, "127.0.0.1:1").await, (Ok(false), Ok(b'x')), "{authority}");
    }
    assert_eq!(renewed.renewed(), Ok(None));
}

#[tokio::test]
async fn a_server_that_says_nothing_costs_a_limit() {
    let files = Certificates::make();
    let (_silent, theirs) = duplex(1 << 16);
    let slot = ClientSlot::new(files.client(Trust::Anyone, "ca.pem", None));
    let text = slot.connect("h:1", Box::new(theirs)).await.err().unwrap().to_string();
    assert_eq!(text, "no TLS with h:1: no answer in time");
}
