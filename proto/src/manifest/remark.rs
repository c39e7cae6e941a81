//! What an ingest noticed about the photos of a dataset.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::LeftOut;
use crate::words::{LISTED, count, counted, listed};

/// Something that a person should know of a dataset before they trust what is learned from it. An ingest tells it, the dataset's manifest
/// keeps it, and `hat datasets show` and the report repeat it. The sentence about it is its [`Display`](fmt::Display).
///
/// A dataset has each kind at most once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Remark {
    /// Folders that would be classes and have no usable photo. The dataset does not have these classes.
    ClassesWithoutPhotos {
        /// The classes, sorted by name.
        classes: Vec<AbsentClass>,
    },
    /// Folders whose names are the same text in different Unicode forms. They are one class.
    OneNameInSeveralForms {
        /// The classes, sorted.
        classes: Vec<String>,
    },
    /// Classes whose names differ only by case, spaces or compatible Unicode characters. They are classes of their own.
    SimilarNames {
        /// Each group of such names, sorted.
        groups: Vec<Vec<String>>,
    },
    /// A folder `test` that is not used, because another folder is held out.
    TestFolderLeftOut {
        /// The folder, as it is written; several, if the spellings differ.
        folders: Vec<String>,
        /// Files in it.
        files: u64,
        /// The folders that are held out, as they are written.
        held_out: Vec<String>,
    },
    /// Folders beside those of a given split. They are not used.
    FoldersBesideSplit {
        /// The folders, sorted.
        folders: Vec<String>,
        /// Files in them.
        files: u64,
        /// Files in them that are called photos.
        photos: u64,
    },
    /// Entries of the folder that the client did not upload.
    LeftOut {
        /// The entries by reason, each with its first paths.
        groups: Vec<LeftOut>,
    },
    /// Near-duplicates on both sides of the split that the upload gave.
    NearDuplicatesAcrossSplit {
        /// Groups of near-duplicates that lie on both sides.
        groups: u64,
        /// Held-out photos that have a near-duplicate among the photos to learn from.
        held_out: u64,
        /// The first of these pairs.
        examples: Vec<SplitPair>,
    },
    /// Classes whose photos are all near-duplicates of each other, so that they had to be divided between the sides.
    OnlyNearDuplicates {
        /// The classes, sorted.
        classes: Vec<String>,
    },
    /// Classes with few photos.
    FewPhotos {
        /// The classes, sorted by name.
        classes: Vec<ClassSize>,
        /// Each of them has fewer photos than this.
        fewer_than: u64,
    },
    /// One class has many times the photos of another.
    Imbalance {
        /// The class with the most photos.
        largest: ClassSize,
        /// The class with the fewest photos.
        smallest: ClassSize,
    },
    /// Photos whose colours are meant by a colour profile other than sRGB. It was not applied.
    ColorProfiles {
        /// How many.
        photos: u64,
        /// The paths of the first ones.
        examples: Vec<String>,
    },
    /// Photos of which parts that their format asks for are missing or wrong. No pixel is affected.
    Mended {
        /// How many.
        photos: u64,
        /// The paths of the first ones.
        examples: Vec<String>,
    },
    /// Photos whose names promise another format than their content has.
    WrongExtension {
        /// How many.
        photos: u64,
        /// The paths of the first ones.
        examples: Vec<String>,
    },
    /// Photos that were gathered from the web.
    FromTheWeb {
        /// How many.
        photos: u64,
        /// What the providers that found them ask to be said.
        terms: Vec<String>,
    },
    /// Gathered photos that look like one of another class.
    AlikeInSeveralClasses {
        /// Groups of such photos.
        groups: u64,
        /// For the first groups, the path of a photo in each of two classes.
        examples: Vec<[String; 2]>,
    },
    /// Something that only a newer version knows.
    #[serde(other)]
    Unknown,
}

/// A folder that would be a class and has no usable photo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AbsentClass {
    /// The name of the class.
    pub class: String,
    /// Why, for people: "3 entries: in a format that is not supported".
    pub why: String,
}

/// A class and its photos.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClassSize {
    /// The name of the class.
    pub class: String,
    /// Photos of it, on both sides of the split.
    pub photos: u64,
}

/// Two near-duplicates on different sides of a split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SplitPair {
    /// The path of the photo that is held out.
    pub held_out: String,
    /// The path of the photo that is learned from.
    pub learned: String,
}

