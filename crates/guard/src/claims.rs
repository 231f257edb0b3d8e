//! What a request says of locks and preconditions, before anything of it is judged.

use arc_swap::ArcSwap;
use http::header::{IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Uri};
use leasehold_core::caller::Permission;
use leasehold_core::command::{Check, IfList, Presented};
use leasehold_core::resource::Resource;
use leasehold_engine::Engine;
use leasehold_problems::Problem;

use crate::call::Call;
use crate::if_header::{self, Condition};
use crate::rules::Rules;
use crate::tokens::{self, malformed};
use crate::upstream::Witness;

/// What a request says of locks and preconditions.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    /// The tokens presented, those of an `If` header not among them.
    pub tokens: Vec<Presented>,
    /// The lists of its `If` header.
    pub conditions: Vec<IfList>,
    /// Whether it has a precondition of RFC 9110.
    pub has_precondition: bool,
}

/// What claims are read by.
pub(crate) struct Reading<'a, U> {
    pub(crate) engine: &'a Engine,
    pub(crate) rules: &'a ArcSwap<Rules>,
    pub(crate) upstream: &'a U,
}

impl<U: Witness> Reading<'_, U> {
    /// Whether they can be read.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), Box<Problem>> {
        tokens::presented(self.engine, headers)?;
        for list in if_header::parse(headers)? {
            list.tag.map(|tag| self.tagged(tag)).transpose()?;
        }
        Ok(())
    }

    /// The claims; see [`Guard::claims`](crate::guard::Guard::claims).
    pub(crate) async fn claims(
        &self,
        call: &Call,
        head: &mut Parts,
        resource: &Resource,
    ) -> Result<Claims, Box<Problem>> {
        let tokens = tokens::presented(self.engine, &head.headers)?;
        let mut etag_of_target = None;
        let conditions =
            self.conditions(call, &head.headers, resource, &mut etag_of_target).await?;
        if let Some(etag) = etag_of_target
            && leaves_room_for(&head.headers, &etag)
            && let Ok(value) = HeaderValue::from_str(&etag)
        {
            head.headers.insert(IF_MATCH, value);
        }
        let has = |name| head.headers.contains_key(name);
        let has_precondition = has(IF_MATCH) || has(IF_NONE_MATCH) || has(IF_UNMODIFIED_SINCE);
        Ok(Claims { tokens, conditions, has_precondition })
    }

    /// The resource that a tag of an `If` header names: the path counts, the host does not, because
    /// a proxy may have changed it.
    fn tagged(&self, tag: &str) -> Result<Resource, Box<Problem>> {
        let broken = || malformed("If", "The If header names something that is no resource.");
        let rules = self.rules.load();
        let located = if tag.starts_with('/') {
            rules.locate_text(tag)
        } else {
            let uri: Uri = tag.parse().map_err(|_| broken())?;
            let path = Resource::parse(uri.path()).map_err(|_| broken())?;
            rules.locate(&path, uri.query())
        };
        located.map(|located| located.resource).map_err(|_| broken())
    }

    async fn conditions(
        &self,
        call: &Call,
        headers: &HeaderMap,
        target: &Resource,
        etag_of_target: &mut Option<String>,
    ) -> Result<Vec<IfList>, Box<Problem>> {
        let mut lists = Vec::new();
        // Each resource is asked once, so that no two lists judge by different moments.
        let mut known: Vec<(Resource, Option<String>)> = Vec::new();
        for list in if_header::parse(headers)? {
            let resource = match list.tag {
                None => target.clone(),
                Some(tag) => self.tagged(tag)?,
            };
            let mut checks = Vec::with_capacity(list.conditions.len());
            for (negated, condition) in list.conditions {
                let check = match condition {
                    Condition::Token("DAV:no-lock") => Check::Known(false),
                    Condition::Token(uri) => Check::Token(tokens::read(self.engine, uri)),
                    Condition::Etag(etag) => {
                        let at = match known.iter().position(|(each, _)| *each == resource) {
                            Some(at) => at,
                            None => {
                                if resource != *target {
                                    call.need(Permission::Read, &resource)?;
                                }
                                let current = self.upstream.etag(&resource).await?;
                                known.push((resource.clone(), current));
                                known.len() - 1
                            }
                        };
                        let current = &known[at].1;
                        let same = current.as_deref() == Some(etag);
                        if same && !negated && resource == *target {
                            etag_of_target.clone_from(current);
                        }
                        Check::Known(same)
                    }
                };
                checks.push((negated, check));
            }
            lists.push(IfList { resource, checks });
        }
        Ok(lists)
    }
}

/// Whether `If-Match` with this tag alone asks for no less than the `If-Match` that was sent: one
/// that does not name the tag is false as it is.
fn leaves_room_for(headers: &HeaderMap, etag: &str) -> bool {
    let mut sent = headers.get_all(IF_MATCH).iter().peekable();
    sent.peek().is_none()
        || sent.any(|value| {
            value.to_str().is_ok_and(|text| {
                text.split(',').map(str::trim).any(|tag| tag == "*" || tag == etag)
            })
        })
}
