//! Aligned columns that fit the terminal, labelled fields, and the table of training.

use std::borrow::Cow;

use sortinghat_proto::v1::EpochMetrics;
use textwrap::{Options, WordSplitter};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::{
    numbers::{duration, time},
    paper::{Paper, Tint},
    plain,
};

/// Columns between two cells.
const GAP: usize = 2;
/// Prose that has less room than this, in columns, goes below its row.
const NARROWEST_PROSE: usize = 24;
/// Prose that goes below its row begins at this column.
const INDENT: usize = 4;
/// A cell is not shortened below this width.
const NARROWEST_CELL: usize = 8;

/// What becomes of a cell for which the terminal is too narrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It is shown whole.
    Whole,
    /// It is shortened in the middle, as the beginning and the end of a name say more.
    Middle,
    /// It is wrapped at words, and goes below its row if there is little room. Only the last column is prose.
    Prose,
}

/// A cell of a table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Cell {
    text: String,
    tint: Tint,
}

impl Cell {
    /// A coloured cell.
    pub(crate) fn tinted(text: impl Into<String>, tint: Tint) -> Self {
        Self { text: text.into(), tint }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::tinted(text, Tint::None)
    }
}

/// Lines with aligned columns, each as wide as its widest cell.
pub(crate) fn columns<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> Vec<String> {
    let rows: Vec<[Cell; N]> = rows.iter().map(|row| row.each_ref().map(|cell| cell.as_str().into())).collect();
    fitted(header.map(|head| (head, Fit::Whole)), &rows, Paper::default())
}

/// Lines with aligned columns, two spaces apart, that fit the paper. The header is in capitals, as that of `ps` is. The lines are safe for
/// a terminal, and may have colours.
pub(crate) fn fitted<const N: usize>(header: [(&str, Fit); N], rows: &[[Cell; N]], paper: Paper) -> Vec<String> {
    let fits = header.map(|(_, fit)| fit);
    let header = header.map(|(head, _)| Cell::from(head.to_uppercase()));
    let safe = |cell: &Cell| Cell { text: plain::cell(&cell.text).into_owned(), tint: cell.tint };
    let mut rows: Vec<[Cell; N]> =
        std::iter::once(header).chain(rows.iter().map(|row| row.each_ref().map(safe))).collect();
    let natural: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].text.width()).max().unwrap_or(0));
    let layout = Layout::of(natural, fits, paper.width);
    if layout.below.is_some() {
        // Prose below its row needs no header.
        rows[0][N - 1] = Cell::default();
    }
    rows.iter().flat_map(|row| layout.lines(row, paper)).collect()
}

/// How the columns share the paper.
struct Layout<const N: usize> {
    fits: [Fit; N],
    widths: [usize; N],
    /// The last column is prose that has too little room beside the others. It goes below its row, into lines of this width.
    below: Option<usize>,
}

impl<const N: usize> Layout<N> {
    fn of(natural: [usize; N], fits: [Fit; N], paper: Option<usize>) -> Self {
        let mut layout = Self { fits, widths: natural, below: None };
        let Some(paper) = paper else { return layout };
        if fits.last() == Some(&Fit::Prose) {
            let beside = paper.saturating_sub(layout.room(N - 1) + GAP);
            if beside >= NARROWEST_PROSE.min(natural[N - 1]) {
                layout.widths[N - 1] = beside.min(natural[N - 1]);
                return layout;
            }
            layout.below = Some(paper.saturating_sub(INDENT));
        }
        // The widest cells are shortened first, and all of them equally in the end.
        while layout.room(layout.beside()) > paper {
            let shortened = (0..layout.beside()).filter(|column| fits[*column] == Fit::Middle);
            let widest = shortened.max_by_key(|column| layout.widths[*column]);
            match widest.filter(|column| layout.widths[*column] > NARROWEST_CELL) {
                Some(column) => layout.widths[column] -= 1,
                None => break,
            }
        }
        layout
    }

    /// How many columns are beside each other.
    fn beside(&self) -> usize {
        if self.below.is_some() { N - 1 } else { N }
    }

    /// The width of the first `columns` columns with the gaps between them.
    fn room(&self, columns: usize) -> usize {
        self.widths[..columns].iter().sum::<usize>() + GAP * columns.saturating_sub(1)
    }