impl Remark {
    /// Whether it is probably not what the person wanted. All else is only good to know.
    pub fn is_warning(&self) -> bool {
        match self {
            Self::ClassesWithoutPhotos { .. } | Self::SimilarNames { .. } | Self::TestFolderLeftOut { .. } => true,
            Self::NearDuplicatesAcrossSplit { .. } | Self::OnlyNearDuplicates { .. } => true,
            Self::FewPhotos { .. } | Self::Imbalance { .. } | Self::ColorProfiles { .. } | Self::Unknown => true,
            Self::FoldersBesideSplit { photos, .. } => *photos > 0,
            Self::LeftOut { groups } => groups.iter().any(|group| group.reason.may_be_missed()),
            Self::AlikeInSeveralClasses { .. } => true,
            Self::OneNameInSeveralForms { .. } | Self::Mended { .. } | Self::WrongExtension { .. } => false,
            Self::FromTheWeb { .. } => false,
        }
    }

    /// Whether files or folders that the person named are not in the dataset.
    pub fn leaves_out(&self) -> bool {
        match self {
            Self::ClassesWithoutPhotos { .. } | Self::TestFolderLeftOut { .. } => true,
            Self::FoldersBesideSplit { .. } | Self::LeftOut { .. } | Self::Unknown => true,
            Self::OneNameInSeveralForms { .. } | Self::SimilarNames { .. } => false,
            Self::NearDuplicatesAcrossSplit { .. } | Self::OnlyNearDuplicates { .. } => false,
            Self::FewPhotos { .. } | Self::Imbalance { .. } => false,
            Self::ColorProfiles { .. } | Self::Mended { .. } | Self::WrongExtension { .. } => false,
            Self::FromTheWeb { .. } | Self::AlikeInSeveralClasses { .. } => false,
        }
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&sentence(self))
    }
}

fn sentence(remark: &Remark) -> String {
    match remark {
        Remark::ClassesWithoutPhotos { classes } => absent(classes),
        Remark::OneNameInSeveralForms { classes } => {
            format!("folders of the same name in different Unicode forms are one class: {}", listed(classes.iter()))
        }
        Remark::SimilarNames { groups } => {
            let groups: Vec<String> = groups.iter().map(|group| quoted(group).join(" and ")).collect();
            format!("classes whose names differ only by case, spaces or Unicode form: {}", listed(groups.iter()))
        }
        Remark::TestFolderLeftOut { folders, files, held_out } => format!(
            "the {} in {} {} not in the dataset, because {} is held out; a model can be measured on such a folder later",
            counted(*files, "file", "files"),
            slashed(folders).join(" and "),
            if *files == 1 { "is" } else { "are" },
            slashed(held_out).join(" and ")
        ),
        Remark::FoldersBesideSplit { folders, files, .. } => format!(
            "{} not used, because the split has other folders: {}",
            counted(*files, "file is", "files are"),
            listed(slashed(folders).iter())
        ),
        Remark::LeftOut { groups } => {
            format!("left out {}", groups.iter().map(left_out).collect::<Vec<_>>().join("; "))
        }
        Remark::NearDuplicatesAcrossSplit { held_out, examples, .. } => across_split(*held_out, examples),
        Remark::OnlyNearDuplicates { classes } => format!(
            "all photos of a class are near-duplicates of each other, and validating on them says little: {}",
            listed(classes.iter())
        ),
        Remark::FewPhotos { classes, fewer_than } => {
            let named: Vec<String> = classes.iter().map(|class| class.class.clone()).collect();
            format!("fewer than {fewer_than} photos of {}: expect little of them", listed(named.iter()))
        }
        Remark::Imbalance { largest, smallest } => format!(
            "{} has {} and {} has {}: the model will prefer the former",
            largest.class,
            counted(largest.photos, "photo", "photos"),
            smallest.class,
            count(smallest.photos)
        ),
        Remark::ColorProfiles { photos, examples } => {
            let photos = counted(*photos, "photo has", "photos have");
            format!("{photos} a colour profile other than sRGB, which was not applied{}", such_as(examples))
        }
        Remark::Mended { photos, examples } => {
            let photos = counted(*photos, "photo was", "photos were");
            let what = "a part that the format asks for is missing or wrong, but no pixel is";
            format!("{photos} mended: {what}{}", such_as(examples))
        }
        Remark::WrongExtension { photos, examples } => {
            let photos = counted(*photos, "photo has", "photos have");
            format!("{photos} the extension of another format: what counts is the content{}", such_as(examples))
        }
        Remark::FromTheWeb { photos, terms } => {
            let photos = counted(*photos, "photo is", "photos are");
            let terms: String = terms.iter().map(|terms| format!("; {terms}")).collect();
            format!("{photos} from the web, and the dataset names the source, author and licence of each{terms}")
        }
        Remark::AlikeInSeveralClasses { groups, examples } => {
            let photos =
                counted(*groups, "group of photos looks alike and lies", "groups of photos look alike and lie");
            let example = examples.first().map(|[one, other]| format!(", such as {one} and {other}"));
            format!("{photos} in more than one class{}", example.unwrap_or_default())
        }
        Remark::Unknown => "there is something to know of it that only a newer version can tell".to_owned(),
    }
}

