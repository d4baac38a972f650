//! Independent work on several threads, with results in the order of the work.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// Does `work` on every item of `items` on `threads` threads (at least one) and returns what came of them, in the order
/// of the items. Items are taken in the order of `first`: heavy ones early, so that no thread ends long after the rest.
/// `done` hears of each item that is finished, with how many are by then.
///
/// # Errors
/// The first one of any item; nothing further is begun then.
pub(crate) fn map<T: Sync, R: Send, E: Send>(
    threads: usize,
    items: &[T],
    first: impl Fn(&T, &T) -> std::cmp::Ordering,
    work: impl Fn(&T) -> Result<R, E> + Sync,
    done: impl Fn(&T, usize) + Sync,
) -> Result<Vec<R>, E> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by(|a, b| first(&items[*a], &items[*b]));
    let (next, finished) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let results: Mutex<Vec<Option<R>>> = Mutex::new(items.iter().map(|_| None).collect());
    let failure: Mutex<Option<E>> = Mutex::new(None);
    let thread = || {
        while let Some(&at) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            match work(&items[at]) {
                Ok(result) => results.lock()[at] = Some(result),
                Err(error) => {
                    next.store(items.len(), Ordering::Relaxed);
                    failure.lock().get_or_insert(error);
                    return;
                }
            }
            done(&items[at], finished.fetch_add(1, Ordering::Relaxed) + 1);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(items.len()) {
            scope.spawn(thread);
        }
        thread();
    });
    match failure.into_inner() {
        Some(error) => Err(error),
        None => Ok(results.into_inner().into_iter().flatten().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items_whatever_the_threads() {
        let items: Vec<u64> = (0..100).collect();
        for threads in [0, 1, 3, 200] {
            let seen = AtomicUsize::new(0);
            let squares = map::<_, _, ()>(
                threads,
                &items,
                |a, b| b.cmp(a),
                |it| Ok(it * it),
                |_, done| {
                    seen.fetch_max(done, Ordering::Relaxed);
                },
            );
            let wanted: Vec<u64> = items.iter().map(|it| it * it).collect();
            assert_eq!(squares, Ok(wanted), "{threads}");
            assert_eq!(seen.into_inner(), 100);
        }
    }

    #[test]
    fn a_failure_ends_the_work() {
        let count = AtomicUsize::new(0);
        let failed = map(
            1,
            &[1, 2, 3, 4],
            i32::cmp,
            |it| {
                count.fetch_add(1, Ordering::Relaxed);
                if *it == 2 { Err("two") } else { Ok(()) }
            },
            |_, _| {},
        );
        assert_eq!(failed, Err("two"));
        assert_eq!(count.into_inner(), 2);
    }
}
