//! One connection to a server, HTTP/1.1 or HTTP/2.

use std::rc::Rc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use tokio::task::AbortHandle;

use crate::body::RequestBody;

/// Ends the task that drives a connection, and with it the connection.
#[derive(Debug)]
pub(crate) struct Driver(pub(super) AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection. Dropping an HTTP/1.1 one closes it; dropping the last share of an HTTP/2 one does.
#[derive(Debug)]
pub(crate) enum Link {
    /// One exchange at a time.
    H1 {
        /// Sends requests.
        sender: http1::SendRequest<RequestBody>,
        /// Keeps the connection alive.
        _driver: Driver,
    },
    /// Many exchanges at once.
    H2 {
        /// Sends requests.
        sender: http2::SendRequest<RequestBody>,
        /// Keeps the connection alive.
        driver: Rc<Driver>,
    },
}

impl Link {
    /// Sends a request. On failure says whether the server cannot have seen it.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, (bool, hyper::Error)> {
        let sent = match self {
            Self::H1 { sender, .. } => sender.try_send_request(request).await,
            Self::H2 { sender, .. } => sender.try_send_request(request).await,
        };
        sent.map_err(|mut error| (error.take_message().is_some(), error.into_error()))
    }

    pub(super) fn is_ready(&self) -> bool {
        match self {
            Self::H1 { sender, .. } => sender.is_ready(),
            Self::H2 { sender, .. } => sender.is_ready(),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::H1 { sender, .. } => sender.is_closed(),
            Self::H2 { sender, .. } => sender.is_closed(),
        }
    }

    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::H2 { .. })
    }

    /// Another hold on a connection that many exchanges share.
    pub(super) fn share(&self) -> Option<Self> {
        match self {
            Self::H1 { .. } => None,
            Self::H2 { sender, driver } => Some(Self::H2 {
                sender: sender.clone(),
                driver: driver.clone(),
            }),
        }
    }

    /// Nobody else holds this shared connection.
    pub(super) fn is_alone(&self) -> bool {
        match self {
            Self::H1 { .. } => true,
            Self::H2 { driver, .. } => Rc::strong_count(driver) == 1,
        }
    }
}
