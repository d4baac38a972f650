//! Names of what is provisioned for a Gateway.
//!
//! Beside the objects of the plain name stands the Service by which replicas find each other, with a suffix: there is room
//! for that. A Gateway's name may have 253 characters and dots; the name of a Service must be a DNS label (RFC 1035): 63
//! characters, a letter first, no dots. Where a name must be changed to fit, a hash of the whole keeps names apart.

/// Longest name of a Service, longest value of a label.
const LONGEST: usize = 63;
/// What follows the name in that of the Service for siblings.
const SIBLINGS: &str = "-siblings";
const SUFFIX: &str = "-pointsman";
/// `-` and eight digits.
const HASH: usize = 9;

/// The name of everything that belongs to the Gateway of this name, in its namespace.
#[must_use]
pub fn resource_name(gateway: &str) -> String {
    let room = LONGEST - SUFFIX.len() - SIBLINGS.len();
    let is_label = gateway.starts_with(|first: char| first.is_ascii_lowercase())
        && gateway
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if is_label && gateway.len() <= room {
        return format!("{gateway}{SUFFIX}");
    }
    let plain: String = gateway
        .chars()
        .map(|c| if c == '.' { '-' } else { c })
        .collect();
    let prefix = if plain.starts_with(|first: char| first.is_ascii_lowercase()) {
        ""
    } else {
        "gateway-"
    };
    let plain = format!("{prefix}{plain}");
    let plain = cut(&plain, room - HASH);
    format!("{plain}-{:08x}{SUFFIX}", hash(gateway))
}

/// The name of the Service by which the replicas of that name find each other.
pub(super) fn siblings_name(name: &str) -> String {
    format!("{name}{SIBLINGS}")
}

/// A text as the value of a label: whole where it fits, else cut and told apart by a hash.
pub(super) fn label_value(text: &str) -> String {
    if text.len() <= LONGEST {
        return text.to_owned();
    }
    format!("{}-{:08x}", cut(text, LONGEST - HASH), hash(text))
}

/// A controller's name (`domain/path`) as the value of a label.
pub(super) fn controller_label(name: &str) -> String {
    label_value(&name.replace('/', "_"))
}

fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].trim_end_matches(['-', '.', '_'])
}

/// FNV-1a, 32 bits: the same in every version, which names must be.
pub(super) fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels_and_differ() {
        let long = "a".repeat(253);
        let longer = format!("{}b", "a".repeat(252));
        let cut_at_dash = format!("{}-{}", "a".repeat(34), "b".repeat(60));
        let all = [
            "web",
            "a.b",
            "a-b",
            "1.b",
            "9",
            &long,
            &longer,
            &"a".repeat(44),
            &"a".repeat(45),
            &cut_at_dash,
        ];
        let names: Vec<_> = all.iter().map(|name| resource_name(name)).collect();
        for (gateway, name) in all.iter().zip(&names) {
            assert!(siblings_name(name).len() <= 63, "{gateway}: {name}");
            assert!(name.starts_with(|c: char| c.is_ascii_lowercase()), "{name}");
            assert!(
                name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'),
                "{name}"
            );
            assert!(!name.contains("--"), "{name}");
        }
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
        assert_eq!(names[0], "web-pointsman");
    }

    #[test]
    fn labels_fit() {
        assert_eq!(
            controller_label("pointsman.dev/gateway-controller"),
            "pointsman.dev_gateway-controller"
        );
        assert_eq!(label_value(&"a".repeat(63)), "a".repeat(63));
        assert!(label_value(&"a".repeat(64)).len() <= 63);
    }
}
