//! HAProxy and PgBouncer before a cluster, as `docs/examples` has them, where the clients are.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, Error, NoTls};

use crate::cluster::print_tail;
use crate::network::{Host, free_port};
use crate::plan::SUPERUSER;
use crate::{Child, Cluster, eventually, example, tools};

const START_LIMIT: Duration = Duration::from_secs(30);
const LISTENS: &str = "127.0.0.1";

/// Both programs at work. They end when this is dropped.
pub struct Front {
    dir: PathBuf,
    primary: u16,
    replicas: u16,
    pooled: u16,
    programs: Vec<Child>,
}

impl Front {
    /// Starts both for the nodes of a cluster, and waits until they listen; `None`, and it is said, where they are not
    /// installed.
    pub async fn start(cluster: &Cluster) -> Option<Self> {
        let [haproxy, pgbouncer] = [tools::program("haproxy")?, tools::program("pgbouncer")?];
        let dir = cluster.nodes[0].dir().with_file_name("front");
        tools::make_dir_of_account(&dir);
        let [primary, replicas, pooled] = [free_port(), free_port(), free_port()];
        let mut front = Self { dir, primary, replicas, pooled, programs: Vec::new() };
        let proxied = front.write("haproxy.cfg", &front.haproxy(cluster));
        front.write("userlist.txt", &format!("\"{}\" \"{}\"\n", SUPERUSER.0, SUPERUSER.1));
        let pooled = front.write("pgbouncer.ini", &front.pgbouncer());
        front.run(&haproxy, &["-db", "-f", &proxied]);
        front.run(&pgbouncer, &[&pooled]);
        for port in [front.primary, front.replicas, front.pooled] {
            let connects = async || tokio::net::TcpStream::connect((LISTENS, port)).await.map_err(|e| e.to_string());
            eventually(&format!("something listens on {port}"), START_LIMIT, connects).await;
        }
        Some(front)
    }

    /// HAProxy's way to the primary.
    pub fn primary(&self) -> Config {
        Self::way(self.primary, "postgres")
    }

    /// HAProxy's way to the standbys.
    pub fn replicas(&self) -> Config {
        Self::way(self.replicas, "postgres")
    }

    /// The way through PgBouncer, then HAProxy: to the primary, or for the database `app_read` to the standbys.
    pub fn pooled(&self, database: &str) -> Config {
        Self::way(self.pooled, database)
    }