    fn lines(&self, row: &[Cell; N], paper: Paper) -> Vec<String> {
        let mut lines = vec![String::new()];
        let mut margin = 0;
        for (column, cell) in row.iter().enumerate().take(self.beside()) {
            let width = self.widths[column];
            if self.fits[column] == Fit::Prose {
                let mut parts = wrapped(&cell.text, width).into_iter().map(|part| paper.tinted(part, cell.tint));
                lines[0] += &parts.next().unwrap_or_default();
                lines.extend(parts.map(|part| " ".repeat(margin) + &part));
            } else {
                lines[0] += &padded(cell, width, paper);
                lines[0] += &" ".repeat(GAP);
                margin += width + GAP;
            }
        }
        if let (Some(width), Some(prose)) = (self.below, row.last()) {
            let parts = wrapped(&prose.text, width).into_iter().filter(|part| !part.is_empty());
            lines.extend(parts.map(|part| " ".repeat(INDENT) + &paper.tinted(part, prose.tint)));
        }
        lines.iter().map(|line| line.trim_end().to_owned()).collect()
    }
}

/// A cell, shortened or filled to its column's width. Only the text is coloured.
fn padded(cell: &Cell, width: usize, paper: Paper) -> String {
    let text = shortened(&cell.text, width);
    let fill = " ".repeat(width.saturating_sub(text.width()));
    paper.tinted(&text, cell.tint) + &fill
}

/// `text` in at most `width` columns: its middle is left out if it is wider.
pub(crate) fn shortened(text: &str, width: usize) -> Cow<'_, str> {
    if text.width() <= width {
        return text.into();
    }
    let room = width.saturating_sub(1);
    let head: String = within(text.chars(), room.div_ceil(2)).collect();
    let tail: Vec<char> = within(text.chars().rev(), room - head.width()).collect();
    (head + "…" + &tail.into_iter().rev().collect::<String>()).into()
}

/// The first characters that fit into `width` columns.
fn within(characters: impl Iterator<Item = char>, width: usize) -> impl Iterator<Item = char> {
    characters
        .scan(0, |used, character| {
            *used += character.width().unwrap_or(0);
            Some((*used, character))
        })
        .take_while(move |(used, _)| *used <= width)
        .map(|(_, character)| character)
}

/// `text` in lines of at most `width` columns, broken at words; a longer word is broken.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    if text.width() <= width {
        return vec![text.to_owned()];
    }
    let options = Options::new(width).word_splitter(WordSplitter::NoHyphenation);
    textwrap::wrap(text, options).into_iter().map(Cow::into_owned).collect()
}

/// Prose in lines that fit the paper and are safe for a terminal.
pub(crate) fn prose(text: &str, paper: Paper) -> Vec<String> {
    text.lines().flat_map(|line| wrapped(&plain::cell(line), paper.width.unwrap_or(usize::MAX))).collect()
}

/// A line for each field: its label, filled to the widest, and its value, which is wrapped beside the label. The lines are safe for a
/// terminal, and may have colours.
pub(crate) fn fields(fields: &[(&str, Cell)], paper: Paper) -> Vec<String> {
    let label = fields.iter().map(|(label, _)| label.width()).max().unwrap_or(0) + GAP;
    let width = paper.width.map_or(usize::MAX, |paper| paper - label);
    let lines = fields.iter().flat_map(|(name, value)| {
        let parts = wrapped(&plain::cell(&value.text), width).into_iter().enumerate();
        parts
            .map(move |(number, part)| {
                let name = if number == 0 { *name } else { "" };
                format!("{name:<label$}{}", paper.tinted(part, value.tint)).trim_end().to_owned()
            })
            .collect::<Vec<_>>()
    });
    lines.collect()
}

/// The header of a table of things that have names.
pub(crate) const NAMED_HEADER: [(&str, Fit); 3] = [("name", Fit::Middle), ("made", Fit::Whole), ("what", Fit::Prose)];

/// A row of a table of things that have names: datasets and models.
pub(crate) fn named_row(name: &str, created_unix_ms: i64, summary: &str) -> [Cell; 3] {
    [name.into(), time(created_unix_ms).into(), summary.into()]
}

/// The header of the table of training.
pub(crate) const EPOCH_HEADER: &str = "epoch     trn_loss  val_loss  accuracy  time";

