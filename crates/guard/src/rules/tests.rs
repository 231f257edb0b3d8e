use proptest::prelude::*;

use super::conflicts::{Conflict, conflicts};
use super::*;

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap()
}

fn rule(patterns: &[&str], resource: Option<&str>) -> Rule {
    Rule {
        patterns: patterns.iter().map(|text| pattern(text)).collect(),
        resource: resource.map(pattern),
        ..Rule::default()
    }
}

fn name(rules: &Rules, url: &str) -> Result<String, NoResource> {
    let (path, query) = match url.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (url, None),
    };
    let located = rules.locate(&Resource::parse(path)?, query)?;
    Ok(located.resource.to_string())
}

#[test]
fn several_urls_have_one_name_and_the_name_is_one_of_them() {
    let rules = Rules::new(vec![
        rule(&["/v1/flags/{id}/**", "/v2/flags/{id}"], Some("/flags/{id}")),
        rule(&["/api/**"], Some("/service/**")),
        rule(&["/plain/{x}"], None),
    ]);
    for (url, expected, number) in [
        ("/v1/flags/7", "/flags/7", 1),
        ("/v1/flags/%37/targeting/", "/flags/7", 1),
        ("/v2/flags/7", "/flags/7", 1),
        ("/flags/7", "/flags/7", 1),
        ("/v2/flags/7/targeting", "/v2/flags/7/targeting", 0),
        ("/v2/flags", "/v2/flags", 0),
        ("/api/v9/x", "/service/v9/x", 2),
        ("/v1/flags/7?id=8", "/flags/7", 1),
    ] {
        assert_eq!(name(&rules, url).as_deref(), Ok(expected), "{url}");
        let path = Resource::parse(url.split('?').next().unwrap()).unwrap();
        assert_eq!(rules.find(&path).0, number, "{url}");
        assert_eq!(name(&rules, expected).as_deref(), Ok(expected));
    }
    assert!(rules.is_name(&Resource::parse("/flags/7").unwrap()));
    assert!(!rules.is_name(&Resource::parse("/v1/flags/7").unwrap()));
}

