//! What processes use, from /proc: processor time of a tree of processes, its memory, and the machine's own.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result};

use crate::process::{program, read};

/// Reads processor time, in seconds.
#[derive(Debug)]
pub(super) struct Meter {
    ticks_per_second: u32,
}

impl Meter {
    pub(super) fn new() -> Result<Self> {
        let ticks = read(program("getconf").arg("CLK_TCK"))?;
        Ok(Self { ticks_per_second: ticks.trim().parse().context("getconf CLK_TCK says no number")? })
    }

    /// Time that these processes and their children have used. A child that has ended counts with its parent
    /// once that has waited for it.
    pub(super) fn cpu(&self, roots: &[u32]) -> Result<f64> {
        let ticks: u64 = tree(roots)?
            .into_iter()
            .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok())
            .filter_map(|stat| Stat::parse(&stat))
            .map(|stat| stat.own_ticks + stat.children_ticks)
            .sum();
        Ok(self.seconds(ticks))
    }

    /// Time of the children of this process that have ended: the load generator's.
    pub(super) fn waited_for(&self) -> Result<f64> {
        let stat = fs::read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
        Ok(self.seconds(Stat::parse(&stat).context("/proc/self/stat is not as expected")?.children_ticks))
    }

    /// Time that all programs of the machine have used, the kernel's work for them included.
    pub(super) fn machine(&self) -> Result<f64> {
        let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
        // user, nice, system.
        Ok(self.seconds(fields.take(3).filter_map(|field| field.parse::<u64>().ok()).sum()))
    }

    fn seconds(&self, ticks: u64) -> f64 {
        ticks as f64 / f64::from(self.ticks_per_second)
    }
}

/// Memory of these processes and their children, in KiB. Pages shared among processes count in parts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// With the program's file.
    pub(super) all: u64,
    /// What the program has taken for itself.
    pub(super) anonymous: u64,
}

impl Memory {
    /// # Errors
    /// When one of these processes has ended; a child that ends meanwhile counts nothing.
    pub(super) fn of(roots: &[u32]) -> Result<Self> {
        let mut sum = Self::default();
        for pid in tree(roots)? {
            let text = match fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) {
                Ok(text) => text,
                Err(_) if !roots.contains(&pid) => continue,
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot read the memory of process {pid}"));
                }
            };
            // A child that is just ending has no memory to tell of.
            sum.all += share(&text, "Pss:").unwrap_or(0);
            sum.anonymous += share(&text, "Pss_Anon:").unwrap_or(0);
        }
        Ok(sum)
    }
}

/// How many processors there are.
pub(super) fn cores() -> Result<usize> {
    Ok(std::thread::available_parallelism().context("the number of processors is not known")?.get())
}

fn share(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    own_ticks: u64,
    children_ticks: u64,
}

impl Stat {
    /// proc(5): the name, in parentheses, may itself contain spaces and parentheses.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            own_ticks: number(11)? + number(12)?,
            children_ticks: number(13)? + number(14)?,
        })
    }
}

/// These processes and all below them.
pub(super) fn tree(roots: &[u32]) -> Result<BTreeSet<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot list /proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok();
        if let Some(stat) = stat.and_then(|stat| Stat::parse(&stat)) {
            parents.push((pid, stat.parent));
        }
    }
    let mut tree: BTreeSet<u32> = roots.iter().copied().collect();
    loop {
        let before = tree.len();
        for (pid, parent) in &parents {
            if tree.contains(parent) {
                tree.insert(*pid);
            }
        }
        if tree.len() == before {
            return Ok(tree);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_behind_the_name() {
        let text = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 1 0 99 1 2\n";
        assert_eq!(Stat::parse(text), Some(Stat { parent: 7, own_ticks: 120, children_ticks: 7 }));
        assert_eq!(Stat::parse("42 (a"), None);
    }

    #[test]
    fn memory_is_the_proportional_share() {
        let text = "x\nRss:     2000 kB\nPss:     1234 kB\nPss_Anon: 1 kB\n";
        assert_eq!((share(text, "Pss:"), share(text, "Pss_Anon:")), (Some(1234), Some(1)));
        let own = Memory::of(&[std::process::id()]).unwrap();
        assert!(own.anonymous > 0 && own.all >= own.anonymous, "{own:?}");
    }

    #[test]
    fn this_process_is_below_its_parent() {
        let own = std::process::id();
        let stat = Stat::parse(&fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
        assert!(tree(&[stat.parent]).unwrap().contains(&own));
        assert!(!tree(&[own]).unwrap().contains(&stat.parent));
    }
}
