//! Every key of Patroni's local YAML, and our own section `matriarch`, in one table.

/// What a key's value must be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Text.
    Text,
    /// A password: text, or (with a warning) a whole number; never shown.
    Secret,
    /// A boolean; the words on/off/true/false/yes/no and 1/0 in quotes too, as Patroni's `parse_bool`.
    Bool,
    /// A boolean without quotes: Patroni takes any text here for true, even "false".
    Flag,
    /// A whole number (in quotes too) within a range, with the unit's name for the message.
    Int(i64, i64, &'static str),
    /// A number of seconds, fractions allowed, greater than the bound.
    Seconds(f64),
    /// A number, fractions allowed.
    Number,
    /// One of a few words.
    OneOf(&'static [&'static str]),
    /// A number with an optional unit of memory.
    Memory,
    /// `host:port`.
    Address,
    /// `host:port` to listen on, with `*` or nothing for all addresses.
    Bind,
    /// `host[,host...][:port]`.
    Listen,
    /// A list of texts, or one text with commas.
    Texts,
    /// A list of texts, one a line.
    Lines,
    /// A list of `flag` or `key: value`, or a mapping.
    Options,
    /// A mapping whose keys are known.
    Table(&'static [Key]),
    /// A mapping some of whose keys are known; others are the user's own, and mean something to somebody.
    OpenTable(&'static [Key]),
    /// A mapping of anything.
    Map,
    /// A mapping of names to texts, numbers or booleans.
    Scalars,
    /// Anything.
    Any,
}

/// Who insists on a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nobody.
    Optional,
    /// `validate-config`.
    Validation,
    /// The agent itself.
    Start,
}

/// A known key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name within its mapping.
    pub name: &'static str,
    /// What its value must be.
    pub kind: Kind,
    /// Whether it must be there.
    pub need: Need,
}

const fn key(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, need: Need::Optional }
}

const fn start(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, need: Need::Start }
}

const fn validation(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, need: Need::Validation }
}

use Kind::{
    Address, Any, Bind, Bool, Flag, Int, Lines, Listen, Map, Memory, Number, OneOf, OpenTable, Options, Scalars,
    Seconds, Secret, Table, Text, Texts,
};

/// The sections that name a store.
pub const STORES: &[&str] = &["consul", "etcd", "etcd3", "exhibitor", "kubernetes", "raft", "zookeeper"];

/// Options of initdb that the agent decides itself (Patroni refuses them too).
pub const INITDB_FORBIDDEN: &[&str] = &["pgdata", "nosync", "pwfile", "sync-only", "version"];
/// Options of pg_basebackup that the agent decides itself (Patroni refuses them too).
pub const BASEBACKUP_FORBIDDEN: &[&str] = &[
    "pgdata",
    "format",
    "wal-method",
    "xlog-method",
    "gzip",
    "version",
    "dbname",
    "host",
    "port",
    "username",
    "password",
];

/// Options of pg_rewind that the agent decides itself.
pub const REWIND_FORBIDDEN: &[&str] = &[
    "target-pgdata",
    "source-pgdata",
    "source-server",
    "write-recovery-conf",
    "dry-run",
    "restore-target-wal",
    "config-file",
    "no-ensure-shutdown",
    "version",
    "help",
];

const PORT: Kind = Int(1, 65_535, "");
const COUNT: Kind = Int(0, i64::MAX, "");
const SECONDS: Kind = Int(0, i64::MAX, "seconds");
const LEVELS: Kind = OneOf(&["DEBUG", "INFO", "WARN", "WARNING", "ERROR", "FATAL", "CRITICAL"]);

