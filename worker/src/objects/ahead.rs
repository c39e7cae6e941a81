//! Reads objects ahead of their use, so that a store that answers late does not hold up the threads that decode.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;
use parking_lot::Mutex;
use sortinghat_proto::{Digest, ObjectRef, executor::v1::object_request::Request};

use super::{ObjectError, TenantObjects, connection::Asked, content_of};

/// Objects that are asked for and not read yet.
const MAX_OBJECTS: usize = 16;
/// Bytes of them. One object may have more.
const MAX_BYTES: u64 = 128 << 20;

/// Objects that will be read about in this order, by any number of threads.
#[derive(Debug)]
pub struct ReadAhead {
    objects: TenantObjects,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    upcoming: VecDeque<ObjectRef>,
    /// Those of them that were read before they were asked for, as threads may read in another order.
    read: HashSet<Digest>,
    asked: HashMap<Digest, (Asked, u64)>,
    /// Bytes of what is asked for.
    bytes: u64,
}

impl TenantObjects {
    /// The same objects, of which these will be read about in this order.
    pub fn ahead<'a>(&self, upcoming: impl IntoIterator<Item = &'a ObjectRef>) -> ReadAhead {
        let upcoming = upcoming.into_iter().cloned().collect();
        let state = Mutex::new(State { upcoming, read: HashSet::new(), asked: HashMap::new(), bytes: 0 });
        ReadAhead { objects: self.clone(), state }
    }
}

impl ReadAhead {
    /// As [`TenantObjects::read`], and asks for what comes next.
    ///
    /// # Errors
    /// As there.
    pub fn read(&self, object: &ObjectRef) -> Result<Bytes, ObjectError> {
        let Some(asked) = self.state.lock().take(object, &self.objects) else { return self.objects.read(object) };
        match content_of(object, asked.wait(&super::reading(object), &self.objects.waiting)) {
            // What is asked again is waited for.
            Err(error) if error.is_transient() => self.objects.read(object),
            read => read,
        }
    }
}

impl State {
    /// Asks for the next objects; returns the request for this one if it was asked for before.
    fn take(&mut self, object: &ObjectRef, objects: &TenantObjects) -> Option<Asked> {
        let asked = self.asked.remove(&object.digest);
        match &asked {
            Some((_, bytes)) => self.bytes -= bytes,
            None if self.upcoming.is_empty() => {}
            None => drop(self.read.insert(object.digest.clone())),
        }
        while let Some(next) = self.upcoming.front() {
            if self.read.remove(&next.digest) || self.asked.contains_key(&next.digest) {
                self.upcoming.pop_front();
                continue;
            }
            let has_room = self.bytes == 0 || self.bytes + next.size_bytes <= MAX_BYTES;
            if self.asked.len() >= MAX_OBJECTS || !has_room {
                break;
            }
            let Some(request) = objects.connection.begin(Request::Read(next.clone().into())) else { break };
            self.bytes += next.size_bytes;
            self.asked.insert(next.digest.clone(), (request, next.size_bytes));
        }
        asked.map(|(asked, _)| asked)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd as _, thread};

    use sortinghat_proto::executor::v1::{ObjectAnswer, ObjectContent, ObjectRequest, object_answer::Answer};

    use super::{
        super::{channel, sealed},
        *,
    };

    #[test]
    fn one_thread_that_reads_has_many_requests_under_way_and_gets_each_content() {
        let contents: Vec<String> = (0..40).map(|number| format!("photo {number}")).collect();
        let refs: Vec<ObjectRef> = contents.iter().map(|content| ObjectRef::of(content.as_bytes())).collect();
        let (worker, executor) = channel::pair().unwrap();
        let reads = TenantObjects::over(executor).unwrap().ahead(&refs);
        let (all, expected) = (refs.clone(), contents.clone());
        let reader = thread::spawn(move || {
            // The order is not quite the one that was foretold.
            for index in [1, 0].into_iter().chain(2..40) {
                assert_eq!(reads.read(&all[index]).unwrap(), expected[index]);
            }
        });
        let next = || channel::receive::<ObjectRequest>(&worker).unwrap().expect("the reader lives").0;
        // A store that answers late: many are asked for before the first is answered.
        let mut waiting: Vec<ObjectRequest> = (0..=MAX_OBJECTS).map(|_| next()).collect();
        for answered in 0..refs.len() {
            if waiting.is_empty() {
                waiting.push(next());
            }
            let ObjectRequest { id, request: Some(Request::Read(object)) } = waiting.remove(0) else {
                panic!("not a read, after {answered}")
            };
            let index = refs.iter().position(|known| known.digest.to_string() == object.digest).unwrap();
            let file = File::from(sealed::sealed(contents[index].as_bytes()).unwrap());
            let answer = ObjectAnswer { id, answer: Some(Answer::Content(ObjectContent::default())) };
            channel::send(&worker, &answer, Some(file.as_fd())).unwrap();
        }
        reader.join().unwrap();
    }
}
