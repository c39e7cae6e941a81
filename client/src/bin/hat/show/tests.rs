//! What people and programs see of wire values that no quick run of a server makes: every state, every event, every reason to wait.

use serde_json::Value;
use sortinghat_client::is_final;
use sortinghat_proto::{
    Digest, JobKind, ObjectRef,
    manifest::{
        AbsentClass, ClassCount, DatasetManifest, IngestCounts, Rejection, RejectionReason, Remark, Shard, SplitKind,
    },
    v1::{
        self, Attempt, AttemptOutcome, CancelJobsResponse, ErrorCode, Failure, FailureClass, Job, JobEvent, JobOutput,
        JobState, Progress, TaskProgress, Worker, WorkerDescription, explain_job_response::Reason, job_event::Event,
        job_spec::Kind,
    },
};

use super::{dataset, job, json, line::row, paper::Paper, queue, worker};

/// The time at which the tests look: 2026-11-30 08:00:00Z.
const NOW: i64 = 1_796_025_600_000;
const MINUTE: i64 = 60_000;

const STATES: [JobState; 7] = [
    JobState::Unspecified,
    JobState::Blocked,
    JobState::Queued,
    JobState::Running,
    JobState::Succeeded,
    JobState::Failed,
    JobState::Cancelled,
];

fn object(content: &str) -> v1::ObjectRef {
    ObjectRef::of(content.as_bytes()).into()
}

fn failure(class: FailureClass, code: ErrorCode, message: &str) -> Failure {
    let field = String::new();
    Failure { failure_class: class.into(), code: code.into(), message: message.to_owned(), field }
}

/// Specs of every kind.
fn specs() -> Vec<Kind> {
    JobKind::ALL.iter().flat_map(|kind| specs_of(*kind)).collect()
}

fn specs_of(kind: JobKind) -> Vec<Kind> {
    let source = Some(object("upload"));
    match kind {
        JobKind::Ingest => vec![Kind::Ingest(v1::IngestSpec {
            dataset_name: "stamps".into(),
            source,
            valid_percent: 20,
            derivative_short_side_px: 512,
            ..Default::default()
        })],
        JobKind::Finetune => vec![Kind::Finetune(v1::FinetuneSpec {
            dataset: "stamps@1".into(),
            model_name: "stamps".into(),
            backbone: "resnet18".into(),
            epochs: 5,
            freeze_epochs: Some(1),
            base_lr: 0.002,
            fold: Some(2),
            precision: 2,
            crop: 2,
            ..Default::default()
        })],
        JobKind::Evaluate => vec![
            Kind::Evaluate(v1::EvaluateSpec {
                model: "stamps/1".into(),
                on: Some(v1::evaluate_spec::On::Dataset("stamps@2".into())),
                tta: 3,
                tta_passes: 8,
                decisions: Some(object("decisions")),
                ..Default::default()
            }),
            Kind::Evaluate(v1::EvaluateSpec {
                model: "stamps/1".into(),
                on: source.map(v1::evaluate_spec::On::Source),
                ..Default::default()
            }),
        ],
        JobKind::Gather => vec![
            Kind::Gather(v1::GatherSpec {
                dataset_name: "stamps".into(),
                classes: vec![v1::GatherClass { name: "cats".into(), query: "a cat".into() }],
                provider: "openverse".into(),
                per_class: 100,
                dataset: "stamps@1".into(),
                valid_percent: 20,
                ..Default::default()
            }),
            Kind::Gather(v1::GatherSpec { dataset_name: "stamps".into(), urls: source, ..Default::default() }),
        ],
        JobKind::Classify => {
            vec![Kind::Classify(v1::ClassifySpec { model: "stamps/1".into(), source, top_k: 5, ..Default::default() })]
        }
        JobKind::Audit => {
            vec![Kind::Audit(v1::AuditSpec { dataset: "stamps@1".into(), seed: 7, ..Default::default() })]
        }
    }
}

