//! A page that shows photos by class. It is one file, which refers to the photos by their paths beside it and loads nothing from outside.

use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};

const PAGE: &str = include_str!("page.html");

/// What a gallery shows.
#[derive(Debug, Default)]
pub(crate) struct Gallery {
    /// The model that has classified the photos.
    pub(crate) model: String,
    pub(crate) photos: Vec<Card>,
    /// Files without a class, and why.
    pub(crate) errors: Vec<(String, String)>,
}

/// A photo with its class.
#[derive(Debug)]
pub(crate) struct Card {
    /// The path by which results name it.
    pub(crate) path: String,
    /// Where it lies; `None` if it is in an archive.
    pub(crate) location: Option<PathBuf>,
    /// The heading under which it is shown.
    pub(crate) group: String,
    /// How probable its class is, 0 to 1.
    pub(crate) probability: f32,
}

impl Gallery {
    /// The page, if it is to lie in `folder`, an absolute path.
    pub(crate) fn page(&self, folder: &Path) -> String {
        let photo = |card: &Card| {
            let href = card.location.as_ref().and_then(|location| between(folder, location));
            json!([card.path, href, card.group, card.probability])
        };
        let photos: Vec<Value> = self.photos.iter().map(photo).collect();
        let data = json!({ "model": self.model, "photos": photos, "errors": self.errors });
        // In JSON these characters stand in strings only. Without them no name can end the script.
        let data = data.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
        let nonce = format!("{:032x}", rand::random::<u128>());
        PAGE.replace("{NONCE}", &nonce).replacen("{DATA}", &data, 1)
    }
}

/// The way from a folder to a file, with `/` between the parts; `None` if a part is not UTF-8.
fn between(folder: &Path, file: &Path) -> Option<String> {
    let file = std::path::absolute(file).ok()?;
    let plain = |path: &Path| -> Option<Vec<String>> {
        let parts = path.components().filter(|part| *part != Component::RootDir);
        parts.map(|part| Some(part.as_os_str().to_str()?.to_owned())).collect()
    };
    let (from, to) = (plain(folder)?, plain(&file)?);
    let shared = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
    let up = std::iter::repeat_n("..", from.len() - shared);
    Some(up.chain(to[shared..].iter().map(String::as_str)).collect::<Vec<_>>().join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photos_are_found_from_the_page() {
        let way = |file: &str| between(Path::new("/home/me/out"), Path::new(file)).expect("UTF-8");
        assert_eq!(way("/home/me/out/cats/1.jpg"), "cats/1.jpg");
        assert_eq!(way("/home/me/photos/a b#1.jpg"), "../photos/a b#1.jpg");
        assert_eq!(way("/data/1.jpg"), "../../../data/1.jpg");
    }

    #[test]
    fn no_name_ends_the_script_or_becomes_markup() {
        let hostile = "</script><img src=x onerror=alert(1)>&{NONCE}{DATA}\u{2028}.jpg";
        let card =
            Card { path: hostile.into(), location: Some(hostile.into()), group: hostile.into(), probability: 0.5 };
        let errors = vec![(hostile.to_owned(), hostile.to_owned())];
        let page = Gallery { model: "m/1".into(), photos: vec![card], errors }.page(Path::new("/"));
        assert_eq!(page.matches("</script>").count(), 2, "those of the page");
        assert!(!page.contains("<img"));
        let data = page.split("id=\"data\">").nth(1).and_then(|rest| rest.split("</script>").next()).expect("data");
        let read: Value = serde_json::from_str(data).expect("JSON");
        assert_eq!((&read["photos"][0][0], &read["errors"][0][1]), (&hostile.into(), &hostile.into()));
    }
}
