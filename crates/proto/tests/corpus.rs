//! Replays the fuzz corpus on stable: every file through its decoder, and what decodes through its encoder.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "all of this file is tests, which clippy sees only in functions marked as such"
)]

#[path = "../../../fuzz/checks.rs"]
mod checks;

use std::fs;
use std::path::Path;

use checks::Decoded;

fn replay(target: &str, check: fn(&[u8]) -> Decoded) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let (mut decoded, mut refused) = (0, 0);
    for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        // Shown only when the check panics.
        println!("{}", path.display());
        if check(&fs::read(&path).unwrap()) { decoded += 1 } else { refused += 1 }
    }
    assert!(decoded > 0, "fuzz/corpus/{target} has no file that decodes");
    assert!(refused > 0, "fuzz/corpus/{target} has no file that is refused");
}

macro_rules! replays {
    ($($name:ident => $target:ident;)+) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($target), checks::$target);
            }
        )+

        #[test]
        fn every_folder_of_the_corpus_is_replayed() {
            let targets = [$(stringify!($target)),+];
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
            let mut folders = 0;
            for entry in fs::read_dir(folder).unwrap() {
                let name = entry.unwrap().file_name();
                assert!(targets.iter().any(|target| name == *target), "{name:?} has no decoder");
                folders += 1;
            }
            assert_eq!(folders, targets.len());
        }
    };
}

replays! {
    frame_headers_keep_their_promises => frame;
    hellos_keep_their_promises => hello;
    welcomes_keep_their_promises => welcome;
    refusals_keep_their_promises => refused;
    stream_headers_keep_their_promises => stream_header;
    host_names_keep_their_promises => hostname;
    host_patterns_keep_their_promises => host_pattern;
    proxy_headers_keep_their_promises => proxy_header;
}
