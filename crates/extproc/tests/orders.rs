//! Messages in any order, whole and malformed.

use proptest::collection::vec;
use proptest::prelude::*;

#[path = "common/orders.rs"]
mod orders;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_order_of_messages_breaks_a_stream(data in vec(any::<u8>(), 0..120)) {
        orders::drive(&data);
    }

    /// Streams that begin as they should come further.
    #[test]
    fn nor_one_that_begins_well(
        modes in prop_oneof![Just(4 | 4 << 3), Just(2 | 1 << 3), Just(1 | 1 << 3), Just(0), Just(0x80)],
        end in any::<bool>(),
        data in vec(any::<u8>(), 0..120),
    ) {
        let mut all = vec![modes, if end { 0x80 } else { 0 }, 0];
        all.extend(data);
        orders::drive(&all);
    }
}
