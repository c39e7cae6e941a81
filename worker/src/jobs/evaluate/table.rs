//! Every prediction as CSV: `path,digest,label,predicted,loss`, then one column per class with its probability.

use crate::{
    evaluation::{Prediction, Subject},
    prediction::probabilities::Probabilities,
};

/// The file. The columns of classes carry the classes' names, even if a class is called like one of the columns before.
pub(super) fn to_csv(classes: &[String], photos: &[Subject], rows: &Probabilities) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let fixed = ["path", "digest", "label", "predicted", "loss"];
    writer.write_record(fixed.into_iter().chain(classes.iter().map(String::as_str)))?;
    for (photo, row) in photos.iter().zip(rows.iter()) {
        let prediction = Prediction::read(row, photo.label);
        let (label, predicted) = (&classes[photo.label], &classes[prediction.predicted]);
        let told = [&photo.path, photo.digest.as_str(), label, predicted].map(str::to_owned);
        let numbers = row.iter().map(f32::to_string);
        writer.write_record(told.into_iter().chain([prediction.loss.to_string()]).chain(numbers))?;
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sortinghat_proto::Digest;

    #[test]
    fn names_with_commas_and_quotes_survive_and_probabilities_are_exact() {
        let photo = Subject { digest: Digest::of(b"x"), path: "a, \"b\"/1.png".into(), label: 0 };
        let rows = Probabilities::new(vec![0.1, 0.9], 2);
        let bytes = to_csv(&["a, \"b\"".into(), "c".into()], &[photo], &rows).expect("written");
        let mut reader = csv::Reader::from_reader(bytes.as_slice());
        assert_eq!(&reader.headers().expect("a header")[5], "a, \"b\"");
        let record = reader.records().next().expect("a row").expect("well-formed");
        assert_eq!((&record[0], &record[2], &record[3]), ("a, \"b\"/1.png", "a, \"b\"", "c"));
        assert_eq!(record[5].parse::<f32>(), Ok(0.1));
    }
}