fn attempt(outcome: AttemptOutcome) -> Attempt {
    let why = failure(FailureClass::Infrastructure, ErrorCode::StorageUnavailable, "the object store does not answer");
    Attempt {
        number: 2,
        worker_id: "w-1".into(),
        host: "attic".into(),
        epoch: 7,
        started_unix_ms: NOW - 5 * MINUTE,
        finished_unix_ms: NOW - 4 * MINUTE,
        outcome: outcome.into(),
        failure: (outcome == AttemptOutcome::Failed).then_some(why),
        task: 3,
    }
}

/// A job of the state at each moment of its life.
fn job_in(state: JobState, kind: Kind) -> Job {
    let has_started = !matches!(state, JobState::Unspecified | JobState::Blocked | JobState::Queued);
    let has_ended = is_final(state);
    let why = failure(FailureClass::User, ErrorCode::UnusableData, "each class needs two photos\nand more lines");
    let output = JobOutput { name: "stamps@1".into(), manifest: Some(object("m")), summary: "24 photos".into() };
    let progress = Progress { phase: "decode".into(), done: 5, total: 24, unit: "photos".into() };
    Job {
        id: "01kd0000000000000000000000".into(),
        spec: Some(v1::JobSpec { kind: Some(kind) }),
        state: state.into(),
        failure: (state == JobState::Failed).then_some(why),
        output: (state == JobState::Succeeded).then_some(output),
        progress: (state == JobState::Running).then_some(progress),
        created_unix_ms: NOW - 3 * MINUTE,
        started_unix_ms: if has_started { NOW - 2 * MINUTE } else { 0 },
        finished_unix_ms: if has_ended { NOW - MINUTE } else { 0 },
        ..Job::default()
    }
}

#[test]
fn the_table_of_jobs_has_a_row_for_every_state_and_for_what_cannot_be_read() {
    let kinds = specs().into_iter().cycle();
    let mut jobs: Vec<Job> = STATES.into_iter().zip(kinds).map(|(state, kind)| job_in(state, kind)).collect();
    jobs.push(Job { cancel_requested: true, ..jobs[3].clone() });
    jobs.push(Job {
        tasks: Some(TaskProgress { total: 4, succeeded: 1, running: 2, ..Default::default() }),
        progress: Some(Progress { phase: "join".into(), ..Default::default() }),
        ..jobs[3].clone()
    });
    jobs.push(Job { spec: None, ..jobs[2].clone() });
    jobs.push(Job { last_failed_attempt: Some(attempt(AttemptOutcome::Failed)), ..jobs[2].clone() });
    for (job, last) in jobs.iter_mut().zip("abcdefghjkmnp".chars()) {
        job.id = format!("01kd000000000000000000000{last}");
    }
    let unreadable = ["01kd0000000000000000000001".to_owned()];
    let shown = |width, colours| job::table(&jobs, &unreadable, NOW, Paper { width, colours }).join("\n");
    insta::assert_snapshot!(shown(None, false));
    insta::assert_snapshot!(shown(Some(80), true));
    insta::assert_snapshot!(shown(Some(60), false));
}

#[test]
fn a_job_is_shown_with_its_times_attempts_and_spec() {
    let outcomes = [
        AttemptOutcome::Unspecified,
        AttemptOutcome::Succeeded,
        AttemptOutcome::Failed,
        AttemptOutcome::Crashed,
        AttemptOutcome::Lost,
        AttemptOutcome::Returned,
        AttemptOutcome::Cancelled,
    ];
    let job = Job {
        attempts: outcomes.map(attempt).to_vec(),
        not_before_unix_ms: NOW,
        deadline_unix_ms: NOW + 60 * MINUTE,
        retry_of: "01kc0000000000000000000000".into(),
        ..job_in(JobState::Running, specs().remove(1))
    };
    insta::assert_snapshot!(job::lines(&job, Paper::default()).join("\n"));
}

