//! `adit quickstart`: what it prints can be copied and works, and it leaves nothing behind.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::process::{Process, run};
use crate::support::secrets;
use crate::support::tools::{self, shell};
use crate::support::upstream::Upstream;
use crate::support::world::World;

struct Quickstart {
    world: World,
    process: Process,
}

impl Quickstart {
    fn start(args: &[&str]) -> Self {
        let world = World::new();
        std::fs::create_dir(world.path("tmp")).unwrap();
        let mut command = world.adit(&["quickstart"]);
        command.args(args).env("TMPDIR", world.path("tmp"));
        let mut process = Process::start("quickstart", &mut command);
        process.line(&["Ctrl-C stops everything and removes the files."]);
        let quickstart = Self { world, process };
        secrets::keep(std::fs::read_to_string(quickstart.token_file()).unwrap().trim());
        quickstart
    }

    /// The printed lines that begin so, without the blanks in front.
    fn lines(&self, start: &str) -> Vec<String> {
        let said = self.process.stdout();
        said.lines().map(str::trim).filter(|line| line.starts_with(start)).map(str::to_owned).collect()
    }

    fn token_file(&self) -> PathBuf {
        let line = self.lines("Token ").remove(0);
        PathBuf::from(line.trim_start_matches("Token").trim())
    }

    fn public(&self) -> String {
        let line = self.lines("Public URL").remove(0);
        line.split_whitespace().nth(2).unwrap().to_owned()
    }

    /// Types a printed line.
    #[track_caller]
    fn typed(&self, line: &str) -> String {
        run(&mut self.world.here(shell(line))).ok()
    }

    fn files(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.world.path("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[track_caller]
    fn ends_clean(mut self) {
        assert_eq!(self.files().len(), 1, "{:?}", self.files());
        self.process.signal(Signal::INT);
        assert_eq!(self.process.exit_code(Duration::from_secs(10)), 0);
        assert_eq!(self.files(), Vec::<PathBuf>::new());
        assert!(self.process.stdout().ends_with("Stopping.\n"), "{}", self.process);
    }
}

#[test]
fn every_line_that_quickstart_prints_works_and_ctrl_c_leaves_nothing_behind() {
    let quickstart = Quickstart::start(&[]);
    let url = quickstart.public();
    assert!(quickstart.typed(&format!("curl -sf {url}/")).contains("It works"));

    let status = quickstart.lines("adit status");
    assert_eq!(status.len(), 1);
    let said = quickstart.typed(&status[0]);
    assert!(
        said.contains("Connected clients:") && said.lines().last().unwrap().contains("*=http://127.0.0.1:"),
        "{said}"
    );

    let curls = quickstart.lines("curl ");
    assert_eq!(curls.len(), 4, "{curls:?}");
    let said: Vec<String> = curls.iter().map(|line| quickstart.typed(line)).collect();
    assert!(said[0].starts_with("HTTP/1.1 200 OK\r\n") && said[0].contains("It works"), "{}", said[0]);
    assert!(said[1].ends_with("hello from behind the tunnel\n"), "{}", said[1]);
    assert!(said[2].contains("sample_requests_total{page=\"/hello\"} 1"), "{}", said[2]);
    assert!(said[3].contains("http_controlplane_connected_gauge 1"), "{}", said[3]);

    let prometheus = quickstart.lines("prometheus --config.file=");
    let file = prometheus[0].strip_prefix("prometheus --config.file=").unwrap();
    let checked = run(tools::command(&tools::find("promtool")).args(["check", "config", file]));
    assert_eq!(checked.code, 0, "{checked:#?}");
    let written = std::fs::read_to_string(file).unwrap();
    for line in written.lines() {
        assert!(
            quickstart.process.stdout().lines().any(|found| found.trim() == line.trim()),
            "{line} is not printed"
        );
    }
    assert!(Path::new(file).starts_with(quickstart.world.path("tmp")));
    quickstart.ends_clean();
}

#[test]
fn quickstart_exposes_the_service_it_is_given_by_url_or_by_port() {
    let upstream = Upstream::start();
    let url = upstream.url();
    for argument in [url.as_str(), url.rsplit(':').next().unwrap()] {
        let quickstart = Quickstart::start(&[argument]);
        let public = quickstart.public();
        assert_eq!(quickstart.typed(&format!("curl -sf {public}/hello")), "hello\n");
        assert!(quickstart.lines("Public URL")[0].ends_with(&format!("your service at {url}")));
        for line in quickstart.lines("curl ") {
            assert!(quickstart.typed(&line).len() > 10, "{line}");
        }
        quickstart.ends_clean();
    }
}

#[test]
fn quickstart_ends_the_same_way_when_it_is_told_to_terminate() {
    let mut quickstart = Quickstart::start(&[]);
    quickstart.process.signal(Signal::TERM);
    assert_eq!(quickstart.process.exit_code(Duration::from_secs(10)), 0);
    assert_eq!(quickstart.files(), Vec::<PathBuf>::new());
}

#[test]
fn quickstart_says_what_is_wrong_with_an_argument() {
    let world = World::new();
    let said = world.run(&["quickstart", "ftp://x"]);
    assert_eq!(said.code, 2, "{said:#?}");
    assert!(said.err.starts_with("error: `ftp://x` is not an upstream: "), "{said:#?}");
    assert!(said.err.contains("\n next: write a URL or a port"), "{said:#?}");
}
