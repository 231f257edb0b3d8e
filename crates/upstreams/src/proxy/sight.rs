//! Whether the upstream shows something to a caller whom it alone knows.
//!
//! What always holds:
//! - The upstream is asked with the caller's credentials and nothing else of the caller's: a field
//!   that names another method, say, would make a write of the question.
//! - Only a yes is remembered, for [`FOR`] and for so many ([`MOST`]).
//! - Nothing but a success is a yes. A redirection is none: it leads those to a login, too, whose
//!   credentials are made up. But one that only adds a slash to the path is followed, for the URLs
//!   of locks do not tell whether there is one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::header::{ACCEPT, HOST, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Method, Response, StatusCode, Uri};
use leasehold_core::ids::Principal;
use leasehold_core::resource::Resource;
use leasehold_guard::body::empty;
use leasehold_guard::call::Credentials;
use leasehold_guard::rules::Asked;
use leasehold_guard::upstream::{BoxFuture, Verifier};
use leasehold_problems::{Name, Problem, Retryable};
use tokio::time::Instant;

use super::fault::Failure;
use super::{Proxy, answered, fields};

/// How long a yes counts.
const FOR: Duration = Duration::from_secs(5);

/// The most that are remembered of one turn; of the turn before as many.
const MOST: usize = 2048;

impl Verifier for Proxy {
    fn may_see<'a>(
        &'a self,
        principal: &'a Principal,
        credentials: &'a Credentials,
        asked: &'a Asked,
    ) -> BoxFuture<'a, Result<(), Box<Problem>>> {
        Box::pin(async move {
            let host = credentials.head.headers.get(HOST);
            let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
            let sight = format!("{principal} {host} {}", asked.endpoint(""));
            if self.seen.has(&sight) {
                return Ok(());
            }
            self.ask(credentials, asked).await?;
            self.seen.put(sight);
            Ok(())
        })
    }
}

impl Proxy {
    async fn ask(&self, credentials: &Credentials, asked: &Asked) -> Result<(), Box<Problem>> {
        let (mut method, mut ending) = (Method::HEAD, "");
        if asked.path().is_root() {
            ending = "/";
        }
        loop {
            let url = asked.endpoint(ending);
            let answer = self.shown(credentials, &method, &url).await?;
            match answer.status() {
                StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
                    if method == Method::HEAD =>
                {
                    method = Method::GET;
                }
                status
                    if status.is_redirection()
                        && ending.is_empty()
                        && adds_slash(&answer, asked) =>
                {
                    ending = "/";
                }
                status if status.is_success() => return Ok(()),
                status => return Err(refusal(status, &answer, &asked.endpoint(""))),
            }
        }
    }

    /// The head of the upstream's answer to a request of these credentials alone.
    async fn shown(
        &self,
        credentials: &Credentials,
        method: &Method,
        url: &str,
    ) -> Result<Response<()>, Box<Problem>> {
        let shared = &self.shared;
        let mut head = Box::new(credentials.head.clone());
        head.method = method.clone();
        head.uri = url.parse::<Uri>().map_err(|_| {
            let detail = format!("{url} cannot be asked for at the upstream.");
            Box::new(Problem::new(Name::MalformedRequest, detail).with("field", "path"))
        })?;
        head.headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        let way = shared.sites.way(&head)?;
        let timeout = way.timeout;
        fields::outgoing(&mut head, &way.site.authority, None, None);
        let begun = shared.send(head, empty(), way, true).await;
        let begun = begun.map_err(|failure| unanswered(&failure, url, timeout))?;
        // Whatever body it has is not read: the connection is closed, or free again.
        Ok(answered(shared, begun).map(drop))
    }
}

/// Whether an answer leads to the same path with a slash at its end.
fn adds_slash(answer: &Response<()>, asked: &Asked) -> bool {
    let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let Some(Ok(uri)) = location.map(str::parse::<Uri>) else { return false };
    uri.path().ends_with('/') && Resource::parse(uri.path()).as_ref() == Ok(asked.path())
}

