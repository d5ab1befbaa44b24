//! The dynamic configuration: `show-config` and `edit-config`.

use std::io::Write;
use std::path::Path;

use matriarch_core::op::Outcome;
use serde_json::{Map, Value};

use super::edit;
use super::{Ctl, CtlError, EditConfigArgs, STORE_LIMIT, diff, failed};
use crate::api::put_key;
use crate::config::{DynamicConfig, patch, to_yaml, yaml};
use crate::wire::keys;

pub(super) async fn show(mut ctl: Ctl<'_>, cluster: Option<String>) -> Result<(), CtlError> {
    let name = ctl.cluster_name(cluster)?;
    match ctl.read(&name).await?.config {
        Some(config) => ctl.console.line(&to_yaml(&config)),
        None => Ok(()),
    }
}

/// A configuration as it shall be: as text, as a person wrote it or would read it, and as data.
struct Edited {
    text: String,
    config: Value,
}

impl Edited {
    fn new(config: Map<String, Value>) -> Self {
        let config = Value::Object(config);
        Self { text: to_yaml(&config), config }
    }
}

pub(super) async fn edit(mut ctl: Ctl<'_>, args: EditConfigArgs) -> Result<(), CtlError> {
    let name = ctl.cluster_name(args.cluster.clone())?;
    let cluster = ctl.read(&name).await?;
    let Some(Value::Object(current)) = cluster.config else {
        return failed(format!("The config key does not exist in the cluster {name}"));
    };
    let before = Edited::new(current.clone());
    let edited = match changed_by_options(&mut ctl, &args, current)? {
        Some(config) => Edited::new(config),
        None => edited_by_hand(&name, &before.text)?,
    };
    if edited.config == before.config {
        return if args.quiet { Ok(()) } else { ctl.console.line("Not changed") };
    }
    if !args.quiet {
        show_difference(&mut ctl, &before.text, &edited.text)?;
    }
    warn(&edited.config)?;
    let from_input = |file: &Option<_>| file.as_deref() == Some(Path::new("-"));
    if (from_input(&args.apply) || from_input(&args.replace)) && !args.force {
        return ctl.console.line("Use --force option to apply changes");
    }
    if !args.force && !ctl.console.confirm("Apply these changes?")? {
        return Ok(());
    }
    let key = format!("{}/{}", keys::base(&ctl.settings.namespace, &name), keys::CONFIG);
    let (value, seen) = (edited.config.to_string(), cluster.view.config_revision);
    match put_key(&ctl.store, key, value, Some(seen), STORE_LIMIT).await {
        Outcome::Done(()) => ctl.console.line("Configuration changed"),
        Outcome::Refused(_) => failed("Config modification aborted due to concurrent changes"),
        Outcome::Unknown(why) => failed(format!(
            "it is not known whether the configuration was changed: {why}\nlook at it with show-config before you try again"
        )),
    }
}

/// The configuration as options change it; `None`: no option says anything.
fn changed_by_options(
    ctl: &mut Ctl<'_>,
    args: &EditConfigArgs,
    current: Map<String, Value>,
) -> Result<Option<Map<String, Value>>, CtlError> {
    let mut config = current;
    if let Some(file) = &args.replace {
        config = Map::new();
        patch::patch(&mut config, &mapping(ctl, file)?);
    }
    if let Some(file) = &args.apply {
        let changes = mapping(ctl, file)?;
        patch::patch(&mut config, &changes);
    }
    let parameters = args.pg.iter().map(|pair| format!("postgresql.parameters.{}", pair.trim_start()));
    for pair in args.set.iter().cloned().chain(parameters) {
        edit::set(&mut config, &pair).map_err(CtlError::Failed)?;
    }
    let nothing = args.replace.is_none() && args.apply.is_none() && args.set.is_empty() && args.pg.is_empty();
    Ok((!nothing).then_some(config))
}

/// The YAML mapping in a file.
fn mapping(ctl: &mut Ctl<'_>, file: &Path) -> Result<Map<String, Value>, CtlError> {
    let text = ctl.console.text_of(file)?;
    let shown = file.display();
    match yaml::parse(&text) {
        Ok(node) => match node.to_json() {
            Value::Object(mapping) => Ok(mapping),
            _ => failed(format!("{shown} must hold a YAML mapping, not {}", node.value.kind())),
        },
        Err(error) => failed(format!("{shown} is not valid YAML: {error}")),
    }
}

/// Has the operator's editor change the text. What cannot be read stays where it was written.
fn edited_by_hand(cluster: &str, before: &str) -> Result<Edited, CtlError> {
    let written = edit::by_hand(cluster, before).map_err(CtlError::Failed)?;
    let refuse = |why: String| {
        let kept = written.file.display();
        failed(format!("{why}\nnothing was changed; your text is in {kept}"))
    };
    let config = match yaml::parse(&written.text) {
        Ok(node) if matches!(node.to_json(), Value::Object(_)) => node.to_json(),
        Ok(node) => return refuse(format!("the configuration must be a YAML mapping, not {}", node.value.kind())),
        Err(error) => return refuse(format!("this is not valid YAML: {error}")),
    };
    let _ = std::fs::remove_file(&written.file);
    Ok(Edited { text: written.text, config })
}

fn show_difference(ctl: &mut Ctl<'_>, before: &str, after: &str) -> Result<(), CtlError> {
    for line in diff::unified(before, after) {
        let colour = match line.as_bytes().first() {
            Some(b'+') => "\x1b[32m",
            Some(b'-') => "\x1b[31m",
            Some(b'@') => "\x1b[36m",
            _ => "",
        };
        if ctl.console.is_terminal && !colour.is_empty() {
            ctl.console.line(&format!("{colour}{line}\x1b[0m"))?;
        } else {
            ctl.console.line(&line)?;
        }
    }
    Ok(())
}

/// Says what the agents will say of it, before it is too late. Standard output is Patroni's alone.
fn warn(config: &Value) -> Result<(), CtlError> {
    let warnings = match DynamicConfig::from_json(config) {
        Ok((_, warnings)) => warnings,
        Err(why) => vec![format!("members will reject this configuration and keep the last one: {why}")],
    };
    for warning in warnings {
        writeln!(std::io::stderr(), "Warning: {warning}")?;
    }
    Ok(())
}
