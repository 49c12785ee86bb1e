//! What a running process makes of files that change.

use std::fs;

use super::*;

/// Longer than anything here takes, and shorter than the time after which files are looked at untold: who passes was
/// told.
const SOON: Duration = Duration::from_secs(20);

async fn told(watch: &mut FileWatch) {
    tokio::time::timeout(SOON, watch.changed()).await.expect("a change is told");
}

#[tokio::test]
async fn a_file_that_is_written_replaced_or_removed_is_told_of_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gateway.yaml");
    fs::write(&file, "a").unwrap();
    let mut watch = FileWatch::start(vec![file.clone()]);

    fs::write(&file, "b").unwrap();
    told(&mut watch).await;
    let draft = directory.path().join("draft");
    fs::write(&draft, "c").unwrap();
    fs::rename(&draft, &file).unwrap();
    told(&mut watch).await;
    fs::remove_file(&file).unwrap();
    told(&mut watch).await;
    fs::write(&file, "d").unwrap();
    told(&mut watch).await;
    assert_eq!(watch.seen, digest(&[file]));
}

#[tokio::test]
async fn a_link_that_is_swapped_on_the_way_to_the_file_is_a_change() {
    // As Kubernetes mounts a ConfigMap: gateway.yaml -> ..data/gateway.yaml, ..data -> ..1/.
    let mount = tempfile::tempdir().unwrap();
    let path = |name: &str| mount.path().join(name);
    for (version, text) in [("..1", "old"), ("..2", "new")] {
        fs::create_dir(path(version)).unwrap();
        fs::write(path(version).join("gateway.yaml"), text).unwrap();
    }
    std::os::unix::fs::symlink("..1", path("..data")).unwrap();
    std::os::unix::fs::symlink("..data/gateway.yaml", path("gateway.yaml")).unwrap();
    let mut watch = FileWatch::start(vec![path("gateway.yaml")]);

    std::os::unix::fs::symlink("..2", path("..data_tmp")).unwrap();
    fs::rename(path("..data_tmp"), path("..data")).unwrap();
    told(&mut watch).await;
    assert_eq!(fs::read_to_string(path("gateway.yaml")).unwrap(), "new");
}

#[tokio::test(start_paused = true)]
async fn what_holds_the_same_is_no_change_and_files_are_looked_at_untold_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gateway.yaml");
    fs::write(&file, "a").unwrap();
    let mut watch = FileWatch::start(vec![file.clone()]);
    watch.watcher = None;
    watch.touched.notify_one();
    assert!(tokio::time::timeout(POLL / 2, watch.changed()).await.is_err());
    fs::write(&file, "b").unwrap();
    assert!(tokio::time::timeout(POLL * 3, watch.changed()).await.is_ok());
}

fn setting(path: &str, value: &str) -> Setting {
    Setting { path: path.into(), value: value.into(), is_default: false }
}

#[test]
fn keys_that_need_a_restart_are_named_and_live_ones_are_not() {
    let old = [setting("access.allow[0]", "a"), setting("http[0].listen", "b"), setting("accessory", "c")];
    let new = [setting("access.allow[1]", "a"), setting("http[0].listen", "d"), setting("limits.x", "e")];
    assert_eq!(changed(&old, &new, &["access", "tokens"]), ["accessory", "http[0].listen", "limits.x"]);
    assert!(changed(&old, &old, &[]).is_empty());
    let (old, new) = ([setting("http[0].tls.cert", "a")], [setting("http[0].tls.cert", "b")]);
    assert!(changed(&old, &new, &["*.tls.cert"]).is_empty());
    let (none, one, two) = ([], [setting("tcp.listen", "a")], [setting("tcp.listen", "b")]);
    for (old, new, waiting) in [(&none[..], &one[..], 0), (&one, &none, 0), (&one, &two, 1)] {
        assert_eq!(changed(old, new, &["tcp.listen?"]).len(), waiting);
    }
}

#[test]
fn a_key_that_waits_is_compared_with_what_is_in_force_and_not_with_the_last_file() {
    let (at_start, later) =
        ([setting("x", "a"), setting("y", "a")], vec![setting("x", "b"), setting("y", "b")]);
    let waiting = changed(&at_start, &later, &["y"]);
    let kept = in_force(&at_start, later.clone(), &waiting);
    assert_eq!(changed(&kept, &later, &["y"]), ["x"], "it still waits");
    assert!(changed(&kept, &at_start, &["y"]).is_empty(), "put back, it waits no more");
}

#[tokio::test(start_paused = true)]
async fn a_pipe_that_nobody_writes_to_holds_up_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.yaml");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let watch = FileWatch::start(vec![path.clone()]);
    assert_eq!(watch.seen, digest(&[directory.path().join("nothing")]));
    let error = read(path, |path| {
        fs::read(path).unwrap();
        Err::<Loaded<()>, _>(CliError::usage("it was read"))
    });
    assert!(error.await.unwrap_err().to_string().contains("was not read within 10 s"));
}

#[tokio::test]
async fn a_file_that_is_wrong_or_cannot_be_taken_leaves_the_one_before_in_force() {
    fn read(path: &Path) -> Result<Loaded<String>, CliError> {
        let text =
            fs::read_to_string(path).map_err(|cause| CliError::usage("unreadable").caused_by(&cause))?;
        let setting = setting("all", &text);
        let hash = format!("hash of {text}");
        if text == "wrong" {
            return Err(CliError::usage("wrong"));
        }
        Ok(Loaded { config: text, settings: vec![setting], files: vec![path.to_owned()], hash })
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.yaml");
    fs::write(&path, "one").unwrap();
    let (config, mut file) = ConfigFile::open(path.clone(), read(&path).unwrap());
    assert_eq!(config, "one");
    let health = Reloads::default();
    file.started(&health);
    file.watch.watcher = None;
    for (text, takes, is_taken, in_force) in [
        ("two", true, true, "hash of two"),
        ("wrong", true, false, "hash of two"),
        ("three", false, false, "hash of two"),
        ("four", true, true, "hash of four"),
    ] {
        fs::write(&path, text).unwrap();
        let mut given = None;
        let take = async |config: String| {
            given = Some(config);
            if takes { Ok(()) } else { Err(CliError::failure("cannot be taken")) }
        };
        let live: &[&str] = if text == "two" { &[] } else { &["all"] };
        let asking = health.ask();
        let reloading = async {
            let Why::Asked(request) = file.next().await else { panic!("nothing else is news") };
            file.reload(Why::Asked(request), read, live, take, &health).await;
        };
        let (answer, ()) = tokio::join!(asking, reloading);
        let waiting = if text == "two" { vec!["all".to_owned()] } else { Vec::new() };
        assert_eq!((answer == Answer::Taken(waiting), &*file.hash), (is_taken, in_force), "{text}");
        assert_eq!(given.is_some(), text != "wrong");
    }
}
