//! Conditions as they are written.

use routing::Condition;
use serde_json::{Value, json};

/// The longest message that the API allows (`metav1.Condition`).
const MAX_MESSAGE: usize = 32_768;

/// Conditions of one entry, sorted by type, each with the time since which it has its status: that of `present` where
/// the status is the same, else `now`.
pub(super) fn merged(wanted: &[Condition], present: &Value, now: &str) -> Vec<Value> {
    let mut sorted: Vec<_> = wanted.iter().collect();
    sorted.sort_by_key(|condition| condition.type_);
    sorted.dedup_by_key(|condition| condition.type_);
    let one = |condition: &&Condition| {
        let status = condition.status.to_string();
        let known = of_type(present, condition.type_);
        let since = known
            .filter(|known| known["status"] == status.as_str())
            .and_then(|known| known["lastTransitionTime"].as_str())
            .unwrap_or(now);
        json!({
            "type": condition.type_,
            "status": status,
            "reason": condition.reason,
            "message": cut(&condition.message),
            "observedGeneration": condition.observed_generation,
            "lastTransitionTime": since,
        })
    };
    sorted.iter().map(one).collect()
}

/// The condition of a type in an entry's `conditions`.
pub(super) fn of_type<'v>(conditions: &'v Value, type_: &str) -> Option<&'v Value> {
    conditions
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == type_)
}

/// Whether two lists of conditions say the same, in whatever order.
pub(super) fn same(wanted: &[Value], present: &Value) -> bool {
    let Some(present) = present.as_array() else {
        return wanted.is_empty();
    };
    wanted.len() == present.len() && holds(wanted, present)
}

/// Whether every wanted condition is among the present ones.
pub(super) fn holds(wanted: &[Value], present: &[Value]) -> bool {
    wanted.iter().all(|one| present.contains(one))
}

/// Whether something present was said about a later generation than what is wanted.
pub(super) fn is_newer(wanted: &[Condition], present: &Value) -> bool {
    wanted.iter().any(|condition| {
        of_type(present, condition.type_)
            .and_then(|known| known["observedGeneration"].as_i64())
            .is_some_and(|known| known > condition.observed_generation)
    })
}

fn cut(message: &str) -> &str {
    let mut end = message.len().min(MAX_MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}
