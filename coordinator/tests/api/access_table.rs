//! Every call of the contract by every sort of caller, over a real server. The result is the table of `docs/access.md`, which therefore
//! cannot miss a call, and cannot say what is not so.

use std::{fs, path::Path};

use futures::stream;
use prost_types::{FileDescriptorSet, MethodDescriptorProto, field_descriptor_proto::Type};
use sortinghat_coordinator::auth::Role;
use sortinghat_proto::{DESCRIPTORS, limits::SESSION_SECRET_BYTES};
use tonic::{
    Code, Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};

use crate::{
    harness::{ByHand, token},
    secured::{Secured, certificate},
};

/// The name of the dataset of the tenant `a`, which no other tenant may see.
const DATASET: &str = "stamps-of-a";
const INTRODUCTION: &str = "# Who may call what

This page was made by calling every method of the contract with every sort of token and certificate. `UPDATE_DOCS=1 cargo nextest run --workspace -E
'test(access_table)'` makes it again, and the test fails when it is out of date. What the roles are for is in
[guide-team.md](guide-team.md); what they protect from is in [SECURITY.md](../SECURITY.md).

A call without a token, or with one that is malformed, unknown, expired or revoked, is refused with UNAUTHENTICATED, whatever it asks for.
So is one with a certificate of which the tokens file lists no name (`refused`); a certificate that has expired, or that nobody named by
`--client-ca` has made, does not even open a connection. The columns are about what belongs to one tenant, such as its jobs: `yes` is allowed, `no` is refused with PERMISSION_DENIED, `not found`
means that the caller is told the same as of something that does not exist, and `its own` means that the call is allowed and shows or does
nothing but what belongs to the caller's own tenant. Health and reflection are open to everybody. On a coordinator without a tokens file,
which serves on loopback only, everybody may call everything.
";

/// What a caller shows.
#[derive(Clone, Copy)]
enum Shown {
    Token(&'static str),
    /// A certificate with this name.
    Certificate(&'static str),
}

/// The callers about whom the page has a column, each with what it shows and the role that the column stands for.
const CALLERS: [(&str, Shown, Option<Role>); 8] = [
    ("certificate with an unknown SAN", Shown::Certificate("spiffe://lab/unknown"), None),
    ("a worker of other tenants", Shown::Token("worker-b"), None),
    ("a user of another tenant", Shown::Token("bob"), None),
    ("operator", Shown::Token("root"), Some(Role::Operator)),
    ("certificate of a known worker", Shown::Certificate("spiffe://lab/gpu-1"), Some(Role::Worker)),
    ("worker", Shown::Token("worker-a"), Some(Role::Worker)),
    ("admin", Shown::Token("chief"), Some(Role::Admin)),
    ("user", Shown::Token("alice"), Some(Role::User)),
];
/// The headers with which no call is allowed.
const INVALID: [(&str, Option<&str>); 5] = [
    ("none", None),
    ("malformed", Some("alice")),
    ("unknown", Some("Bearer guess")),
    ("expired", Some("Bearer old")),
    ("revoked", Some("Bearer stolen")),
];

/// Sends and receives messages as bytes.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = bytes::Buf::remaining(buffer);
        Ok(Some(bytes::Buf::copy_to_bytes(buffer, length).to_vec()))
    }
}

/// A method, and its message with everything filled in that names something of the tenant `a`.
struct Call {
    service: String,
    method: String,
    message: Vec<u8>,
}

/// What belongs to the tenant `a`.
struct Belongings {
    job: String,
    photo: String,
}

impl Belongings {
    /// What to put into a field of this name of this method's message.
    fn named(&self, field: &str, method: &str) -> Option<Vec<u8>> {
        let text = match field {
            "job_id" | "job_ids" | "parents" => self.job.clone(),
            "digest" | "digests" => self.photo.clone(),
            "name" if method.ends_with("Model") => format!("{DATASET}/1"),
            "name" => format!("{DATASET}@1"),
            "tenant" => "a".to_owned(),
            "session_secret" => return Some(vec![7; SESSION_SECRET_BYTES]),
            _ => return None,
        };
        Some(text.into_bytes())
    }
}

/// Every method of the contract, in its order, with the message for it.
fn calls(belongings: &Belongings) -> Vec<Call> {
    let files = <FileDescriptorSet as prost::Message>::decode(DESCRIPTORS).expect("valid").file;
    let files: Vec<_> = files.into_iter().filter(|file| file.package() == "sortinghat.v1").collect();
    let message = |method: &MethodDescriptorProto| -> Vec<u8> {
        let name = method.input_type().rsplit('.').next().expect("a name");
        let types = files.iter().flat_map(|file| &file.message_type);
        let fields = types.clone().find(|message| message.name() == name).expect("described").field.clone();
        let mut encoded = Vec::new();
        for field in fields {
            let tag = u8::try_from(field.number()).expect("few fields") << 3;
            match (field.r#type(), belongings.named(field.name(), method.name())) {
                (Type::String | Type::Bytes, Some(value)) => {
                    encoded.extend([tag | 2, u8::try_from(value.len()).expect("short")]);
                    encoded.extend(value);
                }
                (Type::Uint32, _) if field.name() == "free_slots" => encoded.extend([tag, 1]),
                _ => {}
            }
        }
        encoded
    };
    let services = files.iter().flat_map(|file| &file.service);
    let methods = services.flat_map(|service| service.method.iter().map(move |method| (service, method)));
    let call = |(service, method): (&prost_types::ServiceDescriptorProto, &MethodDescriptorProto)| Call {
        service: service.name().to_owned(),
        method: method.name().to_owned(),
        message: message(method),
    };
    methods.map(call).collect()
}

