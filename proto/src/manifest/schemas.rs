//! `docs/schemas` has a JSON Schema for each document. They are made of the types, and a test compares them with the files.

use std::{borrow::Cow, fs, path::Path};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema, schema_for};
use serde_json::{Value, json};

use super::{
    AuditManifest, DatasetManifest, Decisions, Document, EvaluationManifest, ModelManifest, PhotoSource,
    PredictionsManifest, Rejection, UploadManifest, UrlList,
};
use crate::{Digest, limits::MAX_MATRIX_CLASSES};

impl JsonSchema for Digest {
    fn schema_name() -> Cow<'static, str> {
        "Digest".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9a-f]{64}$",
            "description": "The SHA-256 of an object's content: 64 lower-case hexadecimal digits."
        })
    }
}

/// The schema of a document as it is stored: with its format.
fn document<T: Document + JsonSchema>() -> (&'static str, Value) {
    let mut schema = schema_for!(T).to_value();
    schema["title"] = T::FORMAT.into();
    schema["properties"]["format"] = json!({ "const": T::FORMAT, "description": "The format and its version." });
    let required = schema["required"].as_array_mut().expect("each document has fields that it needs");
    required.insert(0, "format".into());
    let name = T::FORMAT.trim_start_matches("sortinghat.").trim_end_matches("/1");
    (name, schema)
}

/// Turns comments for readers of Rust, which became descriptions, into texts for readers of JSON.
fn reword(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(text)) = fields.get_mut("description") {
                *text = text
                    .replace("[`crate::limits::MAX_MATRIX_CLASSES`]", &MAX_MATRIX_CLASSES.to_string())
                    .replace(['\n'], " ")
                    .replace("[`", "`")
                    .replace("`]", "`")
                    .replace("`None`", "null");
            }
            fields.values_mut().for_each(reword);
        }
        Value::Array(items) => items.iter_mut().for_each(reword),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_schemas_of_all_documents_are_those_of_the_types() {
    let schemas = [
        document::<UploadManifest>(),
        document::<DatasetManifest>(),
        document::<ModelManifest>(),
        document::<EvaluationManifest>(),
        document::<PredictionsManifest>(),
        document::<AuditManifest>(),
        document::<Decisions>(),
        document::<UrlList>(),
        ("rejection", schema_for!(Rejection).to_value()),
        ("photo-source", schema_for!(PhotoSource).to_value()),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas");
    let mut outdated = Vec::new();
    for (name, mut schema) in schemas {
        reword(&mut schema);
        let expected = serde_json::to_string_pretty(&schema).expect("JSON") + "\n";
        let file = folder.join(format!("{name}.json"));
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::create_dir_all(&folder).and_then(|()| fs::write(&file, &expected)).expect("the docs are writable");
        }
        if fs::read_to_string(&file).unwrap_or_default() != expected {
            outdated.push(name);
        }
    }
    let advice = "UPDATE_DOCS=1 cargo nextest run -p sortinghat-proto schemas";
    assert!(outdated.is_empty(), "{outdated:?} in docs/schemas are out of date: {advice}");
}