#[test]
fn every_spec_is_shown_to_programs_with_all_of_its_fields() {
    let shown: Vec<Value> = specs()
        .into_iter()
        .map(|kind| json::job(&job_in(JobState::Queued, kind)))
        .map(|mut job| serde_json::json!({ "kind": job["kind"].take(), "spec": job["spec"].take() }))
        .collect();
    insta::assert_json_snapshot!(shown);
}

#[test]
fn a_job_is_shown_to_programs_with_its_output_attempts_and_requirements() {
    let requirements = v1::Requirements {
        device_kind: "cuda".into(),
        min_memory_bytes: 1 << 34,
        labels: [("zone".to_owned(), "eu".to_owned())].into(),
        ..Default::default()
    };
    let job = Job {
        attempts: vec![attempt(AttemptOutcome::Failed)],
        requirements: Some(requirements),
        parents: vec!["01kc0000000000000000000000".into()],
        tasks: Some(TaskProgress { total: 4, succeeded: 4, ..Default::default() }),
        lane: v1::Lane::Interactive.into(),
        priority: -3,
        idempotency_key: "key".into(),
        ..job_in(JobState::Succeeded, specs().remove(4))
    };
    insta::assert_json_snapshot!(json::tagged("result", json::job(&job)));
}

/// Every event there is, and one of a newer server.
fn events() -> Vec<JobEvent> {
    let why = failure(FailureClass::User, ErrorCode::ParentFailed, "job 01 failed");
    let output = JobOutput { name: "stamps@1".into(), manifest: Some(object("m")), summary: "24 photos".into() };
    let metrics =
        v1::EpochMetrics { epoch: 1, train_loss: 0.5, valid_loss: 0.25, accuracy: 0.75, ..Default::default() };
    let notice = |level: v1::NoticeLevel, text: &str| v1::Notice { level: level.into(), message: text.into() };
    let all = [
        Some(Event::StateChanged(v1::StateChanged { state: JobState::Queued.into(), ..Default::default() })),
        Some(Event::AttemptStarted(attempt(AttemptOutcome::Unspecified))),
        Some(Event::Log(v1::LogLine { text: "loading weights".into() })),
        Some(Event::EpochFinished(metrics)),
        Some(Event::Notice(notice(v1::NoticeLevel::Info, "fold 2 is held out"))),
        Some(Event::Notice(notice(v1::NoticeLevel::Warning, "2 files skipped"))),
        Some(Event::AttemptEnded(attempt(AttemptOutcome::Failed))),
        Some(Event::StateChanged(v1::StateChanged {
            state: JobState::Cancelled.into(),
            failure: Some(why),
            ..Default::default()
        })),
        Some(Event::StateChanged(v1::StateChanged {
            state: JobState::Succeeded.into(),
            output: Some(output),
            ..Default::default()
        })),
        None,
    ];
    let numbered = (1..).zip(all);
    numbered.map(|(sequence, event)| JobEvent { sequence, time_unix_ms: NOW, event }).collect()
}

