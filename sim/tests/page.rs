//! The page of a run: it holds what happened, all of it, and the same of the same seed.

use std::collections::BTreeSet;

use matriarch_sim::fault::Plan;
use matriarch_sim::html::{Shown, page};
use matriarch_sim::mutant::Mutant;
use matriarch_sim::run::{Ran, quiet_assertions, run};
use matriarch_sim::trace::Trace;
use serde_json::Value;

fn kept(seed: u64, mutant: Option<Mutant>) -> (Plan, Ran) {
    quiet_assertions();
    let plan = Plan::of_seed(seed);
    let ran = run(plan.clone(), mutant, Trace::hash_only().with_chronicle());
    (plan, ran)
}

fn shown(plan: &Plan, ran: &Ran) -> String {
    page(Shown { plan, mutant: Some("guard-late"), repeat: "matriarch-sim run" }, ran).unwrap()
}

/// What is embedded, as a browser reads it: up to the first end of the element.
fn data(page: &str) -> Value {
    let (_, rest) = page.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
    let (json, _) = rest.split_once("</script>").unwrap();
    serde_json::from_str(json).unwrap()
}

/// A run that a planted bug breaks: a primary that writes on when its key is gone.
fn broken() -> (Plan, Ran) {
    let mut runs = (1..200).map(|seed| kept(seed, Some(Mutant::GuardLate)));
    runs.find(|(_, ran)| ran.violation.as_ref().is_some_and(|violation| violation.invariant == "S7")).unwrap()
}

#[test]
fn the_page_holds_the_violation_every_node_and_every_fault() {
    let (plan, ran) = broken();
    let violation = ran.violation.as_ref().expect("the planted bug is found");
    let data = data(&shown(&plan, &ran));
    assert_eq!(data["violation"]["invariant"], violation.invariant);
    assert_eq!(data["violation"]["what"], violation.what.as_str());
    assert_eq!(data["violation"]["at"], violation.at.0 / 1000);
    assert_eq!(data["hash"], format!("{:016x}", ran.hash));

    let nodes = data["chronicle"]["nodes"].as_array().unwrap();
    assert_eq!((nodes.len(), data["names"].as_array().unwrap().len()), (plan.settings.nodes, plan.settings.nodes));
    for node in nodes {
        for what in ["states", "decisions", "orders", "notes"] {
            assert!(!node[what].as_array().unwrap().is_empty(), "a node has no {what}");
        }
    }

    let faults = data["faults"].as_array().unwrap();
    assert_eq!(faults.len(), plan.faults.len());
    let strikes = data["chronicle"]["strikes"].as_array().unwrap();
    assert_eq!(strikes.len() as u64, ran.coverage.of("fault"));
    assert!(strikes.iter().all(|strike| strike["fault"].as_u64().unwrap() < faults.len() as u64));
    // The plan in it is the plan.
    assert_eq!(serde_yaml::from_str::<Plan>(data["plan"].as_str().unwrap()).unwrap(), plan);
}

#[test]
fn the_page_tells_of_everything_that_was_acknowledged_and_ordered() {
    let mut outcomes = BTreeSet::new();
    for seed in 1..=10 {
        let (plan, ran) = kept(seed, None);
        let data = data(&shown(&plan, &ran));
        let nodes = data["chronicle"]["nodes"].as_array().unwrap();
        let count = |what: &str| nodes.iter().map(|node| node[what].as_array().unwrap().len() as u64).sum::<u64>();
        assert_eq!((count("acknowledged"), count("lost")), ran.acknowledged);
        assert_eq!(count("orders"), ran.coverage.orders.values().sum::<u64>());
        let orders = nodes.iter().flat_map(|node| node["orders"].as_array().unwrap());
        outcomes.extend(orders.filter_map(|order| order[6][1].as_str()).map(str::to_owned));
    }
    assert_eq!(Vec::from_iter(outcomes), ["cancelled", "done", "orphaned", "refused", "unknown"]);
}

/// Belief ends when the guard is to fire, and PostgreSQL writes on: that is what the page is to show of a late guard.
#[test]
fn states_are_those_of_the_run() {
    let (plan, ran) = broken();
    let data = data(&shown(&plan, &ran));
    let nodes = data["chronicle"]["nodes"].as_array().unwrap();
    let last = |states: &Value| states.as_array().unwrap().last().unwrap()[1].clone();
    let serving: Vec<Value> =
        nodes.iter().map(|node| last(&node["states"])).filter(|state| state["serves"] == true).collect();
    assert_eq!(serving.len(), 1);
    assert_eq!(serving[0]["server"]["is"], "primary");
    assert_eq!(serving[0]["belief"], Value::Null);
    assert_eq!(last(&data["chronicle"]["store"])["holder"], Value::Null);
}

#[test]
fn the_same_seed_gives_the_same_page_and_no_other_run() {
    let (plan, first) = kept(3, None);
    let (_, second) = kept(3, None);
    assert_eq!(shown(&plan, &first), shown(&plan, &second));
    assert_eq!(first.hash, run(plan.clone(), None, Trace::hash_only()).hash);
    assert!(
        page(Shown { plan: &plan, mutant: None, repeat: "" }, &run(plan.clone(), None, Trace::hash_only())).is_none()
    );
}

#[test]
fn the_page_of_five_nodes_is_small_and_needs_nothing_else() {
    let seed = (1..200).find(|seed| Plan::of_seed(*seed).settings.nodes == 5).unwrap();
    let (plan, ran) = kept(seed, None);
    let page = shown(&plan, &ran);
    assert!(page.len() < 3_000_000, "{} bytes", page.len());
    for outside in ["http://", "https://", "src=", "@import", "<link"] {
        let (head, rest) = page.split_once("id=\"data\">").unwrap();
        let (_, tail) = rest.split_once("</script>").unwrap();
        assert!(!head.contains(outside) && !tail.contains(outside), "{outside}");
    }
}