/// Makes a call, and returns the first message of the answer, or the code of the refusal.
async fn make(channel: &Channel, call: &Call, authorization: Option<&str>, worker: &str) -> Result<Vec<u8>, Code> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.expect("connected");
    let mut message = call.message.clone();
    if call.method == "Synchronize" {
        message.extend([1 << 3 | 2, u8::try_from(worker.len()).expect("short")]);
        message.extend(worker.as_bytes());
    }
    let mut request = Request::new(stream::iter([message]));
    if let Some(value) = authorization {
        request.metadata_mut().insert("authorization", value.parse().expect("plain text"));
    }
    let path = format!("/sortinghat.v1.{}/{}", call.service, call.method).parse().expect("a path");
    let mut answer = client.streaming(request, path, Raw).await.map_err(|status| status.code())?.into_inner();
    answer.message().await.map(Option::unwrap_or_default).map_err(|status| status.code())
}

fn mentions(answer: &[u8], text: &str) -> bool {
    answer.windows(text.len()).any(|window| window == text.as_bytes())
}

/// What the table says about a call by one of [`CALLERS`].
fn cell(answer: Result<Vec<u8>, Code>, belongings: &Belongings, is_insider: bool, call: &Call) -> &'static str {
    match answer {
        Err(Code::PermissionDenied) => "no",
        Err(Code::Unauthenticated) => "refused",
        _ if is_insider => "yes",
        Err(Code::NotFound) => "not found",
        Err(_) => "its own",
        Ok(answer) => {
            let leaks = mentions(&answer, &belongings.job) || mentions(&answer, DATASET);
            assert!(!leaks, "{} shows another tenant's", call.method);
            "its own"
        }
    }
}

/// A coordinator on which the tenant `a` has a dataset, a photo and a job that waits.
async fn coordinator() -> (Secured, Belongings) {
    let tokens = [
        token("alice", "role = 'user'\ntenant = 'a'"),
        token("chief", "role = 'admin'\ntenant = 'a'"),
        token("bob", "role = 'user'\ntenant = 'b'"),
        token("worker-a", "role = 'worker'\ntenants = ['a']"),
        token("worker-b", "role = 'worker'\ntenants = ['b', 'c']"),
        token("root", "role = 'operator'"),
        token("old", "role = 'user'\ntenant = 'a'\nexpires = '2026-01-01T00:00:00Z'"),
        token("stolen", "role = 'admin'\ntenant = 'a'\nrevoked = true"),
        certificate("gpu-1", "spiffe://lab/gpu-1"),
    ];
    let secured = Secured::start(&tokens.concat()).await;
    let mut alice = secured.client(None, Some("alice"));
    alice.submit_ingest(DATASET).await;
    let mut worker = ByHand::new(secured.client(None, Some("chief")));
    let lease = worker.take().await;
    worker.finish_dataset(&lease).await;
    let job = alice.submit_ingest(DATASET).await;
    let photo = alice.upload(b"photo").await.digest.to_string();
    (secured, Belongings { job, photo })
}

#[tokio::test]
async fn the_access_table_of_the_documentation_is_what_a_server_does() {
    let (secured, belongings) = coordinator().await;
    let channel = secured.endpoint(None).connect_lazy();
    let calls = calls(&belongings);
    for call in &calls {
        for (name, authorization) in INVALID {
            let refused = make(&channel, call, authorization, "nobody").await.expect_err(name);
            assert_eq!(refused, Code::Unauthenticated, "{} with a token that is {name}", call.method);
        }
    }
    for role in Role::OF_TOKENS {
        assert!(CALLERS.iter().any(|(_, _, shown)| *shown == Some(role)), "no column shows the role {role}");
    }
    let (mut columns, mut is_taken) = (Vec::new(), false);
    for (name, shown, role) in CALLERS {
        let (channel, authorization, worker) = match shown {
            Shown::Token(token) => (channel.clone(), Some(format!("Bearer {token}")), token),
            Shown::Certificate(san) => {
                let certificate = secured.authority.worker(&[san]);
                (secured.endpoint(Some(&certificate)).connect_lazy(), None, "certified")
            }
        };
        let mut column = Vec::new();
        for call in &calls {
            let answer = make(&channel, call, authorization.as_deref(), worker).await;
            let takes = role == Some(Role::Worker) && call.method == "Synchronize";
            if takes && !std::mem::replace(&mut is_taken, true) {
                let answer = answer.as_ref().expect("a worker may call");
                assert!(mentions(answer, &belongings.job), "the tenant's worker gets its job, which others did not");
            }
            column.push(cell(answer, &belongings, role.is_some(), call));
        }
        let is_unknown = name == "certificate with an unknown SAN";
        assert!(column.iter().all(|cell| (*cell == "refused") == is_unknown), "{name}: {column:?}");
        columns.push(column);
    }
    // The page shows the callers of the tenant first. They must call last, since they change what is there.
    columns.reverse();
    let names: Vec<&str> = CALLERS.iter().rev().map(|(name, ..)| *name).collect();
    let rows = calls.iter().enumerate().map(|(row, call)| {
        let cells: Vec<&str> = columns.iter().map(|column| column[row]).collect();
        format!("| `{}.{}` | {} |\n", call.service, call.method, cells.join(" | "))
    });
    let head = format!("| call | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    let page = format!("{INTRODUCTION}\n{head}{}", rows.collect::<String>());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/access.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &page).expect("the folder is writable");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/access.md is out of date: run with UPDATE_DOCS=1");
}