#[test]
fn the_history_of_a_job_has_a_line_for_every_event_that_this_version_knows() {
    let lines: Vec<String> = events().iter().filter_map(job::event_line).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn every_event_is_an_object_for_programs() {
    insta::assert_json_snapshot!(events().iter().map(json::event).collect::<Vec<_>>());
}

#[test]
fn every_reason_is_explained_to_programs_under_its_own_name() {
    let last_attempt = Some(attempt(AttemptOutcome::Failed));
    let shortfall = v1::Shortfall { requirement: "device kind".into(), required: "cuda".into(), has: "cpu".into() };
    let reasons = [
        Some(Reason::Ended(v1::JobEnded {
            finished_unix_ms: NOW,
            failure: Some(failure(FailureClass::Suspect, ErrorCode::Poison, "its process died three times")),
        })),
        Some(Reason::Runs(v1::JobRuns {
            attempt: last_attempt.clone(),
            gives_way: true,
            trouble: "the object store does not answer".into(),
        })),
        Some(Reason::Parents(v1::WaitsForParents {
            parents: vec![v1::WaitedForJob { job_id: "01".into(), state: JobState::Running.into() }],
        })),
        Some(Reason::Backoff(v1::WaitsAfterFailure { until_unix_ms: NOW, last_attempt })),
        Some(Reason::NoWorker(v1::WaitsForAnyWorker {})),
        Some(Reason::NoCapableWorker(v1::WaitsForCapableWorker {
            workers: vec![v1::WorkerShortfalls {
                worker_id: "w-1".into(),
                host: "attic".into(),
                shortfalls: vec![shortfall],
                is_shared: false,
            }],
        })),
        Some(Reason::Turn(v1::WaitsForTurn {
            place: 12,
            place_is_a_bound: true,
            tenants: 2,
            slots: 4,
            estimated_wait_ms: Some(90_000),
        })),
        Some(Reason::NoAbleWorker(v1::WaitsForAbleWorker {
            workers: vec![v1::UnableWorker {
                worker_id: "w-1".into(),
                host: "attic".into(),
                reason: "the object store is full".into(),
                is_shared: false,
            }],
        })),
        Some(Reason::NotBefore(v1::WaitsForTime { not_before_unix_ms: NOW })),
        Some(Reason::Paused(v1::QueuePaused { since_unix_ms: NOW })),
        None,
    ];
    let explained = reasons.map(|reason| {
        let sentence = "it waits".to_owned();
        json::explanation("01", &v1::ExplainJobResponse { state: JobState::Queued.into(), sentence, reason })
    });
    insta::assert_json_snapshot!(explained);
}

#[test]
fn a_cancelled_job_is_told_apart_from_one_that_had_ended_and_one_that_still_runs() {
    let job = |state| job_in(state, specs().remove(0));
    let lines = STATES.map(|state| job::cancelled_line(&job(state), "hat jobs watch ID"));
    insta::assert_snapshot!(lines.join("\n"));
    let number = |matching, more| job::number_of(&CancelJobsResponse { matching, more });
    assert_eq!([number(1, false), number(1234, true)], ["1 job", "more than 1,234 jobs"]);
}

#[test]
fn a_queue_says_whether_it_is_open_and_what_waits() {
    let count = |state: JobState, jobs| v1::StateCount { state: state.into(), jobs };
    let open = v1::Queue {
        counts: vec![count(JobState::Queued, 1234), count(JobState::Running, 2)],
        oldest_queued_unix_ms: NOW - 90 * MINUTE,
        cancellations: 1,
        ..Default::default()
    };
    let paused = v1::Queue { paused_since_unix_ms: NOW, ..Default::default() };
    const RESUME: &str = "hat queue resume";
    let lines = [queue::lines(&open, RESUME, NOW), vec![String::new()], queue::lines(&paused, RESUME, NOW)].concat();
    insta::assert_snapshot!(lines.join("\n"));
    insta::assert_json_snapshot!([json::queue(&open), json::queue(&paused)]);
}

#[test]
fn the_table_of_workers_tells_idle_busy_ahead_and_draining_apart() {
    let worker = |tasks: u32, draining| Worker {
        id: format!("w-{tasks}"),
        description: Some(WorkerDescription {
            host: "attic".into(),
            device: "cuda:0".into(),
            device_reason: "the first GPU".into(),
            slots: 2,
            ..Default::default()
        }),
        running_tasks: (0..tasks).map(|n| n.to_string()).collect(),
        last_seen_unix_ms: NOW - 4_200,
        draining,
        health: None,
        serves: vec!["*".into()],
    };
    let health = |detail: &str| {
        Some(v1::WorkerHealth { is_able: false, reason: "the object store is full".into(), detail: detail.into() })
    };
    let unable = |detail: &str| Worker { health: health(detail), ..worker(0, false) };
    let workers = vec![
        worker(0, false),
        worker(2, false),
        worker(3, false),
        worker(1, true),
        Worker::default(),
        unable("the object store is full (PUT http://10.0.0.7/photos: 507): make room"),
        unable(""),
        Worker {
            description: Some(WorkerDescription {
                host: "cellar".into(),
                sandbox: "on, without landlock (this kernel has none, or it is turned off)".into(),
                tenant_switch_ms: 1_200,
                ..Default::default()
            }),
            ..worker(0, false)
        },
    ];
    insta::assert_json_snapshot!([json::worker(&workers[2]), json::worker(&workers[6]), json::worker(&workers[7])]);
    insta::assert_snapshot!(worker::table(workers, NOW, Paper::default()).join("\n"));
}

fn dataset_manifest(split: SplitKind, classes: usize) -> DatasetManifest {
    DatasetManifest {
        classes: (0..classes).map(|n| format!("class {n}")).collect(),
        class_counts: vec![ClassCount { train: 1200, valid: 300 }; classes],
        split,
        seed: 0,
        shards: vec![Shard { object: ObjectRef::of(b"shard"), rows: 1500 * classes as u64 }],
        derivative_short_side_px: 512,
        source: ObjectRef::of(b"upload"),
        counts: IngestCounts::default(),
        near_duplicate_groups: 2,
        rejections: None,
        remarks: vec![],
        gathered: None,
    }
}

#[test]
fn a_dataset_is_shown_with_each_kind_of_split_and_a_long_list_of_classes_is_cut() {
    let shown = |split, classes| dataset::lines("stamps@1", &dataset_manifest(split, classes), &[], "").join("\n");
    let all = [shown(SplitKind::Given, 2), shown(SplitKind::ValidPercent(20), 1), shown(SplitKind::Folds(5), 42)];
    insta::assert_snapshot!(all.join("\n\n"));
}

#[test]
fn every_reason_to_leave_out_a_file_has_words() {
    use RejectionReason::{
        BesideSplit, Conflicting, Corrupt, Duplicate, Empty, NoClass, NotAPhoto, Other, OverLimit, Truncated,
        Unreadable, Unsupported,
    };
    let reasons = [
        Empty,
        Truncated,
        Corrupt,
        OverLimit,
        Unsupported,
        NotAPhoto,
        NoClass,
        BesideSplit,
        Duplicate,
        Conflicting,
        Unreadable,
        Other,
    ];
    let all = reasons.map(|reason| Rejection {
        path: "red/\u{1b}[2J.jpg".into(),
        digest: Digest::of(b""),
        reason,
        message: "why\tit was left out".into(),
    });
    insta::assert_snapshot!(all.each_ref().map(|one| row(&dataset::rejection_row(one), false)).join("\n"));
    // Here control characters are escaped when the lines are printed.
    let all = all.map(|rejection| Rejection { path: "red/1.jpg".into(), message: "why".into(), ..rejection });
    let named = dataset::lines(
        "stamps@1",
        &dataset_manifest(SplitKind::Given, 1),
        &all,
        "hat datasets show stamps@1 --rejected",
    );
    insta::assert_snapshot!(named.join("\n"));
}

#[test]
fn what_an_ingest_noticed_is_shown_and_nothing_is_claimed_against_it() {
    let plain = dataset_manifest(SplitKind::ValidPercent(20), 1);
    let claims = ["every file was used", "each kept on one side of the split"];
    let told = dataset::lines("stamps@1", &plain, &[], "").join("\n");
    assert!(claims.iter().all(|claim| told.contains(claim)), "{told}");
    let absent = AbsentClass { class: "birds".into(), why: "3 entries: in a format that is not supported".into() };
    let remarks = vec![
        Remark::ClassesWithoutPhotos { classes: vec![absent] },
        Remark::OnlyNearDuplicates { classes: vec!["class 0".into()] },
        Remark::Mended { photos: 2, examples: vec!["a.jpg".into()] },
    ];
    let noticed = DatasetManifest { remarks, ..plain };
    let told = dataset::lines("stamps@1", &noticed, &[], "").join("\n");
    assert!(!claims.iter().any(|claim| told.contains(claim)), "{told}");
    insta::assert_snapshot!(dataset::remarks(&noticed).join("\n"));
}
