//! The shortest way for the service that is called most: known by the beginning of its
//! path, it is called past the router, which takes every path apart.

use std::convert::Infallible;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::server::NamedService;
use tower::{Layer, Service};

/// Leads to this service directly; everything else goes to the service inside.
#[derive(Clone)]
pub(super) struct Direct<S>(pub(super) S);

/// See [`Direct`].
#[derive(Clone)]
pub(super) struct Directed<S, R> {
    service: S,
    others: R,
}

impl<S: Clone, R> Layer<R> for Direct<S> {
    type Service = Directed<S, R>;
    fn layer(&self, others: R) -> Self::Service {
        Directed { service: self.0.clone(), others }
    }
}

impl<S, R> Service<Request<Body>> for Directed<S, R>
where
    S: Service<
            Request<Body>,
            Response = Response<Body>,
            Error = Infallible,
            Future = BoxFuture<Response<Body>, Infallible>,
        > + NamedService,
    R: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    R::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        let Ok(()) = ready!(self.service.poll_ready(context));
        self.others.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path().strip_prefix('/');
        let method = path.and_then(|path| path.strip_prefix(S::NAME));
        if method.is_some_and(|method| method.starts_with('/')) {
            self.service.call(request)
        } else {
            Box::pin(self.others.call(request))
        }
    }
}
