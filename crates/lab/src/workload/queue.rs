//! Things that come at a time, soonest first; of equal times the one put in first.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

#[derive(Debug)]
struct Entry<T> {
    at: f64,
    order: u64,
    item: T,
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        // Turned round: the heap's top is its greatest.
        other
            .at
            .total_cmp(&self.at)
            .then_with(|| other.order.cmp(&self.order))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

#[derive(Debug)]
pub(crate) struct TimeQueue<T> {
    heap: BinaryHeap<Entry<T>>,
    order: u64,
}

impl<T> TimeQueue<T> {
    pub(crate) fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            order: 0,
        }
    }

    pub(crate) fn push(&mut self, at: f64, item: T) {
        self.heap.push(Entry {
            at,
            order: self.order,
            item,
        });
        self.order += 1;
    }

    pub(crate) fn first_at(&self) -> Option<f64> {
        self.heap.peek().map(|entry| entry.at)
    }

    pub(crate) fn pop(&mut self) -> Option<(f64, T)> {
        self.heap.pop().map(|entry| (entry.at, entry.item))
    }
}

#[cfg(test)]
mod tests {
    use super::TimeQueue;

    #[test]
    fn soonest_first_and_equals_in_the_order_they_came() {
        let mut queue = TimeQueue::new();
        for (at, item) in [(2.0, 'c'), (1.0, 'a'), (2.0, 'd'), (1.0, 'b')] {
            queue.push(at, item);
        }
        assert_eq!(queue.first_at(), Some(1.0));
        let order: String = std::iter::from_fn(|| queue.pop())
            .map(|(_, item)| item)
            .collect();
        assert_eq!(order, "abcd");
    }
}