/// The whole file.
pub const ROOT: &[Key] = &[
    start("scope", Text),
    start("name", Text),
    key("namespace", Text),
    key("thread_pool_size", Int(1, i64::MAX, "")),
    key("thread_stack_size", Memory),
    key("log", Table(LOG)),
    start("restapi", Table(RESTAPI)),
    key("ctl", Table(CTL)),
    key("watchdog", Table(WATCHDOG)),
    key("citus", Table(&[key("group", COUNT), key("database", Text)])),
    key("tags", OpenTable(TAGS)),
    key("bootstrap", Table(BOOTSTRAP)),
    start("postgresql", Table(POSTGRESQL)),
    key("etcd3", Table(ETCD)),
    key("etcd", Table(ETCD)),
    key("consul", Table(CONSUL)),
    key("zookeeper", Table(ZOOKEEPER)),
    key("exhibitor", Table(EXHIBITOR)),
    key("kubernetes", Table(KUBERNETES)),
    key("raft", Table(RAFT)),
    key("matriarch", Table(MATRIARCH)),
];

const MATRIARCH: &[Key] = &[
    key("isolation_timeout", Seconds(0.0)),
    key("restart_grace", Seconds(0.0)),
    key("state_dir", Text),
    key("guard", OneOf(&["auto", "strict"])),
    key("recorder", Table(&[key("enabled", Bool), key("size", Memory)])),
];

const LOG: &[Key] = &[
    key("type", OneOf(&["plain", "json"])),
    key("level", LEVELS),
    key("traceback_level", LEVELS),
    key("format", Any),
    key("dateformat", Text),
    key("static_fields", Map),
    key("max_queue_size", COUNT),
    key("dir", Text),
    key("mode", Int(0, 0o777, "")),
    key("file_num", COUNT),
    key("file_size", COUNT),
    key("loggers", Map),
    key("deduplicate_heartbeat_logs", Bool),
];

const CREDENTIALS: &[Key] = &[key("username", Text), key("password", Secret)];

const RESTAPI: &[Key] = &[
    start("listen", Bind),
    validation("connect_address", Address),
    key("authentication", Table(CREDENTIALS)),
    key("certfile", Text),
    key("keyfile", Text),
    key("keyfile_password", Secret),
    key("cafile", Text),
    key("ciphers", Text),
    key("verify_client", OneOf(&["none", "optional", "required"])),
    key("allowlist", Texts),
    key("allowlist_include_members", Bool),
    key("http_extra_headers", Scalars),
    key("https_extra_headers", Scalars),
    key("request_queue_size", Int(0, 4096, "")),
    key("thread_pool_size", Int(1, i64::MAX, "")),
    key("server_tokens", OneOf(&["original", "productonly", "minimal"])),
];

const CTL: &[Key] = &[
    key("authentication", Table(CREDENTIALS)),
    key("insecure", Bool),
    key("cacert", Text),
    key("certfile", Text),
    key("keyfile", Text),
    key("keyfile_password", Secret),
    key("verify", Bool),
];

const WATCHDOG: &[Key] = &[
    key("mode", OneOf(&["off", "automatic", "required", "require", "auto", "disabled", "false"])),
    key("device", Text),
    key("safety_margin", Int(-1, i64::MAX, "seconds")),
    key("driver", Text),
];

const TAGS: &[Key] = &[
    key("nofailover", Flag),
    key("clonefrom", Flag),
    key("noloadbalance", Flag),
    key("replicatefrom", Text),
    key("failover_priority", Int(i64::MIN, i64::MAX, "")),
    key("nosync", Flag),
    key("sync_priority", Int(i64::MIN, i64::MAX, "")),
    key("nostream", Flag),
];

const ETCD: &[Key] = &[
    key("host", Text),
    key("hosts", Texts),
    key("url", Text),
    key("proxy", Text),
    key("srv", Text),
    key("discovery_srv", Text),
    key("srv_domain", Text),
    key("srv_suffix", Text),
    key("use_proxies", Bool),
    key("protocol", OneOf(&["http", "https"])),
    key("port", PORT),
    key("username", Text),
    key("password", Secret),
    key("cacert", Text),
    key("cert", Text),
    key("key", Text),
];

