//! What an error of a store means.

use std::{error::Error, io, iter};

/// What is wrong with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The store refuses the credentials, or they may not do this.
    Denied,
    /// There is no such bucket.
    NoBucket,
    /// There are no credentials.
    NoCredentials,
    /// The bucket lies in another region.
    WrongRegion,
    /// There is no room in the store.
    Full,
    /// The store does not answer, or not as it should. Another try may help.
    Unavailable,
}

impl Trouble {
    /// What is wrong with a store that returned this error.
    pub fn of(error: &object_store::Error) -> Self {
        let answer = Answer::of(error);
        if let Some(trouble) = answer.code.as_deref().and_then(of_code) {
            return trouble;
        }
        if let Some(trouble) = chain(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).find_map(of_io) {
            return trouble;
        }
        match (error, answer.status) {
            // Without any other source of credentials, those of the machine in the cloud are asked for, at this address.
            _ if answer.text.contains("169.254.169.254") || answer.text.contains("/latest/api/token") => {
                Self::NoCredentials
            }
            (object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. }, _) => {
                Self::Denied
            }
            _ if answer.text.contains("incorrectly configured region") => Self::WrongRegion,
            (_, Some(507)) => Self::Full,
            _ => Self::Unavailable,
        }
    }

    /// Whether another try does not help before somebody has changed something.
    pub fn is_permanent(self) -> bool {
        match self {
            Self::Denied | Self::NoBucket | Self::NoCredentials | Self::WrongRegion => true,
            Self::Full | Self::Unavailable => false,
        }
    }

    /// What is wrong, for everybody: without addresses, codes and credentials.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Denied => "the object store refuses access",
            Self::NoBucket => "the bucket of the object store does not exist",
            Self::NoCredentials => "no credentials for the object store were found",
            Self::WrongRegion => "the object store is asked in the wrong region",
            Self::Full => "the object store is full",
            Self::Unavailable => "the object store does not answer as it should",
        }
    }

    /// What an operator can do about it.
    fn advice(self) -> &'static str {
        match self {
            Self::Denied => {
                "check the keys, what they may do (read, write and remove below the prefix) and this machine's clock; of a folder, who may \
                 write into it, and that its disk is not read-only"
            }
            Self::NoBucket => "create the bucket, or name another with --object-store",
            Self::NoCredentials => {
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws with AWS_PROFILE"
            }
            Self::WrongRegion => "set AWS_REGION to the region of the bucket",
            Self::Full => "make room",
            Self::Unavailable => "it is tried again",
        }
    }

    /// What is wrong, for operators: with what was asked of whom, the code of the answer, and what to do.
    pub fn in_detail(error: &object_store::Error) -> String {
        let trouble = Self::of(error);
        format!("{} ({}): {}", trouble.in_words(), Answer::of(error).summary(), trouble.advice())
    }
}

/// What was asked of whom and the status and the code of the answer, for operators. Nothing else of the answer: a server may repeat in it
/// what it was asked with, and so a token.
pub fn in_short(error: &object_store::Error) -> String {
    Answer { message: None, ..Answer::of(error) }.summary()
}

/// Whether the error says that there is no such object. A bucket that does not exist has lost no object.
pub fn is_missing(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. }) && Trouble::of(error) != Trouble::NoBucket
}

fn of_code(code: &str) -> Option<Trouble> {
    Some(match code {
        "AccessDenied"
        | "AllAccessDisabled"
        | "SignatureDoesNotMatch"
        | "InvalidAccessKeyId"
        | "ExpiredToken"
        | "InvalidToken"
        | "AccountProblem"
        | "RequestTimeTooSkewed" => Trouble::Denied,
        "NoSuchBucket" => Trouble::NoBucket,
        "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException" => {
            Trouble::WrongRegion
        }
        "QuotaExceeded" | "XMinioStorageFull" | "InsufficientStorage" => Trouble::Full,
        _ => return None,
    })
}

fn of_io(error: &io::Error) -> Option<Trouble> {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(Trouble::Full),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Some(Trouble::Denied),
        _ => None,
    }
}

fn chain(error: &object_store::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let first: &(dyn Error + 'static) = error;
    iter::successors(Some(first), |&error| error.source())
}

/// What a store has answered. Its errors are not public in the library, so their text is read.
struct Answer {
    text: String,
    /// What was asked, such as `PUT http://127.0.0.1:9000/photos/queue-id`.
    request: Option<String>,
    status: Option<u16>,
    /// The code in the document of an error, such as `NoSuchBucket`.
    code: Option<String>,
    message: Option<String>,
}

impl Answer {
    fn of(error: &object_store::Error) -> Self {
        let text = error.to_string();
        let between = |start: &str, end: &str| Some(text.split_once(start)?.1.split_once(end)?.0.to_owned());
        let status = text.split_once("status code: ").and_then(|(_, rest)| rest.get(..3)?.parse().ok());
        let (code, message) = (between("<Code>", "</Code>"), between("<Message>", "</Message>"));
        let request = between("Error performing ", " in ");
        Self { request, status, code, message, text }
    }

    /// "GET http://127.0.0.1:9000/photos/queue-id: 403 AccessDenied: Access Denied", or the whole text if the store has not answered.
    fn summary(&self) -> String {
        let Some(status) = self.status else { return self.text.lines().next().unwrap_or_default().to_owned() };
        let answer = [Some(status.to_string()), self.code.clone()].into_iter().flatten().collect::<Vec<_>>().join(" ");
        [self.request.clone(), Some(answer), self.message.clone()].into_iter().flatten().collect::<Vec<_>>().join(": ")
    }
}