/// What the upstream's refusal to show something is here.
fn refusal(status: StatusCode, answer: &Response<()>, url: &str) -> Box<Problem> {
    let fields = answer.headers();
    let said = format!("The upstream, asked with your credentials for {url}, answers {status}");
    let refused = |name| Problem::new(name, format!("{said}."));
    Box::new(match status {
        StatusCode::UNAUTHORIZED => {
            let challenges = fields.get_all(WWW_AUTHENTICATE).iter();
            challenges.fold(refused(Name::Unauthenticated), |problem, challenge| {
                problem.header(WWW_AUTHENTICATE, challenge.clone())
            })
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => refused(Name::NotFound),
        _ if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            let after = fields.get(RETRY_AFTER).cloned().unwrap_or(HeaderValue::from(1));
            let problem = refused(Name::UpstreamUnreachable).with("outcome", "not_sent");
            problem.header(RETRY_AFTER, after)
        }
        _ if status.is_redirection() => Problem::new(
            Name::Forbidden,
            format!("{said}: whether you may see what is there does not follow from that."),
        ),
        _ => refused(Name::Forbidden),
    })
}

fn unanswered(failure: &Failure, url: &str, silence: Duration) -> Box<Problem> {
    let mut problem = failure.problem(silence);
    problem.detail =
        format!("The upstream cannot be asked whether you may see {url}. Nothing was done.");
    problem.members.insert("outcome".to_owned(), "not_sent".into());
    problem.retryable = Some(Retryable::Same);
    if !problem.headers.iter().any(|(name, _)| name == RETRY_AFTER) {
        problem = Box::new(problem.retry_after(1));
    }
    problem
}

/// What was shown lately, and when.
#[derive(Default)]
pub(super) struct Seen(Mutex<Turns>);

#[derive(Default)]
struct Turns {
    current: HashMap<String, Instant>,
    before: HashMap<String, Instant>,
    /// When the current turn began. It ends when what it holds is too old or too much.
    began: Option<Instant>,
}

impl Seen {
    fn has(&self, sight: &str) -> bool {
        let turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = turns.current.get(sight).or_else(|| turns.before.get(sight));
        at.is_some_and(|at| at.elapsed() < FOR)
    }

    fn put(&self, sight: String) {
        let now = Instant::now();
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = turns.began.is_none_or(|began| FOR <= now.duration_since(began));
        if is_over || MOST <= turns.current.len() {
            turns.before = std::mem::take(&mut turns.current);
            turns.began = Some(now);
        }
        turns.current.insert(sight, now);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_yes_is_remembered_for_a_while() {
        let seen = Seen::default();
        let (short, ago) = (Duration::from_millis(1), FOR - Duration::from_millis(1));
        seen.put("alice a /x".to_owned());
        advance(ago).await;
        seen.put("bob a /x".to_owned());
        assert!(seen.has("alice a /x") && !seen.has("alice b /x") && !seen.has("alice a /y"));
        advance(short).await;
        assert!(!seen.has("alice a /x"));
        assert!(seen.has("bob a /x"));
        // A new turn forgets nothing of the one before that still counts.
        seen.put("carol a /x".to_owned());
        assert!(seen.has("bob a /x") && seen.has("carol a /x"));
        advance(ago).await;
        assert!(!seen.has("bob a /x") && seen.has("carol a /x"));
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_are_remembered_and_no_more() {
        let seen = Seen::default();
        for who in 0..5 * MOST {
            seen.put(format!("{who} a /x"));
        }
        let turns = seen.0.lock().unwrap();
        assert!(turns.current.len() <= MOST && turns.before.len() <= MOST);
    }

    #[test]
    fn only_a_slash_more_is_the_same_path() {
        let asked = Asked::by_name(&Resource::parse("/a/b%20c").unwrap());
        for (location, adds) in [
            ("/a/b%20c/", true),
            ("http://api.example/a/b%20c/?x=1", true),
            ("/a/b%20c", false),
            ("/a/b%20c/d/", false),
            ("/login/?next=/a/b%20c/", false),
            ("b%20c/", false),
            ("//", false),
        ] {
            let answer = Response::builder().status(301).header(LOCATION, location);
            assert_eq!(adds_slash(&answer.body(()).unwrap(), &asked), adds, "{location}");
        }
    }
}
