//! Who sends a request: what stands for the sessions or tokens of a real service.

use axum::extract::Request;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use leasehold_tower::{Caller, Name, Permission, Permissions, Problem};

/// The user that sends a request: an extension of it.
#[derive(Clone, Debug)]
pub(crate) struct User(pub(crate) String);

/// Finds out who sends a request. Whoever says that he is alice is alice here; a real service would
/// ask its sessions, which may take time: that is why it happens before the guard.
pub(crate) async fn authenticate(mut request: Request, next: Next) -> Response {
    let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some(name) = authorization.and_then(|value| value.strip_prefix("Bearer ")) {
        let user = User(name.to_owned());
        request.extensions_mut().insert(user);
    }
    next.run(request).await
}

/// The same for the guard, which compares it with the holder of a lock.
pub(crate) fn caller(head: &Parts) -> Result<Caller, Box<Problem>> {
    let Some(User(name)) = head.extensions.get() else {
        let detail = "Say who you are: `Authorization: Bearer NAME`.";
        return Err(Box::new(Problem::new(Name::Unauthenticated, detail)));
    };
    let everyones = Permissions::of(&[Permission::Read, Permission::Write, Permission::Lock]);
    let permissions = if name == "admin" { Permissions::ALL } else { everyones };
    Ok(Caller::named(name, permissions))
}
