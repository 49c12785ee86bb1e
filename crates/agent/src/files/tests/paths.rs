//! Which paths name a file, and that none leads outside.

use std::fs;

use super::site;

#[tokio::test]
async fn dot_dot_is_never_found_however_it_is_spelled() {
    let site = site(true);
    let spellings = [
        "/../outside/secret.txt",
        "/%2e%2e/outside/secret.txt",
        "/%2E%2E/outside/secret.txt",
        "/.%2e/outside/secret.txt",
        "/%2e./outside/secret.txt",
        "/sub/../../outside/secret.txt",
        "/sub/%2e%2e/%2e%2e/outside/secret.txt",
        "/..%2foutside%2fsecret.txt",
        "/..%5coutside%5csecret.txt",
        "/..\\outside\\secret.txt",
        "/%252e%252e/outside/secret.txt",
        "/%c0%ae%c0%ae/outside/secret.txt",
        "/.../outside/secret.txt",
        "/sub/..",
        "/sub/../digits.txt",
        "/..",
        "/../",
        "/./digits.txt",
    ];
    for path in spellings {
        site.get(path).await.assert_not_found(path);
    }
}

#[tokio::test]
async fn an_escaped_separator_is_not_found() {
    let site = site(true);
    for path in
        ["/sub%2Finner.txt", "/sub%2finner.txt", "/sub%5Cinner.txt", "/sub%5cinner.txt", "/%2Fetc/passwd"]
    {
        site.get(path).await.assert_not_found(path);
    }
}

#[tokio::test]
async fn malformed_paths_are_bad_requests() {
    let site = site(true);
    for path in ["/%00", "/digits.txt%00", "/sub/%00/x", "/%", "/%4", "/%zz", "/100%.txt", "*"] {
        let answer = site.get(path).await;
        assert_eq!(answer.status, 400, "{path}");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8", "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
    }
}

#[tokio::test]
async fn names_are_decoded_once() {
    let site = site(false);
    site.write("a b%41.txt", "blank");
    fs::write(site.root.join("grüße.txt"), "greetings").unwrap();
    assert_eq!(site.get("/a%20b%2541.txt").await.text(), "blank");
    assert_eq!(site.get("/gr%C3%BC%C3%9Fe.txt").await.text(), "greetings");
    assert_eq!(site.get("/%64igits.txt").await.text(), "0123456789");
    assert_eq!(site.get("/digits.txt?version=..%2f..").await.text(), "0123456789");
}

#[cfg(unix)]
#[tokio::test]
async fn a_name_that_is_not_unicode_is_served() {
    use std::os::unix::ffi::OsStrExt as _;
    let site = site(true);
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9.txt");
    // Some file systems take Unicode names only.
    if fs::write(site.root.join(name), "latin").is_ok() {
        assert_eq!(site.get("/caf%E9.txt").await.text(), "latin");
        assert!(site.get("/").await.text().contains("href=\"caf%E9.txt\""));
    }
}

#[tokio::test]
async fn hidden_names_are_not_found_but_the_well_known_directory_is() {
    let site = site(true);
    for directory in [".git", ".well-known", "sub/.well-known"] {
        fs::create_dir(site.root.join(directory)).unwrap();
        site.write(&format!("{directory}/config"), "hidden");
    }
    site.write(".env", "hidden");
    site.write(".well-known/.hidden", "hidden");
    for path in [
        "/.env",
        "/%2eenv",
        "/.git/config",
        "/.git/",
        "/.git",
        "/sub/.well-known/config",
        "/.well-known/.hidden",
    ] {
        site.get(path).await.assert_not_found(path);
    }
    assert_eq!(site.get("/.well-known/config").await.text(), "hidden");
    assert_eq!(site.get("/.well-known/").await.status, 200);
}

#[tokio::test]
async fn a_file_is_no_directory() {
    let site = site(true);
    for path in ["/digits.txt/", "/digits.txt/x", "/sub/inner.txt/", &format!("/{}", "x".repeat(300))] {
        site.get(path).await.assert_not_found(path);
    }
}

#[tokio::test]
async fn a_directory_without_its_slash_is_redirected() {
    let site = site(false);
    fs::create_dir_all(site.root.join("a b/ü")).unwrap();
    let cases = [
        ("/sub", "/sub/"),
        ("/sub?a=1&b=//x", "/sub/?a=1&b=//x"),
        ("/a%20b", "/a%20b/"),
        ("/a%20b/%C3%BC?q", "/a%20b/%C3%BC/?q"),
        ("http://host.example/sub?q", "/sub/?q"),
    ];
    for (path, location) in cases {
        let answer = site.get(path).await;
        assert_eq!(answer.status, 301, "{path}");
        assert_eq!(answer.header("location"), location, "{path}");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8", "{path}");
    }
}