fn absent(classes: &[AbsentClass]) -> String {
    let named: Vec<String> = classes.iter().map(|absent| format!("{} ({})", absent.class, absent.why)).collect();
    let one = "class has no usable photo and is";
    let number = counted(classes.len() as u64, one, "classes have no usable photo and are");
    format!("{number} not in the dataset: {}", listed(named.iter()))
}

fn across_split(held_out: u64, examples: &[SplitPair]) -> String {
    let photos = counted(held_out, "held-out photo is a near-duplicate", "held-out photos are near-duplicates");
    let example = examples.first().map(|pair| format!(", such as {} of {}", pair.held_out, pair.learned));
    let example = example.unwrap_or_default();
    format!("{photos} of photos to learn from{example}: the accuracy on them says little about new photos")
}

/// "3 entries (a symbolic link that leads out of the folder): cats/a.png, cats/b.png and 1 more".
fn left_out(group: &LeftOut) -> String {
    let (entries, reason) = (counted(group.entries, "entry", "entries"), group.reason.as_str());
    let rest = group.entries.saturating_sub(group.paths.len().min(LISTED) as u64);
    let more = if rest == 0 || group.paths.is_empty() { String::new() } else { format!(" and {} more", count(rest)) };
    let paths = group.paths.iter().take(LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let paths = if paths.is_empty() { paths } else { format!(": {paths}") };
    format!("{entries} ({reason}){paths}{more}")
}

fn such_as(examples: &[String]) -> String {
    if examples.is_empty() { String::new() } else { format!(", such as {}", examples.join(", ")) }
}

fn slashed(folders: &[String]) -> Vec<String> {
    folders.iter().map(|folder| format!("{folder}/")).collect()
}

fn quoted(names: &[String]) -> Vec<String> {
    names.iter().map(|name| format!("{name:?}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::LeftOutReason;

    #[test]
    fn each_remark_is_a_sentence_that_names_the_thing() {
        let absent = |class: &str, why: &str| AbsentClass { class: class.into(), why: why.into() };
        let classes = vec![
            absent("birds", "3 entries: in a format that is not supported"),
            absent("fish", "1 entry: an empty folder"),
        ];
        let remark = Remark::ClassesWithoutPhotos { classes };
        assert_eq!(
            remark.to_string(),
            "2 classes have no usable photo and are not in the dataset: birds (3 entries: in a format that is not supported), \
             fish (1 entry: an empty folder)"
        );
        let names = vec![vec!["Cats".to_owned(), "cats".to_owned()]];
        let remark = Remark::SimilarNames { groups: names };
        assert!(remark.to_string().ends_with("\"Cats\" and \"cats\""), "{remark}");
        let examples = vec![["cats/a.png".to_owned(), "dogs/b.png".to_owned()]];
        let remark = Remark::AlikeInSeveralClasses { groups: 1, examples };
        assert_eq!(
            remark.to_string(),
            "1 group of photos looks alike and lies in more than one class, such as cats/a.png and dogs/b.png"
        );
        let links = LeftOut { reason: LeftOutReason::OutsideLink, entries: 9, paths: vec!["a".into(), "b".into()] };
        let litter = LeftOut { reason: LeftOutReason::Litter, entries: 3, paths: vec![] };
        let remark = Remark::LeftOut { groups: vec![links, litter] };
        assert_eq!(
            remark.to_string(),
            "left out 9 entries (a symbolic link that leads out of the folder): a, b and 7 more; 3 entries (thumbnails, \
             bins and other files of systems)"
        );
    }

    #[test]
    fn a_remark_of_a_newer_version_does_not_keep_a_dataset_from_being_read() {
        let newer = r#"{"kind":"photos_of_the_future","photos":3}"#;
        assert_eq!(serde_json::from_str::<Remark>(newer).expect("readable"), Remark::Unknown);
    }
}
