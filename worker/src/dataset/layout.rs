//! Reads class names from the paths of an upload: a folder for each class, or `train/` and `valid/` with class folders inside.

use super::split::Side;

/// How the folders of an upload are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// The first folder is the class.
    ClassFolders,
    /// The first folder is the side of the split, the second is the class.
    TrainAndValid,
}

/// What a path says about its photo.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    /// The class's name.
    pub class: String,
    /// The side, where the upload states it.
    pub given: Option<Side>,
}

impl Layout {
    /// Finds the layout: `train/` and `valid/` (or `val/`) if both are there and hold everything that lies in a folder.
    pub fn of<'a>(paths: impl Iterator<Item = &'a str>) -> Self {
        let sides: Vec<Option<Side>> =
            paths.filter_map(|path| path.split_once('/')).map(|(first, _)| side_of(first)).collect();
        let has = |side| sides.contains(&Some(side));
        if has(Side::Train) && has(Side::Valid) && !sides.contains(&None) {
            return Self::TrainAndValid;
        }
        Self::ClassFolders
    }

    /// The label of `path`; `None` if it lies in no class folder.
    pub fn label(self, path: &str) -> Option<Label> {
        let (first, rest) = path.split_once('/')?;
        match self {
            Self::ClassFolders => Some(Label { class: first.to_owned(), given: None }),
            Self::TrainAndValid => {
                let (class, _) = rest.split_once('/')?;
                Some(Label { class: class.to_owned(), given: side_of(first) })
            }
        }
    }
}

fn side_of(folder: &str) -> Option<Side> {
    match folder {
        "train" => Some(Side::Train),
        "valid" | "val" => Some(Side::Valid),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_folder_is_the_class_however_deep_the_photo_lies() {
        let layout = Layout::of(["cats/a.png", "dogs/small/b.png"].into_iter());
        assert_eq!(layout, Layout::ClassFolders);
        assert_eq!(layout.label("dogs/small/b.png"), Some(Label { class: "dogs".into(), given: None }));
        assert_eq!(layout.label("readme.txt"), None);
    }

    #[test]
    fn train_and_valid_give_the_side() {
        let layout = Layout::of(["train/cats/a.png", "valid/cats/b.png", "readme.txt"].into_iter());
        assert_eq!(layout.label("valid/cats/b.png"), Some(Label { class: "cats".into(), given: Some(Side::Valid) }));
        assert_eq!(layout.label("valid/b.png"), None);
    }

    #[test]
    fn a_class_that_is_called_train_stays_a_class() {
        let layout = Layout::of(["train/a.png", "plane/b.png"].into_iter());
        assert_eq!(layout.label("train/a.png"), Some(Label { class: "train".into(), given: None }));
    }
}
