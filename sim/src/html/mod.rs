//! The page that shows a run: one file that needs nothing else. What is known of the run is put into it as JSON, and
//! `page.js` draws it.

use serde::Serialize;

use crate::check::NODES_MAX;
use crate::chronicle::{Chronicle, us};
use crate::fault::{Fault, Phase, Plan, When};
use crate::node::{NodeId, name};
use crate::run::Ran;
use crate::settings::Settings;

/// What a page shows beside what happened.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// What was run.
    pub plan: &'a Plan,
    /// The name of a planted bug.
    pub mutant: Option<&'a str>,
    /// The command that repeats it.
    pub repeat: &'a str,
}

#[derive(Serialize)]
struct Model<'a> {
    seed: u64,
    story: &'a str,
    broke: Option<&'a str>,
    mutant: Option<&'a str>,
    repeat: &'a str,
    names: Vec<String>,
    settings: &'a Settings,
    faults: Vec<Planned>,
    plan: String,
    violation: Option<Broken<'a>>,
    end: u64,
    steps: u64,
    hash: String,
    chronicle: &'a Chronicle,
}

#[derive(Serialize)]
struct Broken<'a> {
    class: String,
    invariant: &'a str,
    at: u64,
    what: &'a str,
}

/// A fault of the plan, in words.
#[derive(Serialize)]
struct Planned {
    what: String,
    when: String,
    for_ms: u64,
}

/// The page of a run whose trace has a chronicle; `None` if it has none.
pub fn page(shown: Shown<'_>, ran: &Ran) -> Option<String> {
    let chronicle = ran.trace.chronicle()?;
    let plan = shown.plan;
    let model = Model {
        seed: plan.seed,
        story: &plan.story,
        broke: plan.broke.as_deref(),
        mutant: shown.mutant,
        repeat: shown.repeat,
        names: (0..plan.settings.nodes).map(|node| name(NodeId(node)).0).collect(),
        settings: &plan.settings,
        faults: plan.faults.iter().map(planned).collect(),
        plan: serde_yaml::to_string(plan).expect("a plan can be written down"),
        violation: ran.violation.as_ref().map(|violation| Broken {
            class: format!("{:?}", violation.class()),
            invariant: violation.invariant,
            at: us(violation.at),
            what: &violation.what,
        }),
        end: us(ran.ended),
        steps: ran.steps,
        hash: format!("{:016x}", ran.hash),
        chronicle,
    };
    let json = serde_json::to_string(&model).expect("a model has no keys but strings");
    Some(assemble(plan.seed, &json))
}

/// Nothing in the data can end the element that it is in, or begin a comment there: it has no `<`.
fn assemble(seed: u64, json: &str) -> String {
    let data = json.replace('<', "\\u003c");
    include_str!("page.html")
        .replace("{{seed}}", &seed.to_string())
        .replace("{{css}}", include_str!("page.css"))
        .replace("{{js}}", concat!(include_str!("model.js"), include_str!("draw.js"), include_str!("page.js")))
        .replace("{{data}}", &data)
}

fn planned(fault: &Fault) -> Planned {
    let when = match &fault.when {
        When::AtMs(at) => format!("at {} s", seconds(*at)),
        When::Order { kind, after_ms, nth, phase, or_at_ms } => {
            let side = match phase {
                Phase::Before => "before",
                Phase::After => "right after",
                Phase::Applied => "with the effect of",
                Phase::Ended => "after the end of",
            };
            let or_at = or_at_ms.map_or_else(String::new, |at| format!(", or at {} s", seconds(at)));
            format!("{side} {kind} no. {nth} after {} s{or_at}", seconds(*after_ms))
        }
    };
    let mut what = format!("{:?}", fault.what);
    for node in 0..NODES_MAX {
        what = what.replace(&format!("Node({node})"), name(NodeId(node)).as_str());
    }
    Planned { what: words(&what), when, for_ms: fault.for_ms }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

/// `KillPostmaster(Leader, 2)` as `kill postmaster (leader, 2)`.
fn words(debug: &str) -> String {
    let mut words = String::new();
    for letter in debug.chars() {
        let begins = letter.is_uppercase() || letter == '(';
        if begins && words.ends_with(|last: char| last.is_lowercase() || last == ')') {
            words.push(' ');
        }
        words.push(letter.to_ascii_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{What, Where};

    #[test]
    fn a_fault_is_told_in_words() {
        let what = What::KillPostmaster(Where::Leader, 2);
        let when =
            When::Order { kind: "promote".into(), after_ms: 12_005, nth: 2, phase: Phase::Before, or_at_ms: None };
        let told = planned(&Fault { when, what, for_ms: 0 });
        assert_eq!(told.what, "kill postmaster (leader, 2)");
        assert_eq!(told.when, "before promote no. 2 after 12.005 s");
        let what = What::CutToStore(Where::Node(1));
        let told = planned(&Fault { when: When::AtMs(5), what, for_ms: 0 });
        assert_eq!((told.what.as_str(), told.when.as_str()), ("cut to store (b)", "at 0.005 s"));
        assert_eq!(words("StopStore"), "stop store");
    }

    #[test]
    fn the_page_knows_rungs_by_their_names() {
        let model = include_str!("model.js");
        let table = model.split_once("const RUNGS = {").and_then(|(_, rest)| rest.split_once('}')).expect("a table").0;
        let named: Vec<&str> = table.split(',').filter_map(|row| Some(row.split_once(':')?.0.trim())).collect();
        assert!(named.len() > 5, "{named:?}");
        let rungs: Vec<&str> = matriarch_core::decide::LADDER.iter().map(|row| row.rung.name()).collect();
        assert!(named.iter().all(|name| rungs.contains(name)), "{named:?}");
    }

    #[test]
    fn no_text_of_the_data_ends_the_element_that_it_is_in() {
        let page = assemble(1, "[\"</script><!-- {{css}}\"]");
        assert!(page.contains("[\"\\u003c/script>\\u003c!-- {{css}}\"]"));
    }
}
