//! Messages as JSON for programs, read from the descriptors, so that a new field or a new kind of job needs no code here.
//!
//! Every field has its name from the .proto file. A field that is not set is `null`, if the contract tells it apart from the default
//! value. Enums are lower-case words without the prefix of their type: `JOB_STATE_QUEUED` is "queued". Where the value 0 stands for a
//! choice, it is the word for that choice: `PRECISION_UNSPECIFIED` is "auto". Numbers are numbers, also those of 64 bits. So this is not
//! the JSON mapping of protobuf.

use std::sync::LazyLock;

use prost::Name;
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, Kind, MapKey, ReflectMessage as _, Value as Field,
};
use serde_json::{Map, Value};

use crate::DESCRIPTORS;

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).expect("the build has checked the descriptors"));

/// `message` as a JSON object with all of its fields.
pub fn object<M: Name>(message: &M) -> Value {
    let descriptor = POOL.get_message_by_name(&M::full_name()).expect("every generated message has a descriptor");
    let message = DynamicMessage::decode(descriptor, &*message.encode_to_vec());
    fields(&message.expect("a message that was just encoded can be decoded"))
}

fn fields(message: &DynamicMessage) -> Value {
    let descriptor = message.descriptor();
    let fields = descriptor.fields().map(|field| {
        let is_unset = field.supports_presence() && !message.has_field(&field);
        let shown = if is_unset { Value::Null } else { value(&message.get_field(&field), &field.kind()) };
        (field.name().to_owned(), shown)
    });
    Value::Object(fields.collect())
}

fn value(field: &Field, kind: &Kind) -> Value {
    match field {
        Field::Bool(truth) => (*truth).into(),
        Field::I32(number) => (*number).into(),
        Field::I64(number) => (*number).into(),
        Field::U32(number) => (*number).into(),
        Field::U64(number) => (*number).into(),
        Field::F32(number) => (*number).into(),
        Field::F64(number) => (*number).into(),
        Field::String(text) => text.as_str().into(),
        Field::Bytes(bytes) => hex::encode(bytes).into(),
        Field::EnumNumber(number) => kind.as_enum().map_or(Value::Null, |of| word(of, *number).into()),
        Field::Message(message) => fields(message),
        Field::List(items) => items.iter().map(|item| value(item, kind)).collect(),
        Field::Map(entries) => {
            let kind = kind.as_message().map(|entry| entry.map_entry_value_field().kind());
            let entries =
                entries.iter().map(|(key, item)| (key_text(key), kind.as_ref().map(|kind| value(item, kind))));
            Value::Object(entries.map(|(key, item)| (key, item.unwrap_or_default())).collect::<Map<_, _>>())
        }
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(truth) => truth.to_string(),
        MapKey::I32(number) => number.to_string(),
        MapKey::I64(number) => number.to_string(),
        MapKey::U32(number) => number.to_string(),
        MapKey::U64(number) => number.to_string(),
        MapKey::String(text) => text.clone(),
    }
}

/// What the value 0 of an enum stands for, where the contract says that it stands for a choice.
const DEFAULTS: [(&str, &str); 5] = [
    ("sortinghat.v1.FolderLayout", "auto"),
    ("sortinghat.v1.Precision", "auto"),
    ("sortinghat.v1.TtaRecipe", "none"),
    ("sortinghat.v1.TrainingCrop", "resize"),
    ("sortinghat.v1.Lane", "bulk"),
];

/// The word for a value of an enum. A number that this software does not know reads as "unspecified".
fn word(of: &EnumDescriptor, number: i32) -> String {
    let unspecified = of.default_value();
    if number == unspecified.number()
        && let Some((_, meant)) = DEFAULTS.iter().find(|(name, _)| *name == of.full_name())
    {
        return (*meant).to_owned();
    }
    let prefix = unspecified.name().trim_end_matches("UNSPECIFIED");
    let known = of.get_value(number).unwrap_or_else(|| unspecified.clone());
    known.name().trim_start_matches(prefix).to_lowercase()
}
