//! Packs of objects, and objects that are joined from parts.

use futures::stream;
use sortinghat_proto::{
    Digest, ObjectRef, failure_of_status, limits,
    v1::{
        FindMissingObjectsRequest, JoinObjectsRequest, PackIndex, UploadObjectsRequest, upload_objects_request::Part,
    },
};
use tonic::{Code, Status};

use crate::harness::{Client, Coordinator, token};

/// The messages that upload `contents` in pieces of `piece_bytes`, under an index of `announced`.
fn pack(announced: &[ObjectRef], contents: &[&[u8]], piece_bytes: usize) -> Vec<UploadObjectsRequest> {
    let index = PackIndex { objects: announced.iter().cloned().map(Into::into).collect() };
    let contents = contents.concat();
    let pieces = contents.chunks(piece_bytes).map(|piece| Part::Data(piece.to_vec().into()));
    let parts = std::iter::once(Part::Index(index)).chain(pieces);
    parts.map(|part| UploadObjectsRequest { part: Some(part) }).collect()
}

fn references(contents: &[&[u8]]) -> Vec<ObjectRef> {
    contents.iter().map(|content| ObjectRef::of(content)).collect()
}

async fn upload(client: &mut Client, messages: Vec<UploadObjectsRequest>) -> Result<(), Status> {
    client.artifacts.upload_objects(stream::iter(messages)).await.map(drop)
}

async fn join(client: &mut Client, object: &ObjectRef, parts: &[ObjectRef]) -> Result<(), Status> {
    let parts = parts.iter().cloned().map(Into::into).collect();
    let request = JoinObjectsRequest { object: Some(object.clone().into()), parts };
    client.artifacts.join_objects(request).await.map(drop)
}

/// Requires that an answer is a refusal with this code, about this field.
fn assert_refused(answer: Result<(), Status>, code: Code, field: &str) {
    let status = answer.expect_err("must be refused");
    assert_eq!((status.code(), failure_of_status(&status).field.as_str()), (code, field), "{status:?}");
}

#[tokio::test]
async fn a_pack_stores_every_object_wherever_its_pieces_end() {
    let coordinator = Coordinator::start().await;
    let mut client = coordinator.client().await;
    let large: Vec<u8> = (0..300_000_usize).map(|index| (index % 251) as u8).collect();
    for (round, piece_bytes) in [1, 7, 1 << 20].into_iter().enumerate() {
        let first = format!("photo {round}");
        let large = &large[..if piece_bytes == 1 { 100 } else { large.len() - round }];
        let contents = [b"", first.as_bytes(), b"b", first.as_bytes(), large, b""];
        let index = references(&contents);
        upload(&mut client, pack(&index, &contents, piece_bytes)).await.expect("as announced");
        for (object, content) in index.iter().zip(contents) {
            assert_eq!(client.read(&object.digest).await.expect("stored").concat(), content);
        }
    }
}

#[tokio::test]
async fn an_object_of_a_pack_that_differs_from_its_announcement_is_not_stored() {
    let coordinator = Coordinator::start().await;
    let mut client = coordinator.client().await;
    let contents: [&[u8]; 3] = [b"first", b"secOnd", b"third"];
    let mut index = references(&contents);
    index[1].digest = Digest::of(b"second");
    let refused = upload(&mut client, pack(&index, &contents, 4)).await.expect_err("it differs");
    assert!(refused.code() == Code::InvalidArgument && refused.message().contains("digest"), "{refused:?}");
    for digest in [&index[1].digest, &Digest::of(b"secOnd"), &index[2].digest] {
        assert_eq!(client.read(digest).await.expect_err("never stored").code(), Code::NotFound);
    }
}

