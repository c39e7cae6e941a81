//! The behaviour that every store must have, written once. Tests call [`check`] with each store.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;

use super::{Batch, Expectation, MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS, Range, Store, StoreError, Verdict};

/// Checks an empty store against the contract of [`Store`]. Panics with the sentence that does not hold.
pub async fn check(store: Arc<dyn Store>) {
    a_record_is_read_as_it_was_written(&*store).await;
    a_batch_whose_check_fails_changes_nothing(&*store).await;
    a_merely_read_record_guards_a_batch(&*store).await;
    a_resent_batch_does_not_apply_twice(&*store).await;
    versions_grow_even_over_a_deletion(&*store).await;
    batches_of_one_call_have_their_own_verdicts(&*store).await;
    an_index_is_read_in_order_from_either_end(&*store).await;
    counters_are_returned_after_their_increments(&*store).await;
    a_counter_stops_at_its_bounds_and_is_exact_before_them(&*store).await;
    values_are_bytes_and_keys_are_text(&*store).await;
    records_indexes_and_counters_have_names_of_their_own(&*store).await;
    a_later_batch_of_a_call_sees_what_an_earlier_one_did(&*store).await;
    a_call_of_any_length_is_answered_in_order(&*store).await;
    a_batch_as_large_as_allowed_is_applied(&*store).await;
    a_malformed_call_applies_nothing(&*store).await;
    an_applied_batch_hints_its_topics(&*store).await;
    time_does_not_go_back(&*store).await;
    exactly_one_of_many_writers_wins(store).await;
}

/// A batch that creates a record.
fn create(key: &str, value: &'static str) -> Batch {
    Batch {
        checks: vec![(key.to_owned(), Expectation::Absent)],
        writes: vec![(key.to_owned(), Bytes::from_static(value.as_bytes()))],
        ..Batch::default()
    }
}

/// A batch that replaces a record with this version.
fn replace(key: &str, version: u64, value: &'static str) -> Batch {
    Batch { checks: vec![(key.to_owned(), Expectation::Version(version))], ..create(key, value) }
}

async fn one(store: &dyn Store, batch: Batch) -> Verdict {
    let verdicts = store.apply(vec![batch]).await.expect("the store answers");
    <[Verdict; 1]>::try_from(verdicts).expect("one batch, one verdict")[0].clone()
}

async fn version(store: &dyn Store, key: &str) -> Option<u64> {
    let records = store.read(&[key.to_owned()]).await.expect("the store answers");
    records[0].as_ref().map(|record| record.version)
}

async fn entries(store: &dyn Store, range: Range) -> Vec<String> {
    store.range(range).await.expect("the store answers")
}

async fn a_record_is_read_as_it_was_written(store: &dyn Store) {
    assert_eq!(one(store, create("record:a", "first")).await, Verdict::Applied(vec![]));
    let read = store.read(&["record:none".into(), "record:a".into()]).await.expect("the store answers");
    assert_eq!(read[0], None, "a record that was never written does not exist");
    assert_eq!(read[1].as_ref().expect("it was written").value, "first");
}

async fn a_batch_whose_check_fails_changes_nothing(store: &dyn Store) {
    let batch = Batch {
        insertions: vec![("conflict".into(), "entry".into())],
        increments: vec![("conflict".into(), 1)],
        ..create("record:a", "second")
    };
    assert_eq!(one(store, batch).await, Verdict::Conflict, "the record exists");
    assert!(entries(store, Range::first("conflict", 9)).await.is_empty(), "a refused batch inserts no entry");
    assert_eq!(store.counters(&["conflict".into()]).await.expect("the store answers"), [0]);
    let read = store.read(&["record:a".into()]).await.expect("the store answers");
    assert_eq!(read[0].as_ref().expect("the record stays").value, "first");
}

async fn a_merely_read_record_guards_a_batch(store: &dyn Store) {
    one(store, create("guard", "open")).await;
    let seen = version(store, "guard").await.expect("it was written");
    one(store, replace("guard", seen, "closed")).await;
    let mut guarded = create("guarded", "in");
    guarded.checks.push(("guard".into(), Expectation::Version(seen)));
    assert_eq!(one(store, guarded).await, Verdict::Conflict, "the guard has changed since it was read");
    assert_eq!(version(store, "guarded").await, None);
}

async fn a_resent_batch_does_not_apply_twice(store: &dyn Store) {
    let batch = Batch { increments: vec![("resent".into(), 1)], ..create("resent", "once") };
    assert_eq!(one(store, batch.clone()).await, Verdict::Applied(vec![1]));
    assert_eq!(one(store, batch).await, Verdict::Conflict);
    assert_eq!(store.counters(&["resent".into()]).await.expect("the store answers"), [1]);
}

