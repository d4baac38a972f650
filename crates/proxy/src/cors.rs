//! What a `CORS` filter does to requests and answers (Fetch standard, section "CORS protocol"; Gateway API,
//! `HTTPCORSFilter`).
//!
//! A preflight (an `OPTIONS` with `Origin` and `Access-Control-Request-Method`) is answered here and reaches no server. It
//! belongs to the rule that the request it asks for will belong to. A request that does go on is never refused for its
//! origin: the browser keeps the answer from the script when the headers that would allow it are missing. Where a rule has
//! the filter its word is the only one: such headers of the server are taken out.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, ORIGIN,
    VARY,
};
use http::{Method, Response, StatusCode};
use routing::{Allowed, Cors};

/// Headers of an answer that only the filter may set.
const OURS: [http::HeaderName; 6] = [
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];

/// The method that a preflight asks about; `None`: it is none.
pub(crate) fn preflight_for(method: &Method, headers: &HeaderMap) -> Option<Method> {
    if method != Method::OPTIONS || !headers.contains_key(ORIGIN) {
        return None;
    }
    let asked = headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(asked.as_bytes()).ok()
}

/// The answer to a preflight. One for an origin that is not allowed says nothing, which to a browser is a no.
pub(crate) fn answer(cors: &Cors, request: &HeaderMap) -> Response<()> {
    let mut answer = Response::new(());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    if Marks::of(cors, request).set(headers) {
        let asked = |name| request.get(name).cloned();
        let lists = [
            (
                ACCESS_CONTROL_ALLOW_METHODS,
                &cors.methods,
                asked(ACCESS_CONTROL_REQUEST_METHOD),
            ),
            (
                ACCESS_CONTROL_ALLOW_HEADERS,
                &cors.headers,
                asked(ACCESS_CONTROL_REQUEST_HEADERS),
            ),
        ];
        for (name, allowed, asked) in lists {
            // A star would not cover everything (`Authorization`, or anything with credentials); what was asked for does.
            let value = match allowed {
                Allowed::Nothing => None,
                Allowed::Any => asked,
                Allowed::Listed(list) => Some(list.clone()),
            };
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(cors.max_age));
    }
    answer
}

/// What the answer to one request will carry.
#[derive(Debug, Clone)]
pub(crate) struct Marks {
    /// The origin as it is said; `None`: it is not allowed.
    origin: Option<HeaderValue>,
    /// The answer depends on the origin.
    varies: bool,
    credentials: bool,
    expose: Option<HeaderValue>,
}

impl Marks {
    /// The marks for the answer to a request with these headers.
    pub(crate) fn of(cors: &Cors, request: &HeaderMap) -> Self {
        let everybody = cors.allows_everybody();
        let asked = request
            .get(ORIGIN)
            .filter(|origin| origin.to_str().is_ok_and(|text| cors.allows(text)));
        let star = || HeaderValue::from_static("*");
        Self {
            origin: asked.map(|origin| if everybody { star() } else { origin.clone() }),
            varies: !everybody,
            credentials: cors.credentials,
            expose: match &cors.expose {
                Allowed::Listed(list) => Some(list.clone()),
                Allowed::Any if !cors.credentials => Some(star()),
                Allowed::Any | Allowed::Nothing => None,
            },
        }
    }

    /// Puts the marks on an answer in place of any that are there. Whether the origin is allowed.
    pub(crate) fn set(&self, headers: &mut HeaderMap) -> bool {
        for name in OURS {
            headers.remove(name);
        }
        if self.varies {
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
        let Some(origin) = &self.origin else {
            return false;
        };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials {
            let value = HeaderValue::from_static("true");
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, value);
        }
        if let Some(expose) = &self.expose {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use routing::OriginMatch;

    fn cors(origin: &str, credentials: bool) -> Cors {
        Cors {
            origins: vec![OriginMatch::parse(origin).expect("a pattern")],
            credentials,
            methods: Allowed::Any,
            headers: Allowed::Any,
            expose: Allowed::Any,
            max_age: 9,
        }
    }

    fn asking(origin: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, HeaderValue::from_static(origin));
        headers.insert(
            ACCESS_CONTROL_REQUEST_METHOD,
            HeaderValue::from_static("PUT"),
        );
        headers
    }

    fn lines(headers: &HeaderMap) -> Vec<String> {
        let line = |(name, value): (&http::HeaderName, &HeaderValue)| {
            format!("{name}: {}", value.to_str().expect("ASCII"))
        };
        let mut lines: Vec<_> = headers.iter().map(line).collect();
        lines.sort();
        lines
    }

    #[test]
    fn a_star_is_never_said_where_credentials_are_allowed() {
        let cases: [(&str, bool, &[&str]); 3] = [
            (
                "*",
                true,
                &[
                    "access-control-allow-credentials: true",
                    "access-control-allow-methods: PUT",
                    "access-control-allow-origin: https://a.test",
                    "access-control-max-age: 9",
                    "vary: origin",
                ],
            ),
            (
                "*",
                false,
                &[
                    "access-control-allow-methods: PUT",
                    "access-control-allow-origin: *",
                    "access-control-expose-headers: *",
                    "access-control-max-age: 9",
                ],
            ),
            ("https://b.test", true, &["vary: origin"]),
        ];
        for (origin, credentials, expected) in cases {
            let answer = answer(&cors(origin, credentials), &asking("https://a.test"));
            assert_eq!(answer.status(), StatusCode::NO_CONTENT);
            assert_eq!(lines(answer.headers()), expected, "{origin} {credentials}");
        }
    }

    #[test]
    fn marks_replace_what_the_server_says() {
        let server = || {
            let mut headers = HeaderMap::new();
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("1"));
            headers
        };
        let mut headers = server();
        Marks::of(&cors("https://b.test", false), &asking("https://a.test")).set(&mut headers);
        assert_eq!(lines(&headers), ["vary: origin"]);
        let mut headers = server();
        Marks::of(&cors("https://a.test", false), &asking("https://a.test")).set(&mut headers);
        assert_eq!(
            lines(&headers),
            [
                "access-control-allow-origin: https://a.test",
                "access-control-expose-headers: *",
                "vary: origin",
            ]
        );
    }

    #[test]
    fn a_preflight_is_an_options_with_both_fields() {
        let headers = asking("https://a.test");
        assert_eq!(preflight_for(&Method::OPTIONS, &headers), Some(Method::PUT));
        assert_eq!(preflight_for(&Method::GET, &headers), None);
        for name in [ORIGIN, ACCESS_CONTROL_REQUEST_METHOD] {
            let mut less = headers.clone();
            less.remove(name);
            assert_eq!(preflight_for(&Method::OPTIONS, &less), None);
        }
    }
}