    /// A client's connection by one of these ways.
    ///
    /// # Errors
    /// Nobody is there, or it is refused.
    pub async fn connect(way: &Config) -> Result<Client, Error> {
        let (client, connection) = way.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// What HAProxy takes each server for, by `proxy/server`: `UP`, `DOWN`, or on the way.
    pub async fn states(&self) -> BTreeMap<String, String> {
        let mut socket = UnixStream::connect(self.dir.join("admin.sock")).await.expect("HAProxy's socket");
        socket.write_all(b"show stat\n").await.expect("HAProxy hears");
        let mut csv = String::new();
        socket.read_to_string(&mut csv).await.expect("HAProxy answers");
        let mut lines = csv.trim_start_matches("# ").lines().map(|line| line.split(',').collect::<Vec<_>>());
        let names = lines.next().expect("HAProxy names its columns");
        let column = |wanted| names.iter().position(|name| *name == wanted).expect("a column of HAProxy's");
        let [proxy, server, status] = ["pxname", "svname", "status"].map(column);
        let servers = lines.filter(|line| line.get(server).is_some_and(|name| name.starts_with("node")));
        servers.map(|line| (format!("{}/{}", line[proxy], line[server]), line[status].to_owned())).collect()
    }

    /// Waits until HAProxy has exactly this node up as primary, and exactly these as replicas.
    pub async fn sees(&self, primary: usize, replicas: &[usize], limit: Duration) {
        let server = |proxy: &str, index: usize| format!("{proxy}/node{}", index + 1);
        let mut wanted: Vec<String> = replicas.iter().map(|index| server("replicas", *index)).collect();
        wanted.push(server("primary", primary));
        wanted.sort();
        eventually(&format!("HAProxy has {wanted:?} up"), limit, async || {
            let states = self.states().await;
            let up: Vec<&String> =
                states.iter().filter(|(_, status)| *status != "DOWN").map(|(name, _)| name).collect();
            if up.iter().copied().eq(&wanted) { Ok(()) } else { Err(format!("{states:?}")) }
        })
        .await;
    }

    fn haproxy(&self, cluster: &Cluster) -> String {
        let (account, group) = (tools::account().name, tools::account_group());
        let mut changes = vec![
            ("user haproxy".to_owned(), format!("user {account}")),
            ("group haproxy".to_owned(), format!("group {group}")),
            ("/run/haproxy".to_owned(), self.dir.display().to_string()),
            ("*:5000".to_owned(), format!("{LISTENS}:{}", self.primary)),
            ("*:5001".to_owned(), format!("{LISTENS}:{}", self.replicas)),
            ("*:7000".to_owned(), format!("{LISTENS}:{}", free_port())),
        ];
        for (index, node) in cluster.nodes.iter().enumerate() {
            let ((address, server), api) = (node.server_address(), node.host.port(0, 8008));
            changes.push((
                format!("10.0.0.{}:5432 maxconn 100 check port 8008", index + 1),
                format!("{address}:{server} maxconn 100 check port {api}"),
            ));
        }
        if let Some(files) = &cluster.certificates {
            let read = |name: &str| fs::read_to_string(files.path(name)).expect("it was made");
            self.write("ca.pem", &read("ca.pem"));
            self.write("client.pem", &[read("client.pem"), read("client.key")].concat());
            changes.push(("#default-server check-ssl".to_owned(), "default-server check-ssl".to_owned()));
            changes.push(("/etc/haproxy".to_owned(), self.dir.display().to_string()));
        }
        example("haproxy.cfg", &changes)
    }

    fn pgbouncer(&self) -> String {
        let dir = self.dir.display().to_string();
        let changes = [
            ("listen_addr = *", format!("listen_addr = {LISTENS}")),
            ("listen_port = 6432", format!("listen_port = {}", self.pooled)),
            ("port=5000", format!("port={}", self.primary)),
            ("port=5001", format!("port={}", self.replicas)),
            ("/run/postgresql", dir.clone()),
            ("/etc/pgbouncer", dir),
        ];
        example("pgbouncer.ini", &changes)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.dir.join(name);
        fs::write(&path, text).expect("a configuration file");
        path.display().to_string()
    }

    fn run(&mut self, program: &Path, arguments: &[&str]) {
        let name = program.file_name().expect("a program has a name").to_string_lossy().into_owned();
        let log = File::create(self.dir.join(format!("{name}.log"))).expect("a log");
        let mut command = Host::here().command(&program.display().to_string(), Some(&tools::account()));
        command.args(arguments).current_dir(&self.dir);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("the log again")).stderr(log);
        let child = Child::spawn(&mut command);
        self.programs.push(child.unwrap_or_else(|error| panic!("cannot start {name}: {error}")));
    }

    fn way(port: u16, database: &str) -> Config {
        let mut config = Config::new();
        config.host(LISTENS).port(port).dbname(database).user(SUPERUSER.0).password(SUPERUSER.1);
        config.connect_timeout(Duration::from_secs(2)).ssl_mode(SslMode::Disable);
        config
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        for program in self.programs.iter().filter(|program| program.ended().is_none()) {
            program.process().kill();
            program.wait(Duration::from_secs(10));
        }
        if std::thread::panicking() {
            print_tail(&self.dir.join("haproxy.log"));
            print_tail(&self.dir.join("pgbouncer.log"));
        }
    }
}
