//! Header changes that a picker asks for.
//!
//! Removals come first, then what is set, in order. Without an append action a value overwrites: both reference pickers
//! depend on it, although the wire says "append" for the same zero. Names that are not a picker's business are passed
//! over and counted: what frames the message on this hop (RFC 9110, section 7.6.1), who it is for (`host`, `:authority`,
//! `:method`, `:scheme`), and anything that is no header. A value that is already there is no change, so a picker that
//! sets all headers again is not blamed. `content-length` is never taken and never counted: lengths are computed here.

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;

use super::destination::DESTINATION_HEADER;
use crate::proto::core::HeaderValueOption;
use crate::proto::core::header_value_option::HeaderAppendAction as Action;
use crate::proto::ext_proc::HeaderMutation;

/// What is changed besides the headers themselves.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// `:path` of a request.
    pub path: Option<PathAndQuery>,
    /// `:status` of an answer.
    pub status: Option<StatusCode>,
    /// Changes that were not made.
    pub ignored: u64,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Request,
    Answer,
    Trailers,
}

/// Changes the head of a request.
pub fn apply_to_request<'a>(
    mutations: impl IntoIterator<Item = &'a HeaderMutation>,
    headers: &mut HeaderMap,
) -> Changes {
    apply(Kind::Request, mutations, headers)
}

/// Changes the head of an answer.
pub fn apply_to_answer<'a>(
    mutations: impl IntoIterator<Item = &'a HeaderMutation>,
    headers: &mut HeaderMap,
) -> Changes {
    apply(Kind::Answer, mutations, headers)
}

/// Changes trailers.
pub fn apply_to_trailers<'a>(
    mutations: impl IntoIterator<Item = &'a HeaderMutation>,
    headers: &mut HeaderMap,
) -> Changes {
    apply(Kind::Trailers, mutations, headers)
}

fn apply<'a>(
    kind: Kind,
    mutations: impl IntoIterator<Item = &'a HeaderMutation>,
    headers: &mut HeaderMap,
) -> Changes {
    let mut changes = Changes::default();
    for mutation in mutations {
        for name in &mutation.remove_headers {
            remove(headers, name, &mut changes);
        }
        for option in &mutation.set_headers {
            set(kind, headers, option, &mut changes);
        }
    }
    changes
}

fn remove(headers: &mut HeaderMap, name: &str, changes: &mut Changes) {
    match HeaderName::try_from(name) {
        Ok(name) if name == header::CONTENT_LENGTH => {}
        Ok(name) if !is_ours(&name) => {
            headers.remove(name);
        }
        _ => changes.ignored += 1,
    }
}

fn set(kind: Kind, headers: &mut HeaderMap, option: &HeaderValueOption, changes: &mut Changes) {
    let Some(field) = &option.header else {
        return;
    };
    let raw = if field.raw_value.is_empty() {
        field.value.as_bytes()
    } else {
        &field.raw_value
    };
    if field.key.starts_with(':') {
        return set_pseudo(kind, &field.key, raw, changes);
    }
    let (Ok(name), Ok(value)) = (
        HeaderName::try_from(field.key.as_str()),
        HeaderValue::from_bytes(raw),
    ) else {
        changes.ignored += 1;
        return;
    };
    // The destination travels as a header too; it is read elsewhere and goes no further.
    if name == header::CONTENT_LENGTH || name == DESTINATION_HEADER {
        return;
    }
    if is_ours(&name) {
        changes.ignored += u64::from(headers.get(&name) != Some(&value));
        return;
    }
    if raw.is_empty() && !option.keep_empty_value {
        return;
    }
    let append = option.append.unwrap_or(false);
    match Action::try_from(option.append_action) {
        Ok(Action::AddIfAbsent) if headers.contains_key(&name) => {}
        Ok(Action::OverwriteIfExists) if !headers.contains_key(&name) => {}
        _ if append => {
            headers.append(name, value);
        }
        _ => {
            headers.insert(name, value);
        }
    }
}

fn set_pseudo(kind: Kind, name: &str, raw: &[u8], changes: &mut Changes) {
    match (kind, name) {
        (Kind::Request, ":path") => match PathAndQuery::try_from(raw) {
            Ok(path) if path.as_str().starts_with('/') => changes.path = Some(path),
            _ => changes.ignored += 1,
        },
        (Kind::Answer, ":status") => match StatusCode::from_bytes(raw) {
            Ok(status) if (200..600).contains(&status.as_u16()) => changes.status = Some(status),
            _ => changes.ignored += 1,
        },
        _ => changes.ignored += 1,
    }
}

/// Names that only the proxy itself may set or remove.
fn is_ours(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "host"
            | "connection"
            | "keep-alive"
            | "proxy-connection"
            | "transfer-encoding"
            | "upgrade"
            | "te"
            | "expect"
            | "http2-settings"
            | "x-request-id"
    )
}
