//! Where the store is, and who we are to the members: from options, environment and file, in this order.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{CtlError, CtlOptions, failed};
use crate::config::{Credentials, Secret, yaml};

/// The port of etcd.
const ETCD_PORT: u16 = 2379;

/// What a command needs to know. Unlike the agent's, the file may hold as little as the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Settings {
    /// Members of the store, `host:port`.
    pub(super) hosts: Vec<String>,
    /// The store's user and password.
    pub(super) store_login: Option<(String, String)>,
    pub(super) namespace: String,
    pub(super) scope: Option<String>,
    /// For the unsafe endpoints of members.
    pub(super) auth: Option<Credentials>,
}

impl Settings {
    pub(super) fn load(
        options: &CtlOptions,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, CtlError> {
        let env: Vec<(String, String)> = env.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let variable = |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let file = read(options.config_file.as_deref(), default_file(&variable))?;
        let text = |path: &str| file.pointer(path).and_then(scalar);
        let (mut hosts, mut namespace) = (Vec::new(), None);
        if let Some(url) = &options.dcs_url {
            (hosts, namespace) = store_url(url)?;
        }
        if hosts.is_empty() {
            hosts = hosts_from(&file, &variable)?;
        }
        if hosts.is_empty() {
            return failed(
                "Can not find suitable configuration of distributed configuration store\nAvailable implementations: \
                 etcd3\nName it with -d etcd3://HOST:PORT, or in section etcd3 of the file given with -c",
            );
        }
        let login =
            |user: Option<String>, password: Option<String>| user.map(|user| (user, password.unwrap_or_default()));
        let member_login = |section: &str| {
            login(
                text(&format!("/{section}/authentication/username")),
                text(&format!("/{section}/authentication/password")),
            )
        };
        let restapi = login(variable("PATRONI_RESTAPI_USERNAME"), variable("PATRONI_RESTAPI_PASSWORD"));
        let auth = member_login("ctl").or(restapi).or_else(|| member_login("restapi"));
        let store_user = variable("PATRONI_ETCD3_USERNAME").or_else(|| text("/etcd3/username"));
        let store_password = variable("PATRONI_ETCD3_PASSWORD").or_else(|| text("/etcd3/password"));
        Ok(Self {
            hosts,
            store_login: login(store_user, store_password),
            namespace: namespace
                .or_else(|| variable("PATRONI_NAMESPACE"))
                .or_else(|| text("/namespace"))
                .unwrap_or_else(|| "service".to_owned()),
            scope: variable("PATRONI_SCOPE").or_else(|| text("/scope")),
            auth: auth.map(|(username, password)| Credentials { username, password: Secret::new(password) }),
        })
    }
}

fn default_file(variable: &impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let base = variable("XDG_CONFIG_HOME").map(PathBuf::from);
    let base = base.or_else(|| Some(Path::new(&variable("HOME")?).join(".config")));
    base.map(|base| base.join("patroni/patronictl.yaml")).filter(|file| file.exists())
}

fn read(named: Option<&Path>, default: Option<PathBuf>) -> Result<Value, CtlError> {
    let Some(path) = named.map(Path::to_path_buf).or(default) else { return Ok(Value::Null) };
    let Ok(text) = std::fs::read_to_string(&path) else {
        let path = path.display();
        return failed(format!(
            "Provided config file {path} not existing or no read rights. Check the -c/--config-file parameter"
        ));
    };
    match yaml::parse(&text) {
        Ok(node) => Ok(node.to_json()),
        Err(error) => {
            failed(format!("{}:{}:{}: not valid YAML: {}", path.display(), error.line, error.column, error.message))
        }
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn hosts_from(file: &Value, variable: &impl Fn(&str) -> Option<String>) -> Result<Vec<String>, CtlError> {
    let named = ["PATRONI_ETCD3_HOSTS", "PATRONI_ETCD3_HOST", "PATRONI_ETCD3_URL"].into_iter().find_map(variable);
    if let Some(text) = named {
        return listed(&text.replace(['\'', '"', '[', ']'], ""));
    }
    let Some(section) = file.get("etcd3") else { return Ok(Vec::new()) };
    match ["hosts", "host", "url"].into_iter().find_map(|key| section.get(key)) {
        Some(Value::String(text)) => listed(text),
        Some(Value::Array(items)) => listed(&items.iter().filter_map(scalar).collect::<Vec<_>>().join(",")),
        _ => Ok(Vec::new()),
    }
}

fn listed(text: &str) -> Result<Vec<String>, CtlError> {
    text.split(',').map(str::trim).filter(|host| !host.is_empty()).map(host_port).collect()
}

fn host_port(text: &str) -> Result<String, CtlError> {
    let host = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    if host.starts_with("https://") {
        return failed(format!("{text}: TLS to the store is not supported yet; use http"));
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
fn store_url(url: &str) -> Result<(Vec<String>, Option<String>), CtlError> {
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
        let settings = load("{}", None, &[("PATRONI_ETCD3_HOSTS", "'a:1','b:2'")]).unwrap();
        assert_eq!((settings.hosts, settings.namespace), (vec!["a:1".into(), "b:2".into()], "service".to_owned()));
    }

    #[test]
    fn a_store_that_cannot_be_used_is_named() {
        let text = |outcome: Result<Settings, CtlError>| match outcome {
            Err(CtlError::Failed(text)) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(text(load("{}", Some("http://h"), &[])), "Unknown dcs scheme: http");
        assert!(text(load("{}", Some("consul://h"), &[])).contains("consul is not supported yet"));
        assert!(text(load("{}", None, &[])).starts_with("Can not find suitable configuration of distributed"));
        assert!(text(load("a: [", None, &[])).contains("not valid YAML"));
        let missing = CtlOptions { config_file: Some("/nowhere/x.yaml".into()), ..CtlOptions::default() };
        let expected = "Provided config file /nowhere/x.yaml not existing or no read rights. Check the \
                        -c/--config-file parameter";
        assert_eq!(text(Settings::load(&missing, [])), expected);
    }
}
