//! A write that the guard carries out by handing it to the service.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body as HttpBody;
use leasehold_core::target::Target;
use leasehold_guard::body::BoxError;
use leasehold_guard::guard::{Done, Work};
use leasehold_guard::upstream::Admitted;
use leasehold_problems::{Name, Problem};
use tower_service::Service;
use tracing::{Instrument as _, Span};

use crate::answer::Patience;
use crate::matched::MatchedLock;
use crate::unread::{Unread, boxed};

/// A write, and the service that is to have it.
pub(crate) struct Carried<S, B>
where
    S: Service<Request<B>>,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    /// None once it was handed over.
    pub(crate) sending: Option<(Parts, S)>,
    pub(crate) body: Unread<B>,
    pub(crate) targets: Vec<Target>,
    pub(crate) patience: Patience,
    /// Where the service's own error goes, for whoever called the layer.
    pub(crate) error: Arc<Mutex<Option<S::Error>>>,
    /// What the caller's log entries are within: the handler's are as well.
    pub(crate) span: Span,
}

impl<S, B, R> Work for Carried<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    R: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    fn targets(&self) -> impl Future<Output = Vec<Target>> + Send {
        std::future::ready(self.targets.clone())
    }

    async fn execute(&mut self, admitted: &Admitted) -> Option<Done> {
        let (mut head, mut inner) = self.sending.take()?;
        let body = self.body.take()?;
        if let Some(lock) = admitted.lock() {
            head.extensions.insert(MatchedLock::from(lock));
        }
        let request = Request::from_parts(head, body);
        let handled = async move { inner.call(request).await };
        match handled.instrument(self.span.clone()).await {
            Ok(response) => {
                let (head, body) = response.into_parts();
                let (body, ending) = self.patience.follow(head.status, boxed(body));
                Some(Done { answer: Ok(Response::from_parts(head, body)), ending })
            }
            Err(error) => {
                *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                let problem = Problem::new(Name::StorageFailure, "The service failed.");
                let ending = Box::pin(self.patience.landed_or_not());
                Some(Done { answer: Err(Box::new(problem)), ending: Some(ending) })
            }
        }
    }
}
