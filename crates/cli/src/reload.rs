//! When a configuration file is to be read again: its content has changed, SIGHUP came, or somebody asked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use adit_telemetry::reloads::{Answer, Reloads, Request};
use aws_lc_rs::digest::{Context, SHA256};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::config::Loaded;
use crate::config::reader::Setting;
use crate::error::CliError;

/// A file that is written in several steps is looked at when it has been left alone for so long.
const QUIET: Duration = Duration::from_millis(200);
/// Looks at files that are changed without pause this long after the first change all the same.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often files are looked at where nothing tells of changes: network and overlay file systems.
const POLL: Duration = Duration::from_secs(30);

/// How long reading all files may take, and how long opening one to write to.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads a file of one role.
type Load<T> = fn(&Path) -> Result<Loaded<T>, CliError>;

/// Why a file is read again.
#[derive(Debug)]
pub(crate) enum Why {
    /// It holds something else.
    Changed,
    /// SIGHUP.
    Signal,
    /// Somebody asked, and waits for what becomes of it.
    Asked(Request),
}

impl Why {
    const fn label(&self) -> &'static str {
        match self {
            Self::Changed => "the file has changed",
            Self::Signal => "SIGHUP",
            Self::Asked(_) => "asked for",
        }
    }
}

/// The configuration file of a role that runs.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    path: PathBuf,
    watch: FileWatch,
    /// What is in force.
    settings: Vec<Setting>,
    /// Keys that wait for a restart, as the log said last.
    waiting: Vec<String>,
    hash: String,
    /// Whoever asks for a reload.
    requests: mpsc::Receiver<Request>,
}

impl ConfigFile {
    /// Watches a file that was read, and gives what it says.
    pub(crate) fn open<T>(path: PathBuf, loaded: Loaded<T>) -> (T, Self) {
        let Loaded { config, settings, files, hash } = loaded;
        let (_, nobody) = mpsc::channel(1);
        (
            config,
            Self {
                path,
                watch: FileWatch::start(files),
                settings,
                waiting: Vec::new(),
                hash,
                requests: nobody,
            },
        )
    }

    /// The role has started with it.
    pub(crate) fn started(&mut self, reloads: &Reloads) {
        reloads.started(&self.hash, SystemTime::now());
        self.requests = reloads.requests();
    }

    /// Waits until the file, or one that it names, holds something else, or until somebody asks for a reload. Cancel
    /// safe.
    pub(crate) async fn next(&mut self) -> Why {
        tokio::select! {
            () = self.watch.changed() => Why::Changed,
            Some(request) = self.requests.recv() => Why::Asked(request),
        }
    }

    /// Reads the file again and has it taken. What is wrong with it, or whoever cannot take it, leaves the one before
    /// in force; the log and the metrics say so.
    ///
    /// `live` are the keys that can be taken without a restart; the log names others that have changed.
    pub(crate) async fn reload<T: Send + 'static>(
        &mut self,
        why: Why,
        load: Load<T>,
        live: &[&str],
        take: impl AsyncFnOnce(T) -> Result<(), CliError>,
        reloads: &Reloads,
    ) {
        let (label, now) = (why.label(), SystemTime::now());
        // What is read now is not news any more, whatever becomes of it.
        self.watch.look();
        let taken = async {
            let Loaded { config, settings, files, hash } = read(self.path.clone(), load).await?;
            take(config).await?;
            Ok((settings, files, hash))
        };
        let file = self.path.display();
        let answer = match taken.await {
            Ok((settings, files, hash)) => {
                let waiting = changed(&self.settings, &settings, live);
                let keys = waiting.join(", ");
                match (waiting.is_empty(), waiting == self.waiting) {
                    // Said before, and nothing to be done that was not then.
                    (_, true) => {}
                    (false, false) => {
                        tracing::warn!(%file, keys, "these keys have changed and take effect only after a restart");
                    }
                    (true, false) => {
                        tracing::info!(%file, "no key waits for a restart any more");
                    }
                }
                reloads.reloaded(&hash, now);
                tracing::info!(%file, why = label, hash, "the configuration was read again and is in force");
                self.watch.replace(files);
                (self.settings, self.hash) = (in_force(&self.settings, settings, &waiting), hash);
                self.waiting.clone_from(&waiting);
                Answer::Taken(waiting)
            }
            Err(error) => {
                let error: CliError = error;
                reloads.refused();
                tracing::error!(%file, why = label, "the configuration was not taken, the one before stays in force: {error}");
                Answer::Refused(error.to_string())
            }
        };
        if let Why::Asked(request) = why {
            request.answer(answer);
        }
    }
}

async fn read<T: Send + 'static>(path: PathBuf, load: Load<T>) -> Result<Loaded<T>, CliError> {
    let name = path.display().to_string();
    bounded("configuration", move || load(&path)).await.unwrap_or_else(|| {
        Err(CliError::failure(format!("{name} was not read within {} s", READ_TIMEOUT.as_secs()))
            .because("it, or a file that it names, does not answer: a mount that hangs, or a pipe")
            .next("put plain files on a file system that answers"))
    })
}

