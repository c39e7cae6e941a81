//! The predictions of an evaluation, which its worker has written as CSV.

use std::{io::Write as _, path::Path};

use sortinghat_proto::{ObjectRef, plain};

use super::write::Cells;
use crate::{Client, ClientError, Existing, downloads::Staged};

impl Client {
    /// Writes the predictions of an evaluation, which are CSV already, to `path`. The file appears only once it is complete.
    ///
    /// # Errors
    /// [`ClientError::File`] if the file cannot be written, or the reason why the predictions cannot be read.
    pub async fn save_measured(
        &self,
        predictions: &ObjectRef,
        cells: Cells,
        path: &Path,
        existing: Existing,
    ) -> Result<(), ClientError> {
        if cells == Cells::Raw {
            return self.save_object(predictions, path, existing).await;
        }
        let stored = self.read_object(predictions).await?;
        let harmless = harmless(&stored).map_err(|error| ClientError::CorruptObject {
            digest: predictions.digest.clone(),
            reason: error.to_string(),
        })?;
        let (staged, mut file) = Staged::create(path).map_err(ClientError::writing(path))?;
        file.write_all(&harmless).map_err(ClientError::writing(path))?;
        staged.finish(existing).map_err(ClientError::writing(path))
    }
}

/// The columns of an evaluation's predictions that hold text; the columns behind them hold numbers.
const MEASURED_TEXT_COLUMNS: usize = 4;

/// CSV of an evaluation with cells that no spreadsheet runs. The header has names of classes, and the first columns have text.
pub(super) fn harmless(stored: &[u8]) -> Result<Vec<u8>, csv::Error> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(stored);
    let mut writer = csv::Writer::from_writer(Vec::new());
    for (line, record) in reader.records().enumerate() {
        let record = record?;
        let cells = record.iter().enumerate().map(|(column, cell)| {
            let is_text = line == 0 || column < MEASURED_TEXT_COLUMNS;
            if is_text { plain::spreadsheet_cell(cell) } else { cell.into() }
        });
        writer.write_record(cells.map(|cell| cell.into_owned()))?;
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}
