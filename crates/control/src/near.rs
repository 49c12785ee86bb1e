//! Which of some names was probably meant.

/// The name that is most like the one that was written; `None` when none is near it.
pub(crate) fn nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    near(written, names).into_iter().next()
}

/// The names that are like the one that was written, the nearest first; at most three.
pub(crate) fn near<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let written = written.to_ascii_lowercase();
    // A third of it may be wrong, and never all.
    let most = (written.chars().count() / 3).clamp(1, 4);
    let mut found: Vec<(usize, &str)> = names
        .into_iter()
        .filter_map(|name| {
            let folded = name.to_ascii_lowercase();
            let apart = distance(&written, &folded, most);
            // One begins with the other: `prom` for `prom.svc`.
            let begins = written.len() >= 3
                && folded.len() >= 3
                && (folded.starts_with(&written) || written.starts_with(&folded));
            apart.or_else(|| begins.then_some(most + 1)).map(|apart| (apart, name))
        })
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, name)| name).take(3).collect()
}

/// How many letters have to be put in, taken out or replaced; `None` when more than `most`.
fn distance(a: &str, b: &str, most: usize) -> Option<usize> {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > most {
        return None;
    }
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (row, x) in a.iter().enumerate() {
        let mut last = row + 1;
        let mut line = vec![last];
        for (y, pair) in b.iter().zip(above.windows(2)) {
            let &[diagonal, up] = pair else { continue };
            last = (diagonal + usize::from(x != y)).min(up + 1).min(last + 1);
            line.push(last);
        }
        above = line;
    }
    above.last().copied().filter(|apart| *apart <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_a_slip_are_found_and_others_are_not() {
        let names = ["local.prometheus.svc", "kubeA.reflect.svc", "kubeB.reflect.svc"];
        assert_eq!(nearest("local.promtheus.svc", names), Some("local.prometheus.svc"));
        assert_eq!(near("KUBEC.reflect.svc", names), ["kubeA.reflect.svc", "kubeB.reflect.svc"]);
        assert_eq!(nearest("local", names), Some("local.prometheus.svc"));
        assert_eq!(nearest("grafana", names), None);
        assert_eq!(nearest("", names), None);
    }
}
