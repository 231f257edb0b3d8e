//! `POST /-/batch`: several writes, all or none, under one admission.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    CONTENT_TYPE, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE,
};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use leasehold_core::resource::Resource;
use leasehold_core::target::Target;
use leasehold_faces::json_api::endpoint;
use leasehold_faces::json_api::fields::{Fields, malformed, object};
use leasehold_faces::json_api::json;
use leasehold_guard::body::Body;
use leasehold_guard::call::Call;
use leasehold_guard::claims::Claims;
use leasehold_guard::guard::{Done, Work, may_be_of_the_rest};
use leasehold_guard::kept::kept;
use leasehold_guard::memory::{Memory, SMALL};
use leasehold_guard::rules::{NoResource, Rules};
use leasehold_guard::telling::Telling;
use leasehold_guard::tokens;
use leasehold_guard::upstream::{Admitted, Answer, Upstream};
use leasehold_problems::{Name, Problem};
use leasehold_upstreams::documents::{BatchEnd, BatchOperation, BatchPlan, Documents};
use serde_json::{Map, Value, json as value};

use crate::app::App;

/// The longest body of a batch, in bytes.
const MAX_BODY: usize = 16 << 20;
/// The most operations.
const MAX_OPERATIONS: usize = 256;

struct Batch {
    documents: Arc<Documents>,
    plan: Option<BatchPlan>,
    memory: Arc<Memory>,
}

impl Work for Batch {
    async fn targets(&self) -> Vec<Target> {
        match &self.plan {
            Some(plan) => self.documents.batch_targets(plan).await,
            None => Vec::new(),
        }
    }

    async fn execute(&mut self, admitted: &Admitted) -> Option<Done> {
        let answer = match self.documents.execute_batch(self.plan.take()?, admitted).await {
            Ok(answers) => Ok(told(answers, &self.memory)),
            Err(BatchEnd::Refused(index, problem)) => Err(indexed(index, problem)),
            Err(BatchEnd::Failed(problem)) => Err(problem),
            Err(BatchEnd::Retarget(plan)) => {
                self.plan = Some(plan);
                return None;
            }
        };
        Some(Done { answer, ending: None })
    }
}

