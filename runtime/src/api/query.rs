//! The query of a URL.

use crate::wire::lenient::percent_decoded;

/// Names and values in their order, decoded.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Parses `a=1&b=x%20y`. Like Patroni's parser, it drops names without a value.
    pub(super) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter_map(|pair| pair.split_once('=')).filter(|(_, value)| !value.is_empty());
        Self(pairs.map(|(name, value)| (percent_decoded(name), percent_decoded(value))).collect())
    }

    /// The first value of a name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Each name with its first value.
    pub(super) fn firsts(&self) -> impl Iterator<Item = (&str, &str)> {
        let earlier = |at: usize, name: &str| self.0[..at].iter().any(|(known, _)| known == name);
        self.iter().enumerate().filter(move |(at, (name, _))| !earlier(*at, name)).map(|(_, pair)| pair)
    }

    /// All names and values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_names_and_values_and_keeps_what_is_malformed() {
        let query = Query::parse("lag=1%30MB&tag_a+b=x%2&empty=&flag&lag=2");
        assert_eq!(query.get("lag"), Some("10MB"));
        assert_eq!(query.get("tag_a b"), Some("x%2"));
        assert_eq!(query.get("empty"), None);
        assert_eq!(query.get("flag"), None);
    }
}
