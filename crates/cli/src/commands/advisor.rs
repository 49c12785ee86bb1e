//! `adit edge policy-advisor`: who may reach and offer what, one line for each pair, as people know it from OpenZiti.

use std::collections::BTreeMap;
use std::process::ExitCode;

use adit_control::expectation::decide;
use adit_control::model::{Kind, Model, Verb};
use adit_control::snapshot::Generation;
use adit_control::{Local, Snapshot};
use adit_proto::name::Name;

use super::explain;
use crate::access::AccessArgs;
use crate::error::CliError;
use crate::interface::{Interface, Item};
use crate::output;

/// What stands first.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Advise {
    /// For each identity, or one, the services it may reach or offer.
    #[command(visible_alias = "identity")]
    Identities(Args),
    /// For each service, or one, the identities that may reach or offer it.
    #[command(visible_alias = "service")]
    Services(Args),
}

/// Arguments of `adit edge policy-advisor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit edge policy-advisor identities dev.client -q
  adit edge policy-advisor services web dev.client

Behind an identity stands whether it is online (1) or not (0), behind a service how many agents offer it now.
adit explain says why.")]
pub(crate) struct Args {
    /// Only this one.
    #[arg(index = 1, value_name = "NAME")]
    first: Option<Name>,
    /// Only with this one on the other side; shown even if nothing is permitted.
    #[arg(index = 2, value_name = "OTHER")]
    second: Option<Name>,
    /// Leave the heading out.
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    access: AccessArgs,
}

/// One identity and one service.
#[derive(Debug, PartialEq, Eq)]
struct Pair {
    identity: String,
    online: usize,
    service: String,
    endpoints: usize,
    dial: bool,
    bind: bool,
}

/// Prints a line for each pair.
pub(crate) async fn run(advise: Advise) -> Result<ExitCode, CliError> {
    let (args, by_service) = match advise {
        Advise::Identities(args) => (args, false),
        Advise::Services(args) => (args, true),
    };
    let (identity, service) =
        if by_service { (&args.second, &args.first) } else { (&args.first, &args.second) };
    let mut interface = args.access.interface()?;
    let mut model = Model::default();
    for resource in interface.export().await? {
        model.put(resource);
    }
    known(&model, identity.as_ref(), service.as_ref())?;
    let mut online = interface.all(Kind::Identity).await?;
    online.extend(interface.all(Kind::Token).await?);
    let mut pairs = pairs(&model, &online, identity.as_ref(), service.as_ref());
    if by_service {
        pairs.sort_by(|a, b| (&a.service, &a.identity).cmp(&(&b.service, &b.identity)));
    }
    count_endpoints(&mut interface, &mut pairs).await?;
    if !args.quiet {
        output::line(
            "Policy General Guidelines: a line is OKAY if the identity may dial or bind the service.",
        );
    }
    output::print(&pairs.iter().map(line).collect::<String>());
    if pairs.is_empty() && !args.quiet {
        output::note(nobody(identity.as_ref(), service.as_ref()));
    }
    Ok(ExitCode::SUCCESS)
}

fn known(model: &Model, identity: Option<&Name>, service: Option<&Name>) -> Result<(), CliError> {
    let unknown = |kind: &str, name: &Name| {
        CliError::failure(format!("there is no {kind} {name}"))
            .next(format!("adit {kind} list shows what there is"))
    };
    if let Some(name) = identity
        && !model.identities.contains_key(name)
        && !model.tokens.contains_key(name)
    {
        return Err(unknown("identity", name));
    }
    match service {
        Some(name) if !model.services.contains_key(name) => Err(unknown("service", name)),
        _ => Ok(()),
    }
}

/// What it means that there is no line.
fn nobody(identity: Option<&Name>, service: Option<&Name>) -> String {
    match (identity, service) {
        (Some(name), _) => format!("no policy lets {name} dial or bind any service"),
        (_, Some(name)) => format!("no policy lets anybody dial or bind service {name}"),
        _ => "no policy lets anybody dial or bind any service".to_owned(),
    }
}

