//! Hints that something may have changed, for whoever waits for it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// Passes hints of topics on to those who listen, and wakes nobody else. A hint tells that there is something to look at, not how
/// often: one that comes while its listener looks is heard afterwards, and many are heard as one.
#[derive(Debug, Default)]
pub struct Hints(Mutex<Listeners>);

#[derive(Debug, Default)]
struct Listeners {
    last_number: u64,
    by_topic: HashMap<Arc<str>, Vec<(u64, Arc<Notify>)>>,
}

/// Hears hints from when it was made until it is dropped.
#[derive(Debug)]
pub struct Listener {
    hints: Arc<Hints>,
    topics: Vec<Arc<str>>,
    number: u64,
    heard: Arc<Notify>,
}

impl Hints {
    /// Listens for hints of these topics.
    pub fn listen<'t>(self: &Arc<Self>, topics: impl IntoIterator<Item = &'t str>) -> Listener {
        let topics: Vec<Arc<str>> = topics.into_iter().map(Into::into).collect();
        let heard = Arc::new(Notify::new());
        let mut listeners = self.listeners();
        listeners.last_number += 1;
        let number = listeners.last_number;
        for topic in &topics {
            listeners.by_topic.entry(topic.clone()).or_default().push((number, heard.clone()));
        }
        drop(listeners);
        Listener { hints: self.clone(), topics, number, heard }
    }

    /// Something of this topic may have changed.
    pub fn tell(&self, topic: &str) {
        if let Some(listeners) = self.listeners().by_topic.get(topic) {
            listeners.iter().for_each(|(_, heard)| heard.notify_one());
        }
    }

    /// Hints were lost: everything may have changed.
    pub fn tell_all(&self) {
        self.listeners().by_topic.values().flatten().for_each(|(_, heard)| heard.notify_one());
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// Returns at a hint that came since the last one was heard.
    pub async fn heard(&mut self) {
        self.heard.notified().await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut listeners = self.hints.listeners();
        for topic in &self.topics {
            if let Some(of_topic) = listeners.by_topic.get_mut(topic) {
                of_topic.retain(|(number, _)| *number != self.number);
                if of_topic.is_empty() {
                    listeners.by_topic.remove(topic);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn has_heard(listener: &mut Listener) -> bool {
        listener.heard().now_or_never().is_some()
    }

    #[test]
    fn a_hint_reaches_those_who_listen_for_it_once() {
        let hints = Arc::new(Hints::default());
        let (mut both, mut other) = (hints.listen(["a", "b"]), hints.listen(["c"]));
        hints.tell("a");
        hints.tell("b");
        assert!(has_heard(&mut both) && !has_heard(&mut both), "two hints before the first look are one");
        assert!(!has_heard(&mut other));
        hints.tell_all();
        assert!(has_heard(&mut both) && has_heard(&mut other));
    }

    #[test]
    fn nothing_is_kept_of_those_who_have_gone() {
        let hints = Arc::new(Hints::default());
        let (stays, goes) = (hints.listen(["a"]), hints.listen(["a", "b"]));
        drop(goes);
        assert_eq!(hints.listeners().by_topic.len(), 1);
        drop(stays);
        assert!(hints.listeners().by_topic.is_empty());
    }
}
