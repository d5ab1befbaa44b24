//! Where nodes live: each in a network namespace of its own behind a bridge where root allows, else together on the
//! loopback address, where nothing can be cut.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::getpid;

use crate::Process;
use crate::tools::{is_root, run};

/// A place for processes: an address, and a namespace if there are namespaces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    /// The IPv4 address.
    pub address: String,
    namespace: Option<String>,
    ports: Option<[u16; 2]>,
}

/// Hosts that reach each other and are reached from here.
pub struct Network {
    prefix: String,
    subnet: Option<String>,
    hosts: Vec<Host>,
}

/// Networks made by this process.
static NETWORKS: AtomicU32 = AtomicU32::new(0);

impl Network {
    /// An empty network. Needs `ip` of iproute2 as root.
    pub(crate) fn new() -> Self {
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        // An interface's name has 15 characters at most: "m" + 7 + "x" + 2 + "e2" fit.
        let prefix = format!("m{}x{number}", getpid().as_raw_nonzero());
        if !is_root() {
            return Self { prefix, subnet: None, hosts: Vec::new() };
        }
        sweep();
        let subnet = free_subnet(getpid().as_raw_nonzero().get().unsigned_abs() + number);
        let network = Self { subnet: Some(subnet.clone()), hosts: Vec::new(), prefix };
        let bridge = network.bridge();
        ip(&["link", "add", &bridge, "type", "bridge"]);
        ip(&["addr", "add", &format!("{subnet}.254/24"), "dev", &bridge]);
        ip(&["link", "set", &bridge, "up"]);
        network
    }

    /// Whether hosts can be cut off from each other.
    pub fn can_cut(&self) -> bool {
        self.subnet.is_some()
    }

    /// The addresses of all hosts and of the clients, for pg_hba.conf.
    pub(crate) fn range(&self) -> String {
        self.subnet.as_ref().map_or_else(|| "127.0.0.1/32".to_owned(), |subnet| format!("{subnet}.0/24"))
    }

    /// The addresses that the first hosts have or will have.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.subnet.iter().flat_map(|subnet| (1..32).map(move |number| format!("{subnet}.{number}"))).collect()
    }

    /// Adds a host. `number` is the last part of its address.
    pub(crate) fn add(&mut self, name: &str, number: u8) -> Host {
        let host = match &self.subnet {
            None => Host { address: "127.0.0.1".into(), namespace: None, ports: Some([free_port(), free_port()]) },
            Some(subnet) => {
                let (namespace, address) = (format!("{}{name}", self.prefix), format!("{subnet}.{number}"));
                let outside = format!("v{namespace}");
                ip(&["netns", "add", &namespace]);
                ip(&["link", "add", &outside, "type", "veth", "peer", "name", "eth0", "netns", &namespace]);
                ip(&["link", "set", &outside, "master", &self.bridge(), "up"]);
                ip(&["-n", &namespace, "addr", "add", &format!("{address}/24"), "dev", "eth0"]);
                ip(&["-n", &namespace, "link", "set", "eth0", "up"]);
                ip(&["-n", &namespace, "link", "set", "lo", "up"]);
                Host { address, namespace: Some(namespace), ports: None }
            }
        };
        self.hosts.push(host.clone());
        host
    }

    fn bridge(&self) -> String {
        format!("b{}", self.prefix)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if self.subnet.is_none() {
            return;
        }
        for namespace in self.hosts.iter().filter_map(|host| host.namespace.as_ref()) {
            run("ip", &["netns", "del", namespace]).ok();
            run("ip", &["link", "del", &format!("v{namespace}")]).ok();
        }
        run("ip", &["link", "del", &self.bridge()]).ok();
    }
}

impl Host {
    /// Where the tests themselves run, and with them the clients.
    pub(crate) fn here() -> Self {
        Self { address: "127.0.0.1".into(), namespace: None, ports: None }
    }

