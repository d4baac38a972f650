//! Things that a request makes inside one server (a file, a batch, a video, a conversation): whoever asks for them later
//! must ask that server, so the id in its answer is remembered.

use http::{HeaderMap, Method, StatusCode, header};
use serde::Deserialize;

/// Longest answer looked into; those that tell an id are short.
const LONGEST: usize = 16 << 10;

/// Paths whose POST makes something that has an id.
fn makes_something(path: &str) -> bool {
    matches!(
        path,
        "/v1/files" | "/v1/batches" | "/v1/videos" | "/v1/uploads" | "/v1/conversations"
    )
}

/// The answer to a request that made something, as far as it has come.
#[derive(Debug, Default)]
pub(crate) struct Created {
    seen: Vec<u8>,
}

#[derive(Deserialize)]
struct Made {
    id: String,
}

impl Created {
    /// Watches an answer, if it is one that tells an id.
    pub(crate) fn watch(
        method: &Method,
        path: &str,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Option<Self> {
        let json = |value: &http::HeaderValue| value.as_bytes().starts_with(b"application/json");
        let tells = method == Method::POST
            && makes_something(path)
            && status.is_success()
            && headers.get(header::CONTENT_TYPE).is_some_and(json);
        tells.then(Self::default)
    }

    pub(crate) fn passed(&mut self, data: &[u8]) {
        let room = (LONGEST + 1).saturating_sub(self.seen.len());
        self.seen.extend_from_slice(&data[..data.len().min(room)]);
    }

    /// The id, once the answer is complete.
    pub(crate) fn id(self) -> Option<String> {
        if self.seen.len() > LONGEST {
            return None;
        }
        serde_json::from_slice::<Made>(&self.seen)
            .ok()
            .map(|made| made.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_in_a_whole_short_answer_only() {
        let id = |pieces: &[&str]| {
            let mut created = Created::default();
            pieces
                .iter()
                .for_each(|piece| created.passed(piece.as_bytes()));
            created.id()
        };
        assert_eq!(
            id(&[r#"{"object":"file","#, r#""id":"file-1"}"#]).as_deref(),
            Some("file-1")
        );
        assert_eq!(id(&[r#"{"id":"file-1""#]), None);
        assert_eq!(id(&[r#"{"id":7}"#]), None);
        let long = format!(r#"{{"id":"a","x":"{}"}}"#, "x".repeat(LONGEST));
        assert_eq!(id(&[&long]), None);
    }

    #[test]
    fn only_successful_posts_that_make_something_are_watched() {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            http::HeaderValue::from_static("application/json"),
        );
        let watched = |method: Method, path: &str, status: StatusCode| {
            Created::watch(&method, path, status, &headers).is_some()
        };
        assert!(watched(Method::POST, "/v1/files", StatusCode::OK));
        assert!(!watched(Method::GET, "/v1/files", StatusCode::OK));
        assert!(!watched(Method::POST, "/v1/other", StatusCode::OK));
        assert!(!watched(Method::POST, "/v1/files", StatusCode::BAD_REQUEST));
    }
}