#[test]
fn what_is_below_a_url_is_known_by_its_names() {
    let rules = Rules::new(vec![
        rule(&["/v1/flags/{id}/**", "/v2/flags/{id}/**"], Some("/flags/{id}")),
        rule(&["/v1/users", "/v2/users"], Some("/users")),
        rule(&["/v1/users/{id}"], Some("/users/{id}")),
        Rule { lockable: false, ..rule(&["/v3/logs/{id}"], Some("/logs/{id}")) },
    ]);
    let elsewhere = |path: &str| {
        let names = rules.names_elsewhere(&Resource::parse(path).unwrap());
        names.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(elsewhere("/v1/flags"), ["/flags"]);
    assert_eq!(elsewhere("/v1"), ["/flags", "/users"]);
    assert_eq!(elsewhere("/v1/flags/7"), [""; 0]);
    assert_eq!(elsewhere("/flags"), [""; 0]);
    assert_eq!(elsewhere("/v1/users"), [""; 0], "`/users` covers what is below");
    assert_eq!(elsewhere("/"), [""; 0]);
    assert_eq!(elsewhere("/v3/logs"), [""; 0]);
}

#[test]
fn parameters_that_are_part_of_a_resource_are_read_in_one_way_or_not_at_all() {
    let with = |query: &[&str], case| {
        let query = query.iter().map(ToString::to_string).collect();
        let fold = Fold { case, params: false };
        Rules::new(vec![Rule { query, fold, ..rule(&["/item"], None) }])
    };
    let one = with(&["id"], false);
    for (url, expected) in [
        ("/item?id=7", "/item/?id=7"),
        ("/item/?id=7", "/item/?id=7"),
        ("/item?x=1&id=7&y=2", "/item/?id=7"),
        ("/item?%69d=%37", "/item/?id=7"),
        ("/item?id=a+b", "/item/?id=a%20b"),
        ("/item?id=a%20b", "/item/?id=a%20b"),
        ("/item?id=a%2Bb%26c", "/item/?id=a%2Bb%26c"),
        ("/item?id=", "/item/?id="),
        ("/item?id", "/item/?id="),
        ("/item?ID=7", "/item"),
        ("/item?%zz=1", "/item"),
        ("/item", "/item"),
        ("/item?", "/item"),
    ] {
        assert_eq!(name(&one, url).as_deref(), Ok(expected), "{url}");
    }
    let ambiguous = Err(NoResource::Ambiguous("id".to_owned()));
    for url in [
        "/item?id=7&id=8",
        "/item?id=7&%69d=7",
        "/item?id=7;x=1",
        "/item?x=1;id=8&id=7",
        "/item?id[]=8",
        "/item?id%5B0%5D=8&id=7",
    ] {
        assert_eq!(name(&one, url), ambiguous, "{url}");
    }
    for url in ["/item?id=%zz", "/item?id=%ff", "/item?id=%00", "/item?id=%"] {
        assert!(matches!(name(&one, url), Err(NoResource::Unreadable { .. })), "{url}");
    }
    let two = with(&["b", "a"], false);
    assert_eq!(name(&two, "/item?a=1&b=2").as_deref(), Ok("/item/?b=2&a=1"));
    assert_eq!(name(&two, "/item?b=2&a=1").as_deref(), Ok("/item/?b=2&a=1"));
    let item = Resource::parse("/item").unwrap();
    for (query, is_partial) in [("a=1", true), ("b=1", true), ("c=1", false), ("a=1&b=2", false)] {
        let located = two.locate(&item, Some(query)).unwrap();
        assert_eq!(located.is_partial, is_partial, "{query}");
    }
    let folding = with(&["Id"], true);
    assert_eq!(name(&folding, "/ITEM?iD=Ab").as_deref(), Ok("/item/?id=ab"));
    assert!(name(&folding, "/item?id=1&ID=1").is_err());
    let shown = folding.locate_text("/item/?id=ab").unwrap();
    assert_eq!(shown.asked.endpoint("/lock"), "/item/lock?id=ab");
}

#[test]
fn a_rule_that_folds_matches_every_spelling() {
    let fold = Fold { case: true, params: true };
    let rules = Rules::new(vec![Rule { fold, ..rule(&["/Flags/{id}"], None) }]);
    for url in ["/flags/ab", "/FLAGS/AB", "/flags;v=1/aB;x=%2e;y", "/fla%47s/%41b%3Bx"] {
        assert_eq!(name(&rules, url).as_deref(), Ok("/flags/ab"), "{url}");
    }
    assert_eq!(name(&rules, "/other/AB").as_deref(), Ok("/other/AB"));
    // Some upstreams leave out a segment that is nothing but parameters.
    assert_eq!(name(&rules, "/flags/;x"), Err(NoResource::Path(PathError::EmptySegment)));
    // The list above is known under the folded name as well.
    let above = Resource::parse("/FLAGS").unwrap();
    assert_eq!(rules.names_elsewhere(&above), [Resource::parse("/flags").unwrap()]);
}

#[test]
fn an_action_is_read_from_the_path_as_it_was_sent() {
    let search = Read { method: Method::POST, action: Some("search".to_owned()) };
    for (method, path, expected) in [
        (Method::POST, "/flags:search", true),
        (Method::POST, "/flags/7:search", true),
        (Method::PUT, "/flags:search", false),
        (Method::POST, "/flags/search", false),
        (Method::POST, "/flags:research", false),
        (Method::POST, "/flags%3Asearch", false),
        (Method::POST, "/flags:search/7", false),
        (Method::POST, "/flags:search/", false),
    ] {
        assert_eq!(search.matches(&method, path), expected, "{method} {path}");
    }
    let all = Read { method: Method::POST, action: None };
    assert!(all.matches(&Method::POST, "/a") && !all.matches(&Method::PATCH, "/a"));
    assert_eq!((search.to_string(), all.to_string()), ("POST:search".into(), "POST".into()));
}

#[test]
fn rules_that_contradict_each_other_are_found() {
    let case = Fold { case: true, params: false };
    let short = |rule: Rule| Rule { max_queue: 1, ..rule };
    let params = |rule: Rule| Rule { fold: Fold { case: false, params: true }, ..rule };
    for (rules, expected) in [
        (
            vec![rule(&["/a/{x}", "/a/{y}"], None)],
            vec![Conflict::Duplicate { rule: 0, pattern: 1 }],
        ),
        (
            vec![rule(&["/a/**"], None), rule(&["/b", "/a/{x}"], None)],
            vec![Conflict::Unreachable { rule: 1, pattern: 1, by: 0 }],
        ),
        (
            vec![rule(&["/v1/{x}"], Some("/n/{x}")), rule(&["/n/a"], None)],
            vec![Conflict::Unreachable { rule: 1, pattern: 0, by: 0 }],
        ),
        (
            vec![rule(&["/x/{a}/{b}/one"], Some("/{a}/{b}/**"))],
            vec![Conflict::Unreachable { rule: 0, pattern: 0, by: 0 }],
        ),
        (
            vec![Rule { fold: case, ..rule(&["/a/**"], None) }, rule(&["/A/b"], None)],
            vec![Conflict::Unreachable { rule: 1, pattern: 0, by: 0 }],
        ),
        (
            vec![rule(&["/a/**"], None), Rule { fold: case, ..rule(&["/A/b"], None) }],
            vec![Conflict::Disagree { rule: 1, with: 0, key: "fold" }],
        ),
        (
            vec![rule(&["/a/{x}"], Some("/n/{x}")), Rule { fold: case, ..rule(&["/**"], None) }],
            vec![Conflict::MappedElsewhere { rule: 1, by: 0 }],
        ),
        (
            vec![
                rule(&["/flags/{x}"], Some("/things/{x}")),
                rule(&["/v1/{x}"], Some("/flags/{x}")),
            ],
            vec![Conflict::MappedElsewhere { rule: 1, by: 0 }],
        ),
        (
            vec![rule(&["/v1/{x}"], Some("/n/{x}")), short(rule(&["/v2/{x}"], Some("/n/{x}")))],
            vec![Conflict::Disagree { rule: 1, with: 0, key: "max_queue" }],
        ),
        (
            vec![short(rule(&["/n/**"], None)), rule(&["/v2/{x}"], Some("/n/{x}"))],
            vec![Conflict::Disagree { rule: 1, with: 0, key: "max_queue" }],
        ),
        (
            // What `/**` names is a path that the rule before it leaves nothing of.
            vec![params(rule(&["/{x}/{y}"], Some("/y/{x}"))), rule(&["/**"], Some("/;"))],
            vec![Conflict::FoldedAway { rule: 1, pattern: None, by: 0 }],
        ),
        (
            vec![rule(&["/a", "/a/..;b"], None), params(rule(&["/c;x"], None))],
            vec![Conflict::FoldedAway { rule: 0, pattern: Some(1), by: 1 }],
        ),
        (vec![rule(&["/v1/{x}"], Some("/n/{x}")), rule(&["/v2/{x}"], Some("/n/{x}"))], vec![]),
        (vec![rule(&["/v1/{x}"], Some("/n/{x}")), short(rule(&["/n/**"], None))], vec![]),
        (vec![rule(&["/a"], None), rule(&["/b/**"], None), rule(&["/**"], None)], vec![]),
    ] {
        assert_eq!(conflicts(&rules), expected, "{rules:?}");
    }
}

/// Segments that meet each other in patterns, in names, and in several spellings.
fn segment() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "A", "b", "%61", "a;x=1", ";", "%41", "v1"])
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(segment(), 0..4).prop_map(|segments| format!("/{}", segments.join("/")))
}

