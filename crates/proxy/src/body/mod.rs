//! Bodies on their way through: what is sent to servers, what is sent to clients, and reading a whole body in bounds.

mod collect;
pub(crate) mod copy;
mod replay;
mod request;
mod response;
mod source;

pub(crate) use collect::{CollectError, collect};
pub(crate) use replay::{Fault, Replay};
pub(crate) use request::RequestBody;
pub(crate) use response::ResponseBody;
pub(crate) use response::Streamed;
pub(crate) use source::Source;
