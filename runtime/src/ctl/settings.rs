//! Where the store is, and who we are to the members: from options, environment and file, in this order.

use std::path::{Path, PathBuf};

use super::{CtlError, CtlOptions, failed};
use crate::config::{Credentials, load_client};
use crate::tls::{self, ClientSettings};

/// The port of etcd.
const ETCD_PORT: u16 = 2379;

/// The variables that may name the store where there is no file.
const NAMES_STORE: [&str; 4] =
    ["PATRONI_CONFIGURATION", "PATRONI_ETCD3_HOSTS", "PATRONI_ETCD3_HOST", "PATRONI_ETCD3_URL"];

/// Members of the store, and the namespace if it is named.
type StoreUrl = (Vec<String>, Option<String>);

/// What a command needs to know. Unlike the agent's, the file may hold as little as the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Settings {
    /// Members of the store, `host:port`.
    pub(super) hosts: Vec<String>,
    /// The store's user and password.
    pub(super) store_login: Option<(String, String)>,
    pub(super) namespace: String,
    pub(super) scope: Option<String>,
    /// TLS to the store, if any.
    pub(super) store_tls: Option<tls::Client>,
    /// For the unsafe endpoints of members.
    pub(super) auth: Option<Credentials>,
    /// TLS to members that have it.
    pub(super) members_tls: ClientSettings,
}

