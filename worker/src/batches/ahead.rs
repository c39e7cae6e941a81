//! Makes items ahead of their use, on a thread of its own.

use std::{
    sync::mpsc::{Receiver, sync_channel},
    thread::{self, JoinHandle},
};

/// Items that a thread makes ahead of their use, in order. At most `depth` items wait while one more is being made.
///
/// Dropping this stops the thread after the item that it is making, and waits for that.
#[derive(Debug)]
pub struct Ahead<T> {
    items: Option<Receiver<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Ahead<T> {
    /// Calls `make` with 0, 1, ... `count - 1` on a thread of its own.
    ///
    /// # Panics
    /// When the system gives no thread.
    pub fn new(depth: usize, count: usize, mut make: impl FnMut(usize) -> T + Send + 'static) -> Self {
        let (sender, items) = sync_channel(depth);
        let produce = move || {
            for index in 0..count {
                if sender.send(make(index)).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("decode-ahead".into()).spawn(produce);
        Self { items: Some(items), thread: Some(thread.expect("the system has a thread left")) }
    }
}

impl<T> Iterator for Ahead<T> {
    type Item = T;

    /// # Panics
    /// When making an item panicked.
    fn next(&mut self) -> Option<T> {
        let item = self.items.as_ref().and_then(|items| items.recv().ok());
        if item.is_none()
            && let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
        {
            std::panic::resume_unwind(panic);
        }
        item
    }
}

impl<T> Drop for Ahead<T> {
    fn drop(&mut self) {
        // Without a receiver the next send fails, and that ends the thread.
        self.items = None;
        if let Some(thread) = self.thread.take() {
            // A panic in an item that nobody asked for any more is of no interest.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    #[test]
    fn items_come_in_order_and_end() {
        assert_eq!(
            Ahead::new(2, 100, |index| index * index).collect::<Vec<_>>(),
            (0..100).map(|i| i * i).collect::<Vec<_>>()
        );
    }

    #[test]
    fn it_never_runs_further_ahead_than_allowed() {
        let made = Arc::new(AtomicUsize::new(0));
        let counter = made.clone();
        let mut items = Ahead::new(2, 1000, move |index| {
            counter.fetch_add(1, Ordering::SeqCst);
            index
        });
        for taken in 1..=50 {
            items.next();
            // Two wait, one is being made.
            assert!(made.load(Ordering::SeqCst) <= taken + 3);
        }
    }

    #[test]
    fn dropping_it_ends_the_thread() {
        let alive = Arc::new(());
        let held = alive.clone();
        let mut items = Ahead::new(1, usize::MAX, move |_| Arc::strong_count(&held));
        items.next();
        drop(items);
        assert_eq!(Arc::strong_count(&alive), 1, "the thread and what it held are gone");
    }

    #[test]
    #[should_panic(expected = "no such photo")]
    fn a_panic_on_the_thread_is_a_panic_here_and_no_early_end() {
        Ahead::new(1, 3, |index| assert!(index < 1, "no such photo")).for_each(drop);
    }
}