impl App {
    pub(crate) async fn batch(&self, request: Request<Body>, call: &Call) -> Answer {
        let Some(documents) = self.guard.upstream().documents() else {
            let detail = "A batch is of documents, and this server keeps none: it is a gateway.";
            return Err(Box::new(Problem::new(Name::NotFound, detail)));
        };
        let (head, body) = request.into_parts();
        let mut members = object(body, MAX_BODY).await?;
        let operations = match members.remove("operations") {
            Some(Value::Array(operations)) => operations,
            Some(_) => return Err(malformed("operations", "`operations` is no list.")),
            None => return Err(malformed("operations", "`operations` is needed.")),
        };
        if let Some(name) = members.keys().next() {
            return Err(malformed(name, format!("`{name}` is no field of a batch.")));
        }
        if operations.is_empty() || MAX_OPERATIONS < operations.len() {
            return Err(malformed("operations", "A batch has 1 to 256 operations."));
        }
        let rules = self.rules.load_full();
        let mut tokens = tokens::presented(&self.engine, &head.headers)?;
        let mut read = Vec::with_capacity(operations.len());
        let mut lacks_precondition = false;
        for (index, operation) in operations.into_iter().enumerate() {
            let operation = operation_of(operation, &rules)
                .and_then(|(path, operation)| {
                    let path = &path;
                    let own = self.prefix.trim_end_matches('/');
                    let is_own = path
                        .as_str()
                        .strip_prefix(own)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
                    if is_own || endpoint::is_reserved(path, &self.lock_suffix, &rules) {
                        return Err(malformed("resource", format!("{path} is no document.")));
                    }
                    for token in tokens::presented(&self.engine, &operation.head.headers)? {
                        if !tokens.contains(&token) {
                            tokens.push(token);
                        }
                    }
                    Ok(operation)
                })
                .map_err(|problem| indexed(index, problem))?;
            let has = |name: HeaderName| operation.head.headers.contains_key(name);
            lacks_precondition |= rules.find(&operation.resource).1.require_precondition
                && !(has(IF_MATCH) || has(IF_NONE_MATCH) || has(IF_UNMODIFIED_SINCE));
            read.push(operation);
        }
        if tokens.len() > tokens::MAX_TOKENS {
            return Err(malformed("X-Lock-Token", "More than 256 lock tokens were sent."));
        }
        for (index, operation) in read.iter().enumerate() {
            self.guard
                .permitted(call, &operation.head, &operation.resource)
                .and_then(|()| documents.allow(&operation.head, &operation.resource))
                .map_err(|problem| indexed(index, problem))?;
        }
        let claims =
            Claims { tokens, conditions: Vec::new(), has_precondition: !lacks_precondition };
        let early: Vec<Vec<Target>> = read
            .iter()
            .map(|operation| documents.early_targets(&operation.head, &operation.resource))
            .collect();
        let Some(first) = read.first().map(|operation| operation.resource.clone()) else {
            return Err(malformed("operations", "A batch has 1 to 256 operations."));
        };
        let resources: Vec<Resource> =
            read.iter().map(|operation| operation.resource.clone()).collect();
        let all = distinct(early.iter().flatten());
        let write = self.guard.judged(call, Arc::from("POST"), first, all, &claims)?;
        let early_refusal = match self.engine.check(&write).await {
            Ok(()) => None,
            Err(refused) => {
                let of_the_rest = may_be_of_the_rest(&refused);
                let problem = self.refused_at(call, &resources, &early, &claims, refused).await;
                if !of_the_rest {
                    return Err(problem);
                }
                Some(problem)
            }
        };
        let plan = documents.plan_batch(read.clone()).map_err(|(index, problem)| {
            // A token that seems not to fit comes before a body that cannot be read.
            early_refusal.unwrap_or_else(|| indexed(index, problem))
        })?;
        let work =
            Batch { documents: documents.clone(), plan: Some(plan), memory: self.memory.clone() };
        let answer = self.guard.carry_out(call, write, claims.has_precondition, work).await;
        match answer {
            Err(problem) if !problem.members.contains_key("index") => {
                Err(self.located(call, read, &resources, &claims, problem).await)
            }
            answer => answer,
        }
    }

    /// Which operation the refusal of an admission is about, by all that each turned out to
    /// change.
    async fn located(
        &self,
        call: &Call,
        operations: Vec<BatchOperation>,
        resources: &[Resource],
        claims: &Claims,
        whole: Box<Problem>,
    ) -> Box<Problem> {
        let Some(documents) = self.guard.upstream().documents() else { return whole };
        let mut targets = Vec::with_capacity(operations.len());
        for operation in operations {
            let Ok(plan) = documents.plan_batch(vec![operation]) else { return whole };
            targets.push(documents.batch_targets(&plan).await);
        }
        self.locate(call, resources, &targets, claims, whole).await
    }

    /// Which operation a refusal of the whole is about: the first that is refused the same way by
    /// itself.
    async fn refused_at(
        &self,
        call: &Call,
        resources: &[Resource],
        early: &[Vec<Target>],
        claims: &Claims,
        refused: leasehold_engine::Refused<leasehold_core::refusal::WriteRefusal>,
    ) -> Box<Problem> {
        let rules = self.rules.load_full();
        let telling = self.telling(&rules, call);
        let first = resources.first().cloned().unwrap_or_else(Resource::root);
        let whole = telling.write(&first, refused);
        self.locate(call, resources, early, claims, whole).await
    }

    async fn locate(
        &self,
        call: &Call,
        resources: &[Resource],
        targets: &[Vec<Target>],
        claims: &Claims,
        whole: Box<Problem>,
    ) -> Box<Problem> {
        let rules = self.rules.load_full();
        let telling = self.telling(&rules, call);
        for (index, (resource, targets)) in resources.iter().zip(targets).enumerate() {
            let write = self.guard.judged(
                call,
                Arc::from("POST"),
                resource.clone(),
                targets.clone(),
                claims,
            );
            let Ok(write) = write else { continue };
            if let Err(refused) = self.engine.check(&write).await {
                let problem = telling.write(resource, refused);
                if problem.name == whole.name {
                    return indexed(index, problem);
                }
            }
        }
        whole
    }
}

