use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde_json::json;
use sortinghat_client::Client;
use sortinghat_proto::{
    ArtifactKind, DatasetRef, GatherClass, GatherFrom, GatherSpec, JobSpec, Lane, Licence, Name, Search, Split,
    manifest::{Credit, ListedUrl, UrlList, encode},
};
use url::Url;

use crate::{
    args::Gather, exit::Exit, failure::Failure, follow, output::Aim, session::Session, show::numbers::counted, tell,
    unsubmitted::Unsubmitted,
};

const DEFAULT_PER_CLASS: u32 = 100;
const DEFAULT_VALID_PERCENT: u32 = 20;
const DEFAULT_SHORT_SIDE_PX: u32 = 512;
const DEFAULT_PROVIDER: &str = "openverse";
/// What the columns of a table of URLs are called, in lower case.
const CLASS: [&str; 2] = ["class", "label"];
const LICENCE: [&str; 2] = ["licence", "license"];
const LICENCE_URL: [&str; 2] = ["licence_url", "license_url"];

pub(super) async fn run(session: &Session, args: Gather) -> Result<Exit, Failure> {
    let submission = args.waiting.resolve()?;
    let dataset_name: Name = args.name.parse()?;
    let wanted = Wanted::of(&args)?;
    if args.dry_run {
        wanted.tell(session, &args);
        return Ok(Exit::Ok);
    }
    let unsubmitted = Unsubmitted::begin(session);
    let client = session.connect().await?;
    let dataset = if args.anew { None } else { newest(&client, &dataset_name).await? };
    let spec = GatherSpec {
        dataset_name,
        from: match wanted {
            Wanted::Search(search) => GatherFrom::Search(search),
            Wanted::Urls(list) => GatherFrom::Urls(client.upload_bytes(encode(&list).into()).await?),
        },
        allow_http: args.allow_http,
        dataset,
        split: match args.folds {
            Some(folds) => Split::Folds(folds),
            None => Split::ValidPercent(args.valid_percent.unwrap_or(DEFAULT_VALID_PERCENT)),
        },
        seed: args.seed,
        allow_failures: args.allow_failures,
        derivative_short_side_px: DEFAULT_SHORT_SIDE_PX,
    };
    let job = submission(JobSpec::Gather(spec), Lane::Bulk);
    let followed = follow::submit(session, &client, job, unsubmitted, Aim::Tell).await?;
    tell::finish(session, &client, followed, None).await
}

