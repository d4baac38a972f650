//! Which address each Gateway gets.
//!
//! Addresses come from a range that belongs to this program. A Gateway keeps what it has, also over a restart (it is
//! read back from its status); one that asks for an address in its spec gets that one if it is in the range and free;
//! any other gets the first free one. Older Gateways choose first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use api::ObjectKey;

/// Addresses: `10.0.0.5`, `10.0.0.2-10.0.0.9`, `10.0.0.0/28`, or several of these with commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AddressRange(Vec<(IpAddr, IpAddr)>);

/// A text that is no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoRange(String);

impl fmt::Display for NoRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no range of addresses; write 10.0.0.2-10.0.0.9, 10.0.0.0/28 or 10.0.0.5",
            self.0
        )
    }
}

impl std::error::Error for NoRange {}

impl FromStr for AddressRange {
    type Err = NoRange;

    fn from_str(text: &str) -> Result<Self, NoRange> {
        let parts: Option<Vec<_>> = text.split(',').map(|part| span(part.trim())).collect();
        parts.map(Self).ok_or_else(|| NoRange(text.to_owned()))
    }
}

fn span(text: &str) -> Option<(IpAddr, IpAddr)> {
    if let Some((first, last)) = text.split_once('-') {
        let (first, last): (IpAddr, IpAddr) = (first.parse().ok()?, last.parse().ok()?);
        return (first.is_ipv4() == last.is_ipv4() && first <= last).then_some((first, last));
    }
    let Some((base, length)) = text.split_once('/') else {
        let one = text.parse().ok()?;
        return Some((one, one));
    };
    let (base, length): (IpAddr, u32) = (base.parse().ok()?, length.parse().ok()?);
    let width = if base.is_ipv4() { 32 } else { 128 };
    let host_bits = width_minus(width, length)?;
    let mask = 1u128
        .checked_shl(host_bits)
        .map_or(u128::MAX, |size| size - 1);
    let first = number(base) & !mask;
    let last = first | mask;
    // The first and the last address of an IPv4 network are not for hosts (RFC 1122, section 3.2.1.3; RFC 3021).
    let edge = u128::from(base.is_ipv4() && host_bits >= 2);
    Some((
        address(first + edge, base.is_ipv4())?,
        address(last - edge, base.is_ipv4())?,
    ))
}

fn width_minus(width: u32, length: u32) -> Option<u32> {
    width.checked_sub(length)
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

fn address(number: u128, v4: bool) -> Option<IpAddr> {
    if v4 {
        u32::try_from(number)
            .ok()
            .map(|bits| Ipv4Addr::from(bits).into())
    } else {
        Some(Ipv6Addr::from(number).into())
    }
}

impl AddressRange {
    fn contains(&self, ip: IpAddr) -> bool {
        self.0
            .iter()
            .any(|(first, last)| first.is_ipv4() == ip.is_ipv4() && *first <= ip && ip <= *last)
    }

    /// The first address that is not taken.
    fn free(&self, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        self.0.iter().find_map(|(first, last)| {
            let (mut at, end) = (number(*first), number(*last));
            loop {
                let candidate = address(at, first.is_ipv4())?;
                if !taken.contains(&candidate) {
                    return Some(candidate);
                }
                if at == end {
                    return None;
                }
                at += 1;
            }
        })
    }
}

/// What a Gateway wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The Gateway.
    pub(crate) gateway: ObjectKey,
    /// Addresses of its spec; one that is not fixed is `Ok(None)`, one that makes no sense here `Err` with its text.
    pub(crate) asked: Vec<Result<Option<IpAddr>, String>>,
}