fn any_pattern() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec!["a", "b", "A", "a;x", ";", "v1", "{x}", "{y}", "**"]);
    prop::collection::vec(part, 0..4).prop_map(|parts| format!("/{}", parts.join("/")))
}

fn any_rule() -> impl Strategy<Value = Option<Rule>> {
    (
        prop::collection::vec(any_pattern(), 1..3),
        prop::option::of(any_pattern()),
        any::<(bool, bool)>(),
        prop::sample::subsequence(vec!["id", "k"], 0..=2),
    )
        .prop_map(|(patterns, resource, (case, params), query)| {
            let parse = |text: &String| Pattern::parse(text).ok();
            let patterns: Vec<Pattern> = patterns.iter().filter_map(parse).collect();
            let resource = resource.as_ref().and_then(parse);
            // A name is made of what each pattern captures: the configuration sees to it.
            let complete = resource.as_ref().is_none_or(|name| {
                patterns.iter().all(|pattern| {
                    name.names().all(|it| pattern.names().any(|other| other == it))
                        && (!name.has_any() || pattern.has_any())
                })
            });
            (complete && !patterns.is_empty()).then(|| Rule {
                patterns,
                resource,
                fold: Fold { case, params },
                query: query.iter().map(ToString::to_string).collect(),
                ..Rule::default()
            })
        })
}

