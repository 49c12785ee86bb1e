//! Identity files, and exchanging a certificate that is in use.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::client::ResolvesClientCert as _;
use rustls::client::danger::ServerCertVerifier as _;
use rustls_pki_types::{ServerName, UnixTime};

use super::*;

struct World {
    ca: String,
    issuer: Issuer<'static, KeyPair>,
}

impl World {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap().pem();
        Self { ca, issuer: Issuer::new(params, key) }
    }

    fn leaf(&self, key: &KeyPair) -> String {
        let mut params = CertificateParams::new(vec!["gw.example".into()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://d/identity/a%40b".try_into().unwrap()));
        params.signed_by(key, &self.issuer).unwrap().pem()
    }

    fn file(&self) -> IdentityFile {
        let key = KeyPair::generate().unwrap();
        IdentityFile::new(
            "https://gw.example:8123".into(),
            self.leaf(&key),
            Zeroizing::new(key.serialize_pem()),
            self.ca.clone(),
        )
        .unwrap()
    }
}

#[test]
fn an_identity_reads_back_as_it_was_saved_and_is_private() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.json");
    let file = World::new().file();
    file.save(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["ztAPI"], "https://gw.example:8123");
    for part in ["cert", "key", "ca"] {
        assert!(json["id"][part].as_str().unwrap().starts_with("pem:-----BEGIN"), "{part}");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let loaded = IdentityFile::load(&path).unwrap();
    assert_eq!(loaded.leaf(), file.leaf());
    assert_eq!(loaded.leaf().name, "a@b");
    assert_eq!((loaded.api(), loaded.ca()), (file.api(), file.ca()));
    assert!(!format!("{loaded:?}").contains("PRIVATE"));
    loaded.save(&path).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary files are left");
}

#[test]
fn parts_may_be_in_files_of_their_own_and_other_fields_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::new();
    let key = KeyPair::generate().unwrap();
    fs::write(directory.path().join("cert.pem"), world.leaf(&key)).unwrap();
    fs::write(directory.path().join("key.pem"), key.serialize_pem()).unwrap();
    let ca = directory.path().join("ca.pem");
    fs::write(&ca, &world.ca).unwrap();
    let path = directory.path().join("a.json");
    let json = serde_json::json!({"ztAPI": "https://gw", "configTypes": ["x"],
        "id": {"cert": "file:cert.pem", "key": "file://key.pem", "ca": format!("file://{}", ca.display())}});
    fs::write(&path, json.to_string()).unwrap();
    let file = IdentityFile::load(&path).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let key = directory.path().join("key.pem");
        let exposed_with = |mode| {
            fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
            IdentityFile::load(&path).unwrap().exposed().map(Path::to_owned)
        };
        assert_eq!(exposed_with(0o640), Some(key.clone()), "others can read the key, and that is known");
        assert_eq!(exposed_with(0o600), None);
    }
    file.save(&path).unwrap();
    let saved: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(saved["configTypes"][0], "x");
    assert!(saved["id"]["key"].as_str().unwrap().starts_with("pem:"));
}

#[test]
fn what_cannot_be_used_is_refused_with_the_part_that_is_wrong() {
    let world = World::new();
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let make = |cert: &str, key: &str, ca: &str| {
        IdentityFile::new(String::new(), cert.into(), Zeroizing::new(key.into()), ca.into())
            .unwrap_err()
            .to_string()
    };
    let (cert, pem) = (world.leaf(&key), key.serialize_pem());
    assert!(make("", &pem, &world.ca).contains("cert"));
    assert!(make(&cert, "", &world.ca).contains("key"));
    assert!(make(&cert, &pem, "").contains("ca"));
    assert!(make(&cert, &other.serialize_pem(), &world.ca).contains("does not belong"));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.json");
    let load = |text: &str| {
        fs::write(&path, text).unwrap();
        IdentityFile::load(&path).unwrap_err().to_string()
    };
    assert!(load("{}").contains("no identity file"));
    assert!(load(r#"{"ztAPI":"","id":{"cert":"x","key":"x","ca":"x"}}"#).contains("`pem:` or `file:`"));
    assert!(load(r#"{"ztAPI":"","id":{"cert":"file:gone.pem","key":"x","ca":"x"}}"#).contains("gone.pem"));
    assert!(load(&" ".repeat(300_000)).contains("cannot read"));
}

#[test]
fn an_exchanged_certificate_is_the_next_that_is_shown_and_its_authorities_are_believed() {
    let (one, two) = (World::new(), World::new());
    let live = LiveIdentity::new(one.file()).unwrap();
    let shown = || live.resolve(&[], &[]).unwrap().cert[0].clone();
    let believes = |world: &World| {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateDer::from_pem_slice(world.leaf(&key).as_bytes()).unwrap();
        let name = ServerName::try_from("gw.example").unwrap();
        live.verify_server_cert(&leaf, &[], &name, &[], UnixTime::now()).is_ok()
    };
    let first = shown();
    assert_eq!((believes(&one), believes(&two)), (true, false));
    let mut exchanges = live.exchanges();
    live.exchange(two.file()).unwrap();
    assert!(exchanges.has_changed().unwrap());
    exchanges.mark_unchanged();
    assert_ne!(shown(), first);
    assert_eq!((believes(&one), believes(&two)), (false, true));
}

#[test]
fn a_file_that_somebody_has_enrolled_again_is_taken_once_and_one_that_is_broken_is_not() {
    let (directory, world) = (tempfile::tempdir().unwrap(), World::new());
    let path = directory.path().join("a.json");
    world.file().save(&path).unwrap();
    let live = LiveIdentity::open(&path).unwrap();
    assert!(!live.look_again(), "it is the one in use");
    let again = world.file();
    let chain = again.chain().to_vec();
    again.save(&path).unwrap();
    assert_eq!((live.look_again(), live.look_again()), (true, false));
    assert_eq!(live.file().chain(), chain);
    fs::write(&path, "{").unwrap();
    assert!(!live.look_again());
    assert_eq!(live.file().chain(), chain);
}

#[test]
fn a_gateway_whose_certificate_signs_itself_is_believed_under_its_own_name() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["gw.example".into()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let itself = params.self_signed(&key).unwrap();
    let mine = KeyPair::generate().unwrap();
    let cert = World::new().leaf(&mine);
    let file =
        IdentityFile::new(String::new(), cert, Zeroizing::new(mine.serialize_pem()), itself.pem()).unwrap();
    let live = LiveIdentity::new(file).unwrap();
    let verify = |name: &str| {
        live.verify_server_cert(itself.der(), &[], &ServerName::try_from(name).unwrap(), &[], UnixTime::now())
    };
    assert!(verify("gw.example").is_ok());
    assert!(verify("other.example").is_err());
}
