//! The data plane: listeners, TLS, HTTP in and out, replay, retries, streams, drain.
//!
//! A [`Proxy`] has one thread per core, and on each thread everything that a request needs: listening sockets
//! (`SO_REUSEPORT`), connections to servers, retry budgets, a random number generator. A request never changes threads
//! and takes no lock of ours; no task is spawned and no channel made for it.
//!
//! What a request goes through is told in [`exchange`]. The proxy itself decides little: where a request may go is the
//! plan's word ([`routing`]), which server it gets is the pool's ([`fleet`]), what its body says is read by [`llm`].
//!
//! # What a server sees
//! The client's own bytes, with these changes and no others: fields of the client's hop are gone (RFC 9110, section
//! 7.6.1), fields that would steer the pick are gone, `x-request-id` is there, the filters of the route have been
//! applied, and the model's name is changed where the pool's objects say so. `Host` stays the client's, as the Gateway
//! API expects of a proxy unless a URLRewrite says otherwise; servers given by URL get their own authority.
//!
//! # What a client sees
//! The server's own answer, status, headers and bytes, plus `x-request-id`. Answers of ours have a code in their body
//! that names the reason; all of them are made in one place.

mod body;
mod cors;
mod exchange;
mod filters;
mod listen;
mod options;
mod proxy;
mod refusal;
mod retry;
mod session;
mod tls;
mod upstream;
mod worker;

pub use options::{Deadlines, ProxyOptions, RetryOptions};
pub use proxy::{ListenProblem, ListenProblemKind, Proxy, ProxyError};

/// Runs hyper's own futures on the worker's thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalExec;

impl<F> hyper::rt::Executor<F> for LocalExec
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
