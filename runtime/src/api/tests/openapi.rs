//! What is served is what is described.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use super::node::*;

#[tokio::test]
async fn every_route_is_described_and_nothing_else_is_served() {
    let node = serve_node(leading(Duration::from_secs(20)), None).await;
    let described: Value = serde_json::from_str(&node.get("/openapi.json").await.1).unwrap();
    let paths = described["paths"].as_object().unwrap();
    assert!(paths.len() > 30, "{} paths", paths.len());
    for (path, methods) in paths {
        for method in
            [Method::GET, Method::HEAD, Method::OPTIONS, Method::POST, Method::PUT, Method::PATCH, Method::DELETE]
        {
            let known = methods.get(method.as_str().to_lowercase());
            // Any path is checked.
            let checked = method == Method::GET && known.is_none();
            let (status, _) = node.ask(method.clone(), path, None).await;
            assert_eq!(status == 501, known.is_none() && !checked, "{method} {path}: {status}, described: {known:?}");
            if let Some(known) = known {
                assert!(
                    known["responses"].get(status.to_string()).is_some(),
                    "{method} {path}: {status} is not described"
                );
            }
        }
    }
}

/// Every name that the description refers to is there.
#[test]
fn the_description_is_complete() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(entries) => entries.iter().for_each(|(key, value)| match value {
                Value::String(to) if key == "$ref" => found.push(to),
                value => references(value, found),
            }),
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = crate::api::openapi::document();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 20);
    for to in found {
        assert!(document.pointer(to.trim_start_matches('#')).is_some_and(|there| *there != json!({})), "{to}");
    }
}
