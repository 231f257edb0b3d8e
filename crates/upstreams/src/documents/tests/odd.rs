use super::model::Dice;
use super::*;

/// What parsers stumble over.
const PIECES: [&str; 40] = [
    "\"",
    "W/",
    "*",
    ",",
    " ",
    "%",
    "%2",
    "%00",
    "%ff",
    "é",
    "&",
    "=",
    "+",
    "limit",
    "cursor",
    "list",
    "recursive",
    "true",
    "0",
    "1",
    "99999999999999999999",
    "[",
    "]",
    "{",
    "}",
    ":",
    "\\",
    "\\u",
    "/",
    "~",
    "-",
    "null",
    "\"id\"",
    "\"op\"",
    "\"copy\"",
    "\"path\"",
    "\"from\"",
    "\"value\"",
    "Sun, 06 Nov",
    "e400",
];

fn text(dice: &mut Dice, pieces: u64) -> String {
    (0..dice.roll(pieces)).map(|_| PIECES[dice.roll(PIECES.len() as u64) as usize]).collect()
}

#[tokio::test]
async fn no_request_makes_the_documents_panic() {
    let bench = Bench::with(|options| options.max_document = 200);
    let mut dice = Dice(7);
    for _ in 0..3000 {
        let method = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"][dice.roll(6) as usize];
        let path = ["/", "/a", "/a/b", "/a/b/c"][dice.roll(4) as usize];
        let query = text(&mut dice, 6);
        let uri = format!("{path}?{query}");
        let Ok(uri) = uri.parse::<http::Uri>() else { continue };
        let field = [
            "if-match",
            "if-none-match",
            "if-modified-since",
            "if-unmodified-since",
            "content-type",
            "content-length",
        ][dice.roll(6) as usize];
        let value = text(&mut dice, 5);
        let kind = ["application/json", "application/json-patch+json", "text/plain"];
        let kind = kind[dice.roll(3) as usize];
        let mut headers = vec![("content-type", kind)];
        if http::HeaderValue::from_str(&value).is_ok() {
            headers.push((field, &value));
        }
        let body = match dice.roll(3) {
            0 => text(&mut dice, 12),
            1 => r#"{"id":"b","n":[1,2]}"#.to_owned(),
            _ => r#"[{"op":"add","path":"/n/-","value":{}},{"op":"copy","from":"","path":"/n/0"}]"#
                .into(),
        };
        let seen = bench.send(method, &uri.to_string(), &headers, &body).await;
        assert!(seen.status < 500, "{method} {uri} {headers:?} {body}: {seen:?}");
    }
}
