//! Connections that have become something else than HTTP: WebSocket and its like.

use std::future::Future;

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{HeaderMap, Response};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::exchange::Begun;
use super::fields;

/// The fields that tell the client what its connection becomes.
pub(super) fn tell(headers: &mut HeaderMap, agreed: Option<HeaderValue>) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(agreed) = agreed {
        headers.insert(UPGRADE, agreed);
    }
}

/// What the upstream agreed to; none where it changed to something that it was not asked for.
pub(super) fn agreed(response: &Response<Incoming>, asked: &HeaderValue) -> Option<HeaderValue> {
    fields::agrees(response.headers(), asked).then(|| response.headers().get(UPGRADE).cloned())?
}

/// Carries bytes both ways until both have ended, or the server stops.
pub(super) fn tunnel(
    client: OnUpgrade,
    begun: &mut Begun,
    stop: CancellationToken,
    place: OwnedSemaphorePermit,
) -> impl Future<Output = ()> + Send + 'static {
    let upstream = hyper::upgrade::on(&mut begun.response);
    async move {
        let _place = place;
        let carried = async {
            let upstream = upstream.await.map_err(std::io::Error::other)?;
            let client = client.await.map_err(std::io::Error::other)?;
            copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(upstream)).await
        };
        tokio::select! {
            () = stop.cancelled() => {}
            ended = carried => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "an upgraded connection broke off");
                }
            }
        }
    }
}
