use std::time::Duration;

use futures::stream;
use sortinghat_proto::{
    Digest, ObjectRef, failure_of_status, limits,
    v1::{
        DeleteDatasetRequest, FindMissingObjectsRequest, GetDatasetRequest, ListDatasetsRequest, UploadObjectRequest,
    },
};
use tonic::{Code, Status};

use crate::harness::{ByHand, Client, Coordinator, collecting, upload_messages};

async fn refused(client: &mut Client, messages: Vec<UploadObjectRequest>) -> Status {
    client.artifacts.upload_object(stream::iter(messages)).await.expect_err("must be refused")
}

/// Bytes that do not repeat at any power of two.
fn content(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index % 251) as u8).collect()
}

#[tokio::test]
async fn an_uploaded_object_reads_back_in_pieces_and_may_be_uploaded_again() {
    let coordinator = Coordinator::start().await;
    let mut client = coordinator.client().await;
    for len in [0, 1, (3 << 20) + 7, (17 << 20) + 1] {
        let content = content(len);
        let object = client.upload(&content).await;
        client.upload(&content).await;
        let pieces = client.read(&object.digest).await.expect("stored");
        assert!(pieces.iter().all(|piece| piece.len() <= limits::MAX_PIECE_BYTES));
        assert_eq!(pieces.concat(), content);
    }
}

#[tokio::test]
async fn content_that_differs_from_its_header_is_refused_and_stays_missing() {
    let coordinator = Coordinator::start().await;
    let mut client = coordinator.client().await;
    let content = content(2 << 20);
    let announced = ObjectRef { digest: Digest::of(b"other"), size_bytes: content.len() as u64 };
    let status = refused(&mut client, upload_messages(announced.clone(), &content, 1 << 20)).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("digest"), "{}", status.message());
    let status = client.read(&announced.digest).await.expect_err("nothing was stored");
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn uploads_that_break_the_protocol_are_each_refused_for_their_own_reason() {
    let coordinator = Coordinator::start().await;
    let mut client = coordinator.client().await;
    let small = ObjectRef::of(b"photo");
    let huge = ObjectRef { size_bytes: limits::MAX_OBJECT_BYTES + 1, ..small.clone() };
    let large_piece = content(limits::MAX_PIECE_BYTES + 1);
    let twice = [upload_messages(small.clone(), b"", 1), upload_messages(small.clone(), b"photo", 5)].concat();
    let cases = [
        (upload_messages(huge, b"photo", 5), "header.size_bytes"),
        (upload_messages(small.clone(), b"photo and more", 5), "data"),
        (upload_messages(ObjectRef::of(&large_piece), &large_piece, large_piece.len()), "data"),
        (upload_messages(small.clone(), b"photo", 5)[1..].to_vec(), "header"),
        (twice, "header"),
        (vec![], "header"),
        (vec![UploadObjectRequest { part: None }], "part"),
    ];
    for (messages, field) in cases {
        let status = refused(&mut client, messages).await;
        assert_eq!((status.code(), failure_of_status(&status).field.as_str()), (Code::InvalidArgument, field));
    }
}

#[tokio::test]
async fn only_objects_that_were_not_uploaded_are_missing() {
    let coordinator = Coordinator::start().await;
    let mut client = coordinator.client().await;
    let stored = client.upload(b"photo").await.digest.to_string();
    let absent = Digest::of(b"absent").to_string();
    let request = FindMissingObjectsRequest { digests: vec![stored, absent.clone()] };
    let response = client.artifacts.find_missing_objects(request).await.expect("allowed").into_inner();
    assert_eq!(response.missing, std::slice::from_ref(&absent));

    for digests in [vec![absent; 1001], vec!["nonsense".to_owned()]] {
        let request = FindMissingObjectsRequest { digests };
        let status = client.artifacts.find_missing_objects(request).await.expect_err("must be refused");
        assert_eq!(status.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn a_dataset_has_a_name_from_the_end_of_its_job_until_the_name_is_deleted() {
    let coordinator = Coordinator::start().await;
    let mut client = coordinator.client().await;
    client.submit_ingest("stamps").await;
    let mut worker = ByHand::new(coordinator.client().await);
    let lease = worker.take().await;
    worker.finish(&lease).await;

    let listed = client.artifacts.list_datasets(ListDatasetsRequest::default()).await.expect("allowed").into_inner();
    assert_eq!(listed.datasets.iter().map(|dataset| dataset.name.as_str()).collect::<Vec<_>>(), ["stamps@1"]);
    let newest = GetDatasetRequest { name: "stamps".to_owned() };
    let dataset = client.artifacts.get_dataset(newest.clone()).await.expect("it exists").into_inner().dataset;
    assert_eq!(dataset.expect("a dataset").name, "stamps@1");

    let delete = DeleteDatasetRequest { name: "stamps@1".to_owned() };
    client.artifacts.delete_dataset(delete).await.expect("it exists");
    let status = client.artifacts.get_dataset(newest).await.expect_err("its name is gone");
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn an_object_that_nothing_refers_to_is_removed_after_the_grace_and_may_be_uploaded_again() {
    let coordinator = Coordinator::start_with(collecting()).await;
    let mut client = coordinator.client().await;
    client.submit_ingest("stamps").await;
    let mut worker = ByHand::new(coordinator.client().await);
    let lease = worker.take().await;
    let shard = worker.finish_dataset(&lease).await;
    let stray = client.upload(b"stray").await;
    client.await_removal(&stray.digest).await;
    let photo = ObjectRef::of(b"photo").digest;
    for digest in [&photo, &shard] {
        client.read(digest).await.expect("the dataset needs it");
    }

    let delete = DeleteDatasetRequest { name: "stamps@1".to_owned() };
    client.artifacts.delete_dataset(delete).await.expect("it exists");
    client.await_removal(&photo).await;
    client.await_removal(&shard).await;
    let request = FindMissingObjectsRequest { digests: vec![photo.to_string()] };
    let response = client.artifacts.find_missing_objects(request).await.expect("allowed").into_inner();
    assert_eq!(response.missing, [photo.to_string()]);
    // The object is removed before the removal is recorded. Until then, an upload is asked to try again.
    while let Err(refusal) = client.try_upload(b"photo").await {
        assert!(refusal.code() == Code::Unavailable && refusal.message().contains("try again"), "{refusal:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    client.read(&photo).await.expect("the object exists again");
}
