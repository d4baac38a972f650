//! The answering side: proxies ask, and a pool of ours picks.
//!
//! [`Machine`] is one stream without IO; [`Service`] is the gRPC service over it; a [`Picker`] decides as our own data
//! plane does; a [`BodyRouter`] only tells the model. [`Listener`] serves them on threads of their own, [`Health`] says
//! whether proxies should come.

mod body_router;
mod certificate;
mod exchange;
mod head;
mod health;
mod listen;
mod machine;
mod picker;
mod refusal;
mod reply;
mod service;
mod session;
mod wire;

pub use body_router::{BASE_MODEL, BaseModels, BodyRouter, MODEL};
pub use certificate::{Certificate, CertificateError};
pub use health::Health;
pub use listen::{Listener, ListenerError, ListenerOptions};
pub use machine::{
    AnswerHead, AnswerPiece, Event, Forward, Machine, Mode, PIECE, Seen, SeenBody, Verdict,
    Violation,
};
pub use picker::{Picker, PickerOptions};
pub use service::Service;