async fn versions_grow_even_over_a_deletion(store: &dyn Store) {
    one(store, create("deleted", "a")).await;
    let first = version(store, "deleted").await.expect("it was written");
    let delete = Batch { writes: vec![], deletes: vec!["deleted".into()], ..replace("deleted", first, "") };
    assert_eq!(one(store, delete).await, Verdict::Applied(vec![]));
    assert_eq!(version(store, "deleted").await, None);
    one(store, create("deleted", "b")).await;
    let second = version(store, "deleted").await.expect("it was written again");
    assert!(second > first, "a version that was read before the deletion must not match after it");
}

async fn batches_of_one_call_have_their_own_verdicts(store: &dyn Store) {
    let batches = vec![create("many:a", "1"), create("many:a", "2"), create("many:b", "3")];
    let verdicts = store.apply(batches).await.expect("the store answers");
    assert_eq!(verdicts, [Verdict::Applied(vec![]), Verdict::Conflict, Verdict::Applied(vec![])]);
    assert_eq!(store.apply(Vec::new()).await.expect("the store answers"), []);
}

async fn an_index_is_read_in_order_from_either_end(store: &dyn Store) {
    let insert = |entry: &str| ("index".to_owned(), entry.to_owned());
    let insertions = vec![insert("b"), insert("a"), insert("c"), insert("b"), ("index2".into(), "z".into())];
    one(store, Batch { insertions, ..create("index:1", "") }).await;
    assert_eq!(
        entries(store, Range::first("index", 9)).await,
        ["a", "b", "c"],
        "the entries of this index only, in order, each once"
    );
    assert_eq!(entries(store, Range::first("index", 2).descending()).await, ["c", "b"]);
    assert_eq!(entries(store, Range::first("index", 9).from("b").until("c")).await, ["b"]);
    assert!(entries(store, Range::first("index", 9).from("c").until("a")).await.is_empty());
    assert!(entries(store, Range::first("index", 9).until("")).await.is_empty(), "nothing is less than the empty text");
    assert!(entries(store, Range::first("index", 0)).await.is_empty(), "a limit of 0 returns nothing");
    assert!(entries(store, Range::first("inde", 9)).await.is_empty(), "an index is found by its whole name");
    let moved =
        Batch { removals: vec![insert("a"), insert("x")], insertions: vec![insert("d")], ..create("index:2", "") };
    assert_eq!(one(store, moved).await, Verdict::Applied(vec![]), "removing what is not there is no conflict");
    assert_eq!(entries(store, Range::first("index", 9)).await, ["b", "c", "d"]);
    let same = Batch { removals: vec![insert("d")], insertions: vec![insert("d")], ..create("index:3", "") };
    one(store, same).await;
    assert_eq!(entries(store, Range::first("index", 9).from("d")).await, ["d"], "removals come before insertions");
    let ranges = vec![Range::first("index", 1), Range::first("none", 9), Range::first("index2", 9)];
    let together = store.ranges(ranges).await.expect("the store answers");
    assert_eq!(together, [vec!["b"], vec![], vec!["z"]], "several ranges at once, in the order of the call");
}

async fn counters_are_returned_after_their_increments(store: &dyn Store) {
    let increments = vec![("count:a".to_owned(), 5), ("count:b".to_owned(), -2), ("count:a".to_owned(), 1)];
    let verdict = one(store, Batch { increments, ..create("count", "") }).await;
    assert_eq!(verdict, Verdict::Applied(vec![5, -2, 6]));
    let read = store.counters(&["count:b".into(), "count:none".into(), "count:a".into()]).await;
    assert_eq!(read.expect("the store answers"), [-2, 0, 6]);
}

async fn a_counter_stops_at_its_bounds_and_is_exact_before_them(store: &dyn Store) {
    let close = i64::MAX - 1;
    let add = |amount: i64| vec![("bounds".to_owned(), amount)];
    let verdict = one(store, Batch { increments: add(close), ..create("bounds:1", "") }).await;
    assert_eq!(verdict, Verdict::Applied(vec![close]), "a counter has 64 bits");
    let over = one(store, Batch { increments: add(5), ..create("bounds:2", "") }).await;
    assert_eq!(over, Verdict::Applied(vec![i64::MAX]), "a counter does not wrap around");
    let increments = [add(-close), add(-close), add(-close), add(-close)].concat();
    let under = one(store, Batch { increments, ..create("bounds:3", "") }).await;
    assert_eq!(
        under,
        Verdict::Applied(vec![1, 1 - close, i64::MIN, i64::MIN]),
        "a counter stops at both of its bounds"
    );
}

