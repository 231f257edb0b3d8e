use std::error::Error as _;

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::*;

/// Files of a fresh certificate and its key.
fn files(root: &TempDir) -> Files {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let path = |name: &str| root.path().join(name);
    let files = Files { cert: path("cert.pem"), key: path("key.pem"), client_ca: None };
    fs::write(&files.cert, certificate.pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

#[test]
fn what_is_wrong_with_a_file_is_told_with_its_setting_and_never_what_is_in_it() {
    let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (good, stranger) = (files(&root), files(&other));
    Tls::open(&good).unwrap();
    let garbage = root.path().join("garbage.pem");
    fs::write(&garbage, "-----BEGIN PRIVATE KEY-----\nhunter2\n").unwrap();
    let missing = root.path().join("missing.pem");
    for (files, setting, says) in [
        (Files { cert: missing.clone(), ..good.clone() }, "tls_cert", "cannot read"),
        (Files { key: missing.clone(), ..good.clone() }, "tls_key", "cannot read"),
        (Files { client_ca: Some(missing), ..good.clone() }, "tls_client_ca", "cannot read"),
        (Files { cert: garbage.clone(), ..good.clone() }, "tls_cert", "BEGIN CERTIFICATE"),
        (Files { cert: good.key.clone(), ..good.clone() }, "tls_cert", "BEGIN CERTIFICATE"),
        (Files { key: garbage.clone(), ..good.clone() }, "tls_key", "BEGIN PRIVATE KEY"),
        (Files { key: good.cert.clone(), ..good.clone() }, "tls_key", "BEGIN PRIVATE KEY"),
        (Files { key: stranger.key, ..good.clone() }, "tls_key", "it is not the key of"),
        (Files { client_ca: Some(garbage), ..good.clone() }, "tls_client_ca", "BEGIN CERTIFICATE"),
    ] {
        let error = Tls::open(&files).unwrap_err();
        let told = format!("{error} {:?}", error.source());
        assert!(told.contains(&format!("`{setting}`")) && told.contains(says), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}

#[test]
fn a_pair_that_cannot_be_used_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let files = files(&root);
    let tls = Tls::open(&files).unwrap();
    let first = tls.0.load_full();
    fs::write(&files.key, "").unwrap();
    tls.reload(&files).unwrap_err();
    assert!(Arc::ptr_eq(&first, &tls.0.load_full()));
    let fresh = self::files(&root);
    tls.reload(&fresh).unwrap();
    assert!(!Arc::ptr_eq(&first, &tls.0.load_full()));
}
