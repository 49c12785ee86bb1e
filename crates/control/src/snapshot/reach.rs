//! Policies into sets: for every service, who may reach and who may offer it.
//!
//! Nothing here grows with policies times services. Policies are taken apart into what they select: a role of each
//! side, or several attributes that are needed together. Who is selected is worked out once for each such selection,
//! and gathered once for each selection of services; services that are selected alike share the result.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use adit_proto::name::Name;

use super::sets::{Permitted, Set};
use super::{Member, PUBLIC_INDEX, Reachable};
use crate::model::{Role, Semantic, Service, ServicePolicy, Verb};

/// One way to select things, of which a policy may have several.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Selection<'a> {
    /// Everything that `#all` means.
    All,
    /// What is named.
    Named(Vec<usize>),
    /// What has all of these attributes: folded, in order, each once.
    Having(Vec<&'a str>),
}

/// What can be selected, members or services, and what has been.
struct Side<'a> {
    /// How many there are.
    length: usize,
    /// What `#all` means.
    all: Arc<Set>,
    /// What has each attribute that a policy asks for.
    having: HashMap<&'a str, Vec<usize>>,
    selected: HashMap<Selection<'a>, Arc<Set>>,
    together: HashMap<Vec<Selection<'a>>, Permitted>,
}

impl<'a> Side<'a> {
    /// `roles` are all that policies have of this side.
    fn new(
        roles: impl Iterator<Item = &'a Role>,
        things: impl Iterator<Item = (usize, &'a [Name])>,
        length: usize,
        all: Vec<usize>,
    ) -> Self {
        let asked = roles
            .filter_map(|role| if let Role::Attribute(name) = role { Some(name.folded()) } else { None });
        let mut having: HashMap<&str, Vec<usize>> = asked.map(|name| (name, Vec::new())).collect();
        for (index, attributes) in things {
            for attribute in attributes {
                if let Some(list) = having.get_mut(attribute.folded()) {
                    list.push(index);
                }
            }
        }
        Self {
            length,
            all: Arc::new(Set::new(all, length)),
            having,
            selected: HashMap::new(),
            together: HashMap::new(),
        }
    }

    /// Everything that a selection means.
    fn of(&mut self, selection: &Selection<'a>) -> Arc<Set> {
        if let Some(known) = self.selected.get(selection) {
            return Arc::clone(known);
        }
        let set = match selection {
            Selection::All => Arc::clone(&self.all),
            Selection::Named(places) => Arc::new(Set::new(places.clone(), self.length)),
            Selection::Having(attributes) => match &attributes[..] {
                [one] => {
                    let places = self.having.get_mut(one).map(std::mem::take).unwrap_or_default();
                    Arc::new(Set::new(places, self.length))
                }
                several => {
                    let sets: Vec<_> =
                        several.iter().map(|one| self.of(&Selection::Having(vec![one]))).collect();
                    let sets: Vec<_> = sets.iter().map(|set| &**set).collect();
                    Arc::new(Set::common(&sets, self.length))
                }
            },
        };
        self.selected.insert(selection.clone(), Arc::clone(&set));
        set
    }

    /// Everything that any of some selections means.
    fn any_of(&mut self, selections: Vec<Selection<'a>>) -> Permitted {
        if let Some(known) = self.together.get(&selections) {
            return known.clone();
        }
        let sets = selections.iter().map(|selection| self.of(selection)).collect();
        let permitted = Permitted::any_of(sets, self.length);
        self.together.insert(selections, permitted.clone());
        permitted
    }
}

/// What the roles of one side of a policy select. `named` says where something is.
fn selections<'a>(
    semantic: Semantic,
    roles: &'a [Role],
    named: impl Fn(&Name) -> Option<usize>,
) -> Vec<Selection<'a>> {
    let (mut found, mut places, mut attributes) = (Vec::new(), Vec::new(), Vec::new());
    for role in roles {
        match role {
            Role::All => found.push(Selection::All),
            Role::Entity(name) => places.extend(named(name)),
            Role::Attribute(name) => attributes.push(name.folded()),
        }
    }
    places.sort_unstable();
    attributes.sort_unstable();
    attributes.dedup();
    match semantic {
        Semantic::AnyOf => found.extend(attributes.into_iter().map(|one| Selection::Having(vec![one]))),
        Semantic::AllOf if attributes.is_empty() => {}
        Semantic::AllOf => found.push(Selection::Having(attributes)),
    }
    if !places.is_empty() {
        found.push(Selection::Named(places));
    }
    found
}

