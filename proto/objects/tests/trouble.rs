//! What the answers of servers mean, told by servers on loopback that answer as S3 does.

use std::time::Duration;

use sortinghat_objects::{Environment, Opened, Patience, Trouble, is_missing, open};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

const PATIENCE: Patience = Patience { request: Duration::from_secs(2), retries: 0, retry_for: Duration::from_secs(2) };

/// The store `s3://photos/team` with these variables.
fn store(variables: &[(&str, &str)]) -> Opened {
    let url = "s3://photos/team".parse().expect("a URL");
    open(&url, PATIENCE, &Environment::of(variables.iter().copied())).expect("nothing is asked yet")
}

/// The same on a server that gives every request this answer.
async fn store_that_answers(status: &str, body: &str) -> Opened {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("it listens"));
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                let read = connection.read(&mut buffer).await.unwrap_or(0);
                if read == 0 {
                    break;
                }
                request.extend_from_slice(&buffer[..read]);
            }
            // A caller that has gone away needs no answer.
            let _ = connection.write_all(answer.as_bytes()).await;
        }
    });
    let keys = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "s3cret")];
    store(&[keys[0], keys[1], ("AWS_ENDPOINT_URL_S3", &endpoint)])
}

fn document(code: &str, message: &str) -> String {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>")
}

#[tokio::test]
async fn a_store_that_refuses_is_told_from_one_that_does_not_answer() {
    let cases = [
        ("403 Forbidden", document("SignatureDoesNotMatch", "The signature does not match."), Trouble::Denied),
        ("403 Forbidden", document("AccessDenied", "Access Denied"), Trouble::Denied),
        ("403 Forbidden", String::new(), Trouble::Denied),
        ("401 Unauthorized", String::new(), Trouble::Denied),
        ("404 Not Found", document("NoSuchBucket", "The bucket does not exist"), Trouble::NoBucket),
        ("400 Bad Request", document("AuthorizationHeaderMalformed", "expecting 'eu-west-3'"), Trouble::WrongRegion),
        ("301 Moved Permanently", document("PermanentRedirect", "Use another endpoint."), Trouble::WrongRegion),
        ("507 Insufficient Storage", document("XMinioStorageFull", "No room."), Trouble::Full),
        ("503 Slow Down", document("SlowDown", "Please reduce your request rate."), Trouble::Unavailable),
    ];
    for (status, body, expected) in cases {
        let error = store_that_answers(status, &body).await.queue_id().await.expect_err(status);
        assert_eq!(Trouble::of(&error), expected, "{status} {body}: {error}");
        assert!(!is_missing(&error), "{status}: no object is lost");
        let is_permanent = !matches!(expected, Trouble::Full | Trouble::Unavailable);
        assert_eq!(expected.is_permanent(), is_permanent);
    }
}

#[tokio::test]
async fn operators_are_told_the_request_and_the_code_and_others_are_not() {
    let body = document("SignatureDoesNotMatch", "The signature does not match.");
    let error = store_that_answers("403 Forbidden", &body).await.queue_id().await.expect_err("refused");
    let detail = Trouble::in_detail(&error);
    for told in ["GET http://127.0.0.1:", "/photos/team/queue-id", "403", "SignatureDoesNotMatch", "check the keys"] {
        assert!(detail.contains(told), "{told} in {detail}");
    }
    let words = Trouble::of(&error).in_words();
    assert!(!words.contains("127.0.0.1") && !words.contains("403"), "{words}");
    assert!(!detail.contains("s3cret"), "{detail}");
}

#[tokio::test]
async fn a_key_that_does_not_exist_is_missing_and_no_trouble() {
    let body = document("NoSuchKey", "The specified key does not exist.");
    assert_eq!(store_that_answers("404 Not Found", &body).await.queue_id().await.expect("answered"), None);
}

#[tokio::test]
async fn without_any_credentials_that_is_what_is_told() {
    // Nothing listens where the credentials of a machine in the cloud would be.
    let nowhere = [("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1"), ("AWS_ENDPOINT_URL", "http://127.0.0.1:1")];
    let error = store(&nowhere).queue_id().await.expect_err("there are none");
    assert_eq!(Trouble::of(&error), Trouble::NoCredentials, "{error}");
    assert!(Trouble::in_detail(&error).contains("AWS_ACCESS_KEY_ID"), "{}", Trouble::in_detail(&error));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let keys = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "s3cret")];
    let error = store(&[keys[0], keys[1], ("AWS_ENDPOINT_URL", "http://127.0.0.1:1")]).queue_id().await;
    assert_eq!(Trouble::of(&error.expect_err("nothing listens")), Trouble::Unavailable);
}
