//! `leasehold key add`, `ls`, `rm`.

use std::io::Write as _;

use leasehold_server::identity::{KeyEntry, KeyRole, KeyStore, KeyStoreError, RoleName};
use serde_json::json;

use crate::args::KeyCommand;
use crate::outcome::Failure;
use crate::output::{plain, say, stdout, table};

pub(crate) fn run(command: KeyCommand) -> Result<(), Failure> {
    match command {
        KeyCommand::Add { name, roles, paths, data } => {
            add(&KeyStore::new(&data.folder), &name, &roles, &paths)
        }
        KeyCommand::Ls { json, data } => list(&KeyStore::new(&data.folder), json),
        KeyCommand::Rm { name, data } => remove(&KeyStore::new(&data.folder), &name),
    }
}

fn add(store: &KeyStore, name: &str, roles: &[RoleName], paths: &[String]) -> Result<(), Failure> {
    let roles: Vec<KeyRole> =
        roles.iter().map(|role| KeyRole { role: *role, paths: paths.to_vec() }).collect();
    let key = store.add(name, &roles).map_err(failure)?;
    say(&format!(
        "Made a key for {} ({}) in {}.\n\
         Send it as `Authorization: Bearer KEY`, or as the password of Basic.\n\
         It is shown once, and not kept:",
        plain(name),
        what(&roles),
        store.path().display()
    ));
    let mut out = stdout();
    writeln!(out, "{}", key.reveal())?;
    Ok(out.flush()?)
}

fn list(store: &KeyStore, as_json: bool) -> Result<(), Failure> {
    let keys = store.list().map_err(failure)?;
    let mut out = stdout();
    if as_json {
        let keys: Vec<_> = keys.iter().map(to_json).collect();
        writeln!(out, "{:#}", json!(keys))?;
    } else if keys.is_empty() {
        say(&format!("No keys in {}.", store.path().display()));
    } else {
        let mut rows = vec![["NAME", "ID", "MADE", "MAY"].map(str::to_owned).to_vec()];
        rows.extend(keys.iter().map(|key| {
            vec![plain(&key.name), key.id.clone(), key.created_at.to_string(), what(&key.roles)]
        }));
        write!(out, "{}", table(&rows))?;
    }
    Ok(out.flush()?)
}

fn remove(store: &KeyStore, name: &str) -> Result<(), Failure> {
    let key = store.remove(name).map_err(failure)?;
    say(&format!("Removed the key {} of {}.", key.id, plain(&key.name)));
    Ok(())
}

fn to_json(key: &KeyEntry) -> serde_json::Value {
    json!({
        "name": key.name,
        "id": key.id,
        "roles": key.roles,
        "created_at": key.created_at,
    })
}

/// `writer on /a/**, auditor`.
fn what(roles: &[KeyRole]) -> String {
    let one = |role: &KeyRole| match role.paths.as_slice() {
        [] => role.role.as_str().to_owned(),
        paths => format!("{} on {}", role.role.as_str(), plain(&paths.join(" "))),
    };
    roles.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn failure(error: KeyStoreError) -> Failure {
    match &error {
        KeyStoreError::NotAllowed(_) => Failure::usage(vec![error.to_string()]),
        KeyStoreError::Unknown(_) => {
            Failure::because(&error, "`leasehold key ls` lists them (--data names the folder)")
        }
        KeyStoreError::Broken { .. } => Failure::because(&error, "repair it, or move it away"),
        KeyStoreError::Io { .. } => {
            Failure::because(&error, "run it as the user that the server runs as, and check --data")
        }
        KeyStoreError::Taken(_) | KeyStoreError::Random(_) => Failure::because(&error, ""),
    }
}