const CONSUL: &[Key] = &[
    key("host", Text),
    key("url", Text),
    key("port", PORT),
    key("scheme", OneOf(&["http", "https"])),
    key("token", Secret),
    key("verify", Bool),
    key("cacert", Text),
    key("cert", Text),
    key("key", Text),
    key("dc", Text),
    key("consistency", OneOf(&["default", "consistent", "stale"])),
    key("checks", Any),
    key("register_service", Bool),
    key("service_tags", Texts),
    key("service_check_interval", Any),
    key("service_check_tls_server_name", Text),
];

const ZOOKEEPER: &[Key] = &[
    key("hosts", Texts),
    key("use_ssl", Bool),
    key("cacert", Text),
    key("cert", Text),
    key("key", Text),
    key("key_password", Secret),
    key("verify", Bool),
    key("set_acls", Map),
    key("auth_data", Map),
    key("exhibitor", Table(EXHIBITOR)),
];

const EXHIBITOR: &[Key] = &[key("hosts", Texts), key("port", PORT), key("poll_interval", SECONDS)];

const KUBERNETES: &[Key] = &[
    key("labels", Map),
    key("namespace", Text),
    key("scope_label", Text),
    key("role_label", Text),
    key("leader_label_value", Text),
    key("follower_label_value", Text),
    key("standby_leader_label_value", Text),
    key("tmp_role_label", Text),
    key("bootstrap_labels", Map),
    key("use_endpoints", Bool),
    key("pod_ip", Text),
    key("ports", Any),
    key("bypass_api_service", Bool),
    key("cacert", Text),
    key("retriable_http_codes", Any),
    key("context", Text),
    key("xlog_cache_ttl", SECONDS),
];

const RAFT: &[Key] = &[
    key("self_addr", Address),
    key("bind_addr", Address),
    key("partner_addrs", Texts),
    key("data_dir", Text),
    key("password", Secret),
    key("min_timeout", Number),
    key("max_timeout", Number),
    key("connection_timeout", Number),
    key("append_entries_period", Number),
    key("connection_retry_time", Number),
    key("leader_fallback_timeout", Number),
];

const BOOTSTRAP: &[Key] = &[
    key("dcs", Table(DYNAMIC)),
    key("method", Text),
    key("initdb", Options),
    key("pg_hba", Lines),
    key("post_bootstrap", Text),
    key("post_init", Text),
    key("users", Map),
];

/// Keys of the dynamic configuration. Their types are checked where the local file proposes them (`bootstrap.dcs`).
/// Unknown ones are stored and ignored, as Patroni does, but not in silence.
pub const DYNAMIC: &[Key] = &[
    key("ttl", Int(1, i64::MAX, "seconds")),
    key("loop_wait", Int(1, i64::MAX, "seconds")),
    key("retry_timeout", Int(1, i64::MAX, "seconds")),
    key("maximum_lag_on_failover", Int(0, i64::MAX, "bytes")),
    key("maximum_lag_on_syncnode", Int(-1, i64::MAX, "bytes")),
    key("max_timelines_history", COUNT),
    key("check_timeline", Bool),
    key("primary_start_timeout", SECONDS),
    key("master_start_timeout", SECONDS),
    key("primary_stop_timeout", SECONDS),
    key("master_stop_timeout", SECONDS),
    key("synchronous_mode", OneOf(&["off", "on", "quorum", "true", "false"])),
    key("synchronous_mode_strict", Bool),
    key("synchronous_node_count", Int(1, i64::MAX, "")),
    key("failsafe_mode", Bool),
    key("pause", Bool),
    key("slots", Map),
    key("permanent_slots", Map),
    key("permanent_replication_slots", Map),
    key("ignore_slots", Any),
    key("member_slots_ttl", Any),
    key("primary_race_backoff", SECONDS),
    key("standby_cluster", Table(STANDBY_CLUSTER)),
    key("postgresql", Table(DYNAMIC_POSTGRESQL)),
];

