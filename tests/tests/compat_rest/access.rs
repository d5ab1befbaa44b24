//! Who may ask what: TLS with and without clients' certificates, the allowlist, and members as part of it. One leader is
//! given one configuration after the other, by reloads, and is asked the same by clients of several kinds.

use std::path::Path;
use std::process::Command;

use matriarch::net::{BoxStream, Connector};
use matriarch::tls::Speaks;
use matriarch_tests::single::base;
use matriarch_tests::{Certificates, output_of};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::*;
use crate::shape::Login;

/// Tells that a configuration has come into force: in an answer's headers, which are no part of what is compared.
const MARK: &str = "x-configuration";

/// Writes what it is given to the address it is given, and prints what comes back until the connection ends or breaks.
const ASK: &str = "
import socket, sys
host, port = sys.argv[1].rsplit(':', 1)
try:
    with socket.create_connection((host, int(port)), 60) as s:
        s.sendall(sys.argv[2].encode())
        while data := s.recv(65536):
            sys.stdout.buffer.write(data)
except ConnectionError:
    pass
";

/// How a client comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Comes {
    /// From outside of the cluster, without TLS.
    Plainly,
    /// The same, from the host of another member.
    AsMember,
    /// With TLS, without a certificate.
    Unnamed,
    /// With TLS, and a certificate of the authority.
    Known,
    /// With TLS, and a certificate of another authority.
    Foreign,
}

#[tokio::test]
async fn both_apis_let_in_the_same_clients() {
    if patroni().is_none() {
        return;
    }
    let theirs = Access::of(Agent::Patroni).await;
    let ours = Access::of(Agent::Matriarch).await;
    let found = compared(&theirs, &ours);
    differences::must_be(&found, differences::OF_ACCESS);
}

struct Access {
    cluster: Cluster,
    primary: usize,
    certificates: Certificates,
    /// What the leader was configured by at first.
    configuration: String,
    authority: &'static str,
    turns: usize,
    answers: Answers,
}

impl Access {
    async fn of(agent: Agent) -> Answers {
        let extra = json!({"bootstrap": {"dcs": {"ttl": 20, "retry_timeout": 3}}});
        let cluster = Cluster::start(Plan { nodes: 2, agent, extra, ..Plan::default() }).await;
        let primary = cluster.healed(LIMIT).await;
        let node = &cluster.nodes[primary];
        let configuration = std::fs::read_to_string(node.config()).expect("its configuration");
        let dir = base();
        let certificates = certificates(dir.path(), &node.host.address);
        let (authority, turns, answers) = ("ca.pem", 0, Answers::new());
        let mut access = Self { cluster, primary, certificates, configuration, authority, turns, answers };
        access.allowlists().await;
        access.tls().await;
        access.answers
    }

    async fn allowlists(&mut self) {
        let (network, _) =
            self.leader().rest_address().rsplit_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("IPv4");
        for (when, restapi) in [
            ("open to all", json!({})),
            ("an empty list", json!({"allowlist": []})),
            ("a network", json!({"allowlist": [format!("{network}.0/24")]})),
            ("a network by one of its addresses", json!({"allowlist": [format!("{network}.77/24")]})),
            ("a network with a mask", json!({"allowlist": [format!("{network}.0/255.255.255.0")]})),
            ("a network with a mask of hosts", json!({"allowlist": [format!("{network}.0/0.0.0.255")]})),
            ("another network", json!({"allowlist": ["192.0.2.0/24", "2001:db8::/32"]})),
            ("an address", json!({"allowlist": ["192.0.2.1", self.client()]})),
            ("another address", json!({"allowlist": ["192.0.2.1"]})),
            ("a network of IPv6", json!({"allowlist": ["::/0"]})),
            ("members", json!({"allowlist_include_members": true})),
            ("members, and another network", json!({"allowlist": ["192.0.2.0/24"], "allowlist_include_members": true})),
            ("no members", json!({"allowlist": ["192.0.2.0/24"], "allowlist_include_members": false})),
            ("nothing that can be read", json!({"allowlist": ["192.0.2.0/33"]})),
            ("something that can be read", json!({"allowlist": ["192.0.2.0/33", format!("{network}.0/24")]})),
        ] {
            self.configure(restapi, Comes::Plainly).await;
            self.ask(when, Comes::Plainly).await;
            self.ask(when, Comes::AsMember).await;
        }
    }

    async fn tls(&mut self) {
        let client = self.client();
        for verify_client in ["none", "optional", "required", "Required"] {
            let tls = self.with_tls(&json!({"verify_client": verify_client}));
            self.configure(tls, Comes::Known).await;
            for comes in [Comes::Plainly, Comes::Unnamed, Comes::Known, Comes::Foreign] {
                self.ask(&format!("verify_client: {verify_client}"), comes).await;
            }
        }
        // From where comes before with what, and that before who.
        for (when, allowlist) in [("TLS, listed", client.as_str()), ("TLS, another is listed", "192.0.2.1")] {
            let tls = self.with_tls(&json!({"verify_client": "optional", "allowlist": [allowlist]}));
            self.configure(tls, Comes::Known).await;
            for comes in [Comes::Unnamed, Comes::Known] {
                self.ask(when, comes).await;
            }
        }
        // A certificate that was replaced is shown after the next reload.
        self.certificates.replace("server", "renewed");
        self.authority = "foreign-ca.pem";
        let tls = self.with_tls(&json!({"verify_client": "required"}));
        self.configure(tls, Comes::Known).await;
        self.ask("renewed", Comes::Known).await;
        self.authority = "ca.pem";
        self.ask("renewed, with the old authority", Comes::Known).await;
        self.configure(json!({"verify_client": "required"}), Comes::Plainly).await;
        self.ask("without TLS again", Comes::Plainly).await;
    }

