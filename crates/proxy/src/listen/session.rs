//! TLS sessions that go to a server by the name they ask for (Gateway API, TLSRoute).
//!
//! A server is picked by load alone. One that cannot be reached is passed over for the next; once a byte has gone to a
//! server the session is its own. A session for which there is no server is closed: there is no answer in a protocol
//! that nobody here speaks.

use std::io;
use std::rc::Rc;

use fleet::{Lease, PickRequest};
use routing::Target;
use scheduling::{FailureKind, RequestKind};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::worker::Worker;

/// Why a session went nowhere.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoSession {
    #[error("no route is for this name")]
    NoRoute,
    #[error("the route leads nowhere: {0}")]
    Backend(String),
    #[error("no server: {0}")]
    Rejected(&'static str),
    #[error("connect: {0}")]
    Connect(io::Error),
    #[error(transparent)]
    Broken(#[from] io::Error),
}

/// Passes a session on: first the bytes that were read already, then everything, until both sides have ended.
pub(super) async fn pass<S>(
    worker: &Rc<Worker>,
    port: u16,
    name: &str,
    (mut client, first): (S, &[u8]),
) -> Result<(), NoSession>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut lease = pick(worker, port, name).await?;
    let mut server = connect(worker, &mut lease).await?;
    let passed = async {
        server.write_all(first).await?;
        lease.first_token();
        copy_bidirectional(&mut client, &mut server).await
    };
    let passed = passed.await;
    lease.finish(None, true);
    passed?;
    Ok(())
}

/// Takes a server of the route for `name`.
async fn pick(worker: &Rc<Worker>, port: u16, name: &str) -> Result<Lease, NoSession> {
    let pool = {
        let plan = worker.plan.load();
        let rule = plan.route_session(port, name).ok_or(NoSession::NoRoute)?;
        let none = || NoSession::Backend("it has no backend".to_owned());
        let backend = rule.choose(worker.roll()).ok_or_else(none)?;
        match &backend.target {
            Target::Pool(key) => worker.fleet.pool(key).ok_or_else(none)?,
            Target::ByModel(_) => return Err(none()),
            Target::Invalid(why) => return Err(NoSession::Backend(why.clone())),
        }
    };
    let asked = PickRequest {
        kind: RequestKind::Opaque,
        ..PickRequest::default()
    };
    let picked = pool.pick(asked).await;
    picked.map_err(|rejection| NoSession::Rejected(rejection.reason.code()))
}

async fn connect(worker: &Worker, lease: &mut Lease) -> Result<TcpStream, NoSession> {
    let limit = worker.options.deadlines.connect;
    loop {
        let address = lease.endpoint().address();
        let reached = timeout(limit, TcpStream::connect(address)).await;
        let error = match reached {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        lease.failed(FailureKind::Connect);
        if lease.next().is_none() {
            return Err(NoSession::Connect(error));
        }
    }
}