/// Keys of `standby_cluster` that mean something.
pub const STANDBY_CLUSTER: &[Key] = &[
    key("host", Any),
    key("port", Any),
    key("primary_slot_name", Any),
    key("create_replica_methods", Any),
    key("restore_command", Any),
    key("archive_cleanup_command", Any),
    key("recovery_min_apply_delay", Any),
];

const DYNAMIC_POSTGRESQL: &[Key] = &[
    key("parameters", Scalars),
    key("pg_hba", Lines),
    key("pg_ident", Lines),
    key("use_pg_rewind", Bool),
    key("use_slots", Bool),
    key("recovery_conf", Scalars),
    key("pg_ctl_timeout", SECONDS),
    key("remove_data_directory_on_rewind_failure", Bool),
    key("remove_data_directory_on_diverged_timelines", Bool),
];

const BIN_NAMES: &[Key] = &[
    key("pg_ctl", Text),
    key("initdb", Text),
    key("pg_controldata", Text),
    key("pg_basebackup", Text),
    key("postgres", Text),
    key("pg_isready", Text),
    key("pg_rewind", Text),
];

/// Keys of one user under `postgresql.authentication`; their environment variables are `PATRONI_SUPERUSER_<KEY>`.
pub const ACCOUNT: &[Key] = &[
    key("username", Text),
    key("password", Secret),
    key("sslmode", OneOf(&["disable", "allow", "prefer", "require", "verify-ca", "verify-full"])),
    key("sslcert", Text),
    key("sslkey", Text),
    key("sslpassword", Secret),
    key("sslrootcert", Text),
    key("sslcrl", Text),
    key("sslcrldir", Text),
    key("gssencmode", Text),
    key("channel_binding", Text),
    key("sslnegotiation", Text),
];

const CALLBACKS: &[Key] = &[
    key("on_start", Text),
    key("on_stop", Text),
    key("on_restart", Text),
    key("on_reload", Text),
    key("on_role_change", Text),
];

/// Keys of `postgresql` in a node's own file.
pub const POSTGRESQL: &[Key] = &[
    start("listen", Listen),
    validation("connect_address", Address),
    key("proxy_address", Address),
    start("data_dir", Text),
    key("config_dir", Text),
    key("config_base_name", Text),
    key("bin_dir", Text),
    key("bin_name", Table(BIN_NAMES)),
    key("pgpass", Text),
    key("database", Text),
    key(
        "authentication",
        Table(&[
            validation("superuser", Table(ACCOUNT)),
            start("replication", Table(ACCOUNT)),
            key("rewind", Table(ACCOUNT)),
        ]),
    ),
    key("krbsrvname", Text),
    key("parameters", Scalars),
    key("parameters_primary", Scalars),
    key("parameters_replica", Scalars),
    key("parameters_standby_leader", Scalars),
    key("pg_hba", Lines),
    key("pg_hba_primary", Lines),
    key("pg_hba_replica", Lines),
    key("pg_hba_standby_leader", Lines),
    key("pg_ident", Lines),
    key("pg_ident_primary", Lines),
    key("pg_ident_replica", Lines),
    key("pg_ident_standby_leader", Lines),
    key("recovery_conf", Scalars),
    key("custom_conf", Text),
    key("callbacks", Table(CALLBACKS)),
    key("pre_promote", Text),
    key("before_stop", Text),
    key("create_replica_methods", Texts),
    key("create_replica_method", Texts),
    key("basebackup", Options),
    key("rewind", Options),
    key("pg_ctl_timeout", SECONDS),
    key("use_pg_rewind", Bool),
    key("remove_data_directory_on_rewind_failure", Bool),
    key("remove_data_directory_on_diverged_timelines", Bool),
    key("use_unix_socket", Bool),
    key("use_unix_socket_repl", Bool),
    key("use_slots", Bool),
    // Layouts from before `authentication`, still mapped.
    key("name", Text),
    key("superuser", Table(ACCOUNT)),
    key("replication", Table(ACCOUNT)),
    key("pg_rewind", Table(ACCOUNT)),
];