/// A row of the table of training. Epochs in which only the head learns are marked.
pub(crate) fn epoch_row(metrics: &EpochMetrics) -> String {
    let epoch = if metrics.frozen { format!("{} head", metrics.epoch) } else { metrics.epoch.to_string() };
    let EpochMetrics { train_loss, valid_loss, accuracy, .. } = metrics;
    let time = duration(metrics.duration_ms);
    format!("{epoch:<8}  {train_loss:<8.6}  {valid_loss:<8.6}  {accuracy:<8.6}  {time}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paper(width: usize) -> Paper {
        Paper { width: Some(width), colours: false }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_in_any_script() {
        let rows = [["ü".to_owned(), "1".to_owned()], ["long".to_owned(), "22".to_owned()]];
        assert_eq!(columns(["name", "photos"], &rows), ["NAME  PHOTOS", "ü     1", "long  22"]);
        assert_eq!(columns(["name"], &[]), ["NAME"]);
    }

    #[test]
    fn columns_are_aligned_by_what_a_terminal_shows_and_not_by_characters() {
        let rows = [
            ["猫".to_owned(), "1".to_owned()],
            ["e\u{301}te".to_owned(), "2".to_owned()],
            ["👩\u{200d}🌾".to_owned(), "3".to_owned()],
        ];
        assert_eq!(columns(["x", "n"], &rows), ["X    N", "猫   1", "e\u{301}te  2", "👩\u{200d}🌾   3"]);
    }

    const HEADER: [(&str, Fit); 3] = [("job", Fit::Whole), ("on", Fit::Middle), ("result", Fit::Prose)];

    fn row() -> [Cell; 3] {
        [
            "x7k2qp".into(),
            "a-long-name-of-a-dataset@12".into(),
            "each class needs at least two usable photos: red has 1".into(),
        ]
    }

    #[test]
    fn a_table_fits_the_terminal_by_wrapping_prose_at_words_below_itself_or_below_the_row() {
        let lines = |width| fitted(HEADER, &[row()], paper(width));
        assert_eq!(lines(200).len(), 2);
        assert_eq!(
            lines(80),
            [
                "JOB     ON                           RESULT",
                "x7k2qp  a-long-name-of-a-dataset@12  each class needs at least two usable",
                "                                     photos: red has 1",
            ]
        );
        assert_eq!(
            lines(40),
            [
                "JOB     ON",
                "x7k2qp  a-long-name-of-a-dataset@12",
                "    each class needs at least two usable",
                "    photos: red has 1",
            ]
        );
        assert!(fitted(HEADER, &[row()], Paper::default())[1].ends_with("red has 1"), "a pipe has no width");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_whatever_the_names_are() {
        let names = ["", "x", "a-long-name-of-a-dataset@12", "猫猫猫猫猫猫猫猫猫猫猫猫猫猫猫猫猫猫猫猫猫猫猫猫"];
        for width in 40..130 {
            for name in names {
                let row = ["x7k2qp".into(), name.into(), format!("{name} was left out: {}", "word ".repeat(20)).into()];
                for line in fitted(HEADER, &[row], paper(width)) {
                    assert!(line.width() <= width, "{width}: {line}");
                }
            }
        }
    }

    #[test]
    fn a_name_is_shortened_in_the_middle_so_that_its_end_still_tells_it_apart() {
        assert_eq!(shortened("holiday-in-rome@12", 11), "holid…me@12");
        assert_eq!(shortened("stamps@1", 8), "stamps@1");
        assert_eq!(shortened("猫猫猫猫猫", 6), "猫…猫");
    }

    #[test]
    fn colours_change_no_width_and_a_cell_cannot_bring_its_own() {
        let rows = [[Cell::tinted("failed", Tint::Bad), "\u{1b}[2J".into()]];
        let header = [("state", Fit::Whole), ("on", Fit::Whole)];
        let coloured = fitted(header, &rows, Paper { width: Some(80), colours: true });
        assert_eq!(coloured[1], "\u{1b}[31mfailed\u{1b}[39m  \\u{1b}[2J");
        assert_eq!(fitted(header, &rows, paper(80))[1], "failed  \\u{1b}[2J");
    }

    #[test]
    fn fields_are_wrapped_beside_their_label() {
        let shown = [("job", "x7k2qp".into()), ("spec", "epochs=5 precision=auto seed=0".into())];
        let lines = fields(&shown, paper(22));
        assert_eq!(lines, ["job   x7k2qp", "spec  epochs=5", "      precision=auto", "      seed=0"]);
    }

    #[test]
    fn the_table_of_training_is_that_of_the_post_with_the_frozen_epoch_marked() {
        let row = EpochMetrics {
            frozen: true,
            epoch: 0,
            train_loss: 2.345_678_9,
            valid_loss: 1.0,
            accuracy: 0.697_183_1,
            duration_ms: 21_400,
            ..Default::default()
        };
        assert_eq!(epoch_row(&row), "0 head    2.345679  1.000000  0.697183  21 s");
        let unfrozen = EpochMetrics { frozen: false, epoch: 12, ..row };
        assert_eq!(epoch_row(&unfrozen), "12        2.345679  1.000000  0.697183  21 s");
        assert_eq!(EPOCH_HEADER.find("accuracy"), epoch_row(&row).find("0.697"));
        assert_eq!(EPOCH_HEADER.find("time"), epoch_row(&row).find("21 s"));
    }
}