/// What a Gateway gets: addresses, or a reason of the condition `Programmed` and a sentence.
pub(crate) type Assigned = Result<Vec<IpAddr>, (&'static str, String)>;

/// Gives every Gateway its addresses. `wishes` are in order of precedence; `held` is what each had before.
pub(crate) fn assign(
    range: &AddressRange,
    wishes: &[Wish],
    held: &BTreeMap<ObjectKey, Vec<IpAddr>>,
) -> BTreeMap<ObjectKey, Assigned> {
    // What a Gateway has and did not ask for otherwise, nobody else gets.
    let mut taken = BTreeSet::new();
    let mut kept: BTreeMap<&ObjectKey, Vec<IpAddr>> = BTreeMap::new();
    for wish in wishes {
        let before = held.get(&wish.gateway).into_iter().flatten();
        let wanted = |ip: &&IpAddr| wish.is_dynamic() || wish.asked.contains(&Ok(Some(**ip)));
        for ip in before.filter(wanted) {
            if range.contains(*ip) && taken.insert(*ip) {
                kept.entry(&wish.gateway).or_default().push(*ip);
            }
        }
    }
    let mut assigned = BTreeMap::new();
    for wish in wishes {
        let own = kept.remove(&wish.gateway).unwrap_or_default();
        assigned.insert(wish.gateway.clone(), wish.serve(range, own, &mut taken));
    }
    assigned
}

impl Wish {
    /// Whether one address of our choice is wanted.
    fn is_dynamic(&self) -> bool {
        self.asked.iter().all(|asked| *asked == Ok(None))
    }

    fn serve(
        &self,
        range: &AddressRange,
        mut own: Vec<IpAddr>,
        taken: &mut BTreeSet<IpAddr>,
    ) -> Assigned {
        if self.is_dynamic() {
            own.truncate(1);
            if own.is_empty() {
                let free = range.free(taken);
                own.extend(free);
                taken.extend(free);
            }
            let none = "every address of the range given by --addresses is in use";
            return if own.is_empty() {
                Err(("NoResources", none.to_owned()))
            } else {
                Ok(own)
            };
        }
        let mut addresses = Vec::new();
        for asked in &self.asked {
            let ip = match asked {
                Ok(Some(ip)) if own.contains(ip) => *ip,
                Ok(Some(ip)) if !range.contains(*ip) => {
                    return refused(format!(
                        "address {ip} is not in the range given by --addresses"
                    ));
                }
                Ok(Some(ip)) if !taken.insert(*ip) => {
                    return refused(format!("address {ip} belongs to another Gateway"));
                }
                Ok(Some(ip)) => *ip,
                Ok(None) => continue,
                Err(text) => return refused(format!("address {text:?} is no IP address")),
            };
            addresses.push(ip);
        }
        Ok(addresses)
    }
}

fn refused(message: String) -> Assigned {
    Err(("AddressNotUsable", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().expect("a range")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new(api::GATEWAY_GROUP, "Gateway", "n", name)
    }

    fn wish(name: &str, asked: &[&str]) -> Wish {
        let read = |text: &&str| match *text {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| text.to_owned()),
        };
        Wish {
            gateway: key(name),
            asked: asked.iter().map(read).collect(),
        }
    }

    /// `name=address`, or `name!reason`.
    fn outcome(assigned: &BTreeMap<ObjectKey, Assigned>) -> Vec<String> {
        let line = |(key, outcome): (&ObjectKey, &Assigned)| match outcome {
            Ok(addresses) => {
                let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                format!("{}={}", key.name, texts.join("+"))
            }
            Err((reason, _)) => format!("{}!{reason}", key.name),
        };
        assigned.iter().map(line).collect()
    }

    #[test]
    fn ranges_are_read() {
        for (text, first, last) in [
            ("10.0.0.5", "10.0.0.5", "10.0.0.5"),
            ("10.0.0.2-10.0.1.9", "10.0.0.2", "10.0.1.9"),
            ("10.0.0.7/29", "10.0.0.1", "10.0.0.6"),
            ("10.0.0.4/31", "10.0.0.4", "10.0.0.5"),
            ("10.0.0.4/32", "10.0.0.4", "10.0.0.4"),
            ("0.0.0.0/0", "0.0.0.1", "255.255.255.254"),
            ("fd00::/126", "fd00::", "fd00::3"),
            ("::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            assert_eq!(range(text).0, [(ip(first), ip(last))], "{text}");
        }
        assert_eq!(range("10.0.0.1, fd00::1").0.len(), 2);
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0.9-10.0.0.1",
            "10.0.0.1-fd00::1",
            "a",
            "10.0.0.1,",
            "1/2/3",
        ] {
            assert!(bad.parse::<AddressRange>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn gateways_keep_what_they_have_and_get_what_they_ask_for() {
        let held = |list: &[(&str, &str)]| -> BTreeMap<ObjectKey, Vec<IpAddr>> {
            list.iter()
                .map(|(name, at)| (key(name), vec![ip(at)]))
                .collect()
        };
        let cases: Vec<(&str, Vec<Wish>, BTreeMap<_, _>, Vec<&str>)> = vec![
            (
                "first come",
                vec![wish("b", &[]), wish("a", &[""])],
                held(&[]),
                vec!["a=10.0.0.2", "b=10.0.0.1"],
            ),
            (
                "kept",
                vec![wish("b", &[]), wish("a", &[])],
                held(&[("a", "10.0.0.1")]),
                vec!["a=10.0.0.1", "b=10.0.0.2"],
            ),
            (
                "not of the range",
                vec![wish("a", &[])],
                held(&[("a", "192.168.0.1")]),
                vec!["a=10.0.0.1"],
            ),
            (
                "a double from elsewhere",
                vec![wish("a", &[]), wish("b", &[])],
                held(&[("a", "10.0.0.3"), ("b", "10.0.0.3")]),
                vec!["a=10.0.0.3", "b=10.0.0.1"],
            ),
            (
                "none left",
                ["a", "b", "c", "d"].map(|name| wish(name, &[])).to_vec(),
                held(&[]),
                vec!["a=10.0.0.1", "b=10.0.0.2", "c=10.0.0.3", "d!NoResources"],
            ),
            (
                "asked for",
                vec![wish("a", &["10.0.0.2", "10.0.0.3"]), wish("b", &[])],
                held(&[]),
                vec!["a=10.0.0.2+10.0.0.3", "b=10.0.0.1"],
            ),
            (
                "asked for and had another",
                vec![wish("a", &["10.0.0.2"])],
                held(&[("a", "10.0.0.1")]),
                vec!["a=10.0.0.2"],
            ),
            (
                "asked for and held by another",
                vec![wish("a", &["10.0.0.1"]), wish("b", &[])],
                held(&[("b", "10.0.0.1")]),
                vec!["a!AddressNotUsable", "b=10.0.0.1"],
            ),
            (
                "outside",
                vec![wish("a", &["10.0.0.9"])],
                held(&[]),
                vec!["a!AddressNotUsable"],
            ),
            (
                "no address",
                vec![wish("a", &["name.example"])],
                held(&[]),
                vec!["a!AddressNotUsable"],
            ),
        ];
        for (name, wishes, held, expected) in cases {
            let assigned = assign(&range("10.0.0.1-10.0.0.3"), &wishes, &held);
            assert_eq!(outcome(&assigned), expected, "{name}");
        }
    }
}