    /// A port of this host: its usual number in a namespace, a free one of two on the shared loopback address.
    pub(crate) fn port(&self, which: usize, usual: u16) -> u16 {
        self.ports.map_or(usual, |ports| ports[which])
    }

    /// A command that is run on this host, as `account` if that is not ours already. The process keeps its id through
    /// every step on the way, so the child's is the program's.
    pub(crate) fn command(&self, program: &str, account: Option<&nix::unistd::User>) -> Command {
        let mut words: Vec<String> = Vec::new();
        if let Some(namespace) = &self.namespace {
            // `ip netns exec` mounts /sys anew, which hides the cgroups. Root could use them.
            match account {
                Some(_) => words.extend(["ip", "netns", "exec", namespace].map(str::to_owned)),
                None => words.extend(["nsenter".to_owned(), format!("--net=/run/netns/{namespace}")]),
            }
        }
        if let Some(account) = account.filter(|_| is_root()) {
            words.extend(["setpriv".into(), format!("--reuid={}", account.uid), format!("--regid={}", account.gid)]);
            words.push("--clear-groups".into());
        }
        words.push(program.to_owned());
        let mut command = Command::new(&words[0]);
        // What `.cargo/config.toml` sets for the simulator: servers run as they do for operators.
        command.args(&words[1..]).env_remove("GLIBC_TUNABLES");
        command
    }

    /// Cuts the two hosts off from each other, in both directions. What comes from here still reaches both.
    pub fn cut(&self, other: &Self) {
        self.blackhole("add", other);
        other.blackhole("add", self);
    }

    /// Undoes [`Self::cut`].
    pub fn mend(&self, other: &Self) {
        self.blackhole("del", other);
        other.blackhole("del", self);
    }

    fn blackhole(&self, verb: &str, other: &Self) {
        let namespace = self.namespace.as_ref().expect("a cut needs namespaces, which need root");
        ip(&["-n", namespace, "route", verb, "blackhole", &format!("{}/32", other.address)]);
    }
}

/// A free port of the loopback address.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

fn ip(arguments: &[&str]) {
    run("ip", arguments).unwrap_or_else(|why| panic!("{why} (tests/run installs iproute2)"));
}

/// A network of 254 addresses that no route of this machine leads to.
fn free_subnet(seed: u32) -> String {
    let taken = run("ip", &["-4", "route", "show", "table", "all"]).unwrap_or_default();
    let candidate = |n: u32| format!("10.{}.{}", 96 + n / 256 % 64, n % 256);
    let free = (seed..seed + 4096).map(candidate).find(|subnet| !taken.contains(&format!("{subnet}.")));
    free.expect("a free network in 10.96.0.0/10")
}

/// Removes what a killed test has left: namespaces whose names carry the id of a process that is gone, and whatever
/// still runs in them.
fn sweep() {
    let owner = |name: &str| name.strip_prefix('m')?.split_once('x')?.0.parse().ok().map(Process);
    for line in run("ip", &["netns", "list"]).unwrap_or_default().lines() {
        let Some(name) = line.split_whitespace().next() else { continue };
        if owner(name).is_none_or(Process::is_alive) {
            continue;
        }
        for pid in run("ip", &["netns", "pids", name]).unwrap_or_default().split_whitespace() {
            if let Ok(pid) = pid.parse() {
                Process(pid).kill();
            }
        }
        std::thread::sleep(Duration::from_millis(50));
        run("ip", &["netns", "del", name]).ok();
        run("ip", &["link", "del", &format!("v{name}")]).ok();
    }
    for line in run("ip", &["-o", "link", "show", "type", "bridge"]).unwrap_or_default().lines() {
        let name = line.split(": ").nth(1).unwrap_or_default();
        if name.strip_prefix('b').and_then(owner).is_some_and(|process| !process.is_alive()) {
            run("ip", &["link", "del", name]).ok();
        }
    }
}