    fn with_tls(&self, more: &Value) -> Value {
        let mut tls = json!({});
        for (key, file) in [("certfile", "server.pem"), ("keyfile", "server.key"), ("cafile", "ca.pem")] {
            tls[key] = json!(self.certificates.path(file));
        }
        tls.as_object_mut().expect("a mapping").extend(more.as_object().cloned().expect("a mapping"));
        tls
    }

    fn leader(&self) -> &Node {
        &self.cluster.nodes[self.primary]
    }

    /// The address that requests of the test itself come from.
    fn client(&self) -> String {
        let to = self.leader().rest_address();
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect(to).map(|()| socket));
        socket.and_then(|socket| socket.local_addr()).expect("a way to the leader").ip().to_string()
    }

    /// Has the leader go by this section, and waits until it does.
    async fn configure(&mut self, mut restapi: Value, comes: Comes) {
        self.turns += 1;
        let mark = self.turns.to_string();
        // Patroni has the headers in force before the rest, and what it calls itself after that.
        let tokens = ["minimal", "productonly"][self.turns % 2];
        restapi["http_extra_headers"] = json!({"X-Configuration": mark});
        restapi["server_tokens"] = json!(tokens);
        restapi["authentication"] = json!({"username": "admin", "password": "secret"});
        let node = self.leader();
        std::fs::write(node.config(), &self.configuration).expect("its configuration");
        node.configure(&json!({"restapi": restapi}));
        node.agent().signal(Signal::HUP);
        let wanted = format!("header {MARK}: {mark}");
        eventually(&format!("{restapi} is in force"), LIMIT, async || {
            let shape = self.answer(&Question::get("/health"), comes).await;
            let called =
                |line: &String| line.starts_with("header server: ") && line.contains('/') == (tokens == "minimal");
            if shape.contains(&wanted) && shape.iter().any(called) { Ok(()) } else { Err(format!("{shape:?}")) }
        })
        .await;
    }

    /// Safe requests, and unsafe ones of nobody and of who may give orders.
    async fn ask(&mut self, when: &str, comes: Comes) {
        let mut questions = vec![Question { method: "HEAD", ..Question::get("/health") }];
        questions.extend(["/health", "/primary", "/replica", "/config", "/liveness"].map(Question::get));
        for (method, path, body) in [
            ("PATCH", "/config", Some(r#"{"loop_wait": 1}"#)),
            ("DELETE", "/restart", None),
            ("POST", "/failsafe", None),
            ("POST", "/restart", Some(r#"{"role": "replica"}"#)),
        ] {
            let body = body.map(str::to_owned);
            questions.push(Question { method, path: path.to_owned(), login: Login::Right, body });
            questions.push(Question { login: Login::None, ..Question::bare(method, path) });
        }
        for question in questions {
            let mut shape = self.answer(&question, comes).await;
            shape.retain(|line| !line.starts_with(&format!("header {MARK}: ")));
            let asked = format!("{when}, {comes:?}: {question}");
            assert_eq!(self.answers.insert(asked.clone(), shape), None, "{asked} twice");
        }
    }

    async fn answer(&self, question: &Question, comes: Comes) -> Shape {
        let Question { method, path, login, body } = question;
        let address = self.leader().rest_address();
        let request = shape::request(&address, method, path, *login, body.as_deref());
        let shape = if comes == Comes::AsMember {
            let member = &self.cluster.nodes[1 - self.primary];
            // One that the servers' account can execute.
            let python = patroni().expect("Patroni is installed").join("python3");
            let answer = member.run(&python, &["-c", ASK, &address, &request]).expect("a client on a member's host");
            shape::of_exchange(Ok(answer.into_bytes()))
        } else {
            shape::exchange(self.connect(&address, comes).await, &request).await
        };
        // A connection may end in many ways, or with an alert of TLS that nobody expects.
        let answered = shape.iter().any(|line| line.starts_with("status ") && line.len() > "status ".len());
        if answered { shape } else { Shape::from(["no answer".to_owned()]) }
    }

    async fn connect(&self, address: &str, comes: Comes) -> std::io::Result<BoxStream> {
        let tcp = Connector::tcp(LIMIT).connect(address).await?;
        let identity = match comes {
            Comes::Plainly | Comes::AsMember => return Ok(tcp),
            Comes::Unnamed => None,
            Comes::Known => Some("client"),
            Comes::Foreign => Some("foreign"),
        };
        self.certificates.client(self.authority, identity, Speaks::Http1).connect(address, tcp).await
    }
}

/// Certificates for a server of this address, which the servers' account may read.
fn certificates(dir: &Path, address: &str) -> Certificates {
    let made = dir.join("certificates");
    output_of(Command::new(Certificates::SCRIPT).arg(&made).arg(format!("IP:{address}"))).expect("certificates");
    output_of(Command::new("chmod").args(["-R", "a+rX"]).arg(&made)).expect("files that can be read");
    Certificates::made_in(&made)
}
