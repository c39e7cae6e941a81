//! How the folders of an upload are read: as classes, or as splits with classes inside. Client and worker read them by this rule alone.
//!
//! - Without a folder to learn from beside one to hold out, the first folder of a path is its class.
//! - `train` or `training` beside `val`, `valid` or `validation`, in any case, are splits if at least one class folder is in both, whatever
//!   else lies beside them. A `test` is held out where there is no other; where there is one, `test` is left out.
//! - If both kinds of folders are there and no class folder is in both, the folder can be read in two ways, and the person has to say which.
//!   The same if only one kind is there, beside other folders, and it has class folders and nothing else in it.
//!
//! Names are compared in Unicode's form NFC, because systems write the same name in different forms.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use icu_normalizer::ComposingNormalizer;
use serde::{Deserialize, Serialize};

use crate::words::{counted, listed};

/// The side of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Used to train.
    Train,
    /// Held out.
    Valid,
}

/// What a person says of the layout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LayoutChoice {
    /// Nothing: the rule decides.
    #[default]
    Auto,
    /// The first folder of a path is its class, whatever it is called.
    Classes,
    /// The first folder of a path is its side of the split, the second is its class.
    Splits,
}

/// How the folders of an upload are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// The first folder is the class.
    Classes,
    /// The first folder is the side of the split, the second is the class.
    Splits {
        /// Whether the folder `test` is held out. Otherwise it is left out.
        with_test: bool,
    },
}

/// What a path says about its photo.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    /// The class's name, in the form NFC.
    pub class: String,
    /// The side, where the upload states it.
    pub given: Option<Side>,
}

/// Why a path has no label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlabelled {
    /// It lies in no class folder.
    NoClassFolder,
    /// It lies in the folder `test`, and another folder is held out.
    Test,
    /// It lies in a folder beside those of the split.
    BesideSplit,
}

/// The folders cannot be read as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayoutError {
    /// They can be read in two ways.
    Ambiguous {
        /// The folders to learn from, as they are written, each with what is in it.
        train: Vec<Inside>,
        /// The folders to hold out, as they are written, each with what is in it.
        held_out: Vec<Inside>,
        /// The classes if each folder is a class.
        classes: Vec<String>,
    },
    /// One of them is a side of a split or a class.
    LoneSide {
        /// The folder that is called like a side, with the class folders in it.
        side: Inside,
        /// The classes if each folder is a class.
        classes: Vec<String>,
    },
    /// Splits are asked for, and there are none.
    NoSplits {
        /// The folders that are there.
        folders: Vec<String>,
    },
}

/// A folder, and the class folders in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// The folder, as it is written.
    pub folder: String,
    /// The names of the folders in it, in the form NFC.
    pub classes: BTreeSet<String>,
    /// Files that lie in the folder itself.
    pub loose_files: u64,
}

impl Inside {
    /// Whether it looks like a folder of classes: several folders, and no photo beside them.
    fn has_only_classes(&self) -> bool {
        self.classes.len() > 1 && self.loose_files == 0
    }
}

/// The text in Unicode's form NFC, in which equal names are equal.
pub fn nfc(name: &str) -> String {
    ComposingNormalizer::new_nfc().normalize(name).into_owned()
}

/// A key that is equal for names that look alike: it differs neither by case, nor by spaces, nor by compatible forms of a character.
pub fn likeness(name: &str) -> String {
    let compatible = ComposingNormalizer::new_nfkc().normalize(name).to_lowercase();
    nfc(&compatible).chars().filter(|character| !character.is_whitespace()).collect()
}

/// Whether a folder of this name is a side of a split, if a folder for the other side lies beside it.
pub fn may_be_side(folder: &str) -> bool {
    role(folder).is_some()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Train,
    HeldOut,
    Test,
}

