//! That a model tells photos which resemble none of its classes, in every row of its predictions.

use arrow_array::{Array as _, cast::AsArray as _, types::Float32Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sortinghat_proto::{
    ClassifySpec, JobSpec, ModelRef, ObjectRef, Precision,
    manifest::{PredictionsManifest, UnlikeMethod, UnlikeRecord},
};
use sortinghat_worker::task::JobOutput;

use crate::shapes::{Bench, Inputs, shape, white};

/// Classifies a photo of the model's shapes, a file that is no photo, and a white square.
pub(crate) fn assert_photos_are_told(bench: &Bench, model: &ObjectRef, record: &UnlikeRecord) {
    assert_eq!((record.held_out, record.method), (10, UnlikeMethod::EnergyAndDistance));
    let files = [
        ("disc.png".to_owned(), shape(true, 0)),
        ("broken.jpg".to_owned(), b"not a photo".to_vec()),
        ("white.png".to_owned(), white()),
    ];
    let source = bench.upload(&files);
    let model_ref = ModelRef::parse("shapes/1", "").unwrap();
    let spec = ClassifySpec { model: model_ref, source, top_k: 1, tta: None, seed: 0, precision: Precision::F32 };
    let inputs = Inputs { model: Some(model.clone()), ..Inputs::default() };
    let whole = bench.run(JobSpec::Classify(spec.clone()), inputs).output();
    let joined = bench.run_in_shards(&JobSpec::Classify(spec), Some(model), 2);
    let rows = |output: &JobOutput| {
        let manifest: PredictionsManifest = bench.objects().document(&output.manifest).unwrap();
        let part = bench.objects().read(&manifest.parts[0]).unwrap();
        ParquetRecordBatchReaderBuilder::try_new(part).unwrap().build().unwrap().next().unwrap().unwrap()
    };
    let (rows, joined) = (rows(&whole), rows(&joined));
    assert_eq!(joined.columns(), rows.columns(), "shards keep the scores");
    let (flags, scores) = (rows.column(6).as_boolean(), rows.column(7).as_primitive::<Float32Type>());
    assert!(flags.is_null(1) && scores.is_null(1), "nothing is said of what is no photo");
    assert!([0, 2].iter().all(|&row| flags.value(row) == (scores.value(row) > 0.0)), "{flags:?} {scores:?}");
    assert!(!flags.value(0) && scores.value(2) > scores.value(0), "nothing is less like the shapes: {scores:?}");
}
