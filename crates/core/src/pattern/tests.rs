use super::*;

#[test]
fn a_pattern_matches_by_segment() {
    for (pattern, path, expected) in [
        ("/", "/", true),
        ("/", "/a", false),
        ("/**", "/", true),
        ("/**", "/a/b", true),
        ("/a/{id}", "/a/b", true),
        ("/a/{id}", "/a", false),
        ("/a/{id}", "/a/b/c", false),
        ("/a/{id}/**", "/a/b", true),
        ("/a/{id}/**", "/a/b/c/d", true),
        ("/a/{id}/**", "/a", false),
        ("/a/**/z", "/a/z", true),
        ("/a/**/z", "/a/b/c/z", true),
        ("/a/**/z", "/a/b", false),
        ("/a b", "/a%20b", true),
    ] {
        let pattern = Pattern::parse(pattern).unwrap();
        assert_eq!(pattern.matches(&Resource::parse(path).unwrap()), expected, "{pattern} {path}");
    }
    for (pattern, path, expected) in [
        ("/**", "/", true),
        ("/a/**", "/a", true),
        ("/a/**", "/b", false),
        ("/a", "/a", false),
        ("/a/{id}", "/a/b", false),
        ("/**/z", "/a/z", false),
    ] {
        let pattern = Pattern::parse(pattern).unwrap();
        let resource = Resource::parse(path).unwrap();
        assert_eq!(pattern.matches_all_below(&resource), expected, "{pattern} {path}");
    }
    for bad in ["", "a", "/a//b", "/{", "/{}", "/a*", "/*", "/{a}b", "/**/**", "/../a", "/{a}/{a}"]
    {
        assert!(Pattern::parse(bad).is_err(), "{bad}");
    }
}

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap()
}

#[test]
fn what_one_pattern_captures_fills_another() {
    for (from, path, to, expected) in [
        ("/v1/flags/{id}/**", "/v1/flags/7", "/flags/{id}", "/flags/7"),
        ("/v1/flags/{id}/**", "/v1/flags/7/a/b", "/flags/{id}", "/flags/7"),
        ("/v1/**", "/v1/a/b", "/**", "/a/b"),
        ("/v1/**", "/v1", "/**", "/"),
        ("/{a}/{b}/**/{c}", "/1/2/x/y/3", "/{c}/**/{a}", "/3/x/y/1"),
        ("/a/{id}", "/a/x%20y", "/{id}", "/x%20y"),
    ] {
        let path = Resource::parse(path).unwrap();
        let captures = pattern(from).bind(&path).unwrap();
        assert_eq!(pattern(to).fill(&captures).unwrap().as_str(), expected, "{from} {path}");
    }
    assert_eq!(pattern("/a/{id}").bind(&Resource::parse("/a").unwrap()), None);
    let long = Resource::parse(&format!("/{}", "a".repeat(2000))).unwrap();
    let captures = pattern("/{x}").bind(&long).unwrap();
    let to = pattern(&format!("/{}/{{x}}", "b".repeat(60)));
    assert_eq!(to.fill(&captures).unwrap_err(), PathError::TooLong);
}

#[test]
fn what_lies_below_a_path_is_filled_as_far_as_it_is_certain() {
    for (from, above, to, expected) in [
        ("/v1/flags/{id}", "/v1/flags", "/flags/{id}", Some("/flags")),
        ("/v1/flags/{id}", "/v1", "/flags/{id}", Some("/flags")),
        ("/v1/flags/{id}", "/", "/{id}/flags", Some("/")),
        ("/v1/flags/{id}", "/v1/flags/7", "/flags/{id}", None),
        ("/v1/flags/{id}", "/v2", "/flags/{id}", None),
        ("/v1/flags/{id}/**", "/v1/flags/7", "/flags/{id}", Some("/flags/7")),
        ("/v1/**", "/v1/a/b", "/**", Some("/a/b")),
        ("/v1/**/z", "/v1/a/b", "/**", Some("/a/b")),
        ("/v1/**/y/z", "/v1/a/y", "/**", Some("/a")),
        ("/{t}/flags/{id}", "/x", "/all/{t}/{id}", Some("/all/x")),
    ] {
        let above = Resource::parse(above).unwrap();
        let filled = pattern(from)
            .bind_below(&above)
            .map(|captures| pattern(to).fill_certain(&captures).unwrap().to_string());
        assert_eq!(filled.as_deref(), expected, "{from} {above}");
    }
}

#[test]
fn patterns_are_compared_by_what_they_match() {
    let texts = [
        "/",
        "/**",
        "/a",
        "/b",
        "/{x}",
        "/a/**",
        "/a/{x}",
        "/{x}/**",
        "/**/a",
        "/a/**/a",
        "/a/b",
        "/{x}/b",
        "/**/{x}",
        "/a/{x}/**",
        "/a/b/**/a",
        "/{x}/{y}/**",
    ];
    // Every path of up to four of three segments: enough to tell these patterns apart.
    let mut paths = vec![String::new()];
    let mut longest = paths.clone();
    for _ in 0..4 {
        longest = longest
            .iter()
            .flat_map(|path| ["/a", "/b", "/c"].map(|s| format!("{path}{s}")))
            .collect();
        paths.extend(longest.iter().cloned());
    }
    let paths: Vec<Resource> = paths
        .iter()
        .map(|path| if path.is_empty() { Resource::root() } else { Resource::parse(path).unwrap() })
        .collect();
    for one in texts.map(pattern) {
        for other in texts.map(pattern) {
            let all = paths.iter().all(|path| !other.matches(path) || one.matches(path));
            assert_eq!(one.takes_all_of(&other), all, "{one} takes all of {other}");
            let some = paths.iter().any(|path| other.matches(path) && one.matches(path));
            assert_eq!(one.meets(&other), some, "{one} meets {other}");
        }
    }
}