impl Settings {
    pub(super) fn load(
        options: &CtlOptions,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, CtlError> {
        let mut env: Vec<(String, String)> = env.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let variable = |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let url = options.dcs_url.as_deref().map(store_url).transpose()?;
        let file = readable(options.config_file.as_deref(), default_file(&variable))?;
        if file.is_none() && url.is_none() && !env.iter().any(|(name, _)| NAMES_STORE.contains(&name.as_str())) {
            return failed(
                "Can not find suitable configuration of distributed configuration store\nAvailable implementations: \
                 etcd3\nName it with -d etcd3://HOST:PORT, or in section etcd3 of the file given with -c",
            );
        }
        let (hosts, namespace) = url.unzip();
        // As if the environment had said what options say: then the file need not.
        let mut say = |name: &str, value: String| {
            env.retain(|(known, _)| known != name);
            env.push((name.to_owned(), value));
        };
        if let Some(hosts) = &hosts {
            say("PATRONI_ETCD3_HOSTS", hosts.join(","));
        }
        if options.insecure {
            say("PATRONI_CTL_INSECURE", "on".to_owned());
        }
        let client = load_client(file.as_deref(), env).map_err(|error| CtlError::Failed(error.to_string()))?;
        let password = client.etcd3.password.map(|password| password.reveal().to_owned()).unwrap_or_default();
        Ok(Self {
            hosts: hosts.unwrap_or(client.etcd3.hosts),
            store_login: client.etcd3.username.map(|username| (username, password)),
            store_tls: client.etcd3.tls,
            namespace: namespace.flatten().unwrap_or(client.namespace),
            scope: client.scope,
            auth: client.authentication,
            members_tls: client.members,
        })
    }
}

fn default_file(variable: &impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let base = variable("XDG_CONFIG_HOME").map(PathBuf::from);
    let base = base.or_else(|| Some(Path::new(&variable("HOME")?).join(".config")));
    base.map(|base| base.join("patroni/patronictl.yaml")).filter(|file| file.exists())
}

/// The file to read: one that is named must be there.
fn readable(named: Option<&Path>, default: Option<PathBuf>) -> Result<Option<PathBuf>, CtlError> {
    let Some(named) = named else { return Ok(default) };
    if named.is_dir() || std::fs::File::open(named).is_ok() {
        return Ok(Some(named.to_path_buf()));
    }
    failed(format!(
        "Provided config file {} not existing or no read rights. Check the -c/--config-file parameter",
        named.display()
    ))
}

fn listed(text: &str) -> Result<Vec<String>, CtlError> {
    text.split(',').map(str::trim).filter(|host| !host.is_empty()).map(host_port).collect()
}

fn host_port(text: &str) -> Result<String, CtlError> {
    let host = text.trim_end_matches('/');
    if host.contains("://") {
        return failed(format!("{text}: expected HOST:PORT; TLS is asked for by `protocol: https` in section etcd3"));
    }
    let port = host.rsplit_once(':').filter(|(before, _)| !before.contains(':') || before.ends_with(']'));
    match port {
        Some((_, port)) if port.parse::<u16>().is_err() => failed(format!("{text}: {port} is not a port")),
        Some(_) => Ok(host.to_owned()),
        None if host.contains(':') && !host.starts_with('[') => Ok(format!("[{host}]:{ETCD_PORT}")),
        None => Ok(format!("{host}:{ETCD_PORT}")),
    }
}

/// `[scheme://]host[:port][,host...][/namespace]`.
fn store_url(url: &str) -> Result<StoreUrl, CtlError> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("etcd3", url));
    match scheme {
        "etcd3" => {}
        "etcd" | "zookeeper" | "exhibitor" | "consul" | "raft" | "kubernetes" => {
            return failed(format!("the store {scheme} is not supported yet; use etcd3://HOST:PORT"));
        }
        _ => return failed(format!("Unknown dcs scheme: {scheme}")),
    }
    let (hosts, namespace) = rest.split_once('/').map_or((rest, None), |(hosts, namespace)| (hosts, Some(namespace)));
    let namespace = namespace.map(|namespace| namespace.trim_matches('/')).filter(|namespace| !namespace.is_empty());
    Ok((listed(hosts)?, namespace.map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::basic_authorization;

    fn load(file: &str, url: Option<&str>, env: &[(&str, &str)]) -> Result<Settings, CtlError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ctl.yaml");
        std::fs::write(&path, file).unwrap();
        let options = CtlOptions { config_file: Some(path), dcs_url: url.map(str::to_owned), ..CtlOptions::default() };
        Settings::load(&options, env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn the_agents_file_will_do_and_options_win() {
        let file = "scope: demo\nnamespace: /db/\netcd3:\n  hosts:\n  - 10.0.0.1:2379\n  - 10.0.0.2\nrestapi:\n  \
                    authentication:\n    username: admin\n    password: 123\n";
        let settings = load(file, None, &[]).unwrap();
        assert_eq!(settings.hosts, ["10.0.0.1:2379", "10.0.0.2:2379"]);
        assert_eq!((settings.scope.as_deref(), settings.namespace.as_str()), (Some("demo"), "/db/"));
        assert_eq!(settings.auth.map(|auth| basic_authorization(&auth)), Some("Basic YWRtaW46MTIz".to_owned()));
        let settings = load(file, Some("etcd3://h1:1,h2/ns"), &[("PATRONI_SCOPE", "other")]).unwrap();
        assert_eq!(settings.hosts, ["h1:1", "h2:2379"]);
        assert_eq!((settings.scope.as_deref(), settings.namespace.as_str()), (Some("other"), "ns"));
        let environment = [("PATRONI_ETCD3_HOSTS".to_owned(), "'a:1','b:2'".to_owned())];
        let settings = Settings::load(&CtlOptions::default(), environment).unwrap();
        assert_eq!((settings.hosts, settings.namespace), (vec!["a:1".into(), "b:2".into()], "/service".to_owned()));
    }

    #[test]
    fn a_store_that_cannot_be_used_is_named() {
        let text = |outcome: Result<Settings, CtlError>| match outcome {
            Err(CtlError::Failed(text)) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(text(load("{}", Some("http://h"), &[])), "Unknown dcs scheme: http");
        assert!(text(load("{}", Some("consul://h"), &[])).contains("consul is not supported yet"));
        assert!(text(load("scope: x", None, &[])).contains("distributed configuration store"));
        let nothing = text(Settings::load(&CtlOptions::default(), []));
        assert!(nothing.starts_with("Can not find suitable configuration of distributed"));
        assert!(text(load("a: [", None, &[])).contains("not valid YAML"));
        let missing = CtlOptions { config_file: Some("/nowhere/x.yaml".into()), ..CtlOptions::default() };
        let expected = "Provided config file /nowhere/x.yaml not existing or no read rights. Check the \
                        -c/--config-file parameter";
        assert_eq!(text(Settings::load(&missing, [])), expected);
    }
}
