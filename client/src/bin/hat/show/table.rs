//! Aligned columns, and the table of training.

use sortinghat_proto::v1::EpochMetrics;

use super::plain;

/// Lines with aligned columns, two spaces apart. The header is in capitals, as that of `ps` is.
pub(crate) fn columns<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> Vec<String> {
    let header = header.map(str::to_uppercase);
    let rows: Vec<[String; N]> =
        rows.iter().map(|row| row.each_ref().map(|cell| plain::cell(cell).into_owned())).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| &row[column]).chain(std::iter::once(&header[column]));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    std::iter::once(line(&header)).chain(rows.iter().map(line)).collect()
}

/// The header of the table of training.
pub(crate) const EPOCH_HEADER: &str = "epoch     trn_loss  val_loss  accuracy";

/// A row of the table of training. Epochs in which only the head learns are marked.
pub(crate) fn epoch_row(metrics: &EpochMetrics) -> String {
    let epoch = if metrics.frozen { format!("{} head", metrics.epoch) } else { metrics.epoch.to_string() };
    let EpochMetrics { train_loss, valid_loss, accuracy, .. } = metrics;
    format!("{epoch:<8}  {train_loss:<8.6}  {valid_loss:<8.6}  {accuracy:<8.6}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_in_any_script() {
        let rows = [["ü".to_owned(), "1".to_owned()], ["long".to_owned(), "22".to_owned()]];
        assert_eq!(columns(["name", "photos"], &rows), ["NAME  PHOTOS", "ü     1", "long  22"]);
        assert_eq!(columns(["name"], &[]), ["NAME"]);
    }

    #[test]
    fn the_table_of_training_is_that_of_the_post_with_the_frozen_epoch_marked() {
        let row = EpochMetrics {
            frozen: true,
            epoch: 0,
            train_loss: 2.345_678_9,
            valid_loss: 1.0,
            accuracy: 0.697_183_1,
            ..Default::default()
        };
        assert_eq!(epoch_row(&row), "0 head    2.345679  1.000000  0.697183");
        let unfrozen = EpochMetrics { frozen: false, epoch: 12, ..row };
        assert_eq!(epoch_row(&unfrozen), "12        2.345679  1.000000  0.697183");
        assert_eq!(EPOCH_HEADER.find("accuracy"), epoch_row(&row).find("0.697"));
    }
}
