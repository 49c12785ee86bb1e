//! Sets of members: who may do something. What is selected in many places is kept once.

use std::collections::HashSet;
use std::sync::Arc;

use super::Bits;

/// A set of places among a snapshot's members, in whichever form is smaller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Set {
    /// In order, each once.
    Few(Box<[usize]>),
    /// One bit each.
    Many(Bits),
}

impl Set {
    /// Of numbers below `length`, in any order.
    pub(crate) fn new(mut members: Vec<usize>, length: usize) -> Self {
        members.sort_unstable();
        members.dedup();
        if members.len() <= length / 64 {
            return Self::Few(members.into());
        }
        let mut bits = Bits::none(length);
        members.into_iter().for_each(|index| bits.insert(index));
        Self::Many(bits)
    }

    pub(crate) fn contains(&self, index: usize) -> bool {
        match self {
            Self::Few(members) => members.binary_search(&index).is_ok(),
            Self::Many(bits) => bits.contains(index),
        }
    }

    /// What is in all of some sets; nothing, if there are none.
    pub(crate) fn common(sets: &[&Self], length: usize) -> Self {
        let few = sets.iter().filter_map(|set| match set {
            Self::Few(members) => Some(members),
            Self::Many(_) => None,
        });
        if let Some(fewest) = few.min_by_key(|members| members.len()) {
            let in_all = |index: &usize| sets.iter().all(|set| set.contains(*index));
            return Self::new(fewest.iter().copied().filter(in_all).collect(), length);
        }
        let mut many = sets.iter().filter_map(|set| match set {
            Self::Many(bits) => Some(bits),
            Self::Few(_) => None,
        });
        let mut common = many.next().cloned().unwrap_or_else(|| Bits::none(length));
        many.for_each(|bits| common.intersect(bits));
        Self::Many(common)
    }

    /// What is in any of some sets.
    fn union(sets: &[Arc<Self>], length: usize) -> Self {
        let mut all = Bits::none(length);
        for set in sets {
            match &**set {
                Self::Few(members) => members.iter().for_each(|index| all.insert(*index)),
                Self::Many(bits) => all.unite(bits),
            }
        }
        if all.count() <= length / 64 { Self::Few(all.iter().collect()) } else { Self::Many(all) }
    }

    /// What is in it, in order.
    pub(crate) fn iter(&self) -> Box<dyn Iterator<Item = usize> + '_> {
        match self {
            Self::Few(members) => Box::new(members.iter().copied()),
            Self::Many(bits) => Box::new(bits.iter()),
        }
    }
}

/// Who may do something: whoever is in one of some sets. They are shared by all services that policies let the same
/// people reach, so many policies for many services do not need room for every pair.
#[derive(Debug, Clone, Default)]
pub(crate) struct Permitted(Arc<[Arc<Set>]>);

impl Permitted {
    /// So many sets are looked into one after the other; more become one.
    const SETS: usize = 4;

    pub(crate) fn any_of(mut sets: Vec<Arc<Set>>, length: usize) -> Self {
        let mut seen = HashSet::new();
        sets.retain(|set| seen.insert(Arc::as_ptr(set)));
        if sets.len() > Self::SETS {
            sets = vec![Arc::new(Set::union(&sets, length))];
        }
        Self(sets.into())
    }

    pub(crate) fn contains(&self, index: usize) -> bool {
        self.0.iter().any(|set| set.contains(index))
    }

    pub(crate) fn sets(&self) -> &[Arc<Set>] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_few_and_of_many_are_the_same_sets() {
        const LENGTH: usize = 640;
        let ten = || (0..10).map(|index| index * 64);
        let (few, many) =
            (Set::new(ten().rev().chain(ten()).collect(), LENGTH), Set::new((0..500).collect(), LENGTH));
        assert!(matches!((&few, &many), (Set::Few(_), Set::Many(_))));
        assert!(few.iter().eq(ten()) && many.iter().eq(0..500));
        assert!(few.contains(64) && !few.contains(65) && many.contains(499) && !many.contains(500));
        let both: Vec<usize> = ten().filter(|index| *index < 500).collect();
        for sets in [[&few, &many], [&many, &few]] {
            assert!(Set::common(&sets, LENGTH).iter().eq(both.iter().copied()));
        }
        let odd = Set::new((0..LENGTH).filter(|index| index % 2 == 1).collect(), LENGTH);
        assert!(Set::common(&[&many, &odd], LENGTH).iter().eq((1..500).step_by(2)));
        assert_eq!(Set::common(&[], LENGTH).iter().count(), 0);
        assert_eq!(Set::union(&[Arc::new(few.clone()), Arc::new(many)], LENGTH).iter().count(), 502);
        assert!(matches!(Set::union(&[Arc::new(few)], LENGTH), Set::Few(_)));
    }

    #[test]
    fn whoever_is_in_one_of_the_sets_is_permitted_however_many_there_are() {
        let set = |index: usize| Arc::new(Set::new(vec![index], 1000));
        for count in [0, 1, Permitted::SETS, Permitted::SETS + 1, 100] {
            let sets: Vec<_> =
                (0..count).map(|number| set(number * 10)).flat_map(|set| [Arc::clone(&set), set]).collect();
            let permitted = Permitted::any_of(sets, 1000);
            assert!(permitted.sets().len() <= Permitted::SETS);
            assert!(
                (0..1000).all(|index| permitted.contains(index) == (index % 10 == 0 && index < count * 10))
            );
        }
    }
}