#[tokio::test]
async fn no_path_redirects_to_another_host() {
    let site = site(true);
    fs::create_dir(site.root.join("host")).unwrap();
    let paths = [
        "//host",
        "//host/",
        "///host",
        "/\\host",
        "/%2fhost",
        "/%5chost",
        "/sub//",
        "//",
        "//host/..",
        "/host//",
        "//sub",
    ];
    for path in paths {
        let answer = site.get(path).await;
        answer.assert_not_found(path);
        assert!(!answer.headers.contains_key("location"), "{path}");
    }
}

#[tokio::test]
async fn an_index_is_served_for_its_directory() {
    for browsing in [false, true] {
        let site = site(browsing);
        site.write("sub/index.html", "<p>index");
        let answer = site.get("/sub/").await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, "<p>index"));
        assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
        assert!(answer.headers.contains_key("etag"));
        assert_eq!(site.get("/sub/index.html").await.text(), "<p>index");
        fs::create_dir_all(site.root.join("odd/index.html")).unwrap();
        assert_eq!(site.get("/odd/").await.status, if browsing { 200 } else { 404 });
    }
}

#[cfg(unix)]
#[tokio::test]
async fn links_are_followed_inside_the_root_only() {
    use std::os::unix::fs::symlink;
    let site = site(true);
    let link = |to: &str, name: &str| symlink(to, site.root.join(name)).unwrap();
    link("digits.txt", "inside.txt");
    link("../digits.txt", "sub/up.txt");
    link("sub", "directory");
    link("../outside/secret.txt", "escape.txt");
    link("../outside", "escape");
    link(site.outside.join("secret.txt").to_str().unwrap(), "absolute.txt");
    link("/etc", "etc");
    link("/proc/self/root", "magic");
    link("sub/../../outside/secret.txt", "winding.txt");
    link("escape.txt", "chained.txt");
    link("missing", "broken.txt");
    link("circle.txt", "circle.txt");
    link("../../outside/secret.txt", "sub/index.html");
    for path in ["/inside.txt", "/sub/up.txt"] {
        assert_eq!(site.get(path).await.text(), "0123456789", "{path}");
    }
    assert_eq!(site.get("/directory/inner.txt").await.text(), "inner");
    assert_eq!(site.get("/directory").await.header("location"), "/directory/");
    let refused = [
        "/escape.txt",
        "/escape",
        "/escape/",
        "/escape/secret.txt",
        "/absolute.txt",
        "/etc/passwd",
        "/etc/",
        "/magic/etc/passwd",
        "/winding.txt",
        "/chained.txt",
        "/broken.txt",
        "/circle.txt",
        "/circle.txt/x",
        "/sub/index.html",
    ];
    for path in refused {
        site.get(path).await.assert_not_found(path);
    }
    let page = site.get("/").await;
    assert!(page.text().contains("inside.txt") && page.text().contains("directory/"));
    for name in ["escape", "absolute", "etc", "magic", "winding", "chained", "broken", "circle"] {
        assert!(!page.text().contains(name), "{name}");
    }
    assert!(site.get("/sub/").await.text().contains("up.txt"), "an index that leads outside is none");
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_no_regular_file_is_not_found_and_does_not_block() {
    use std::time::Duration;

    use super::super::Files;
    use super::ask;

    let site = site(true);
    let made = std::process::Command::new("mkfifo").arg(site.root.join("pipe")).status().unwrap();
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(site.root.join("socket")).unwrap();
    let devices = Files::open(std::path::Path::new("/dev"), true).unwrap();
    let asked = async {
        for path in ["/pipe", "/socket", "/pipe/", "/pipe/x"] {
            site.get(path).await.assert_not_found(path);
        }
        for path in ["/null", "/zero", "/tty"] {
            ask(&devices, http::Method::GET, path, &[]).await.assert_not_found(path);
        }
        fs::create_dir(site.root.join("odd")).unwrap();
        fs::rename(site.root.join("pipe"), site.root.join("odd/index.html")).unwrap();
        assert_eq!(site.get("/odd/").await.header("content-type"), "text/html; charset=utf-8");
        let page = site.get("/").await;
        assert!(!page.text().contains("socket"), "{}", page.text());
    };
    tokio::time::timeout(Duration::from_secs(30), asked).await.expect("opening must not wait for a writer");
}

#[tokio::test]
async fn the_open_directory_is_served_even_when_its_name_changes() {
    let site = site(false);
    fs::rename(&site.root, site.outside.join("moved")).unwrap();
    assert_eq!(site.get("/digits.txt").await.text(), "0123456789");
}
