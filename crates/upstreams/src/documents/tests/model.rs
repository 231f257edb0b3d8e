use std::collections::BTreeMap;

use super::*;

/// The documents as a plain map, by their decoded segments.
#[derive(Default)]
struct Model(BTreeMap<Vec<&'static str>, (String, String)>);

impl Model {
    fn children(&self, path: &[&'static str]) -> Vec<&'static str> {
        let below = self.0.keys().filter(|key| key.len() > path.len() && key.starts_with(path));
        let mut names: Vec<_> = below.map(|key| key[path.len()]).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// SplitMix64: the same seed, the same run.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

const NAMES: [&str; 5] = ["a", "a b", "a!", "ab", "é"];

#[tokio::test]
async fn the_store_does_what_a_plain_map_would() {
    for seed in 0..4 {
        run(seed).await;
    }
}

async fn run(seed: u64) {
    let mut dice = Dice(seed);
    let mut bench = Bench::new();
    let mut model = Model::default();
    let mut tags = std::collections::HashSet::new();
    for step in 0..400 {
        let depth = 1 + dice.roll(3);
        let path: Vec<_> = (0..depth).map(|_| NAMES[dice.roll(5) as usize]).collect();
        let uri = path.iter().try_fold(Resource::root(), |at, name| at.child(name)).unwrap();
        let uri = uri.as_str();
        let body = format!("{{\"n\":{step}}}");
        let etag = model.0.get(&path).map(|(etag, _)| etag.clone());
        let condition = match dice.roll(4) {
            0 => Some(("if-none-match", "*".to_owned())),
            1 => Some(("if-match", etag.clone().unwrap_or("\"none\"".into()))),
            _ => None,
        };
        let holds = match &condition {
            Some(("if-none-match", _)) => etag.is_none(),
            Some(_) => etag.is_some(),
            None => true,
        };
        let headers: Vec<_> =
            condition.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let says = |what: &str| format!("seed {seed}, step {step}: {what} {uri}");
        let children = model.children(&path);
        match dice.roll(6) {
            0 | 1 => {
                let seen = bench.send("PUT", uri, &headers, &body).await;
                let expected = match (holds, etag.is_some()) {
                    (false, _) => 412,
                    (true, true) => 204,
                    (true, false) => 201,
                };
                assert_eq!(seen.status, expected, "{}", says("PUT"));
                if holds {
                    assert!(tags.insert(seen.etag()), "{}", says("PUT"));
                    model.0.insert(path, (seen.etag(), body));
                }
            }
            2 => {
                let recursive = dice.roll(2) == 0;
                let query = if recursive { "?recursive=true" } else { "" };
                let seen = bench.send("DELETE", &format!("{uri}{query}"), &headers, "").await;
                let expected = match (etag.is_some(), children.is_empty(), recursive) {
                    (false, true, _) => 404,
                    (_, false, false) => 409,
                    _ if !holds => 412,
                    _ => 204,
                };
                assert_eq!(seen.status, expected, "{}", says("DELETE"));
                match expected {
                    204 => model.0.retain(|key, _| !key.starts_with(&path)),
                    409 => assert_eq!(seen.json()["count"], children.len(), "{}", says("DELETE")),
                    _ => {}
                }
            }
            3 => {
                let merge = [&headers[..], &[("content-type", "application/json")]].concat();
                let seen = bench.send("PATCH", uri, &merge, &body).await;
                let expected = match (etag.is_some(), holds) {
                    (false, _) => 404,
                    (true, false) => 412,
                    (true, true) => 200,
                };
                assert_eq!(seen.status, expected, "{}", says("PATCH"));
                if expected == 200 {
                    assert!(tags.insert(seen.etag()), "{}", says("PATCH"));
                    model.0.insert(path, (seen.etag(), body));
                }
            }
            4 => {
                let seen = bench.get(&format!("{uri}?list=true")).await;
                if etag.is_none() && children.is_empty() {
                    assert_eq!(seen.status, 404, "{}", says("list"));
                } else {
                    let list = seen.json();
                    let items = list["items"].as_array().unwrap();
                    let ids: Vec<_> =
                        items.iter().map(|item| item["id"].as_str().unwrap()).collect();
                    assert_eq!(ids, children, "{}", says("list"));
                    for item in items {
                        let child = [&path[..], &[item["id"].as_str().unwrap()]].concat();
                        let expected = model.0.iter().find(|(key, _)| **key == child);
                        let etag = expected.map(|(_, (etag, _))| etag.as_str());
                        assert_eq!(item["etag"].as_str(), etag, "{}", says("list"));
                    }
                }
            }
            _ => {
                let seen = bench.get(uri).await;
                match model.0.get(&path) {
                    Some((etag, body)) => {
                        assert_eq!((&seen.etag(), &seen.body[..]), (etag, body.as_bytes()));
                    }
                    None if children.is_empty() => assert_eq!(seen.status, 404, "{}", says("GET")),
                    None => assert_eq!(seen.header("etag"), None, "{}", says("GET")),
                }
            }
        }
        if dice.roll(100) == 0 {
            bench = bench.reopened(INCARNATION);
        }
    }
}
