//! The table of job kinds against the .proto files and against what is stored.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::FileDescriptorSet;
use sortinghat_proto::{ArtifactKind, DESCRIPTORS, DatasetRef, JobKind, ModelRef};

#[test]
fn a_kind_has_the_same_name_in_the_contract_in_commands_and_in_stored_records() {
    let files = FileDescriptorSet::decode(DESCRIPTORS).expect("valid").file;
    let spec = files.iter().flat_map(|file| &file.message_type).find(|message| message.name() == "JobSpec");
    let arms: BTreeSet<&str> = spec.expect("a message").field.iter().map(|field| field.name()).collect();
    assert_eq!(arms, JobKind::ALL.iter().map(|kind| kind.as_str()).collect());
    for kind in JobKind::ALL {
        assert_eq!(kind.to_string().parse(), Ok(*kind));
        assert_eq!(serde_json::to_value(kind).expect("JSON"), kind.as_str());
        assert_eq!(serde_json::from_value::<JobKind>(kind.as_str().into()).expect("a kind"), *kind);
    }
}

#[test]
fn a_word_that_is_no_kind_is_refused_with_the_kinds_that_there_are() {
    let refusal = "training".parse::<JobKind>().expect_err("no kind");
    assert_eq!(refusal.field, "kind");
    let (says, kinds) = refusal.message.split_once(": use ").expect("it names the kinds");
    assert_eq!(says, "\"training\" is not a job kind");
    let named: Vec<&str> = kinds.split(", ").flat_map(|some| some.split(" or ")).collect();
    assert_eq!(named, JobKind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>());
}

#[test]
fn every_kind_says_what_it_does_in_one_line_and_may_stall_for_minutes_only() {
    for kind in JobKind::ALL {
        let help = kind.help();
        assert!(help.starts_with(|first: char| first.is_uppercase()) && !help.ends_with('.'), "{kind}: {help}");
        assert!((60_000..=600_000).contains(&kind.stall_bound_ms()), "{kind}");
    }
    let giving_way: Vec<_> = JobKind::ALL.iter().filter(|kind| kind.gives_way()).collect();
    assert_eq!(giving_way, [&JobKind::Finetune, &JobKind::Gather]);
}

#[test]
fn a_reference_that_is_missing_names_the_kind_of_job_that_makes_such_artifacts() {
    let dataset = DatasetRef::parse("", "finetune.dataset").expect_err("empty").message;
    assert_eq!(dataset, "which dataset? A job of the kind ingest or gather makes one");
    let model = ModelRef::parse("", "classify.model").expect_err("empty").message;
    assert_eq!(model, "which model? A job of the kind finetune makes one");
    for artifact in [ArtifactKind::Dataset, ArtifactKind::Model] {
        assert!(JobKind::ALL.iter().any(|kind| kind.makes() == Some(artifact)), "nothing makes a {artifact}");
    }
}
