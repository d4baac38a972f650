//! Request ids: the client's own where it is fit to be logged, else a fresh UUID (version 4).

/// Longest id taken from a client, in bytes.
const LONGEST: usize = 128;

/// The client's id, if it is up to 128 visible ASCII characters.
#[must_use]
pub fn acceptable(bytes: &[u8]) -> bool {
    (1..=LONGEST).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

/// A fresh id from 128 random bits, in the form of a version 4 UUID (RFC 9562, section 5.4).
#[must_use]
pub fn fresh(bits: u128) -> [u8; 36] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bits = (bits & !(0xf << 76) & !(0b11 << 62)) | (0x4 << 76) | (0b10 << 62);
    let mut out = [b'-'; 36];
    let mut nibble = 32;
    for (at, slot) in out.iter_mut().enumerate() {
        if matches!(at, 8 | 13 | 18 | 23) {
            continue;
        }
        nibble -= 1;
        *slot = HEX[((bits >> (nibble * 4)) & 0xf) as usize];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_ids_have_the_form_of_a_uuid() {
        assert_eq!(&fresh(0), b"00000000-0000-4000-8000-000000000000");
        assert_eq!(&fresh(u128::MAX), b"ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(
            &fresh(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
            b"01234567-89ab-4def-8123-456789abcdef"
        );
    }

    #[test]
    fn only_short_visible_ids_are_taken() {
        for (id, good) in [
            ("a", true),
            ("req-1~!", true),
            ("", false),
            ("a b", false),
            ("t\tab", false),
        ] {
            assert_eq!(acceptable(id.as_bytes()), good, "{id:?}");
        }
        assert!(acceptable(&[b'x'; 128]));
        assert!(!acceptable(&[b'x'; 129]));
        assert!(!acceptable(b"caf\xc3\xa9"));
    }
}