async fn values_are_bytes_and_keys_are_text(store: &dyn Store) {
    let value = Bytes::from((0..=255).collect::<Vec<u8>>());
    let key = "key with blanks, {braces}, 1:2, \u{1f431} and \0";
    let batch = Batch { writes: vec![(key.to_owned(), value.clone())], ..create(key, "") };
    let entry = ("index of text".to_owned(), key.to_owned());
    assert_eq!(one(store, Batch { insertions: vec![entry], ..batch }).await, Verdict::Applied(vec![]));
    let read = store.read(&[key.to_owned()]).await.expect("the store answers");
    assert_eq!(read[0].as_ref().expect("it was written").value, value);
    assert_eq!(entries(store, Range::first("index of text", 9)).await, [key]);
    assert_eq!(one(store, create("empty value", "")).await, Verdict::Applied(vec![]));
    let read = store.read(&["empty value".to_owned()]).await.expect("the store answers");
    assert_eq!(read[0].as_ref().expect("an empty record is a record").value, "");
}

async fn records_indexes_and_counters_have_names_of_their_own(store: &dyn Store) {
    let name = "namesake".to_owned();
    let batch = Batch {
        insertions: vec![(name.clone(), "entry".to_owned())],
        increments: vec![(name.clone(), 3)],
        ..create("namesake", "record")
    };
    assert_eq!(one(store, batch).await, Verdict::Applied(vec![3]));
    assert_eq!(
        store.read(std::slice::from_ref(&name)).await.expect("the store answers")[0].as_ref().expect("it is").value,
        "record"
    );
    assert_eq!(entries(store, Range::first("namesake", 9)).await, ["entry"]);
    assert_eq!(store.counters(&[name]).await.expect("the store answers"), [3]);
}

async fn a_later_batch_of_a_call_sees_what_an_earlier_one_did(store: &dyn Store) {
    one(store, create("later", "a")).await;
    let seen = version(store, "later").await.expect("it was written");
    let delete = Batch { writes: vec![], deletes: vec!["later".into()], ..replace("later", seen, "") };
    let batches = vec![delete, create("later", "b"), replace("later", seen, "c")];
    let verdicts = store.apply(batches).await.expect("the store answers");
    assert_eq!(verdicts, [Verdict::Applied(vec![]), Verdict::Applied(vec![]), Verdict::Conflict]);
}

async fn a_call_of_any_length_is_answered_in_order(store: &dyn Store) {
    let batches = (0..700).map(|number| create(&format!("long:{}", number / 2), "x")).collect();
    let verdicts = store.apply(batches).await.expect("the store answers");
    assert_eq!(verdicts.len(), 700);
    for pair in verdicts.chunks(2) {
        assert_eq!(pair, [Verdict::Applied(vec![]), Verdict::Conflict]);
    }
}

async fn a_batch_as_large_as_allowed_is_applied(store: &dyn Store) {
    let value = Bytes::from(vec![7; MAX_BATCH_BYTES - 64]);
    let large = Batch { writes: vec![("large".to_owned(), value.clone())], ..create("large", "") };
    assert_eq!(one(store, large).await, Verdict::Applied(vec![]));
    assert_eq!(
        store.read(&["large".into()]).await.expect("the store answers")[0].as_ref().expect("it is").value,
        value
    );
    let entry = |number: usize| ("many".to_owned(), format!("{number:05}"));
    let insertions: Vec<_> = (0..MAX_BATCH_OPERATIONS - 2).map(entry).collect();
    assert_eq!(one(store, Batch { insertions, ..create("many", "") }).await, Verdict::Applied(vec![]));
    assert_eq!(entries(store, Range::first("many", usize::MAX)).await.len(), MAX_BATCH_OPERATIONS - 2);
}

async fn a_malformed_call_applies_nothing(store: &dyn Store) {
    let unchecked = Batch { checks: vec![], ..create("malformed:b", "") };
    let result = store.apply(vec![create("malformed:a", ""), unchecked]).await;
    assert!(matches!(result, Err(StoreError::Malformed { .. })), "{result:?}");
    assert_eq!(version(store, "malformed:a").await, None, "no batch of a malformed call is tried");
}

async fn an_applied_batch_hints_its_topics(store: &dyn Store) {
    let (mut refused, mut applied) = (store.hints().listen(["refused"]), store.hints().listen(["applied"]));
    one(store, Batch { topics: vec!["refused".into()], ..create("record:a", "") }).await;
    one(store, Batch { topics: vec!["applied".into()], ..create("hinted", "") }).await;
    applied.heard().await;
    assert!(refused.heard().now_or_never().is_none(), "a batch that was not applied sends no hint");
}

async fn time_does_not_go_back(store: &dyn Store) {
    let first = store.now().await.expect("the store answers");
    assert!(store.now().await.expect("the store answers") >= first);
}

async fn exactly_one_of_many_writers_wins(store: Arc<dyn Store>) {
    let writers = (0..32).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { one(&*store, create("race", "mine")).await })
    });
    let verdicts = futures::future::join_all(writers.collect::<Vec<_>>()).await;
    let applied = verdicts.into_iter().filter(|verdict| matches!(verdict, Ok(Verdict::Applied(_)))).count();
    assert_eq!(applied, 1, "a compare-and-set has one winner");
}
