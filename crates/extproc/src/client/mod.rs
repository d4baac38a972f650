//! The asking side: a data plane that lets somebody else pick.
//!
//! One HTTP request is one stream to the picker of its pool. [`Call`] is what is said on it, as a state machine without
//! IO: what happened to the request goes in, messages come out; what the picker answers goes in, a [`Verdict`] and then
//! [`Event`]s come out. [`Dialogue`] is a call on a stream, [`Lines`] are the connections to a picker's replicas, and
//! [`Switchboard`] holds the connections of one thread.
//!
//! The protocol is the Gateway API inference extension's endpoint picker protocol (proposal 004) over Envoy's external
//! processing, both bodies full duplex. What this side does where those texts leave room:
//!
//! - The request goes out whole and at once: head, body in pieces, end. Nothing waits for a reply.
//! - The destination is read from dynamic metadata `envoy.lb` and from the header; metadata wins, and a difference is
//!   told. Entries that are no `ip:port` are skipped, and only the first [`LISTED`] are looked at.
//! - A body reply without a mutation means that the piece passes as it was, also before the reply to the head: a
//!   picker that only reads says so (lwepp v1.6.0 does).
//! - A stream that ends well before the picker was done means that it has lost interest: what it has not changed passes
//!   untouched. Without a destination, or in the middle of a body that it was changing, it is a failure.
//! - `mode_override` is honoured where it takes something away from the answer's part: a skipped response head ends the
//!   picker's part after the pick, a response body mode of `NONE` keeps the body here. The request has been sent by then.
//!   `override_message_timeout`, `clear_route_cache` and attributes are not used: the route is chosen before.

mod call;
mod destination;
mod dialogue;
mod failure;
mod lines;
mod message;
mod mutation;
mod request;
mod response;
#[cfg(test)]
mod tests;
mod tls;
mod wire;

pub use call::{Call, Immediate, Verdict};
pub use destination::{Destination, LISTED};
pub use dialogue::Dialogue;
pub use failure::Failure;
pub use lines::{Lines, Switchboard, Used};
pub use message::RequestHead;
pub use mutation::{Changes, apply_to_answer, apply_to_request, apply_to_trailers};
pub use request::Pick;
pub use response::Event;
