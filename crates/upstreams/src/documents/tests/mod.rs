//! The documents as the guard sees them: requests in, answers out.

mod batches;
mod failures;
mod model;
mod odd;
mod reads;
mod targets;
mod writes;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use http_body_util::BodyExt;
use serde_json::Value;
use tempfile::TempDir;

use super::*;

const INCARNATION: &str = "0a0b0c0d";
/// Sun, 06 Nov 1994 08:49:37.250 GMT
const NOW: i64 = 784_111_777_250;

/// Documents in a folder of their own, with a clock that the test moves.
struct Bench {
    folder: TempDir,
    clock: Arc<AtomicI64>,
    draws: Arc<AtomicU64>,
    documents: Documents,
}

/// An answer, or a refusal, as a client sees it.
#[derive(Debug)]
struct Seen {
    status: u16,
    headers: http::HeaderMap,
    body: Bytes,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn etag(&self) -> String {
        self.header("etag").unwrap_or_else(|| panic!("no ETag: {self:?}")).to_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The name of the problem.
    fn problem(&self) -> String {
        self.json()["type"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()
    }

    fn of_answer(answer: Result<Response<Bytes>, Box<Problem>>) -> Self {
        let context = leasehold_problems::Context { instance: "/", request_id: "r", prefix: "/-/" };
        let response = match answer {
            Ok(response) => response,
            Err(problem) => problem.to_response(&context).map(Bytes::from),
        };
        let (head, body) = response.into_parts();
        Self { status: head.status.as_u16(), headers: head.headers, body }
    }
}

fn resource(path: &str) -> Resource {
    Resource::parse(path).unwrap()
}

fn head(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

async fn collected(answer: Answer) -> Result<Response<Bytes>, Box<Problem>> {
    let (head, body) = answer?.into_parts();
    Ok(Response::from_parts(head, body.collect().await.unwrap().to_bytes()))
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Options)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(AtomicI64::new(NOW));
        let draws = Arc::new(AtomicU64::new(0));
        let mut options = Self::options(&clock, &draws);
        change(&mut options);
        let documents = Documents::open(folder.path(), INCARNATION, options).unwrap();
        Self { folder, clock, draws, documents }
    }

    fn options(clock: &Arc<AtomicI64>, draws: &Arc<AtomicU64>) -> Options {
        let (clock, draws) = (clock.clone(), draws.clone());
        Options::new(
            Arc::new(move || WallTime(clock.load(Ordering::SeqCst))),
            Arc::new(move || Uuid::from_u64_pair(0, draws.fetch_add(1, Ordering::SeqCst))),
        )
    }

    /// The same folder, opened again.
    fn reopened(self, incarnation: &str) -> Self {
        let Self { folder, clock, draws, documents } = self;
        drop(documents);
        let options = Self::options(&clock, &draws);
        let documents = Documents::open(folder.path(), incarnation, options).unwrap();
        Self { folder, clock, draws, documents }
    }

    async fn send(&self, method: &str, uri: &str, headers: &[(&str, &str)], body: &str) -> Seen {
        self.send_as(None, method, uri, headers, body).await
    }

    /// One request, as the guard passes it on.
    async fn send_as(
        &self,
        admission: Option<Seq>,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Seen {
        let head = head(method, uri, headers);
        let resource = resource(head.uri.path());
        let body = full(body.to_owned());
        if head.method.is_safe() {
            let request = Request::from_parts(head, body);
            let answer = self.documents.read(request, resource).await;
            return Seen::of_answer(collected(answer).await);
        }
        if let Err(problem) = self.documents.allow(&head, &resource) {
            return Seen::of_answer(Err(problem));
        }
        let early = self.documents.early_targets(&head, &resource);
        let mut plan = match self.documents.plan(head, resource, body).await {
            Ok(plan) => plan,
            Err(problem) => return Seen::of_answer(Err(problem)),
        };
        for _ in 0..10 {
            let targets = self.documents.targets(&plan).await;
            for target in &early {
                assert!(targets.contains(target), "{target:?} is early only");
            }
            let covers = |target: &Target| targets.contains(target);
            match self.documents.apply(plan, &covers, admission).await {
                Execution::Ended(answer) => return Seen::of_answer(collected(answer).await),
                Execution::Answered(..) => panic!("{method} {uri} goes on after its answer"),
                Execution::Retarget(again) => plan = again,
            }
        }
        panic!("{method} {uri} does not come to an end");
    }

    async fn put(&self, path: &str, body: &str) -> Seen {
        self.send("PUT", path, &[], body).await
    }

    async fn get(&self, uri: &str) -> Seen {
        self.send("GET", uri, &[], "").await
    }
}