/// The newest version of this dataset, to which the photos are added; `None` if there is none.
async fn newest(client: &Client, name: &Name) -> Result<Option<DatasetRef>, Failure> {
    match client.get_dataset(name.as_str()).await.map_err(Failure::from) {
        Ok(found) => Ok(Some(DatasetRef::parse(&found.name, ArtifactKind::Dataset.as_str())?)),
        Err(failure) if failure.exit() == Exit::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// What is gathered.
#[derive(Debug)]
enum Wanted {
    Search(Search),
    Urls(UrlList),
}

impl Wanted {
    fn of(args: &Gather) -> Result<Self, Failure> {
        match &args.urls {
            Some(path) => {
                let list = read_urls(path)?;
                let refused = |refusal: sortinghat_proto::Refusal| {
                    Failure::usage(format!("{}: {}", path.display(), refusal.message))
                };
                list.faults("list").into_result().map_err(refused)?;
                Ok(Self::Urls(list))
            }
            None => Ok(Self::Search(Search {
                classes: classes(&args.classes)?,
                provider: args.provider.as_deref().unwrap_or(DEFAULT_PROVIDER).parse()?,
                licence: args.licence.unwrap_or(Licence::Any),
                per_class: args.per_class.unwrap_or(DEFAULT_PER_CLASS),
            })),
        }
    }

    /// Says what would be asked for.
    fn tell(&self, session: &Session, args: &Gather) {
        match self {
            Self::Search(search) => tell_search(session, &args.name, search),
            Self::Urls(list) => tell_urls(session, args, list),
        }
    }
}

/// The classes and what is searched for.
fn classes(named: &[String]) -> Result<Vec<GatherClass>, Failure> {
    let class = |text: &String| {
        let (name, query) = text.split_once('=').unwrap_or((text, ""));
        Ok(GatherClass::new(name, query)?)
    };
    let classes: Vec<GatherClass> = named.iter().map(class).collect::<Result<_, Failure>>()?;
    let mut names = BTreeSet::new();
    match classes.iter().find(|class| !names.insert(&class.name)) {
        Some(twice) => Err(Failure::usage(format!("the class {} is named twice: name each class once", twice.name))),
        None => Ok(classes),
    }
}

fn tell_search(session: &Session, name: &str, search: &Search) {
    let Search { classes, provider, licence, per_class } = search;
    let as_json = || {
        let classes: Vec<_> =
            classes.iter().map(|class| json!({ "class": class.name, "query": class.query })).collect();
        json!({
            "dry_run": true, "dataset": name, "provider": provider.as_str(), "licence": licence.as_str(),
            "per_class": per_class, "classes": classes,
        })
    };
    session.answer(as_json, || {
        let most = counted(u64::from(*per_class), "photo", "photos");
        let mut lines = vec![format!("would ask {provider} for {most} of each class, licence: {}", licence.as_str())];
        lines.extend(classes.iter().map(|class| format!("  {}: search for \"{}\"", class.name, class.query)));
        lines.push("nothing was asked for".to_owned());
        lines
    });
}

fn tell_urls(session: &Session, args: &Gather, list: &UrlList) {
    let (mut classes, mut hosts) = (BTreeMap::<&str, u64>::new(), BTreeMap::<String, u64>::new());
    let mut refused = Vec::new();
    for listed in &list.urls {
        match refusal(&listed.url, args.allow_http) {
            Ok(host) => {
                *classes.entry(&listed.class).or_default() += 1;
                *hosts.entry(host).or_default() += 1;
            }
            Err(why) => refused.push((listed.url.as_str(), why)),
        }
    }
    let as_json = || {
        let refused: Vec<_> = refused.iter().map(|(url, why)| json!({ "url": url, "reason": why })).collect();
        json!({ "dry_run": true, "dataset": args.name, "classes": classes, "hosts": hosts, "refused": refused })
    };
    session.answer(as_json, || {
        let urls = counted((list.urls.len() - refused.len()) as u64, "URL", "URLs");
        let mut lines = vec![format!("would fetch {urls} from {}", counted(hosts.len() as u64, "host", "hosts"))];
        lines.extend(classes.iter().map(|(class, urls)| format!("  {class}: {}", counted(*urls, "URL", "URLs"))));
        lines.extend(refused.iter().map(|(url, why)| format!("would not fetch {url}: {why}")));
        lines.push("nothing was fetched".to_owned());
        lines
    });
}

/// The host of a URL, or why its text alone shows that it is not fetched.
fn refusal(url: &str, allows_http: bool) -> Result<String, String> {
    let url = Url::parse(url).map_err(|error| error.to_string())?;
    match url.scheme() {
        "https" => {}
        "http" if allows_http => {}
        "http" => return Err("it is http, and only https is fetched without --allow-http".to_owned()),
        scheme => return Err(format!("{scheme}: is not https:")),
    }
    Ok(url.host_str().unwrap_or_default().to_owned())
}

/// Reads a table of URLs.
fn read_urls(path: &Path) -> Result<UrlList, Failure> {
    let shown = path.display();
    let delimiter = if path.extension().is_some_and(|ending| ending == "tsv") { b'\t' } else { b',' };
    let file = std::fs::File::open(path).map_err(Failure::file("read", path))?;
    let mut table = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(file);
    let unreadable = |error: csv::Error| Failure::usage(format!("{shown}: {error}"));
    let header = table.headers().map_err(unreadable)?;
    let names: Vec<String> =
        header.iter().map(|name| name.trim_start_matches('\u{feff}').trim().to_lowercase()).collect();
    let find = |known: &[&str]| names.iter().position(|name| known.contains(&name.as_str()));
    let (Some(class), Some(url)) = (find(&CLASS), find(&["url"])) else {
        return Err(Failure::usage(format!(
            "{shown}: its first line should name the columns class and url, and each further line be a photo"
        )));
    };
    let further = [&["source_page"][..], &["title"], &["author"], &LICENCE, &LICENCE_URL].map(find);
    let mut urls = Vec::new();
    for row in table.records() {
        let row = row.map_err(unreadable)?;
        let text = |column: usize| row.get(column).unwrap_or_default().trim().to_owned();
        let [source_page, title, author, licence, licence_url] =
            further.map(|column| column.map(text).filter(|text| !text.is_empty()));
        let credit = Credit { source_page, title, author, licence, licence_url };
        urls.push(ListedUrl { class: text(class), url: text(url), credit });
    }
    Ok(UrlList { urls })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_searched_for_by_its_name_or_by_what_follows_it() {
        let named = ["Draco Malfoy".to_owned(), "Hermione = hermione granger film".to_owned()];
        let classes = classes(&named).expect("two classes");
        let found: Vec<_> = classes.iter().map(|class| (class.name.as_str(), class.query.as_str())).collect();
        assert_eq!(found, [("Draco Malfoy", "Draco Malfoy"), ("Hermione", "hermione granger film")]);
        for wrong in [vec!["a/b"], vec!["=query"], vec!["a", "a=b"], vec![".."]] {
            let wrong: Vec<String> = wrong.into_iter().map(str::to_owned).collect();
            super::classes(&wrong).expect_err(&wrong[0]);
        }
    }

    #[test]
    fn a_table_of_urls_says_its_columns_by_their_names_in_any_order() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("urls.csv");
        let write = |text: &str| std::fs::write(&path, text).expect("writable");
        write("\u{feff}URL,License,Class,other\nhttps://a/1.jpg, CC0 ,cats,x\nhttps://a/2.jpg,,dogs,\n");
        let list = read_urls(&path).expect("a table");
        assert_eq!((list.urls[0].class.as_str(), list.urls[0].url.as_str()), ("cats", "https://a/1.jpg"));
        assert_eq!(list.urls[0].credit.licence.as_deref(), Some("CC0"));
        assert_eq!((list.urls[1].class.as_str(), &list.urls[1].credit), ("dogs", &Credit::default()));
        write("path,label\na,b\n");
        assert_eq!(read_urls(&path).expect_err("no urls").exit(), Exit::Usage);
        write("class,url\na\n");
        assert_eq!(read_urls(&path).expect_err("a short row").exit(), Exit::Usage);
    }
}
