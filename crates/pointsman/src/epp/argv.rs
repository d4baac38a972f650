//! Command lines as the Go endpoint pickers take them.
//!
//! Their images run the program as `/app/epp`, without a subcommand, and Go's flags may have one dash or two and camel
//! case. So a program that is called `epp`, or whose first argument is a flag that only `epp` has, is `pointsman epp`;
//! and for `epp` each flag is brought into the one form that is parsed here.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use clap::Args;

use super::EppArgs;

/// The command line in our own form.
pub(crate) fn arguments(argv: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut argv: Vec<OsString> = argv.into_iter().collect();
    let flags = flags();
    if called_epp(&argv) || begins_with_flag(&argv, &flags) {
        argv.insert(1, "epp".into());
    }
    if argv.get(1).is_some_and(|first| first == "epp") {
        let rest = argv.split_off(2);
        argv.extend(normal(rest, &flags));
    }
    argv
}

/// Long names of `epp`'s flags, and whether the value may be the next argument.
fn flags() -> BTreeMap<String, bool> {
    let command = EppArgs::augment_args(clap::Command::new("epp"));
    command
        .get_arguments()
        .filter_map(|arg| {
            let follows = arg.get_action().takes_values() && !arg.is_require_equals_set();
            Some((arg.get_long()?.to_owned(), follows))
        })
        .collect()
}

fn called_epp(argv: &[OsString]) -> bool {
    let name = argv
        .first()
        .and_then(|program| Path::new(program).file_name());
    name.is_some_and(|name| name == "epp") && argv.get(1).is_none_or(|first| first != "epp")
}

fn begins_with_flag(argv: &[OsString], flags: &BTreeMap<String, bool>) -> bool {
    let first = argv.get(1).and_then(|first| first.to_str());
    first
        .and_then(flag)
        .is_some_and(|(name, _)| name.len() > 1 && flags.contains_key(&name))
}

/// Name in kebab case and value of a flag.
fn flag(text: &str) -> Option<(String, Option<&str>)> {
    let name = text.strip_prefix("--").or_else(|| text.strip_prefix('-'))?;
    let (name, value) = match name.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (name, None),
    };
    if name.is_empty() {
        return None;
    }
    Some((kebab(name), value))
}

fn kebab(name: &str) -> String {
    let mut kebab = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() && !kebab.is_empty() && !kebab.ends_with('-') {
            kebab.push('-');
        }
        kebab.push(c.to_ascii_lowercase());
    }
    kebab
}

fn normal(arguments: Vec<OsString>, flags: &BTreeMap<String, bool>) -> Vec<OsString> {
    let mut value_follows = false;
    let mut out = Vec::with_capacity(arguments.len());
    for argument in arguments {
        let text = argument.to_str().filter(|_| !value_follows);
        value_follows = false;
        let Some((name, value)) = text.and_then(flag) else {
            out.push(argument);
            continue;
        };
        let Some(follows) = flags.get(&name) else {
            // Short ones, those of logging, and those that are wrong.
            value_follows = name == "f";
            let one_dash = text.is_some_and(|text| !text.starts_with("--"));
            out.push(match text {
                Some(text) if one_dash && name.len() > 1 => format!("-{text}").into(),
                _ => argument,
            });
            continue;
        };
        value_follows = *follows && value.is_none();
        out.push(match value {
            Some(value) => format!("--{name}={value}").into(),
            None => format!("--{name}").into(),
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(argv: &str) -> String {
        let words = argv.split(' ').map(OsString::from);
        let found = arguments(words);
        let found: Vec<_> = found.iter().map(|word| word.to_str().unwrap()).collect();
        found.join(" ")
    }

    #[test]
    fn go_style_becomes_ours_and_the_rest_stays() {
        for (given, expected) in [
            ("/app/epp --pool-name p", "/app/epp epp --pool-name p"),
            ("epp -poolName p -v 4", "epp epp --pool-name p --v 4"),
            (
                "epp -poolName=p -secureServing=false",
                "epp epp --pool-name=p --secure-serving=false",
            ),
            ("pointsman -pool-name p", "pointsman epp --pool-name p"),
            (
                "pointsman --grpcPort=9002 --poolName p",
                "pointsman epp --grpc-port=9002 --pool-name p",
            ),
            (
                "pointsman epp -f dir --zap-encoder json",
                "pointsman epp -f dir --zap-encoder json",
            ),
            (
                "pointsman epp --config-text -x --v=2",
                "pointsman epp --config-text -x --v=2",
            ),
            (
                "pointsman epp -health-checking -poolName p",
                "pointsman epp --health-checking --pool-name p",
            ),
            ("epp epp --poolName p", "epp epp --pool-name p"),
            ("epp", "epp epp"),
            ("pointsman serve -poolName p", "pointsman serve -poolName p"),
            (
                "pointsman --log-level debug serve",
                "pointsman --log-level debug serve",
            ),
            ("pointsman -f dir", "pointsman -f dir"),
            ("pointsman --help", "pointsman --help"),
            ("pointsman", "pointsman"),
            (
                "pointsman epp -nonsense 3 -",
                "pointsman epp --nonsense 3 -",
            ),
        ] {
            assert_eq!(line(given), expected, "{given}");
        }
    }

    #[test]
    fn names_become_kebab_case() {
        for (camel, kebabed) in [
            ("poolName", "pool-name"),
            (
                "kvCacheUsagePercentageMetric",
                "kv-cache-usage-percentage-metric",
            ),
            ("pool-name", "pool-name"),
            ("v", "v"),
            ("haEnableLeaderElection", "ha-enable-leader-election"),
        ] {
            assert_eq!(kebab(camel), kebabed);
        }
    }
}
