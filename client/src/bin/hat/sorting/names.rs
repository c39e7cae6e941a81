//! Names of folders and files on every system: a class is any text, and a folder is not.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
};

use sortinghat_proto::{layout::nfc, plain};

/// The folder for photos of which the model is not sure enough.
pub(super) const UNSURE: &str = "unsure";
/// Bytes of a name on the file systems that people use.
const MAX_NAME_BYTES: usize = 255;
/// Bytes of a class's folder, with room for a number.
const MAX_FOLDER_BYTES: usize = 240;
/// Characters that Windows allows in no name. A slash divides paths everywhere.
const FORBIDDEN: [char; 9] = ['/', '\\', '<', '>', ':', '"', '|', '?', '*'];
/// Names of devices on Windows, in lower case, whatever their extension.
const DEVICES: [&str; 22] = [
    "con", "prn", "aux", "nul", "com1", "com2", "com3", "com4", "com5", "com6", "com7", "com8", "com9", "lpt1", "lpt2",
    "lpt3", "lpt4", "lpt5", "lpt6", "lpt7", "lpt8", "lpt9",
];

/// The folder of each class, and the one for unsure photos.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Folders {
    by_class: HashMap<String, String>,
    pub(super) unsure: String,
}

impl Folders {
    /// The folders for the classes of a model. Two classes never share a folder, not even where case does not count.
    pub(super) fn of(classes: &[String]) -> Self {
        let mut taken = HashSet::new();
        let mut free = |name: &str| {
            let mut names = numbered(name, "");
            names.find(|name| taken.insert(key(name))).expect("there are more numbers than classes")
        };
        let unsure = free(UNSURE);
        let by_class = classes.iter().map(|class| (class.clone(), free(&safe(class)))).collect();
        Self { by_class, unsure }
    }

    /// The folder of a class.
    pub(super) fn of_class(&self, class: &str) -> Option<&str> {
        self.by_class.get(class).map(String::as_str)
    }

    /// The class of each folder.
    pub(super) fn classes(&self) -> BTreeMap<String, String> {
        self.by_class.iter().map(|(class, folder)| (folder.clone(), class.clone())).collect()
    }
}

/// A class's name as a folder that every system can have: what no name may hold becomes `_`, as do a dot at the beginning, which would hide
/// the folder, and dots and spaces at the end, which Windows drops. Names of devices get a `_` at the end.
fn safe(class: &str) -> String {
    let mut name: String = class.chars().map(|c| if is_forbidden(c) { '_' } else { c }).collect();
    name.truncate(name.floor_char_boundary(MAX_FOLDER_BYTES));
    let end = name.trim_end_matches(['.', ' ']).len();
    let dropped = name.len() - end;
    name.truncate(end);
    name.extend(std::iter::repeat_n('_', dropped));
    if name.starts_with('.') {
        name.replace_range(..1, "_");
    }
    let stem = name.split('.').next().unwrap_or_default().trim().to_lowercase();
    if name.is_empty() || DEVICES.contains(&stem.as_str()) {
        name.push('_');
    }
    name
}

/// Whether no name may have this character: it is forbidden somewhere, or it commands a terminal or turns the direction of writing.
fn is_forbidden(character: char) -> bool {
    let shown = character.to_string();
    FORBIDDEN.contains(&character) || plain::cell(&shown) != shown
}

/// What is equal for names that one folder cannot have beside each other on some system.
pub(super) fn key(name: &str) -> String {
    nfc(&nfc(name).to_lowercase())
}

/// The name, and then "name (2).jpg", "name (3).jpg", and so on. The stem loses its end if the name would become too long.
pub(super) fn numbered(stem: &str, ending: &str) -> impl Iterator<Item = String> {
    let with_number = |number: u64, stem: &str, ending: &str| {
        let number = format!(" ({number})");
        let room = MAX_NAME_BYTES.saturating_sub(number.len() + ending.len());
        format!("{}{number}{ending}", &stem[..stem.floor_char_boundary(room)])
    };
    let (first, stem, ending) = (format!("{stem}{ending}"), stem.to_owned(), ending.to_owned());
    std::iter::once(first).chain((2..).map(move |number| with_number(number, &stem, &ending)))
}

/// A file's name before and from the last dot.
pub(super) fn stem_and_ending(name: &str) -> (&str, &str) {
    let ending = Path::new(name).extension().map_or(0, |ending| ending.len() + 1);
    name.split_at(name.len() - ending)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_of_any_name_gets_a_folder_that_every_system_can_have() {
        for (class, folder) in [
            ("cats", "cats"),
            ("été 写真 👩\u{200d}🌾", "été 写真 👩\u{200d}🌾"),
            ("..", "__"),
            (".", "_"),
            ("", "_"),
            ("   ", "___"),
            ("../../etc/passwd", "_._.._etc_passwd"),
            ("a/b\\c", "a_b_c"),
            (".hidden", "_hidden"),
            ("cats. ", "cats__"),
            ("NUL", "NUL_"),
            ("com1.jpg", "com1.jpg_"),
            ("console", "console"),
            ("a\0b\nc\u{202e}d", "a_b_c_d"),
            ("what?*<>|\":", "what_______"),
        ] {
            assert_eq!(safe(class), folder, "{class:?}");
        }
        assert_eq!(safe(&"é".repeat(200)).len(), MAX_FOLDER_BYTES);
    }

    #[test]
    fn no_two_classes_share_a_folder_even_where_case_and_unicode_forms_do_not_count() {
        let classes = ["Cats", "cats", "a/b", "a_b", "unsure", "caf\u{e9}", "cafe\u{301}"].map(str::to_owned);
        let folders = Folders::of(&classes);
        let of = |class| folders.of_class(class).expect("it is listed");
        assert_eq!(
            classes.each_ref().map(|class| of(class)),
            ["Cats", "cats (2)", "a_b", "a_b (2)", "unsure (2)", "caf\u{e9}", "cafe\u{301} (2)"]
        );
        assert_eq!(folders.unsure, UNSURE);
        assert_eq!(folders.classes()["unsure (2)"], "unsure");
        assert_eq!(folders.of_class("dogs"), None);
    }

    #[test]
    fn a_name_that_is_taken_gets_a_number_before_its_ending() {
        let (stem, ending) = stem_and_ending("IMG_1.tar.jpg");
        assert_eq!(
            numbered(stem, ending).take(3).collect::<Vec<_>>(),
            ["IMG_1.tar.jpg", "IMG_1.tar (2).jpg", "IMG_1.tar (3).jpg"]
        );
        assert_eq!(stem_and_ending("photo"), ("photo", ""));
        let long = numbered(&"é".repeat(125), ".jpg").nth(1).expect("endless");
        assert!(long.len() <= MAX_NAME_BYTES && long.ends_with(" (2).jpg"), "{long}");
    }
}
