//! Made-up evaluations, and their pages.

use sortinghat_photos::{ImageFormat, Photo};
use sortinghat_proto::{
    Backbone, Digest, JobId, ObjectRef, Precision, TrainingCrop, Tta, TtaRecipe,
    manifest::{
        AutoRecord, DatasetProvenance, Decisions, Findings, FineTuneRecord, Framing, LabelWeights, ModelManifest,
        RecipeRecord, RegressionRecord, Remark, View, WeightedLabel, WeightsProvenance,
    },
    time::UnixMs,
};
use sortinghat_worker::{
    evaluation::{Subject, apply_decisions, list_doubts, measure},
    prediction::probabilities::Probabilities,
    report::{Noticed, Pictures, Report},
};

/// 2026-11-30 08:00:00 UTC.
pub(crate) const SUBMITTED: UnixMs = UnixMs(1_796_025_600_000);
/// What would run, or end an element or an attribute, if it went into the page as it is.
pub(crate) const HOSTILE: &str = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&";

/// What a made-up evaluation is about. Photo `i` of a class is of the same content in every sample.
pub(crate) struct Sample {
    pub(crate) model: &'static str,
    pub(crate) classes: Vec<String>,
    pub(crate) photos_per_class: usize,
    /// Of each class the first photos are predicted as the next class.
    pub(crate) errors_per_class: usize,
    pub(crate) tta: Option<Tta>,
    pub(crate) learned_from: Option<u64>,
    pub(crate) skipped: u64,
    pub(crate) decisions: Option<Decisions>,
    pub(crate) remarks: Vec<Remark>,
    /// Whether labels counted less while the model learned.
    pub(crate) weighs_labels: bool,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            model: "stamps/1",
            classes: ["animals", "food", "vehicles"].map(String::from).to_vec(),
            photos_per_class: 12,
            errors_per_class: 3,
            tta: None,
            learned_from: Some(0),
            skipped: 0,
            decisions: None,
            remarks: vec![],
            weighs_labels: false,
        }
    }
}

pub(crate) const TTA: Option<Tta> = Some(Tta { recipe: TtaRecipe::Fastai2, passes: 4 });

/// The digest of a photo of a class.
pub(crate) fn digest(class: usize, number: usize) -> Digest {
    Digest::of(format!("{class}/{number}").as_bytes())
}

impl Sample {
    fn subjects(&self) -> Vec<Subject> {
        let photo = |class: usize, number: usize| Subject {
            digest: digest(class, number),
            path: format!("{}/{number:03}.png", self.classes[class]),
            label: class,
        };
        (0..self.classes.len())
            .flat_map(|class| (0..self.photos_per_class).map(move |number| photo(class, number)))
            .collect()
    }

    /// The first photos are sure of the next class. The others are right, and the surer the higher their number is.
    fn rows(&self) -> Probabilities {
        let classes = self.classes.len();
        let row = |class: usize, number: usize| {
            let is_wrong = number < self.errors_per_class;
            let predicted = (class + usize::from(is_wrong)) % classes;
            let (least, more) = if is_wrong { (0.9, 0.09) } else { (0.55, 0.44) };
            let sure = least + more * number as f32 / self.photos_per_class as f32;
            let rest = (1.0 - sure) / (classes - 1) as f32;
            (0..classes).map(move |other| if other == predicted { sure } else { rest })
        };
        let photos = (0..classes).flat_map(|class| (0..self.photos_per_class).map(move |number| (class, number)));
        Probabilities::new(photos.flat_map(|(class, number)| row(class, number)).collect(), classes)
    }

    pub(crate) fn findings(&self) -> Findings {
        let (subjects, rows) = (self.subjects(), self.rows());
        let mut findings = measure(self.classes.clone(), &subjects, &rows, self.tta.map(|tta| (tta, &rows)));
        if self.learned_from == Some(0) {
            list_doubts(&mut findings, &subjects, &rows);
        }
        findings.learned_from = self.learned_from;
        findings.skipped = self.skipped;
        let cleaned = |decisions| apply_decisions(decisions, &self.classes, &subjects, &rows).unwrap();
        findings.cleaned = self.decisions.as_ref().map(cleaned);
        findings
    }

    fn made(&self) -> ModelManifest {
        let made = made(&self.classes);
        if self.weighs_labels { ModelManifest { recipe: weighing(&self.classes), ..made } } else { made }
    }

    pub(crate) fn html(&self) -> String {
        let findings = self.findings();
        let mut pictures = Pictures::new(findings.mistakes.len());
        for (shade, mistake) in (0_u8..40).zip(&findings.mistakes) {
            pictures.add(mistake.digest.clone(), &picture(shade * 6));
        }
        let target = format!("the {} held-out photos of stamps@1", self.subjects().len());
        let report = Report {
            model: self.model,
            made: &self.made(),
            target: &target,
            job: &JobId::new(1, 1),
            submitted: Some(SUBMITTED),
            collection: "stamps",
            noticed: &[Noticed { photos: "stamps@1".into(), remarks: self.remarks.clone() }],
            decisions: self.decisions.as_ref(),
            command: &format!("hat evaluate {} --decisions decisions.json", self.model),
            findings: &findings,
            pictures: &pictures,
        };
        report.to_html().expect("a page")
    }
}

/// A picture of one colour.
pub(crate) fn picture(shade: u8) -> Photo {
    let (width, height) = (120, 90);
    let pixels = [shade, 90, 200 - shade / 2].repeat((width * height) as usize);
    Photo { width, height, pixels, format: ImageFormat::Png, notes: Vec::new() }
}

/// A recipe by which the labels of 60 photos of the first class counted less.
fn weighing(classes: &[String]) -> RecipeRecord {
    let label = |number: u32| WeightedLabel {
        digest: digest(0, number as usize),
        path: format!("{}/{number:03}.png", classes[0]),
        label: classes[0].clone(),
        suggested: classes[1].clone(),
        weight: f64::from(number) / 200.0,
    };
    let regression = RegressionRecord {
        views: vec![View { framing: Framing::Pad, size_px: 224 }],
        lambda: 1e-3,
        temperature: 1.25,
        inner_folds: 5,
        tried: vec![],
        unlike: None,
    };
    let label_weights = LabelWeights { wrong_share: 0.125, below_half: 60, listed: (0..60).map(label).collect() };
    RecipeRecord::Auto(AutoRecord {
        chosen: "fast".into(),
        candidates: vec![],
        label_weights: Some(label_weights),
        regression,
    })
}

fn made(classes: &[String]) -> ModelManifest {
    ModelManifest {
        classes: classes.to_vec(),
        backbone: Backbone::EfficientnetLite0,
        weights: ObjectRef::of(b"weights"),
        image_size_px: 224,
        mean: [0.5; 3],
        std: [0.5; 3],
        recipe: RecipeRecord::Fastai2(FineTuneRecord {
            freeze_epochs: 1,
            epochs: 5,
            base_lr: 0.002,
            rate_search: None,
            mixing: None,
            label_smoothing: 0.1,
            crop: TrainingCrop::Resize,
            batch_size: 64,
            micro_batch_size: 64,
        }),
        dataset: DatasetProvenance { name: "stamps@1".into(), manifest: ObjectRef::of(b"dataset"), fold: None },
        pretrained: WeightsProvenance { source: "efficientnet_lite0.safetensors".into(), digest: None },
        seed: 7,
        precision: Precision::F32,
        device: "cpu".into(),
        threads: 2,
        software: "0.0.9".into(),
        history: Vec::new(),
    }
}
