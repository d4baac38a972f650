//! Syntax of names: RFC 1123 labels and subdomains, hostnames, label keys and values, header names.

fn is_lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// `ends` holds for the first and the last byte, `middle` for the others.
fn is_shaped(
    text: &str,
    max: usize,
    ends: impl Fn(u8) -> bool,
    middle: impl Fn(u8) -> bool,
) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => {
            bytes.len() <= max
                && ends(first)
                && ends(last)
                && bytes.iter().all(|&b| ends(b) || middle(b))
        }
        _ => false,
    }
}

/// An RFC 1123 label: up to 63 lower-case letters, digits and dashes.
pub(super) fn is_dns_label(text: &str) -> bool {
    is_shaped(text, 63, is_lower_alnum, |b| b == b'-')
}

/// An RFC 1123 subdomain: labels joined by dots, up to 253 bytes.
pub(super) fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text
            .split('.')
            .all(|part| is_shaped(part, 253, is_lower_alnum, |b| b == b'-'))
}

/// A hostname without wildcard; an IP address is none.
pub(super) fn is_precise_hostname(text: &str) -> bool {
    is_dns_subdomain(text) && text.parse::<std::net::Ipv4Addr>().is_err()
}

/// A hostname whose first label may be `*`.
pub(super) fn is_hostname(text: &str) -> bool {
    is_precise_hostname(text.strip_prefix("*.").unwrap_or(text))
}

/// A label value: empty, or up to 63 characters.
pub(super) fn is_label_value(text: &str) -> bool {
    text.is_empty()
        || is_shaped(
            text,
            63,
            |b| b.is_ascii_alphanumeric(),
            |b| matches!(b, b'-' | b'_' | b'.'),
        )
}

/// A label key: a name with an optional `domain/` in front.
pub(super) fn is_label_key(text: &str) -> bool {
    let (prefix, name) = text
        .split_once('/')
        .map_or((None, text), |(prefix, name)| (Some(prefix), name));
    !name.is_empty() && is_label_value(name) && prefix.is_none_or(is_dns_subdomain)
}

/// A header name: an RFC 9110 token of up to 256 bytes.
pub(super) fn is_header_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 256
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// `domain/path`, as controllers are named.
pub(super) fn is_controller_name(text: &str) -> bool {
    text.len() <= 253
        && text.split_once('/').is_some_and(|(domain, path)| {
            is_dns_subdomain(domain)
                && !path.is_empty()
                && path
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b))
        })
}

/// A key of a ConfigMap or Secret.
pub(super) fn is_data_key(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text != "."
        && text != ".."
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