#[tokio::test]
async fn packs_that_break_the_protocol_are_each_refused_for_their_own_reason() {
    let coordinator = Coordinator::start().await;
    let mut client = coordinator.client().await;
    let contents: [&[u8]; 2] = [b"photo", b"picture"];
    let index = references(&contents);
    let huge = ObjectRef { size_bytes: u64::MAX, ..index[0].clone() };
    let many = vec![index[0].clone(); limits::MAX_PACKED_OBJECTS + 1];
    let piece = vec![0; limits::MAX_PIECE_BYTES + 1];
    let twice = [pack(&index, &contents, 9), pack(&index, &contents, 9)].concat();
    let mut nameless = pack(&index, &contents, 9);
    if let Some(Part::Index(index)) = &mut nameless[0].part {
        index.objects[1].digest.clear();
    }
    let mut hollow = pack(&index, &contents, 9);
    hollow.insert(1, UploadObjectsRequest { part: Some(Part::Data(Vec::new().into())) });
    let cases = [
        (hollow, "data"),
        (pack(&[huge.clone(), huge], &contents, 9), "index.objects"),
        (pack(&many, &contents, 9), "index.objects"),
        (pack(&[], &contents, 9), "index.objects"),
        (nameless, "index.objects[1]"),
        (pack(&index, &[b"photo", b"picture and more"], 9), "data"),
        (pack(&index, &[b"photo", b"pict"], 9), "data"),
        (pack(&references(&[&piece]), &[&piece], piece.len()), "data"),
        (pack(&index, &contents, 9)[1..].to_vec(), "index"),
        (twice, "index"),
        (vec![], "index"),
        (vec![UploadObjectsRequest { part: None }], "part"),
    ];
    for (messages, field) in cases {
        assert_refused(upload(&mut client, messages).await, Code::InvalidArgument, field);
    }
}

#[tokio::test]
async fn parts_become_the_object_that_they_are_announced_as_and_nothing_else() {
    let coordinator = Coordinator::start().await;
    let mut client = coordinator.client().await;
    let content: Vec<u8> = (0..(17_usize << 20) + 3).map(|index| (index % 251) as u8).collect();
    let object = ObjectRef::of(&content);
    let mut parts = Vec::new();
    for part in content.chunks(8 << 20) {
        parts.push(client.upload(part).await);
    }
    let mut turned = parts.clone();
    turned.swap(0, 1);
    assert_refused(join(&mut client, &object, &turned).await, Code::InvalidArgument, "data");
    assert_refused(join(&mut client, &object, &parts[1..]).await, Code::InvalidArgument, "parts");
    assert_refused(join(&mut client, &object, &[]).await, Code::InvalidArgument, "parts");
    let mut missing = parts.clone();
    missing[1].digest = Digest::of(b"missing");
    assert_eq!(join(&mut client, &object, &missing).await.expect_err("a part is missing").code(), Code::NotFound);
    assert_eq!(client.read(&object.digest).await.expect_err("never stored").code(), Code::NotFound);
    for _ in 0..2 {
        join(&mut client, &object, &parts).await.expect("they are its parts");
        assert_eq!(client.read(&object.digest).await.expect("stored").concat(), content);
    }
    let twice = ObjectRef::of(&[parts_of(&content), parts_of(&content)].concat());
    let half = client.upload(parts_of(&content)).await;
    join(&mut client, &twice, &[half.clone(), half.clone()]).await.expect("a part may be there twice");
    let times = limits::MAX_EQUAL_PARTS + 1;
    let often = ObjectRef::of(&parts_of(&content).repeat(times));
    assert_refused(join(&mut client, &often, &vec![half; times]).await, Code::InvalidArgument, "parts");
}

fn parts_of(content: &[u8]) -> &[u8] {
    &content[..1000]
}

#[tokio::test]
async fn a_tenant_cannot_join_or_find_what_another_tenant_has_packed() {
    let tokens = ["a", "b"].map(|name| token(name, &format!("role = 'user'\ntenant = '{name}'")));
    let coordinator = Coordinator::start_with_tokens(&tokens.concat()).await;
    let (mut owner, mut other) = (coordinator.client_with("a").await, coordinator.client_with("b").await);
    let contents: [&[u8]; 2] = [b"his ", b"photo"];
    let (whole, parts) = (ObjectRef::of(&contents.concat()), references(&contents));
    upload(&mut owner, pack(&parts, &contents, 9)).await.expect("accepted");
    assert_eq!(join(&mut other, &whole, &parts).await.expect_err("not his").code(), Code::NotFound);
    join(&mut owner, &whole, &parts).await.expect("his own");
    let request = FindMissingObjectsRequest { digests: vec![whole.digest.to_string()] };
    let missing = other.artifacts.find_missing_objects(request).await.expect("allowed").into_inner().missing;
    assert_eq!(missing, [whole.digest.to_string()]);
}
