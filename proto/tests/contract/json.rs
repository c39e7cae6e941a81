//! Messages as JSON for programs.

use proptest::prelude::*;
use serde_json::json;
use sortinghat_proto::{
    json,
    v1::{self, job_spec::Kind},
};

use crate::{config, strategies};

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_spec_of_any_kind_has_an_object_under_its_kind_and_null_under_the_others(spec in strategies::any_spec()) {
        let shown = json::object(&v1::JobSpec::from(spec.clone()));
        for (kind, shown) in shown.as_object().expect("an object") {
            prop_assert_eq!(shown.is_object(), kind.as_str() == spec.kind().as_str());
        }
    }
}

#[test]
fn every_field_has_its_name_of_the_contract_and_null_where_it_is_not_set() {
    let dataset = v1::EvaluateSpec {
        model: "stamps/1".into(),
        on: Some(v1::evaluate_spec::On::Dataset("stamps@1".into())),
        tta: v1::TtaRecipe::Fastai07.into(),
        seed: u64::MAX,
        ..Default::default()
    };
    let expected = json!({
        "model": "stamps/1", "dataset": "stamps@1", "source": null, "tta": "fastai07", "tta_passes": 0,
        "seed": u64::MAX, "decisions": null, "precision": "auto",
    });
    assert_eq!(json::object(&v1::JobSpec { kind: Some(Kind::Evaluate(dataset)) })["evaluate"], expected);
    let finetune = v1::FinetuneSpec { freeze_epochs: Some(0), base_lr: 0.002, ..Default::default() };
    let shown = json::object(&finetune);
    assert_eq!((&shown["freeze_epochs"], &shown["fold"], &shown["base_lr"]), (&json!(0), &json!(null), &json!(0.002)));
    assert_eq!(json::object(&v1::Keepalive {}), json!({}));
}

#[test]
fn the_value_0_of_an_enum_is_the_word_for_what_it_stands_for_and_an_unknown_number_is_not() {
    let finetune = |number| json::object(&v1::FinetuneSpec { precision: number, ..Default::default() });
    assert_eq!((&finetune(0)["precision"], &finetune(0)["crop"]), (&json!("auto"), &json!("resize")));
    assert_eq!(finetune(99)["precision"], "unspecified");
    assert_eq!(json::object(&v1::ClassifySpec::default())["tta"], "none");
    assert_eq!(json::object(&v1::Job::default())["lane"], "bulk");
}

#[test]
fn lists_maps_enums_and_messages_inside_are_shown_as_what_they_are() {
    let labels = [("zone".to_owned(), "eu".to_owned())].into();
    let job = v1::Job {
        state: v1::JobState::Queued.into(),
        parents: vec!["01".into()],
        priority: -3,
        requirements: Some(v1::Requirements { labels, ..Default::default() }),
        attempts: vec![v1::Attempt { outcome: v1::AttemptOutcome::Lost.into(), ..Default::default() }],
        created_unix_ms: i64::MAX,
        ..Default::default()
    };
    let shown = json::object(&job);
    assert_eq!(
        (&shown["state"], &shown["parents"], &shown["priority"]),
        (&json!("queued"), &json!(["01"]), &json!(-3))
    );
    assert_eq!(shown["requirements"]["labels"], json!({ "zone": "eu" }));
    assert_eq!(shown["attempts"][0]["outcome"], "lost");
    assert_eq!((&shown["created_unix_ms"], &shown["failure"]), (&json!(i64::MAX), &json!(null)));
    let newer = v1::Job { state: 99, ..Default::default() };
    assert_eq!(json::object(&newer)["state"], "unspecified");
    let piece = v1::ReadObjectResponse { data: vec![1, 255].into() };
    assert_eq!(json::object(&piece), json!({ "data": "01ff" }));
}