/// Rules that a configuration may have: those that would contradict an earlier one are left out.
fn any_rules() -> impl Strategy<Value = Rules> {
    prop::collection::vec(any_rule(), 1..4).prop_map(|drawn| {
        let mut rules: Vec<Rule> = Vec::new();
        for rule in drawn.into_iter().flatten() {
            rules.push(rule);
            if !conflicts(&rules).is_empty() {
                rules.pop();
            }
        }
        Rules::new(rules)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_name_of_a_resource_names_it(
        rules in any_rules(),
        path in path(),
        query in prop::option::of("(id|k|%69d|x)(=|=1|=a%20b|=A)(&(id|k)=[ab])?"),
    ) {
        let path = Resource::parse(&path).unwrap();
        let Ok(located) = rules.locate(&path, query.as_deref()) else { return Ok(()) };
        prop_assert!(rules.is_name(&located.resource), "{} of {path}", located.resource);
        // The lock that is asked for by its URL, and by its name, is that of the write.
        let rule = rules.find(&located.resource).1;
        let of_url = rules.find(&path).1;
        prop_assert_eq!(rule.lockable, of_url.lockable);
        prop_assert_eq!(rule.max_ttl, of_url.max_ttl);
        let by_text = rules.locate_text(located.resource.as_str()).unwrap();
        prop_assert_eq!(by_text.resource, located.resource);
    }

    #[test]
    fn every_spelling_that_an_upstream_takes_for_one_is_one(
        rules in any_rules(),
        path in path(),
    ) {
        let path = Resource::parse(&path).unwrap();
        let (number, rule) = rules.find(&path);
        let Ok(located) = rules.locate(&path, None) else { return Ok(()) };
        prop_assert_eq!(located.rule, number);
        if rule.fold.case {
            for spelt in [path.as_str().to_uppercase(), path.as_str().to_lowercase()] {
                // An upper-case escape is another letter: only paths without one are respelt.
                let spelt = Resource::parse(&spelt).unwrap();
                if rules.find(&spelt).0 == number {
                    let other = rules.locate(&spelt, None).unwrap();
                    prop_assert_eq!(&other.resource, &located.resource);
                }
            }
        }
    }

    #[test]
    fn what_takes_everything_below_a_url_away_meets_every_name_there(
        rules in any_rules(),
        above in path(),
        below in path(),
    ) {
        let above = Resource::parse(&above).unwrap();
        let Ok(below) = Resource::parse(&format!("{}{below}", above.as_str().trim_end_matches('/')))
        else { return Ok(()) };
        let (Ok(own), Ok(name)) = (rules.locate(&above, None), rules.locate(&below, None)) else {
            return Ok(());
        };
        let mut covering = rules.names_elsewhere(&above);
        covering.push(own.resource);
        covering.push(above.clone());
        prop_assert!(
            covering.iter().any(|each| each.covers(&name.resource)),
            "{} of {below} is not below {covering:?} of {above}", name.resource,
        );
    }
}