/// Does what files may hold up in a thread of its own: a mount that hangs, or a pipe that nobody is at the other end of,
/// must not hold up what the process is there for. `None`: it was not done in time. Cancel safe: it may be done all the
/// same.
pub(crate) async fn bounded<T: Send + 'static>(
    thread: &str,
    work: impl FnOnce() -> Result<T, CliError> + Send + 'static,
) -> Option<Result<T, CliError>> {
    let (tell, told) = oneshot::channel();
    let spawned = std::thread::Builder::new().name(thread.to_owned()).spawn(move || drop(tell.send(work())));
    if let Err(cause) = spawned {
        return Some(Err(CliError::failure("cannot start a thread").caused_by(&cause)));
    }
    tokio::time::timeout(READ_TIMEOUT, told).await.ok().and_then(Result::ok)
}

/// What is in force once a file was taken: what it says, except where keys wait for a restart.
fn in_force(old: &[Setting], new: Vec<Setting>, waiting: &[String]) -> Vec<Setting> {
    let kept = old.iter().filter(|setting| waiting.contains(&setting.path)).cloned();
    let taken = new.into_iter().filter(|setting| !waiting.contains(&setting.path));
    taken.chain(kept).collect()
}

/// Keys whose values differ, except those that are live, with everything below them; `*` stands for what is above. One
/// with a `?` behind it is live where it comes or goes with its section, and not where its value changes.
fn changed(old: &[Setting], new: &[Setting], live: &[&str]) -> Vec<String> {
    let has = |one: &[Setting], path: &str| one.iter().any(|setting| setting.path == path);
    let is_live = |path: &str| {
        live.iter().any(|key| match (key.strip_prefix('*'), key.strip_suffix('?')) {
            (Some(ending), _) => path.ends_with(ending),
            (_, Some(whole)) => path == whole && !(has(old, path) && has(new, path)),
            (None, None) => {
                path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            }
        })
    };
    let missing_in = |one: &[Setting], other: &Setting| {
        !one.iter().any(|setting| setting.path == other.path && setting.value == other.value)
    };
    let gone = old.iter().filter(|setting| missing_in(new, setting));
    let come = new.iter().filter(|setting| missing_in(old, setting));
    let mut paths: Vec<String> = gone.chain(come).map(|setting| setting.path.clone()).collect();
    paths.retain(|path| !is_live(path));
    paths.sort();
    paths.dedup();
    paths
}

/// Watches the content of files.
///
/// Directories are watched, not files: editors and Kubernetes put a new file, or a new symbolic link on the way to
/// it, in the place of the old one, and a watch on the file itself would stay with the old one.
#[derive(Debug)]
pub(crate) struct FileWatch {
    files: Vec<PathBuf>,
    seen: Digest,
    touched: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    directories: Vec<PathBuf>,
}

type Digest = [u8; 32];

impl FileWatch {
    /// Watches these files; what they hold now is not news.
    pub(crate) fn start(files: Vec<PathBuf>) -> Self {
        let touched = Arc::<Notify>::default();
        let teller = Arc::clone(&touched);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                teller.notify_one();
            }
        });
        let watcher = watcher
            .inspect_err(|error| {
                tracing::warn!(%error, every = ?POLL, "the system does not tell of changed files; looking again and again");
            })
            .ok();
        let mut watch =
            Self { files: Vec::new(), seen: Digest::default(), touched, watcher, directories: Vec::new() };
        watch.replace(files);
        watch
    }

    /// Watches these files from now on; what they hold now is not news.
    pub(crate) fn replace(&mut self, files: Vec<PathBuf>) {
        self.seen = digest(&files);
        self.files = files;
        let wanted: Vec<PathBuf> = self.files.iter().flat_map(|file| directories(file)).collect();
        let Some(watcher) = &mut self.watcher else { return };
        for gone in self.directories.extract_if(.., |directory| !wanted.contains(directory)) {
            drop(watcher.unwatch(&gone));
        }
        for directory in wanted {
            if !self.directories.contains(&directory)
                && watcher.watch(&directory, RecursiveMode::NonRecursive).is_ok()
            {
                self.directories.push(directory);
            }
        }
    }

    /// Waits until the files hold something else than when it was asked last. Cancel safe: a change is told again.
    pub(crate) async fn changed(&mut self) {
        loop {
            // Whether told or not: it is the content that counts.
            drop(tokio::time::timeout(POLL, self.touched.notified()).await);
            let calm = async { while tokio::time::timeout(QUIET, self.touched.notified()).await.is_ok() {} };
            drop(tokio::time::timeout(PATIENCE, calm).await);
            if self.look() {
                return;
            }
        }
    }

    /// Whether the files hold something else than when they were looked at last.
    fn look(&mut self) -> bool {
        let now = digest(&self.files);
        std::mem::replace(&mut self.seen, now) != now
    }
}

/// Where a change of this file shows: the directory that names it, and those of the links on the way to it.
fn directories(file: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut next = Some(file.to_owned());
    // As many links as the kernel follows.
    for _link in 0..40 {
        let Some(path) = next else { break };
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        next = std::fs::read_link(&path).ok().map(|target| directory.join(target));
        if !found.contains(&directory) {
            found.push(directory);
        }
    }
    found
}

/// What the files hold. One that cannot be read counts as one that holds nothing, and is news when it can be again.
fn digest(files: &[PathBuf]) -> Digest {
    let mut context = Context::new(&SHA256);
    for file in files {
        // Reading a pipe could wait for ever.
        let is_plain = std::fs::metadata(file).is_ok_and(|about| about.is_file());
        let content = if is_plain { std::fs::read(file).unwrap_or_default() } else { Vec::new() };
        context.update(&content.len().to_be_bytes());
        context.update(&content);
    }
    context.finish().as_ref().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests;