fn role(folder: &str) -> Option<Role> {
    match nfc(folder).to_lowercase().as_str() {
        "train" | "training" => Some(Role::Train),
        "val" | "valid" | "validation" => Some(Role::HeldOut),
        "test" => Some(Role::Test),
        _ => None,
    }
}

impl Layout {
    /// How the folders of these paths are read.
    ///
    /// # Errors
    /// [`LayoutError::Ambiguous`] or [`LayoutError::LoneSide`] if nobody says which of two readings is meant, [`LayoutError::NoSplits`] if
    /// splits are asked for and there are none.
    pub fn of<'a>(paths: impl Iterator<Item = &'a str>, choice: LayoutChoice) -> Result<Self, LayoutError> {
        if choice == LayoutChoice::Classes {
            return Ok(Self::Classes);
        }
        let folders = Folders::of(paths);
        let train = folders.of_role(Role::Train);
        let (held_out, with_test) = match folders.of_role(Role::HeldOut) {
            none if none.is_empty() => (folders.of_role(Role::Test), true),
            held_out => (held_out, false),
        };
        let is_asked_for = choice == LayoutChoice::Splits;
        if train.is_empty() || held_out.is_empty() {
            return match train.into_iter().chain(held_out).find(Inside::has_only_classes) {
                _ if is_asked_for => Err(LayoutError::NoSplits { folders: folders.names() }),
                Some(side) if folders.0.len() > 1 => Err(LayoutError::LoneSide { side, classes: folders.names() }),
                _ => Ok(Self::Classes),
            };
        }
        if is_asked_for || share_a_class(&train, &held_out) {
            return Ok(Self::Splits { with_test });
        }
        Err(LayoutError::Ambiguous { train, held_out, classes: folders.names() })
    }

    /// The same layout, in which no class folder is left out because it lies in `test`.
    #[must_use]
    pub fn including_test(self) -> Self {
        match self {
            Self::Classes => Self::Classes,
            Self::Splits { .. } => Self::Splits { with_test: true },
        }
    }

    /// The label of `path`.
    ///
    /// # Errors
    /// Why it has none.
    pub fn label(self, path: &str) -> Result<Label, Unlabelled> {
        let (class, given) = self.class_folder(path)?;
        Ok(Label { class: nfc(class), given })
    }

    /// The folder of `path` that names its class, as it is written, and the side that the path states.
    ///
    /// # Errors
    /// Why there is none.
    pub fn class_folder(self, path: &str) -> Result<(&str, Option<Side>), Unlabelled> {
        let (first, rest) = path.split_once('/').ok_or(Unlabelled::NoClassFolder)?;
        let Self::Splits { with_test } = self else { return Ok((first, None)) };
        let side = match role(first) {
            Some(Role::Train) => Side::Train,
            Some(Role::HeldOut) => Side::Valid,
            Some(Role::Test) if with_test => Side::Valid,
            Some(Role::Test) => return Err(Unlabelled::Test),
            None => return Err(Unlabelled::BesideSplit),
        };
        let (class, _) = rest.split_once('/').ok_or(Unlabelled::NoClassFolder)?;
        Ok((class, Some(side)))
    }
}

fn share_a_class(train: &[Inside], held_out: &[Inside]) -> bool {
    let classes: BTreeSet<&String> = train.iter().flat_map(|inside| &inside.classes).collect();
    held_out.iter().flat_map(|inside| &inside.classes).any(|class| classes.contains(class))
}

/// The first folders of an upload.
struct Folders<'a>(BTreeMap<&'a str, (BTreeSet<String>, u64)>);

impl<'a> Folders<'a> {
    fn of(paths: impl Iterator<Item = &'a str>) -> Self {
        let mut folders: BTreeMap<&str, (BTreeSet<String>, u64)> = BTreeMap::new();
        // Paths come by folder, so the last class is mostly the same again.
        let mut last = ("", "");
        for (first, rest) in paths.filter_map(|path| path.split_once('/')) {
            let (classes, loose_files) = folders.entry(first).or_default();
            match rest.split_once('/') {
                Some((class, _)) if last == (first, class) => {}
                Some((class, _)) => {
                    classes.insert(nfc(class));
                    last = (first, class);
                }
                None => *loose_files += 1,
            }
        }
        Self(folders)
    }

