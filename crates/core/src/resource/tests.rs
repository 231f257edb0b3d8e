use super::*;

#[test]
fn a_path_has_one_canonical_form() {
    for (sent, canonical) in [
        ("/", "/"),
        ("/a", "/a"),
        ("/a/", "/a"),
        ("/%61", "/a"),
        ("/a%20b", "/a%20b"),
        ("/%c3%a9", "/%C3%A9"),
        ("/é", "/%C3%A9"),
        ("/a:b@c;d=e,f", "/a:b@c;d=e,f"),
        ("/%3Ax", "/:x"),
        ("/a%2525", "/a%2525"),
        ("/...", "/..."),
    ] {
        assert_eq!(
            Resource::parse(sent).map(|r| r.to_string()).as_deref(),
            Ok(canonical),
            "{sent}"
        );
    }
}

#[test]
fn a_path_that_two_servers_could_read_differently_is_refused() {
    for (sent, error) in [
        ("", PathError::NotAbsolute),
        ("a", PathError::NotAbsolute),
        ("//", PathError::EmptySegment),
        ("//a", PathError::EmptySegment),
        ("/a//b", PathError::EmptySegment),
        ("/a//", PathError::EmptySegment),
        ("/.", PathError::DotSegment),
        ("/a/../b", PathError::DotSegment),
        ("/a/%2e%2E/b", PathError::DotSegment),
        ("/a%2fb", PathError::EncodedSlash),
        ("/a\\b", PathError::Backslash),
        ("/a%5cb", PathError::Backslash),
        ("/a%", PathError::BadEscape),
        ("/a%4", PathError::BadEscape),
        ("/a%zz", PathError::BadEscape),
        ("/a%00", PathError::ControlCharacter),
        ("/a%7f", PathError::ControlCharacter),
        ("/a%c2%85", PathError::ControlCharacter),
        ("/a%ff", PathError::NotUtf8),
        ("/a?b", PathError::Delimiter),
        ("/a#b", PathError::Delimiter),
    ] {
        assert_eq!(Resource::parse(sent), Err(error), "{sent}");
    }
    let longest = format!("/{}", "a".repeat(2047));
    assert!(Resource::parse(&longest).is_ok());
    assert_eq!(Resource::parse(&format!("{longest}a")), Err(PathError::TooLong));
    assert!(Resource::parse(&"/a".repeat(64)).is_ok());
    assert_eq!(Resource::parse(&"/a".repeat(65)), Err(PathError::TooManySegments));
    // Canonical form may be longer than what was sent.
    assert_eq!(Resource::parse(&format!("/{}", "é".repeat(1000))), Err(PathError::TooLong));
}

#[test]
fn what_is_above_is_cut_between_segments_only() {
    let path = Resource::parse("/ab/c").unwrap();
    let up_to = |length| path.up_to(length).map(|above| above.to_string());
    assert_eq!(up_to(0).as_deref(), Some("/"));
    assert_eq!(up_to(3).as_deref(), Some("/ab"));
    assert_eq!(up_to(5).as_deref(), Some("/ab/c"));
    assert_eq!([up_to(1), up_to(2), up_to(4), up_to(6)], [None, None, None, None]);
    assert_eq!(Resource::root().up_to(1), Some(Resource::root()));
}

#[test]
fn covering_is_by_segment() {
    let covers =
        |a: &str, b: &str| Resource::parse(a).unwrap().covers(&Resource::parse(b).unwrap());
    assert!(covers("/", "/a"));
    assert!(covers("/a", "/a"));
    assert!(covers("/a", "/a/b"));
    assert!(!covers("/a", "/ab"));
    assert!(!covers("/a/b", "/a"));
}

#[test]
fn a_child_is_one_legal_segment() {
    let parent = Resource::parse("/flags").unwrap();
    assert_eq!(parent.child("a b").unwrap().as_str(), "/flags/a%20b");
    assert_eq!(parent.child("").unwrap_err(), PathError::EmptySegment);
    assert_eq!(parent.child("..").unwrap_err(), PathError::DotSegment);
    assert_eq!(parent.child("a/b").unwrap_err(), PathError::EncodedSlash);
    assert_eq!(Resource::root().child("a").unwrap().as_str(), "/a");
    assert_eq!(parent.child("a b").unwrap().name(), "a b");
    assert_eq!(parent.child("a").unwrap().parent().unwrap(), parent);
}

#[test]
fn parameters_are_a_segment_that_no_path_is_spelt_like() {
    let path = Resource::parse("/item").unwrap();
    let with = |pairs: &[(&str, &str)]| {
        let pairs: Vec<_> =
            pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        path.with_parameters(&pairs)
    };
    let seven = with(&[("id", "7")]).unwrap();
    assert_eq!(seven.as_str(), "/item/?id=7");
    assert_eq!(Resource::read(seven.as_str()).as_ref(), Ok(&seven));
    assert_eq!(seven.parent().as_ref(), Some(&path));
    assert!(path.covers(&seven) && !seven.covers(&path));
    assert_eq!(seven.path_and_query(), (path.clone(), Some("id=7")));
    assert_eq!(path.path_and_query(), (path.clone(), None));
    assert_eq!(seven.name(), "?id=7");
    assert_eq!(seven.child("x").unwrap_err(), PathError::Delimiter);
    // A path that looks like it is another.
    assert_eq!(Resource::parse("/item/%3Fid=7").unwrap().as_str(), "/item/%3Fid=7");
    assert_eq!(Resource::parse("/item/?id=7"), Err(PathError::Delimiter));
    let odd = with(&[("a&b", "c=d+/? %"), ("z", "")]).unwrap();
    assert_eq!(odd.as_str(), "/item/?a%26b=c%3Dd%2B%2F%3F%20%25&z=");
    assert_eq!(Resource::read(odd.as_str()), Ok(odd));
    assert_eq!(with(&[("id", "a\0")]).unwrap_err(), PathError::ControlCharacter);
    assert_eq!(with(&[("id", &"a".repeat(2048))]).unwrap_err(), PathError::TooLong);
    for bad in ["/item/?", "/item/?id", "/item/?id=%", "/item/?id=%ff", "/a//?id=7"] {
        assert!(Resource::read(bad).is_err(), "{bad}");
    }
    let root = Resource::read("/?id=7").unwrap();
    assert_eq!(root.path_and_query(), (Resource::root(), Some("id=7")));
}
