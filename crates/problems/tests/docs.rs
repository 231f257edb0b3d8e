//! `docs/problems.md` is what the catalogue says.

use std::path::Path;

#[test]
fn the_reference_says_what_the_catalogue_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/problems.md");
    let expected = leasehold_problems::page::reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &expected).expect("docs/problems.md can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "docs/problems.md is not what the catalogue says; rewrite it with\n\
         UPDATE_DOCS=1 cargo test -p leasehold-problems --test docs"
    );
}
