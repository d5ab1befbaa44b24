//! The names of the keys, relative to the base path of a cluster.

/// Who leads; bound to the lease of the tenure.
pub const LEADER: &str = "leader";
/// What the names of member keys begin with.
pub const MEMBERS: &str = "members/";
/// The system identifier; empty while a node bootstraps.
pub const INITIALIZE: &str = "initialize";
/// The dynamic configuration.
pub const CONFIG: &str = "config";
/// The leader's position and its slots.
pub const STATUS: &str = "status";
/// The leader's position in decimal digits, as Patroni before 2.1.0 wrote it: only read, where `status` is absent.
pub const OPTIME_LEADER: &str = "optime/leader";
/// The pending request of an operator.
pub const FAILOVER: &str = "failover";
/// Which members are synchronous.
pub const SYNC: &str = "sync";
/// The history of the timelines.
pub const HISTORY: &str = "history";
/// Members and their API, for when the store is away.
pub const FAILSAFE: &str = "failsafe";
/// The record of the last tenure. Patroni ignores this key.
pub const MATRIARCH: &str = "matriarch";

/// The base path of a cluster, without a `/` at its end: `/namespace/scope`, repeated slashes made one.
pub fn base(namespace: &str, scope: &str) -> String {
    let parts = namespace.split('/').chain(scope.split('/')).filter(|part| !part.is_empty());
    parts.fold(String::new(), |path, part| path + "/" + part)
}

/// Whether two scopes are one, however their slashes are spelled: they name the same keys.
pub fn is_same_scope(one: &str, other: &str) -> bool {
    base("", one) == base("", other)
}

/// The key of a member.
pub fn member(name: &str) -> String {
    format!("{MEMBERS}{name}")
}

/// The name of the member whose key this is. Only direct children of `members/` are members.
pub fn member_name(key: &str) -> Option<&str> {
    key.strip_prefix(MEMBERS).filter(|name| !name.is_empty() && !name.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_path_has_single_slashes() {
        assert_eq!(base("service", "demo"), "/service/demo");
        assert_eq!(base("/service/", "/demo"), "/service/demo");
        assert_eq!(base("//db//prod/", "demo"), "/db/prod/demo");
        assert_eq!(base("a//b", "demo"), "/a/b/demo");
        for none in ["", "/"] {
            assert_eq!(base(none, "demo"), "/demo");
            assert!(is_same_scope("demo", &format!("{none}demo{none}")) && !is_same_scope("demo", "demo2"));
        }
    }

    #[test]
    fn only_direct_children_of_members_are_members() {
        assert_eq!(member_name(&member("n1")), Some("n1"));
        assert_eq!(member_name("members/n1/extra"), None);
        assert_eq!(member_name("members/"), None);
        assert_eq!(member_name("leader"), None);
    }
}
