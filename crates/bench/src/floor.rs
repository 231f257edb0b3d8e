//! The floor: hyper on one thread, which answers every request at once and does nothing.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

const GRANT: &str = r#"{"lock_id":"6951cc56-659e-450e-ac5c-459a43140cf9","lock_token":"lock_AAFpUcxWZZ5FDqxcRZpDFAz5AAAAAAAAAAHUxUlN1Qk9FJTPbJZaCAYl9UfHPDSZhrN4Qylsn3X3mg","resource":"/v1/flags/x","resources":["/v1/flags/x"],"kind":"lock","dialect":"http","mode":"exclusive","depth":"infinity","holder":"anonymous","reason":null,"metadata":{},"fence":1,"ttl_seconds":60,"acquired_at":"2026-11-21T00:45:40.646Z","expires_at":"2026-11-21T00:46:40.645Z","expires_in_ms":59998,"waited_ms":0}"#;

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    // A client whose body breaks off gets the same answer.
    let _ = body.collect().await;
    let mut response = Response::new(Full::new(Bytes::new()));
    if head.method == Method::POST {
        *response.status_mut() = StatusCode::CREATED;
        *response.body_mut() = Full::new(Bytes::from_static(GRANT.as_bytes()));
    } else {
        *response.status_mut() = StatusCode::NO_CONTENT;
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
