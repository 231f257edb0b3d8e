//! The floor: hyper on one thread, which answers every request at once and does nothing.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::header::ETAG;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

const GRANT: &str = r#"{"lock_id":"6951cc56-659e-450e-ac5c-459a43140cf9","lock_token":"lock_AAFpUcxWZZ5FDqxcRZpDFAz5AAAAAAAAAAHUxUlN1Qk9FJTPbJZaCAYl9UfHPDSZhrN4Qylsn3X3mg","resource":"/v1/flags/x","resources":["/v1/flags/x"],"kind":"lock","dialect":"http","mode":"exclusive","depth":"infinity","holder":"anonymous","reason":null,"metadata":{},"fence":1,"ttl_seconds":60,"acquired_at":"2026-11-21T00:45:40.646Z","expires_at":"2026-11-21T00:46:40.645Z","expires_in_ms":59998,"waited_ms":0}"#;

const REFUSAL: &str = r#"{"type":"/-/problems/locked","title":"Locked","status":423,"detail":"/v1/hot/1 is locked by anonymous for another 30 s.","instance":"/v1/hot/1","request_id":"0e9d1e2f3a4b5c6d","retryable":"same","lock":{"lock_id":"6951cc56-659e-450e-ac5c-459a43140cf9","resource":"/v1/hot/1","kind":"lock","dialect":"http","mode":"exclusive","holder":"anonymous","reason":null,"acquired_at":"2026-11-21T00:45:40.646Z","expires_at":"2026-11-21T00:46:40.645Z","expires_in_ms":29998},"locks_in_the_way":1,"held_by_you":false,"how_to_unlock":{"wait":"POST /v1/hot/1/lock with Prefer: wait=30","inspect":"GET /v1/hot/1/lock","request":"POST /v1/hot/1/lock/request","break":"POST /v1/hot/1/lock/break"}}"#;

/// What an API answers whose gateway is measured: 200 bytes.
pub(crate) const RESOURCE: &str = r#"{"id":"7","name":"checkout","on":true,"rollout_percentage":25,"rules":[{"attribute":"country","operator":"in","values":["de","fr","nl"],"serve":true}],"owner":"payments","updated":"2026-11-21T00:00Z"}"#;

/// On hot keys one attempt in this many is granted.
pub(crate) const HOT: u64 = 8;

static ATTEMPTS: AtomicU64 = AtomicU64::new(0);

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    // A client whose body breaks off gets the same answer.
    let _ = body.collect().await;
    let (status, body) = match head.method {
        Method::POST if head.uri.path().starts_with("/v1/hot/") => {
            if ATTEMPTS.fetch_add(1, Ordering::Relaxed).is_multiple_of(HOT) {
                (StatusCode::CREATED, GRANT)
            } else {
                (StatusCode::LOCKED, REFUSAL)
            }
        }
        _ if head.uri.path().starts_with("/v1/api/") => (StatusCode::OK, RESOURCE),
        Method::POST => (StatusCode::CREATED, GRANT),
        Method::GET | Method::PATCH => (StatusCode::OK, GRANT),
        _ => (StatusCode::NO_CONTENT, ""),
    };
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    if head.method == Method::PUT {
        let etag = HeaderValue::from_static("\"6951cc56-1\"");
        response.headers_mut().insert(ETAG, etag);
    }
    Ok(response)
}

/// Serves until the process is killed.
pub(crate) async fn serve(listen: SocketAddr) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind(listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer));
            // A client that goes is the end of its connection, no more.
            let _ = connection.await;
        });
    }
}