    fn of_role(&self, wanted: Role) -> Vec<Inside> {
        let folders = self.0.iter().filter(|(folder, _)| role(folder) == Some(wanted));
        folders
            .map(|(folder, (classes, loose_files))| Inside {
                folder: (*folder).to_owned(),
                classes: classes.clone(),
                loose_files: *loose_files,
            })
            .collect()
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().map(|folder| (*folder).to_owned()).collect()
    }
}

impl fmt::Display for Unlabelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoClassFolder => "it lies in no class folder",
            Self::Test => "it lies in a folder for tests, and another folder is held out",
            Self::BesideSplit => "the split has other folders",
        })
    }
}

impl fmt::Display for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { folder, classes, loose_files } = self;
        match (classes.is_empty(), loose_files) {
            (true, files) => write!(f, "{folder}/ has {} and no class folder", counted(*files, "file", "files")),
            (false, _) => write!(f, "{folder}/ has {}", listed(classes.iter())),
        }
    }
}

impl std::error::Error for LayoutError {}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ambiguous { train, held_out, classes } => {
                let names = |sides: &[Inside]| {
                    sides.iter().map(|inside| format!("{}/", inside.folder)).collect::<Vec<_>>().join(" and ")
                };
                let inside: Vec<String> = train.iter().chain(held_out).map(ToString::to_string).collect();
                write!(
                    f,
                    "the folder can be read in two ways: as splits, with {} to learn from and {} held out, but no class is in \
                     both ({}); or as {} classes: {}",
                    names(train),
                    names(held_out),
                    inside.join(", "),
                    classes.len(),
                    listed(classes.iter())
                )
            }
            Self::LoneSide { side, classes } => write!(
                f,
                "the folder can be read in two ways: {side}, as one side of a split whose other side is missing; or it is one \
                 of {} classes: {}",
                classes.len(),
                listed(classes.iter())
            ),
            Self::NoSplits { folders } => write!(
                f,
                "the folder has no splits: it needs train/ (or training/) and val/, valid/, validation/ or test/, and has {}",
                if folders.is_empty() { "no folder".to_owned() } else { listed(folders.iter()) }
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(paths: &[&str]) -> Result<Layout, LayoutError> {
        Layout::of(paths.iter().copied(), LayoutChoice::Auto)
    }

    fn label(class: &str, given: Option<Side>) -> Result<Label, Unlabelled> {
        Ok(Label { class: class.into(), given })
    }

    const SPLITS: Result<Layout, LayoutError> = Ok(Layout::Splits { with_test: false });

    #[test]
    fn the_first_folder_is_the_class_however_deep_the_photo_lies() {
        let read = layout(&["cats/a.png", "dogs/small/b.png", "readme.txt"]).expect("one reading");
        assert_eq!(read, Layout::Classes);
        assert_eq!(read.label("dogs/small/b.png"), label("dogs", None));
        assert_eq!(read.label("readme.txt"), Err(Unlabelled::NoClassFolder));
    }

    #[test]
    fn folders_to_learn_from_and_to_hold_out_are_splits_in_any_spelling_and_beside_anything() {
        for (train, valid) in [("train", "valid"), ("Train", "VAL"), ("training", "validation"), ("TRAIN", "val")] {
            let paths = [format!("{train}/cats/a.png"), format!("{valid}/cats/b.png")];
            let beside = ["docs/labels.csv", "readme.txt", "birds/deep/c.png"];
            let paths: Vec<&str> = paths.iter().map(String::as_str).chain(beside).collect();
            let read = layout(&paths).expect("one reading");
            assert_eq!(read.label(paths[0]), label("cats", Some(Side::Train)));
            assert_eq!(read.label(paths[1]), label("cats", Some(Side::Valid)));
            assert_eq!(read.label("docs/labels.csv"), Err(Unlabelled::BesideSplit));
            assert_eq!(read.label(&format!("{valid}/b.png")), Err(Unlabelled::NoClassFolder));
        }
    }

    #[test]
    fn a_test_is_held_out_only_where_there_is_no_other() {
        let read = layout(&["train/cats/a.png", "Test/cats/b.png"]).expect("one reading");
        assert_eq!(read.label("Test/cats/b.png"), label("cats", Some(Side::Valid)));
        let read = layout(&["train/cats/a.png", "val/cats/c.png", "test/cats/b.png"]).expect("one reading");
        assert_eq!(read.label("test/cats/b.png"), Err(Unlabelled::Test));
        assert_eq!(read.including_test().label("test/cats/b.png"), label("cats", Some(Side::Valid)));
    }

    #[test]
    fn classes_that_are_called_like_one_side_only_stay_classes() {
        let read = layout(&["train/a.png", "plane/b.png"]).expect("one reading");
        assert_eq!(read.label("train/a.png"), label("train", None));
        assert_eq!(layout(&["test/a.png", "valid/b.png"]), Ok(Layout::Classes), "nothing to learn from");
        let read = layout(&["train/steam/a.png", "train/diesel/b.png", "train/c.png", "plane/d.png"]);
        assert_eq!(read, Ok(Layout::Classes), "a class whose photos lie in folders as well");
    }

    #[test]
    fn one_side_with_class_folders_beside_other_folders_is_refused_with_both_readings() {
        let paths = ["Train/cats/a.png", "Train/dogs/b.png", "extra/c.png"];
        let error = layout(&paths).expect_err("two readings").to_string();
        for part in ["Train/ has cats, dogs, as one side of a split", "2 classes: Train, extra"] {
            assert!(error.contains(part), "{part:?} is not in {error}");
        }
        assert_eq!(Layout::of(paths.into_iter(), LayoutChoice::Classes), Ok(Layout::Classes));
        assert_eq!(layout(&paths[..2]), Ok(Layout::Classes), "alone, it is told that there is one class");
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused_with_both_readings_unless_a_person_says_which() {
        let flat = ["train/a.png", "test/b.png", "plane/c.png"];
        let error = layout(&flat).expect_err("two readings").to_string();
        for part in ["train/ has 1 file and no class folder", "as splits, with train/", "3 classes: plane, test, train"]
        {
            assert!(error.contains(part), "{part:?} is not in {error}");
        }
        let disjoint = ["train/steam/a.png", "val/b/c.png"];
        assert!(matches!(layout(&disjoint), Err(LayoutError::Ambiguous { .. })));
        let chosen = |paths: &[&str], choice| Layout::of(paths.iter().copied(), choice);
        assert_eq!(chosen(&flat, LayoutChoice::Classes), Ok(Layout::Classes));
        assert_eq!(chosen(&disjoint, LayoutChoice::Splits), SPLITS);
        let error = chosen(&["cats/a.png"], LayoutChoice::Splits).expect_err("there are none").to_string();
        assert!(error.ends_with("and has cats"), "{error}");
    }

    #[test]
    fn a_class_is_one_class_in_every_unicode_form() {
        let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
        let paths = [format!("train/{composed}/a.png"), format!("val/{decomposed}/b.png")];
        let read = Layout::of(paths.iter().map(String::as_str), LayoutChoice::Auto);
        assert_eq!(read, SPLITS, "the class is in both");
        assert_eq!(Layout::Classes.label(&format!("{decomposed}/b.png")), label(composed, None));
        assert_eq!(likeness("Caf\u{e9} 1"), likeness("cafe\u{301}1"));
        assert_ne!(likeness("cafe"), likeness("caf\u{e9}"));
    }
}
