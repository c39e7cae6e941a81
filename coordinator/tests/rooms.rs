//! The rooms of the engine lie on floors, and every import and every call goes down. The floors are the table in `engine/mod.rs`; what is
//! found is printed, so that a page can cite it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A use of one room by another: an import or a call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Arrow {
    from: String,
    to: String,
    /// The file and the line that make it.
    place: String,
}

fn engine() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine")
}

/// The floor of each room, as the table in `engine/mod.rs` states it.
fn floors() -> BTreeMap<String, u32> {
    let face = fs::read_to_string(engine().join("mod.rs")).expect("the engine has a mod.rs");
    let rows = face.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("//! |")?.split('|').map(str::trim);
        Some((cells.next()?.parse::<u32>().ok()?, cells.next()?.to_owned()))
    });
    let rooms = rows.flat_map(|(floor, rooms)| {
        let names: Vec<String> = rooms.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect();
        names.into_iter().map(move |name| (name, floor))
    });
    rooms.collect()
}

/// Every source file of the engine, with its room.
fn files() -> Vec<(String, PathBuf)> {
    let (mut folders, mut files) = (vec![engine()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the engine") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push((room_of(&path), path));
            }
        }
    }
    files.sort();
    files
}

/// The room of a file: its folder, or the file itself where it lies on no floor of its own.
fn room_of(path: &Path) -> String {
    let inside = path.strip_prefix(engine()).expect("a file of the engine");
    let first = inside.iter().next().expect("a file has a name");
    Path::new(first).file_stem().expect("a name").to_string_lossy().into_owned()
}

/// How many modules a file lies below the engine.
fn depth(path: &Path) -> usize {
    let parts = path.strip_prefix(engine()).expect("a file of the engine").iter().count();
    if path.ends_with("mod.rs") { parts - 1 } else { parts }
}

/// A statement without comments, and the number of its first line.
fn statements(source: &str) -> Vec<(usize, String)> {
    let (mut all, mut current, mut begun) = (Vec::new(), String::new(), 1);
    for (number, line) in source.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        if current.trim().is_empty() {
            begun = number + 1;
        }
        current.push_str(code);
        current.push(' ');
        if code.trim_end().ends_with([';', '{', '}']) && !current.trim_start().starts_with("use ")
            || code.trim_end().ends_with(';')
        {
            all.push((begun, std::mem::take(&mut current)));
        }
    }
    all
}

/// The first names in a path or a group of paths that follows `prefix`.
fn heads<'t>(text: &'t str, prefix: &str) -> Vec<&'t str> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices(prefix) {
        if text[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':') {
            continue;
        }
        let rest = &text[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group_heads(group)),
            None => found.push(name_at(rest)),
        }
    }
    found
}

fn name_at(text: &str) -> &str {
    let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len());
    &text[..end]
}

/// The first names of the members of a group, up to its closing brace.
fn group_heads(group: &str) -> Vec<&str> {
    let (mut level, mut is_new, mut names) = (0, true, Vec::new());
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => level += 1,
            '}' if level == 0 => break,
            '}' => level -= 1,
            ',' if level == 0 => is_new = true,
            letter if is_new && level == 0 && !letter.is_whitespace() => {
                names.push(name_at(&group[at..]));
                is_new = false;
            }
            _ => {}
        }
    }
    names
}

/// Imports of other rooms, and calls of their methods through the fields that hold them.
fn arrows(floors: &BTreeMap<String, u32>) -> (BTreeSet<Arrow>, BTreeSet<Arrow>) {
    let (mut imports, mut calls) = (BTreeSet::new(), BTreeSet::new());
    for (room, path) in files() {
        let source = fs::read_to_string(&path).expect("a source file");
        let up = "super::".repeat(depth(&path));
        for (line, statement) in statements(&source) {
            let place = format!("{}:{line}", path.display());
            let arrow = |to: &str| Arrow { from: room.clone(), to: to.to_owned(), place: place.clone() };
            let mut named = heads(&statement, "crate::engine::");
            if statement.trim_start().starts_with("use crate::{")
                && let Some((_, group)) = statement.split_once("engine::{")
            {
                named.extend(group_heads(group));
            } else if statement.trim_start().starts_with("use crate::{") {
                named.extend(heads(&statement, " engine::"));
            }
            if !up.is_empty() {
                named.extend(heads(&statement, &up));
            }
            imports.extend(named.into_iter().filter(|to| *to != room && floors.contains_key(*to)).map(arrow));
            let called = heads(&statement, "self.");
            let is_call =
                |to: &&str| *to != room && floors.contains_key(*to) && statement.contains(&format!("self.{to}."));
            calls.extend(called.into_iter().filter(is_call).map(arrow));
        }
    }
    (imports, calls)
}

/// The rooms that reach themselves along arrows.
fn circles(arrows: &BTreeSet<Arrow>) -> BTreeSet<String> {
    let reaches = |start: &String| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![start.clone()]);
        while let Some(room) = next.pop() {
            let beyond = arrows.iter().filter(|arrow| arrow.from == room).map(|arrow| arrow.to.clone());
            next.extend(beyond.filter(|to| seen.insert(to.clone())));
        }
        seen.contains(start)
    };
    arrows.iter().map(|arrow| arrow.from.clone()).filter(reaches).collect()
}

#[test]
fn every_import_and_every_call_in_the_engine_goes_down() {
    let floors = floors();
    let unlisted: Vec<String> =
        files().into_iter().map(|(room, _)| room).filter(|room| !floors.contains_key(room)).collect();
    assert!(unlisted.is_empty(), "these rooms have no floor in engine/mod.rs: {unlisted:?}");
    let (imports, calls) = arrows(&floors);
    assert!(imports.len() > 50 && calls.len() > 50, "the sources are read: {} {}", imports.len(), calls.len());
    let is_up = |arrow: &&Arrow| floors[&arrow.to] >= floors[&arrow.from];
    let up: Vec<&Arrow> = imports.iter().chain(&calls).filter(is_up).collect();
    let all: BTreeSet<Arrow> = imports.union(&calls).cloned().collect();
    let between: BTreeSet<(&String, &String)> = all.iter().map(|arrow| (&arrow.from, &arrow.to)).collect();
    let circles = circles(&all);
    println!(
        "{} rooms on {} floors; {} arrows between rooms ({} imports, {} calls), {} of them up; {} rooms in circles",
        floors.len() - 1,
        floors.values().collect::<BTreeSet<_>>().len(),
        between.len(),
        imports.len(),
        calls.len(),
        up.len(),
        circles.len(),
    );
    assert!(up.is_empty(), "these uses go up, or to a room of the same floor: {up:#?}");
    assert!(circles.is_empty(), "{circles:?}");
}
