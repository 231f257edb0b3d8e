//! The layer, and the service that it makes of another.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use leasehold_guard::body::{Body, BoxError};
use tower_layer::Layer;
use tower_service::Service;

use crate::gate::Gate;
#[cfg(feature = "remote")]
use crate::remote::Asker;

/// The guard before a service. Made by [`Leasehold::layer`](crate::Leasehold::layer) or
/// `Remote::layer`.
///
/// It goes before any `Service<Request<B>>` that can be cloned and sent between threads, such as a
/// `Router` or a route of axum's. Its requests reach the service with the body type that they came
/// with; answers have [`Body`].
#[derive(Clone)]
pub struct LeaseholdLayer {
    mode: Mode,
}

/// A service with the guard before it.
#[derive(Clone)]
pub struct LeaseholdService<S> {
    mode: Mode,
    inner: S,
}

/// Who decides.
#[derive(Clone)]
enum Mode {
    Embedded(Arc<Gate>),
    #[cfg(feature = "remote")]
    Remote(Arc<Asker>),
}

impl LeaseholdLayer {
    pub(crate) fn embedded(gate: Arc<Gate>) -> Self {
        Self { mode: Mode::Embedded(gate) }
    }

    #[cfg(feature = "remote")]
    pub(crate) fn remote(asker: Arc<Asker>) -> Self {
        Self { mode: Mode::Remote(asker) }
    }
}

impl<S> Layer<S> for LeaseholdLayer {
    type Service = LeaseholdService<S>;

    fn layer(&self, inner: S) -> LeaseholdService<S> {
        LeaseholdService { mode: self.mode.clone(), inner }
    }
}

impl<S, B, R> Service<Request<B>> for LeaseholdService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    R: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that is ready goes along; its clone need not be.
        let clone = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, clone);
        match &self.mode {
            Mode::Embedded(gate) => {
                let gate = gate.clone();
                Box::pin(async move { gate.answer(request, inner).await })
            }
            #[cfg(feature = "remote")]
            Mode::Remote(asker) => {
                let asker = asker.clone();
                Box::pin(async move { asker.answer(request, inner).await })
            }
        }
    }
}

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedded(_) => "Embedded",
            #[cfg(feature = "remote")]
            Self::Remote(_) => "Remote",
        })
    }
}

impl fmt::Debug for LeaseholdLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseholdLayer").field("mode", &self.mode).finish()
    }
}

impl<S: fmt::Debug> fmt::Debug for LeaseholdService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseholdService")
            .field("mode", &self.mode)
            .field("inner", &self.inner)
            .finish()
    }
}
