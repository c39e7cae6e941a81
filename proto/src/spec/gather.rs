//! The spec of a gathering.

use std::{collections::BTreeSet, str::FromStr};

use super::{
    check::{at, in_range, or_default, required_object},
    ingest::{Split, split, split_to_wire},
};
use crate::{
    DatasetRef, Digest, ModelRef, Name, ObjectRef, Refusal,
    kinds::{Spec, WireSpec},
    limits, v1, words,
};

/// Who is asked for photos if nobody says.
const DEFAULT_PROVIDER: &str = "openverse";

/// Finds photos on the web, fetches them, and makes a dataset of them as an ingest does.
#[derive(Debug, Clone, PartialEq)]
pub struct GatherSpec {
    /// The dataset's name without a version.
    pub dataset_name: Name,
    /// Where the photos are found.
    pub from: GatherFrom,
    /// Fetch over http as well.
    pub allow_http: bool,
    /// A dataset whose photos are kept and added to.
    pub dataset: Option<DatasetRef>,
    /// How photos are held out.
    pub split: Split,
    /// Seed of the split.
    pub seed: u64,
    /// Continue even if over half of the photos cannot be decoded.
    pub allow_failures: bool,
    /// Short side of the lossless derivative in pixels, 64 to 4096. A smaller photo is not enlarged.
    pub derivative_short_side_px: u32,
}

/// Where photos are found.
#[derive(Debug, Clone, PartialEq)]
pub enum GatherFrom {
    /// By a provider.
    Search(Search),
    /// At the URLs that this document lists.
    Urls(ObjectRef),
}

/// What a provider is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    /// The classes, each of which is searched for.
    pub classes: Vec<GatherClass>,
    /// The name of the provider.
    pub provider: Name,
    /// Which photos are asked for.
    pub licence: Licence,
    /// How many photos each class shall have, 1 to 1000.
    pub per_class: u32,
}

/// A class and what is searched for to find photos of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatherClass {
    /// The name of the class, which can be the name of a folder.
    pub name: String,
    /// The words that are searched for.
    pub query: String,
}

/// Which photos are asked for, by what their licence allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Licence {
    /// All that the provider has.
    Any,
    /// Those that may be changed and used commercially.
    Free,
    /// Those that ask for no more than that the author is named.
    By,
}

impl Licence {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Any, Self::Free, Self::By];

    /// The word for it in commands.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Free => "free",
            Self::By => "by",
        }
    }
}

impl FromStr for Licence {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        Self::ALL.into_iter().find(|licence| licence.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str);
            Refusal::invalid("licence", format!("{} is not one of {}", words::quoted(text), words::any_of(&known)))
        })
    }
}

impl GatherClass {
    /// A class, if its name can be that of a folder and its query can be asked for.
    ///
    /// # Errors
    /// [`Refusal`] that says what is wrong.
    pub fn new(name: &str, query: &str) -> Result<Self, Refusal> {
        let (name, query) = (name.trim(), if query.trim().is_empty() { name.trim() } else { query.trim() });
        class_name_fault(name).map_or(Ok(()), |why| {
            Err(Refusal::invalid("class", format!("the class {} cannot be used: its name {why}", words::quoted(name))))
        })?;
        if query.len() > limits::MAX_QUERY_BYTES || query.chars().any(char::is_control) {
            let message = format!(
                "{} cannot be searched for: use at most {} bytes, without control characters",
                words::quoted(query),
                limits::MAX_QUERY_BYTES
            );
            return Err(Refusal::invalid("query", message));
        }
        Ok(Self { name: name.to_owned(), query: query.to_owned() })
    }
}

/// Why a text cannot be the name of a class, which is also that of a folder of an upload; `None` if it can.
pub(crate) fn class_name_fault(name: &str) -> Option<String> {
    match name {
        "" => Some("is empty".to_owned()),
        "." | ".." => Some("is that of no folder of its own".to_owned()),
        name if name.starts_with('.') => Some("begins with a dot".to_owned()),
        name if name.contains('/') || name.chars().any(char::is_control) => {
            Some("has a slash or a control character".to_owned())
        }
        name if name.len() > limits::MAX_CLASS_NAME_BYTES => {
            Some(format!("has more than {} bytes", limits::MAX_CLASS_NAME_BYTES))
        }
        _ => None,
    }
}

impl TryFrom<v1::GatherSpec> for GatherSpec {
    type Error = Refusal;