/// Numbers things in the order in which they come up.
struct Numbered<T>(HashMap<T, usize>);

impl<T: Hash + Eq> Numbered<T> {
    fn of(&mut self, thing: T) -> usize {
        let next = self.0.len();
        *self.0.entry(thing).or_insert(next)
    }
}

/// Every service with whom policies let reach and offer it. `named` says where a member is.
pub(super) fn reachable(
    members: &[Member],
    services: &[Arc<Service>],
    policies: &[Arc<ServicePolicy>],
    named: impl Fn(&Name) -> Option<usize>,
) -> HashMap<Name, Reachable> {
    let enabled = || members.iter().enumerate().filter(|(_, member)| !member.is_disabled);
    let mut whom = Side::new(
        policies.iter().flat_map(|policy| &policy.identity_roles),
        enabled().map(|(index, member)| (index, member.attributes())),
        members.len(),
        enabled().map(|(index, _)| index).filter(|index| *index != PUBLIC_INDEX).collect(),
    );
    let mut what = Side::new(
        policies.iter().flat_map(|policy| &policy.service_roles),
        services.iter().map(|service| &service.attributes[..]).enumerate(),
        services.len(),
        (0..services.len()).collect(),
    );
    let places: HashMap<&str, usize> =
        services.iter().enumerate().map(|(index, it)| (it.name.folded(), index)).collect();
    let is_enabled = |index: &usize| members.get(*index).is_some_and(|member| !member.is_disabled);

    let [dial, bind] = [Verb::Dial, Verb::Bind].map(|verb| {
        let mut numbers = Numbered(HashMap::new());
        let mut gathered: Vec<(Selection<'_>, Vec<Arc<Set>>)> = Vec::new();
        for policy in policies.iter().filter(|policy| policy.verb == verb) {
            let ServicePolicy { semantic, service_roles, identity_roles, .. } = &**policy;
            let who = selections(*semantic, identity_roles, |name| named(name).filter(is_enabled));
            let who = whom.any_of(who);
            for selection in selections(*semantic, service_roles, |name| places.get(name.folded()).copied()) {
                let number = numbers.of(selection.clone());
                if number == gathered.len() {
                    gathered.push((selection, Vec::new()));
                }
                if let Some((_, sets)) = gathered.get_mut(number) {
                    sets.extend(who.sets().iter().map(Arc::clone));
                }
            }
        }
        share(&mut what, gathered, members.len())
    });
    services
        .iter()
        .zip(dial.into_iter().zip(bind))
        .map(|(service, (dial, bind))| {
            (service.name.clone(), Reachable { service: Arc::clone(service), dial, bind })
        })
        .collect()
}

/// For each service what is gathered for the selections that it is in.
fn share<'a>(
    what: &mut Side<'a>,
    gathered: Vec<(Selection<'a>, Vec<Arc<Set>>)>,
    members: usize,
) -> Vec<Permitted> {
    let mut selected_by: Vec<Vec<usize>> = vec![Vec::new(); what.length];
    let mut permitted = Vec::with_capacity(gathered.len());
    for (number, (selection, sets)) in gathered.into_iter().enumerate() {
        permitted.push(Permitted::any_of(sets, members));
        for index in what.of(&selection).iter() {
            if let Some(list) = selected_by.get_mut(index) {
                list.push(number);
            }
        }
    }
    let mut known: HashMap<Vec<usize>, Permitted> = HashMap::new();
    let of_service = |selections: Vec<usize>| {
        if let Some(known) = known.get(&selections) {
            return known.clone();
        }
        let sets = selections.iter().filter_map(|number| permitted.get(*number)).flat_map(Permitted::sets);
        let of_service = match &selections[..] {
            [one] => permitted.get(*one).cloned().unwrap_or_default(),
            _ => Permitted::any_of(sets.map(Arc::clone).collect(), members),
        };
        known.insert(selections, of_service.clone());
        of_service
    };
    selected_by.into_iter().map(of_service).collect()
}
