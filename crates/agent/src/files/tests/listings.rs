//! Pages that list a directory.

use std::fs;

use http::Method;

use super::{ask, site};

#[tokio::test]
async fn a_directory_is_listed_only_when_that_is_allowed() {
    let closed = site(false);
    for path in ["/", "/sub/"] {
        closed.get(path).await.assert_not_found(path);
    }
    let open = site(true);
    let answer = open.get("/sub/").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(answer.header("content-security-policy"), "default-src 'none'; style-src 'unsafe-inline'");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("vary"), "accept");
    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    assert!(answer.text().contains("<a href=\"inner.txt\">inner.txt</a>"), "{}", answer.text());
    assert!(answer.text().contains("<meta charset=\"utf-8\">"));
}

#[tokio::test]
async fn directories_come_first_and_each_kind_is_sorted() {
    let site = site(true);
    for name in ["b.txt", "a.txt", "Z.txt"] {
        site.write(name, "");
    }
    fs::create_dir(site.root.join("zoo")).unwrap();
    let answer = site.get("/").await;
    let links: Vec<&str> =
        answer.text().split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(links, ["sub/", "zoo/", "Z.txt", "a.txt", "b.txt", "digits.txt"]);
}

#[tokio::test]
async fn only_the_root_has_no_link_to_its_parent() {
    let site = site(true);
    assert!(!site.get("/").await.text().contains("../"));
    assert!(site.get("/sub/").await.text().contains("<a href=\"../\">../</a>"));
}

#[tokio::test]
async fn sizes_and_times_are_shown() {
    let site = site(true);
    site.write("sub/inner.txt", vec![0; 1536]);
    let file = fs::File::options().write(true).open(site.root.join("sub/inner.txt")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(784_111_777)).unwrap();
    let answer = site.get("/sub/").await;
    assert!(answer.text().contains("1.5 KiB"));
    assert!(answer.text().contains("1994-11-06T08:49:37Z"));
}

#[tokio::test]
async fn hidden_names_are_left_out() {
    let site = site(true);
    site.write(".env", "hidden");
    fs::create_dir(site.root.join(".well-known")).unwrap();
    let answer = site.get("/").await;
    assert!(!answer.text().contains("env") && !answer.text().contains("well-known"), "{}", answer.text());
}

#[cfg(unix)]
#[tokio::test]
async fn names_cannot_become_markup() {
    let site = site(true);
    let odd = "<script>alert('1')&\"";
    fs::create_dir(site.root.join(odd)).unwrap();
    site.write(&format!("{odd}/javascript:alert(1)"), "odd");
    site.write("100% ?#;+ü.txt", "odd");
    let page = site.get("/").await;
    assert!(!page.text().contains("<script"), "{}", page.text());
    assert!(page.text().contains("&lt;script&gt;alert(&#39;1&#39;)&amp;&quot;/</a>"));
    assert!(page.text().contains("href=\"100%25%20%3F%23%3B%2B%C3%BC.txt\""), "{}", page.text());
    assert_eq!(site.get("/100%25%20%3F%23%3B%2B%C3%BC.txt").await.text(), "odd");
    let inner = site.get("/%3Cscript%3Ealert%28%271%27%29%26%22/").await;
    assert!(!inner.text().contains("<script"), "the title is escaped too");
    assert!(inner.text().contains("href=\"javascript%3Aalert%281%29\""), "{}", inner.text());
}

#[cfg(unix)]
#[tokio::test]
async fn every_link_of_a_page_leads_to_its_file() {
    let site = site(true);
    for name in ["a b", "%41", "a?b", "a#b", "a:b", "a&amp;b", "\u{202e}x", "new\nline", "back\\slash"] {
        site.write(&format!("sub/{name}"), name);
    }
    let answer = site.get("/sub/").await;
    let links: Vec<&str> =
        answer.text().split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(links.len(), 10, "the parent, the inner file, and all but the backslash: {links:?}");
    for link in &links[1..] {
        assert_eq!(site.get(&format!("/sub/{link}")).await.status, 200, "{link}");
    }
}

#[tokio::test]
async fn a_program_gets_json_when_it_prefers_json() {
    let site = site(true);
    let cases = [
        ("application/json", true),
        ("Application/JSON", true),
        ("application/json, text/plain, */*", true),
        ("text/html;q=0.5, application/json", true),
        ("text/html;q=0.5, application/json;q=0.9", true),
        ("application/*, text/html;q=0.9", true),
        ("application/json, text/html;q=0", true),
        ("*/*", false),
        ("", false),
        ("text/html", false),
        ("text/html, application/json", false),
        ("text/html, application/json;q=0.9", false),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", false),
        ("application/json;q=0", false),
        ("application/json;q=nan", false),
        ("text/*;q=0.2, application/json;q=0.1", false),
        ("nonsense", false),
    ];
    for (accept, json) in cases {
        let answer = site.get_with("/", &[("accept", accept)]).await;
        let expected = if json { "application/json" } else { "text/html; charset=utf-8" };
        assert_eq!(answer.header("content-type"), expected, "{accept}");
    }
}

#[tokio::test]
async fn the_json_names_what_the_page_shows() {
    let site = site(true);
    site.write("a \"b\".txt", "12345");
    let file = fs::File::options().write(true).open(site.root.join("a \"b\".txt")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    let answer = site.get_with("/", &[("accept", "application/json")]).await;
    let listing: serde_json::Value = serde_json::from_str(answer.text()).unwrap();
    assert_eq!(listing["path"], "/");
    assert_eq!(listing["truncated"], false);
    let entries = listing["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 3);
    assert_eq!(entries[0]["name"], "sub");
    assert_eq!(entries[0]["type"], "directory");
    assert_eq!(entries[0]["href"], "sub/");
    assert!(entries[0].get("size").is_none());
    let expected = serde_json::json!({
        "name": "a \"b\".txt",
        "href": "a%20%22b%22.txt",
        "type": "file",
        "size": 5,
        "modified": "1970-01-01T00:00:00Z",
    });
    assert_eq!(entries[1], expected);
}

#[tokio::test]
async fn a_long_listing_is_cut_with_a_note() {
    let site = site(true);
    fs::create_dir(site.root.join("many")).unwrap();
    for index in 0..10_000 {
        site.write(&format!("many/{index}"), "");
    }
    let full = site.get("/many/").await;
    assert!(!full.text().contains("entries are shown"));
    site.write("many/last", "");
    let cut = site.get("/many/").await;
    assert!(cut.text().contains("Only 10000 entries are shown."));
    assert_eq!(cut.text().matches("<tr><td>").count(), 10_001, "the entries and the parent");
    let json = site.get_with("/many/", &[("accept", "application/json")]).await;
    let json: serde_json::Value = serde_json::from_str(json.text()).unwrap();
    assert_eq!(json["truncated"], true);
    assert_eq!(json["entries"].as_array().unwrap().len(), 10_000);
}

#[tokio::test]
async fn a_listing_of_another_method_is_refused() {
    let site = site(true);
    assert_eq!(ask(&site.files, Method::POST, "/", &[]).await.status, 405);
}
