//! Names, identifiers, digests and sizes: as text, in JSON, and what is refused.

use std::{fmt, str::FromStr};

use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};
use sortinghat_proto::{
    ArtifactKind, ByteCount, DatasetRef, Digest, JobId, ModelRef, Name, Refusal, Tenant, WorkerId, time::UnixMs,
};

use crate::{config, strategies};

/// Asserts that `value` is the same after a trip through its text.
fn reads_back<T>(value: &T)
where
    T: fmt::Display + FromStr<Err: fmt::Debug> + PartialEq + fmt::Debug,
{
    assert_eq!(&value.to_string().parse::<T>().expect("just shown"), value);
}

/// Asserts that `value` reads back from its text, and that its text is what is stored.
fn stored_as_text<T>(value: &T)
where
    T: fmt::Display + FromStr<Err: fmt::Debug> + Serialize + DeserializeOwned + PartialEq + fmt::Debug,
{
    reads_back(value);
    let stored = serde_json::to_value(value).expect("JSON");
    assert_eq!(stored, value.to_string());
    assert_eq!(&serde_json::from_value::<T>(stored).expect("just stored"), value);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn names_and_identifiers_are_stored_as_their_text(
        name in strategies::name(),
        job in strategies::job_id(),
        task in strategies::task_id(),
        digest in strategies::digest(),
    ) {
        stored_as_text(&name);
        stored_as_text(&job);
        stored_as_text(&task);
        stored_as_text(&digest);
        let worker: WorkerId = name.as_str().parse().expect("names are worker ids");
        stored_as_text(&worker);
        let tenant: Tenant = name.as_str().parse().expect("names are tenants");
        stored_as_text(&tenant);
    }

    #[test]
    fn references_are_shown_as_they_are_parsed(dataset in strategies::dataset(), model in strategies::model()) {
        prop_assert_eq!(DatasetRef::parse(&dataset.to_string(), "dataset"), Ok(dataset));
        prop_assert_eq!(ModelRef::parse(&model.to_string(), "model"), Ok(model));
    }

    #[test]
    fn one_version_is_never_taken_for_the_other_kind(version in strategies::versioned(ArtifactKind::Dataset)) {
        let refusal = ModelRef::parse(&version.to_string(), "model").expect_err("a dataset is no model");
        prop_assert!(refusal.message.contains("names a dataset, but a model is wanted here"), "{}", refusal.message);
        let json = serde_json::to_string(&version).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<sortinghat_proto::VersionedName>(&json).expect("just stored"), version);
    }

    #[test]
    fn job_ids_are_ordered_by_their_time(first in any::<u32>(), later in 1..=u64::from(u32::MAX), random: [u128; 2]) {
        let first = u64::from(first);
        prop_assert!(JobId::new(first, random[0]) < JobId::new(first + later, random[1]));
    }

    #[test]
    fn sizes_read_back_as_the_same_number(size in strategies::bytes()) {
        reads_back(&size);
    }

    #[test]
    fn a_size_in_a_unit_is_that_many_of_it(number in 0..=u64::from(u32::MAX), unit in 0..=4_usize) {
        let text = format!("{number}{}", ["B", "KiB", "MiB", "GiB", "TiB"][unit]);
        let bytes = number.checked_mul(1 << (10 * unit));
        prop_assert_eq!(text.parse::<ByteCount>().ok(), bytes.map(ByteCount));
    }

    #[test]
    fn a_time_is_the_same_after_the_wire(unix_ms in 1..=i64::MAX as u64) {
        prop_assert_eq!(UnixMs::from_wire(UnixMs(unix_ms).to_wire(), "time"), Ok(Some(UnixMs(unix_ms))));
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in ".{0,80}") {
        let parsers: [fn(&str) -> bool; 6] = [
            |text| text.parse::<Name>().is_ok(),
            |text| text.parse::<JobId>().is_ok(),
            |text| text.parse::<sortinghat_proto::TaskId>().is_ok(),
            |text| text.parse::<ByteCount>().is_ok(),
            |text| text.parse::<sortinghat_proto::Requirements>().is_ok(),
            |text| DatasetRef::parse(text, "dataset").is_ok(),
        ];
        for parser in parsers {
            parser(&text);
        }
    }
}

#[test]
fn what_is_no_name_is_refused_by_the_field_that_it_stood_in() {
    let long = "a".repeat(64);
    for text in ["", "Stamps", "-a", "_a", "a b", "a/b", "\u{e9}", &long] {
        assert!(text.parse::<Name>().is_err(), "{text:?}");
    }
    let refusals: [(&str, Option<Refusal>); 5] = [
        ("name", "?".parse::<Name>().err()),
        ("tenant", "?".parse::<Tenant>().err()),
        ("worker_id", "?".parse::<WorkerId>().err()),
        ("job_id", "?".parse::<JobId>().err()),
        ("digest", "?".parse::<Digest>().err()),
    ];
    for (field, refusal) in refusals {
        assert_eq!(refusal.expect(field).field, field);
    }
    for field in ["finetune.dataset", "evaluate.dataset"] {
        assert_eq!(DatasetRef::parse("job:1", field).expect_err("no job").field, field);
    }
}

#[test]
fn a_digest_has_one_spelling_and_seeds_by_its_first_eight_bytes() {
    let digest = Digest::of(b"");
    assert!(digest.as_str().to_uppercase().parse::<Digest>().is_err());
    assert!(digest.as_str()[1..].parse::<Digest>().is_err());
    assert_eq!(digest.to_u64(), 0xe3b0_c442_98fc_1c14);
}
