//! Hints that something may have changed, for tasks that wait for a change.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Passes hints on to the listeners of their topics, and wakes no other listener. A hint says that there is something to look at, not how
/// often. A hint that comes while its listener looks is heard afterwards, and several such hints are heard as one.
#[derive(Debug, Default)]
pub struct Hints(Mutex<Listeners>);

#[derive(Debug, Default)]
struct Listeners {
    last_number: u64,
    by_topic: HashMap<Arc<str>, Vec<(u64, Arc<Notify>)>>,
}

/// Hears the hints of its topics from its creation until it is dropped.
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
        let mut listeners = self.0.lock();
        listeners.last_number += 1;
        let number = listeners.last_number;
        for topic in &topics {
            listeners.by_topic.entry(topic.clone()).or_default().push((number, heard.clone()));
        }
        drop(listeners);
        Listener { hints: self.clone(), topics, number, heard }
    }

    /// Tells that something of this topic may have changed.
    pub fn tell(&self, topic: &str) {
        if let Some(listeners) = self.0.lock().by_topic.get(topic) {
            listeners.iter().for_each(|(_, heard)| heard.notify_one());
        }
    }

    /// Tells that everything may have changed, after hints were lost.
    pub fn tell_all(&self) {
        self.0.lock().by_topic.values().flatten().for_each(|(_, heard)| heard.notify_one());
    }
}

impl Listener {
    /// Waits for a hint that came since the last one was heard.
    pub async fn heard(&mut self) {
        self.heard.notified().await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut listeners = self.hints.0.lock();
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
    fn a_hint_reaches_the_listeners_of_its_topic_once() {
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
    fn nothing_is_kept_of_dropped_listeners() {
        let hints = Arc::new(Hints::default());
        let (stays, goes) = (hints.listen(["a"]), hints.listen(["a", "b"]));
        drop(goes);
        assert_eq!(hints.0.lock().by_topic.len(), 1);
        drop(stays);
        assert!(hints.0.lock().by_topic.is_empty());
    }
}