    fn try_from(wire: v1::GatherSpec) -> Result<Self, Refusal> {
        let split = split(wire.valid_percent, wire.folds, "gather")?;
        let dataset = match wire.dataset.as_str() {
            "" => None,
            name => Some(DatasetRef::parse(name, "gather.dataset")?),
        };
        Ok(Self {
            dataset_name: wire.dataset_name.parse().map_err(at("gather.dataset_name"))?,
            allow_http: wire.allow_http,
            dataset,
            split,
            seed: wire.seed,
            allow_failures: wire.allow_failures,
            derivative_short_side_px: in_range(
                or_default(wire.derivative_short_side_px, 512),
                64..=4096,
                "gather.derivative_short_side_px",
            )?,
            from: match wire.urls {
                None => {
                    GatherFrom::Search(Search::of_wire(wire.classes, &wire.provider, wire.licence, wire.per_class)?)
                }
                Some(urls) => {
                    let is_search = !wire.classes.is_empty() || !wire.provider.is_empty() || wire.licence != 0;
                    if is_search || wire.per_class != 0 {
                        let message =
                            "a list of URLs is fetched as it is: leave out classes, provider, licence and per_class";
                        return Err(Refusal::invalid("gather.urls", message));
                    }
                    GatherFrom::Urls(required_object(Some(urls), "gather.urls")?)
                }
            },
        })
    }
}

impl Search {
    fn of_wire(classes: Vec<v1::GatherClass>, provider: &str, licence: i32, per_class: u32) -> Result<Self, Refusal> {
        let most = limits::MAX_CLASSES;
        if classes.is_empty() || classes.len() > most {
            let message = format!("{} classes are named: name 1 to {most}, or a list of URLs", classes.len());
            return Err(Refusal::invalid("gather.classes", message));
        }
        let class = |class: v1::GatherClass| GatherClass::new(&class.name, &class.query).map_err(at("gather.classes"));
        let classes: Vec<GatherClass> = classes.into_iter().map(class).collect::<Result<_, _>>()?;
        let mut names = BTreeSet::new();
        if let Some(twice) = classes.iter().find(|class| !names.insert(&class.name)) {
            let message = format!("the class {} is named twice", words::quoted(&twice.name));
            return Err(Refusal::invalid("gather.classes", message));
        }
        let provider = if provider.is_empty() { DEFAULT_PROVIDER } else { provider };
        let most = limits::MAX_GATHERED_PER_CLASS;
        Ok(Self {
            classes,
            provider: provider.parse().map_err(at("gather.provider"))?,
            licence: licence_of(licence)?,
            per_class: in_range(or_default(per_class, 100), 1..=most, "gather.per_class")?,
        })
    }
}

fn licence_of(number: i32) -> Result<Licence, Refusal> {
    match v1::GatherLicence::try_from(number) {
        Ok(v1::GatherLicence::Unspecified | v1::GatherLicence::Any) => Ok(Licence::Any),
        Ok(v1::GatherLicence::Free) => Ok(Licence::Free),
        Ok(v1::GatherLicence::By) => Ok(Licence::By),
        Err(_) => Err(Refusal::invalid("gather.licence", "use any, free, by or nothing")),
    }
}

impl From<GatherSpec> for v1::GatherSpec {
    fn from(spec: GatherSpec) -> Self {
        let (valid_percent, folds) = split_to_wire(spec.split);
        let common = Self {
            dataset_name: spec.dataset_name.into(),
            allow_http: spec.allow_http,
            dataset: spec.dataset.map(|dataset| dataset.to_string()).unwrap_or_default(),
            valid_percent,
            folds,
            seed: spec.seed,
            allow_failures: spec.allow_failures,
            derivative_short_side_px: spec.derivative_short_side_px,
            ..Self::default()
        };
        match spec.from {
            GatherFrom::Urls(urls) => Self { urls: Some(urls.into()), ..common },
            GatherFrom::Search(Search { classes, provider, licence, per_class }) => {
                let licence = match licence {
                    Licence::Any => v1::GatherLicence::Any,
                    Licence::Free => v1::GatherLicence::Free,
                    Licence::By => v1::GatherLicence::By,
                };
                let class = |GatherClass { name, query }| v1::GatherClass { name, query };
                Self {
                    classes: classes.into_iter().map(class).collect(),
                    provider: provider.into(),
                    licence: licence.into(),
                    per_class,
                    ..common
                }
            }
        }
    }
}

impl Spec for GatherSpec {
    fn dataset_mut(&mut self) -> Option<&mut DatasetRef> {
        self.dataset.as_mut()
    }

    fn model_mut(&mut self) -> Option<&mut ModelRef> {
        None
    }

    fn uploaded_weights(&self) -> Option<&Digest> {
        None
    }

    fn uploads(&self) -> Vec<(&'static str, &ObjectRef)> {
        match &self.from {
            GatherFrom::Urls(urls) => vec![("gather.urls", urls)],
            GatherFrom::Search(_) => Vec::new(),
        }
    }

    fn upload_manifest(&self) -> Option<(&'static str, &ObjectRef)> {
        None
    }

    fn missing_output_name(&mut self) -> Option<&mut Option<Name>> {
        None
    }
}

impl WireSpec for v1::GatherSpec {
    fn subject(&self) -> &str {
        &self.dataset_name
    }

    fn output_name(&self) -> &str {
        &self.dataset_name
    }

    fn source(&self) -> Option<&v1::ObjectRef> {
        None
    }
}
