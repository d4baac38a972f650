//! Session affinity: a token that says which server a client belongs to (GEP-1619, sessionPersistence).
//!
//! The token is `base64url(server ++ issued ++ used ++ mac)`: the server's stable token, the second at which the session
//! began, the second at which it was last renewed (big endian, 8 bytes each), and the first 16 bytes of
//! HMAC-SHA256 over them and the route's cookie name. A client can neither choose a server nor stretch a session;
//! nothing about the server can be read from the token but that two tokens mean the same one.

use std::time::Duration;

use aws_lc_rs::{constant_time, hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use http::header::{COOKIE, HeaderMap, HeaderName, SET_COOKIE};
use routing::{SessionKind, SessionPersistence};

const FIELDS: usize = 24;
const MAC: usize = 16;
const ENCODED: usize = (FIELDS + MAC) * 4 / 3 + 1;

/// Key of session tokens.
pub(crate) struct SessionKey(hmac::Key);

/// A session that a client proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session {
    /// The server's stable token.
    pub(crate) server: u64,
    /// Unix second at which the session began.
    pub(crate) issued: u64,
    /// Unix second at which it was last renewed.
    pub(crate) used: u64,
}

impl SessionKey {
    /// The given key, or a random one.
    pub(crate) fn new(key: Option<[u8; 32]>) -> Option<Self> {
        let bytes = match key {
            Some(bytes) => bytes,
            None => {
                let mut bytes = [0; 32];
                rand::fill(&mut bytes).ok()?;
                bytes
            }
        };
        Some(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    fn mac(&self, fields: &[u8], name: &str) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(fields);
        context.update(name.as_bytes());
        context.sign()
    }

    /// The token of a session under the cookie or header `name`.
    pub(crate) fn seal(&self, session: Session, name: &str) -> String {
        let mut bytes = [0; FIELDS + MAC];
        bytes[..8].copy_from_slice(&session.server.to_be_bytes());
        bytes[8..16].copy_from_slice(&session.issued.to_be_bytes());
        bytes[16..FIELDS].copy_from_slice(&session.used.to_be_bytes());
        let tag = self.mac(&bytes[..FIELDS], name);
        bytes[FIELDS..].copy_from_slice(&tag.as_ref()[..MAC]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The session of a token, if we made it.
    pub(crate) fn open(&self, token: &[u8], name: &str) -> Option<Session> {
        if token.len() > ENCODED {
            return None;
        }
        let bytes: [u8; FIELDS + MAC] = URL_SAFE_NO_PAD.decode(token).ok()?.try_into().ok()?;
        let (fields, mac) = bytes.split_at(FIELDS);
        let tag = self.mac(fields, name);
        constant_time::verify_slices_are_equal(&tag.as_ref()[..MAC], mac).ok()?;
        let number = |at: usize| {
            fields[at..at + 8]
                .iter()
                .fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte))
        };
        Some(Session {
            server: number(0),
            issued: number(8),
            used: number(16),
        })
    }
}

/// The live session in a request's headers.
pub(crate) fn read(
    key: &SessionKey,
    policy: &SessionPersistence,
    headers: &HeaderMap,
    now: u64,
) -> Option<Session> {
    let session = match policy.kind {
        SessionKind::Header => {
            key.open(headers.get(policy.name.as_str())?.as_bytes(), &policy.name)?
        }
        SessionKind::Cookie => cookies(headers)
            .filter(|(name, _)| *name == policy.name.as_bytes())
            .find_map(|(_, value)| key.open(value, &policy.name))?,
    };
    alive(session, policy, now).then_some(session)
}

fn alive(session: Session, policy: &SessionPersistence, now: u64) -> bool {
    let within = |since: u64, limit: Option<Duration>| {
        limit.is_none_or(|limit| now.saturating_sub(since) <= limit.as_secs())
    };
    within(session.issued, policy.absolute_timeout) && within(session.used, policy.idle_timeout)
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers
        .get_all(COOKIE)
        .into_iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
        .filter_map(|pair| {
            let pair = pair.trim_ascii();
            let at = memchr::memchr(b'=', pair)?;
            Some((&pair[..at], &pair[at + 1..]))
        })
}

/// The header that gives a client its token: new for a new or moved session, renewed where idle time counts.
/// `None` when what the client holds is still right.
pub(crate) fn issue(
    key: &SessionKey,
    policy: &SessionPersistence,
    held: Option<Session>,
    server: u64,
    now: u64,
) -> Option<(HeaderName, HeaderValue)> {
    let kept = held.filter(|session| session.server == server);
    let unchanged = kept.is_some() && policy.idle_timeout.is_none();
    if unchanged && policy.kind == SessionKind::Cookie {
        return None;
    }
    let issued = kept.map_or(now, |session| session.issued);
    let token = key.seal(
        Session {
            server,
            issued,
            used: now,
        },
        &policy.name,
    );
    match policy.kind {
        SessionKind::Header => {
            let name = HeaderName::try_from(policy.name.as_str()).ok()?;
            Some((name, HeaderValue::try_from(token).ok()?))
        }
        SessionKind::Cookie => {
            let mut cookie = format!("{}={token}; Path=/; HttpOnly; SameSite=Lax", policy.name);
            if let (true, Some(limit)) = (policy.permanent, policy.absolute_timeout) {
                let left = limit.as_secs().saturating_sub(now.saturating_sub(issued));
                cookie.push_str(&format!("; Max-Age={left}"));
            }
            Some((SET_COOKIE, HeaderValue::try_from(cookie).ok()?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SessionKey {
        SessionKey::new(Some([7; 32])).expect("given")
    }

    fn policy(kind: SessionKind) -> SessionPersistence {
        SessionPersistence {
            kind,
            name: "sid".into(),
            absolute_timeout: Some(Duration::from_secs(100)),
            idle_timeout: None,
            permanent: true,
        }
    }

    const SESSION: Session = Session {
        server: 0xdead_beef_0000_0001,
        issued: 1000,
        used: 1000,
    };

    #[test]
    fn a_sealed_token_opens_and_a_changed_one_does_not() {
        let token = key().seal(SESSION, "sid");
        assert_eq!(key().open(token.as_bytes(), "sid"), Some(SESSION));
        assert_eq!(key().open(token.as_bytes(), "other"), None);
        assert_eq!(
            SessionKey::new(Some([8; 32]))
                .expect("given")
                .open(token.as_bytes(), "sid"),
            None
        );
        for at in 0..token.len() - 1 {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(key().open(&changed, "sid"), None, "byte {at}");
        }
        for junk in ["", "A", "not base64 !", &"A".repeat(4000)] {
            assert_eq!(key().open(junk.as_bytes(), "sid"), None);
        }
    }

    #[test]
    fn the_right_cookie_is_found_among_others_and_ends_with_its_time() {
        let token = key().seal(SESSION, "sid");
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=b; sid=forged; xsid=1"));
        headers.append(
            COOKIE,
            HeaderValue::try_from(format!("c=d;sid={token}")).expect("ascii"),
        );
        let policy = policy(SessionKind::Cookie);
        assert_eq!(read(&key(), &policy, &headers, 1100), Some(SESSION));
        assert_eq!(read(&key(), &policy, &headers, 1101), None);
    }

    #[test]
    fn a_moved_session_gets_a_new_cookie_and_a_kept_one_none() {
        let policy = policy(SessionKind::Cookie);
        assert_eq!(
            issue(&key(), &policy, Some(SESSION), SESSION.server, 1050),
            None
        );
        let (name, value) = issue(&key(), &policy, Some(SESSION), 2, 1050).expect("moved");
        assert_eq!(name, SET_COOKIE);
        assert!(
            value.to_str().expect("ascii").ends_with("; Max-Age=100"),
            "{value:?}"
        );
        let idle = SessionPersistence {
            idle_timeout: Some(Duration::from_secs(10)),
            ..policy
        };
        let (_, renewed) =
            issue(&key(), &idle, Some(SESSION), SESSION.server, 1050).expect("renewed");
        assert!(
            renewed.to_str().expect("ascii").ends_with("; Max-Age=50"),
            "{renewed:?}"
        );
    }

    #[test]
    fn idle_sessions_end() {
        let idle = SessionPersistence {
            idle_timeout: Some(Duration::from_secs(10)),
            ..policy(SessionKind::Header)
        };
        assert!(alive(SESSION, &idle, 1010));
        assert!(!alive(SESSION, &idle, 1011));
    }
}