impl App {
    fn telling<'a>(&'a self, rules: &'a Rules, call: &'a Call) -> Telling<'a> {
        Telling {
            engine: &self.engine,
            rules,
            caller: &call.caller,
            asked: call.asked.as_deref(),
            lock_suffix: &self.lock_suffix,
        }
    }
}

fn distinct<'a>(targets: impl Iterator<Item = &'a Target>) -> Vec<Target> {
    let mut seen = std::collections::HashSet::new();
    targets.filter(|target| seen.insert((*target).clone())).cloned().collect()
}

fn indexed(index: usize, mut problem: Box<Problem>) -> Box<Problem> {
    problem.members.insert("index".to_owned(), index.into());
    problem
}

/// An operation, and the path of the URL that it names its resource by.
fn operation_of(
    operation: Value,
    rules: &Rules,
) -> Result<(Resource, BatchOperation), Box<Problem>> {
    let Value::Object(mut members) = operation else {
        return Err(malformed("operations", "An operation is no object."));
    };
    let body = members.remove("body");
    let mut fields = Fields::new(members);
    let method = fields.text("method", 32)?;
    let path = fields.text("resource", 8192)?;
    let headers = fields.object("headers")?.unwrap_or_default();
    fields.end()?;
    let method = method
        .and_then(|method| Method::from_bytes(method.as_bytes()).ok())
        .ok_or_else(|| malformed("method", "`method` is needed, and has to be one."))?;
    let path = path.ok_or_else(|| malformed("resource", "`resource` is needed."))?;
    let uri: Uri = path.parse().map_err(|_| malformed("resource", "`resource` is no path."))?;
    if !path.starts_with('/') {
        return Err(malformed("resource", "`resource` does not begin with a slash."));
    }
    let broken = |error: NoResource| malformed("resource", format!("`resource`: {error}."));
    let path = Resource::parse(uri.path()).map_err(|error| broken(error.into()))?;
    let resource = rules.locate(&path, uri.query()).map_err(broken)?.resource;
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers_of(headers)?;
    let body = match body {
        None => Bytes::new(),
        Some(body) => {
            request
                .headers_mut()
                .entry(CONTENT_TYPE)
                .or_insert(HeaderValue::from_static("application/json"));
            Bytes::from(body.to_string())
        }
    };
    Ok((path, BatchOperation { head: request.into_parts().0, resource, body }))
}

fn headers_of(members: Map<String, Value>) -> Result<HeaderMap, Box<Problem>> {
    let mut headers = HeaderMap::with_capacity(members.len());
    for (name, content) in members {
        let field = format!("headers/{name}");
        let broken = || malformed(&field, format!("`{field}` is no header field."));
        if name.eq_ignore_ascii_case("if") {
            return Err(malformed(&field, "`If` is not taken in a batch; use `If-Match`."));
        }
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| broken())?;
        let content = content.as_str().ok_or_else(broken)?;
        headers.append(name, HeaderValue::from_str(content).map_err(|_| broken())?);
    }
    Ok(headers)
}

/// What each operation was answered, in order. The batch has been carried out: where there is no
/// room for the documents, it is told without them.
fn told(answers: Vec<Response<Bytes>>, memory: &Arc<Memory>) -> Response<Body> {
    let length: usize = answers.iter().map(|answer| answer.body().len()).sum();
    let share = memory.share();
    let fits = length <= SMALL || share.grow(length).is_ok();
    let results: Vec<Value> = answers
        .into_iter()
        .map(|answer| {
            let headers: Map<String, Value> = answer
                .headers()
                .iter()
                .filter_map(|(name, content)| {
                    Some((name.as_str().to_owned(), content.to_str().ok()?.into()))
                })
                .collect();
            let body: Value = match fits {
                true => serde_json::from_slice(answer.body()).unwrap_or(Value::Null),
                false => Value::Null,
            };
            value!({ "status": answer.status().as_u16(), "headers": headers, "body": body })
        })
        .collect();
    let response = json(StatusCode::OK, &value!({ "results": results }));
    if fits && SMALL < length { response.map(|body| kept(body, share)) } else { response }
}
