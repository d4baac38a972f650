//! Changing a path, by the table of the Gateway API's `ReplacePrefixMatch`.

use crate::plan::PathRewrite;

/// The path after `rewrite`. `matched_prefix` is [`crate::Matched::matched_prefix`]: what lies behind it is kept when a
/// prefix is replaced. The result always starts with a slash, and the seam never has two.
pub fn rewrite_path(path: &str, rewrite: &PathRewrite, matched_prefix: usize) -> String {
    let (replacement, rest) = match rewrite {
        PathRewrite::Full(full) => (full.as_str(), ""),
        PathRewrite::Prefix(prefix) => (
            prefix.as_str(),
            path.get(matched_prefix..).unwrap_or_default(),
        ),
    };
    let replacement = if rest.starts_with('/') {
        replacement.trim_end_matches('/')
    } else {
        replacement
    };
    let seam_has_slash =
        replacement.starts_with('/') || (replacement.is_empty() && rest.starts_with('/'));
    let mut out = String::with_capacity(1 + replacement.len() + rest.len());
    if !seam_has_slash {
        out.push('/');
    }
    out.push_str(replacement);
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_prefix_keeps_the_rest() {
        // path, prefix as the plan stores it, replacement, result: the rows of HTTPPathModifier's table, then our own.
        let cases = [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo", "/foo", "/xyz/", "/xyz/"),
            ("/foo/bar", "", "/xyz", "/xyz/foo/bar"),
            ("/", "", "/xyz", "/xyz/"),
            ("/foo//bar", "/foo", "/x", "/x//bar"),
            ("/foo/bar", "/foo", "xyz", "/xyz/bar"),
        ];
        for (path, prefix, replacement, expected) in cases {
            let rewrite = PathRewrite::Prefix(replacement.to_owned());
            assert_eq!(
                rewrite_path(path, &rewrite, prefix.len()),
                expected,
                "{path} {prefix} {replacement}"
            );
        }
    }

    #[test]
    fn a_full_replacement_forgets_the_path() {
        for (replacement, expected) in [
            ("/xyz", "/xyz"),
            ("", "/"),
            ("xyz", "/xyz"),
            ("/xyz/", "/xyz/"),
        ] {
            assert_eq!(
                rewrite_path("/foo/bar", &PathRewrite::Full(replacement.to_owned()), 4),
                expected
            );
        }
    }

    #[test]
    fn a_prefix_beyond_the_path_is_no_panic() {
        assert_eq!(
            rewrite_path("/é", &PathRewrite::Prefix("/x".to_owned()), 2),
            "/x"
        );
        assert_eq!(
            rewrite_path("/", &PathRewrite::Prefix("/x".to_owned()), 9),
            "/x"
        );
    }
}
