//! What others rely on and must not change by accident: the reasons on the wire, and that the reference pages can
//! be written. What is scraped is compared with its documentation in the tests of real processes.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use adit_proto::reason::Reason;

/// Code, label, status and whose move it is, one reason a line. A line may be added; one that is there stays.
const REASONS: &str = include_str!("reasons.txt");

#[test]
fn every_reason_keeps_its_code_its_label_its_status_and_its_fault() {
    let mut today = String::new();
    for reason in Reason::ALL {
        let (code, label, status) = (reason.code(), reason.label(), reason.status());
        writeln!(today, "{code} {label} {status} {}", reason.fault().label()).unwrap();
    }
    assert_eq!(
        today, REASONS,
        "codes are on the wire and labels in dashboards: add to reasons.txt, change nothing"
    );
}

#[test]
fn the_binary_writes_its_reference_pages() {
    let exe = std::env::current_exe().unwrap();
    let adit = exe.ancestors().nth(2).unwrap().join("adit");
    assert!(
        adit.is_file(),
        "{} is not there; build it with `cargo build --workspace --bins`",
        adit.display()
    );
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(&adit).args(["reference", "--out"]).arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut pages: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort();
    assert_eq!(pages, ["cli.md", "configuration.md", "metrics.md", "openapi.json", "refusals.md"]);
    for (page, needle) in [
        ("cli.md", "## adit quickstart"),
        ("configuration.md", "agent_wait"),
        ("metrics.md", "http_dataplane_requests_total"),
        ("openapi.json", "/v1/service-policies/{name}"),
        ("refusals.md", "upstream_refused"),
    ] {
        let text = std::fs::read_to_string(Path::new(folder.path()).join(page)).unwrap();
        assert!(
            text.starts_with(if page.ends_with(".md") { "# " } else { "{" }) && text.contains(needle),
            "{needle} is not in {page}:\n{text}"
        );
    }
}