fn pairs(model: &Model, online: &[Item], identity: Option<&Name>, service: Option<&Name>) -> Vec<Pair> {
    let snapshot = Snapshot::compile(Generation::FIRST, model, &Local::default());
    let is_online = |name: &Name| {
        online.iter().any(|item| *name == *item.name().to_ascii_lowercase() && item.is("online"))
    };
    let identities: Vec<&Name> = model
        .identities
        .keys()
        .chain(model.tokens.keys())
        .filter(|name| identity.is_none_or(|wanted| wanted == *name))
        .collect();
    let services: Vec<&Name> =
        model.services.keys().filter(|name| service.is_none_or(|wanted| wanted == *name)).collect();
    let is_asked = identity.is_some() && service.is_some();
    let mut found = Vec::new();
    for who in identities {
        for what in &services {
            let may = |verb| decide(&snapshot, verb, who, what).is_ok();
            let (dial, bind) = (may(Verb::Dial), may(Verb::Bind));
            if dial || bind || is_asked {
                let online = usize::from(is_online(who));
                let (identity, service) = (who.to_string(), what.to_string());
                found.push(Pair { identity, online, service, endpoints: 0, dial, bind });
            }
        }
    }
    found
}

/// Asks once for each service how many offer it.
async fn count_endpoints(interface: &mut Interface, pairs: &mut [Pair]) -> Result<(), CliError> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for pair in pairs {
        let count = match counts.get(&pair.service) {
            Some(count) => *count,
            None => {
                let value = explain::ask(interface, "dial", &pair.identity, &pair.service, "").await?;
                let count = explain::read(&value)?.endpoints.len();
                counts.insert(pair.service.clone(), count);
                count
            }
        };
        pair.endpoints = count;
    }
    Ok(())
}

fn line(pair: &Pair) -> String {
    let Pair { identity, online, service, endpoints, dial, bind } = pair;
    let mark = if *dial || *bind { "OKAY " } else { "ERROR" };
    let letter = |is: &bool| if *is { "Y" } else { "N" };
    let mut text = format!(
        "{mark}: {identity} ({online}) -> {service} ({endpoints}) Dial: {} Bind: {}\n",
        letter(dial),
        letter(bind)
    );
    if !(*dial || *bind) {
        text.push_str("  - no policy permits anything; adit explain says what is missing\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_form_that_scripts_read() {
        let mut model = Model::default();
        let resources: Vec<adit_control::model::Resource> = serde_json::from_value(serde_json::json!([
            {"kind": "identity", "name": "alice", "attributes": ["dev"]},
            {"kind": "identity", "name": "agent"},
            {"kind": "service", "name": "web"},
            {"kind": "service-policy", "name": "d", "type": "Dial", "service_roles": ["@web"], "identity_roles": ["#dev"]},
            {"kind": "service-policy", "name": "b", "type": "Bind", "service_roles": ["@web"], "identity_roles": ["@agent"]},
            {"kind": "service", "name": "dark"},
        ]))
        .unwrap();
        for resource in resources {
            model.put(resource);
        }
        let agent = serde_json::json!({ "name": "Agent", "online": true });
        let online = [Item(agent.as_object().unwrap().clone())];
        let all: String = pairs(&model, &online, None, None).iter().map(line).collect();
        assert_eq!(
            all,
            "OKAY : agent (1) -> web (0) Dial: N Bind: Y\nOKAY : alice (0) -> web (0) Dial: Y Bind: N\n"
        );
        let (alice, dark) = ("alice".parse().unwrap(), "dark".parse().unwrap());
        let asked: String = pairs(&model, &online, Some(&alice), Some(&dark)).iter().map(line).collect();
        assert!(asked.starts_with("ERROR: alice (0) -> dark (0) Dial: N Bind: N\n"), "{asked}");
        assert!(known(&model, Some(&dark), None).is_err());
        assert!(pairs(&model, &online, None, Some(&dark)).is_empty());
        assert_eq!(nobody(None, Some(&dark)), "no policy lets anybody dial or bind service dark");
    }
}
