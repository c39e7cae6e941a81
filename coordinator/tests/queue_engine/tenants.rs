//! Tenants are separate: no tenant sees an id, an object or a count of another tenant.

use sortinghat_coordinator::engine::Submission;
use sortinghat_proto::{
    Refusal, Tenant,
    v1::{self, ErrorCode},
};

use crate::world::{Worker, World, evaluate, finetune, ingest, request, success};

#[tokio::test]
async fn jobs_and_datasets_of_one_tenant_do_not_exist_for_another_tenant() {
    let world = World::new().await;
    let other: Tenant = "other".parse().expect("a tenant");
    let dataset = world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    worker.end(&world.engine, success(b"m")).await;
    let engine = &world.engine;

    let unseen = [
        engine.get(&other, &dataset).await.err(),
        engine.cancel(&other, &dataset).await.err(),
        engine.watch(&other, &dataset, 0).await.err(),
        engine.get_dataset(&other, "stamps@1").await.err(),
        engine.delete_dataset(&other, "stamps@1").await.err(),
    ];
    for refusal in unseen {
        assert_eq!(refusal.expect("refused").code(), ErrorCode::NotFound);
    }
    for kind in [finetune("stamps"), finetune(&format!("job:{dataset}")), evaluate(&format!("job:{dataset}"))] {
        let submission = Submission::try_from(request(kind)).expect("well formed");
        assert_eq!(engine.submit(&other, submission).await.expect_err("refused").code(), ErrorCode::NotFound);
    }
    let child = v1::SubmitJobRequest { parents: vec![dataset.to_string()], ..request(ingest()) };
    let refused = engine.submit(&other, child.try_into().expect("well formed")).await.expect_err("refused");
    let refusal = Refusal::from(refused);
    assert_eq!((refusal.code, refusal.field.as_str()), (ErrorCode::NotFound, "parents"));
    assert!(engine.list(&other, v1::ListJobsRequest::default()).await.expect("a page").jobs.is_empty());
    let datasets = engine.list_datasets(&other, v1::ListDatasetsRequest::default()).await.expect("a page");
    assert!(datasets.datasets.is_empty());
}

#[tokio::test]
async fn each_tenant_has_its_own_names_versions_and_idempotency_keys() {
    let world = World::new().await;
    let mut worker = Worker::new("w1", 1);
    let keyed = v1::SubmitJobRequest { idempotency_key: "same".into(), ..request(ingest()) };
    let mut ids = std::collections::BTreeSet::new();
    for name in ["one", "two"] {
        let tenant: Tenant = name.parse().expect("a tenant");
        let submission = Submission::try_from(keyed.clone()).expect("well formed");
        let accepted = world.engine.submit(&tenant, submission).await.expect("accepted");
        assert!(!accepted.existed);
        ids.insert(accepted.job.expect("a job").id);
        assert_eq!(worker.start(&world.engine).await.tenant, name);
        worker.end(&world.engine, success(b"m")).await;
        let dataset = world.engine.get_dataset(&tenant, "stamps").await.expect("committed");
        assert_eq!(dataset.name, "stamps@1", "each tenant has its own versions");
    }
    assert_eq!(ids.len(), 2);
}
