//! Every bound of the system that more than one package keeps, in one place.

use std::time::Duration;

/// Bytes of a dataset's, model's, tenant's or worker's name.
pub const MAX_NAME_BYTES: usize = 63;
/// Bytes of an idempotency key.
pub const MAX_IDEMPOTENCY_KEY_BYTES: usize = 128;
/// Parents of one job.
pub const MAX_PARENTS: usize = 64;
/// Jobs in one `SubmitJobs` call.
pub const MAX_JOBS_PER_CALL: usize = 1000;
/// Entries of one page of a list.
pub const MAX_PAGE_SIZE: u32 = 1000;
/// Digests in one `FindMissingObjects` call.
pub const MAX_DIGESTS_PER_CALL: usize = 1000;
/// Bytes of one message, in either direction.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// Bytes of one piece of an upload or a download.
pub const MAX_PIECE_BYTES: usize = 1 << 20;
/// Objects in one `UploadObjects` call.
pub const MAX_PACKED_OBJECTS: usize = 1000;
/// Bytes of all objects in one `UploadObjects` call. The coordinator may hold all of them in memory.
pub const MAX_PACK_BYTES: u64 = 8 << 20;
/// Parts in one `JoinObjects` call.
pub const MAX_PARTS: usize = 1000;
/// How often one call of `JoinObjects` may name the same part, so that a short request cannot write an object of any length. The largest
/// photo, all of one colour, has so many equal parts.
pub const MAX_EQUAL_PARTS: usize = 32;
/// Bytes of one object that a client uploads: a photo, a weights file or an upload manifest.
pub const MAX_OBJECT_BYTES: u64 = 2 << 30;
/// Bytes of a manifest. It is bounded so that a reader can hold it in memory.
pub const MAX_MANIFEST_BYTES: u64 = 256 << 20;
/// Files in one upload manifest.
pub const MAX_UPLOAD_FILES: usize = 1_000_000;
/// Paths that an upload manifest names for each reason to leave out entries of a folder. All entries are counted.
pub const MAX_LEFT_OUT_PATHS: usize = 1000;
/// Files of one upload manifest whose objects are looked for when a job is submitted. Of more files, as many are taken at even distances;
/// a worker finds the others missing.
pub const MAX_FILES_LOOKED_FOR: usize = 10_000;
/// Bytes of a relative path in an upload manifest.
pub const MAX_PATH_BYTES: usize = 1024;
/// Bytes of one photo file.
pub const MAX_PHOTO_BYTES: u64 = 256 << 20;
/// Pixels of one photo, read from its header before it is decoded.
pub const MAX_PHOTO_PIXELS: u64 = 200_000_000;
/// Pixels of one side of a photo.
pub const MAX_PHOTO_SIDE_PX: u32 = 65_535;
/// Classes of a dataset.
pub const MAX_CLASSES: usize = 10_000;
/// Most probable classes that a classify gives for each photo.
pub const MAX_TOP_K: u32 = 1000;
/// Bytes of a class name.
pub const MAX_CLASS_NAME_BYTES: usize = 255;
/// Photos that one gathering may find for a class.
pub const MAX_GATHERED_PER_CLASS: u32 = 1000;
/// URLs that one gathering may fetch, and photos of a dataset that it adds to.
pub const MAX_GATHERED_URLS: usize = 100_000;
/// Bytes of a URL that is fetched.
pub const MAX_URL_BYTES: usize = 2048;
/// Bytes of the words that are searched for.
pub const MAX_QUERY_BYTES: usize = 200;
/// Bytes of one photo that is fetched from the web.
pub const MAX_FETCHED_BYTES: u64 = 32 << 20;
/// Durable events that one attempt may record. A quarter of them may be lines of the log; further lines are dropped and counted.
pub const MAX_EVENTS_PER_ATTEMPT: u64 = 10_000;
/// Last lines of an attempt's log that are kept, however long the log is.
pub const MAX_LOG_TAIL_LINES: usize = 100;
/// Bytes of all of these last lines together.
pub const MAX_LOG_TAIL_BYTES: usize = 32 << 10;
/// Bytes of a message or a log line that is kept.
pub const MAX_TEXT_BYTES: usize = 4096;
/// How many bytes of what somebody has sent a message about it repeats.
pub const MAX_QUOTED_BYTES: usize = 64;
/// Bytes of the message of a refused call. It travels in HTTP headers, of which some clients take no more than 8 KiB.
pub const MAX_REFUSAL_BYTES: usize = 736;
/// Fields at fault that a refused call lists. Its message has the number of all.
pub const MAX_VIOLATIONS: usize = 8;
/// Bytes of the name of such a field, and of what is wrong with it.
pub const MAX_VIOLATION_BYTES: usize = 160;
/// Attempts that a job's record shows, the newest ones.
pub const MAX_SHOWN_ATTEMPTS: usize = 20;
/// Items of a job that are one task, unless configured otherwise. A job with more items is divided into shards of this size. It is a
/// multiple of the photos of one prediction batch, so that a division does not change which photos are in a batch together.
pub const DEFAULT_SHARD_ITEMS: u64 = 1024;
/// Shards of one job, because their results are listed in one message. A job with more items has larger shards.
pub const MAX_SHARDS_PER_JOB: u32 = 4096;
/// Attempts that may die without progress. The task is then poison: it fails and is not tried again.
pub const MAX_DEATHS_WITHOUT_PROGRESS: u32 = 3;
/// Attempts that may run out of memory without progress. The task then fails.
pub const MAX_MEMORY_FAILURES: u32 = 2;
/// Bulk cancellations of one tenant that may be unfinished at a time.
pub const MAX_CANCELLATIONS: usize = 16;
/// Jobs that a bulk cancellation looks at to count the ones that match.
pub const MAX_COUNTED_JOBS: usize = 10_000;
/// Jobs of one tenant that may wait, unless configured otherwise.
pub const DEFAULT_MAX_WAITING_JOBS_PER_TENANT: u64 = 1_000_000;
/// Tasks of all tenants that may wait, unless configured otherwise.
pub const DEFAULT_MAX_WAITING_TASKS: u64 = 4_000_000;
/// Calls in flight that submit one job. More calls would only wait for each other.
pub const MAX_SUBMITS_IN_FLIGHT: usize = 128;
/// Calls in flight that submit many jobs each: calls whose jobs are being accepted, and some calls that are being read.
pub const MAX_BULK_SUBMITS_IN_FLIGHT: usize = 8;
/// Further calls that submit many jobs. They wait for a moment, unread, until one of the calls in flight ends.
pub const MAX_BULK_SUBMITS_WAITING: usize = 24;
/// Jobs that all calls with many jobs may submit at the same time. A call with more jobs than this runs alone. Fewer jobs already keep
/// the store busy.
pub const MAX_BULK_JOBS_IN_FLIGHT: usize = 128;
/// Other brief calls in flight.
pub const MAX_BRIEF_CALLS_IN_FLIGHT: usize = 512;
/// Uploads and downloads in flight.
pub const MAX_TRANSFERS_IN_FLIGHT: usize = 128;
/// Bytes of uploads in flight that the coordinator holds in memory.
pub const MAX_UPLOAD_BYTES_IN_FLIGHT: usize = 256 << 20;
/// Calls in flight that need no token: health checks and reflection.
pub const MAX_OPEN_CALLS_IN_FLIGHT: usize = 512;
/// Connections on which no call has been authenticated.
pub const MAX_UNKNOWN_CONNECTIONS: usize = 1024;
/// How many of them come from one address, unless the operator allows another number.
pub const DEFAULT_MAX_UNKNOWN_CONNECTIONS_PER_ADDRESS: usize = 64;
/// Connections that one identity may have open, calls that it may have under way, and workers that it may have, unless the operator allows
/// another number.
pub const DEFAULT_MAX_OPEN_PER_IDENTITY: usize = 1000;
/// How long a new connection may take for its handshake and its first call.
pub const MAX_TIME_TO_FIRST_CALL: Duration = Duration::from_secs(10);
/// Watches in flight.
pub const MAX_WATCHES_IN_FLIGHT: usize = 10_000;
/// Long polls of workers in flight.
pub const MAX_WORKER_CALLS_IN_FLIGHT: usize = 10_000;
/// Largest distance of a job's priority from 0.
pub const MAX_PRIORITY: i32 = 10;
/// How long an attempt runs before it may be preempted by a task of higher priority, in milliseconds.
pub const MIN_RUN_BEFORE_PREEMPTION_MS: u64 = 60_000;
/// Labels that one job may require.
pub const MAX_REQUIRED_LABELS: usize = 8;
/// Labels that one job may have.
pub const MAX_JOB_LABELS: usize = 16;
/// How long a job may be kept after its end, unless it is kept until it is deleted.
pub const MAX_KEEP_FOR: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);
/// Labels that one worker may have.
pub const MAX_WORKER_LABELS: usize = 32;
/// Bytes of a label's name, and of its value.
pub const MAX_LABEL_BYTES: usize = 63;
/// Different requirements among the waiting jobs of one tenant in one lane. Each of them is a queue of its own, which every claim reads.
pub const MAX_REQUIREMENT_CLASSES: usize = 64;
/// Leases that one worker may hold, and that one message of a worker may report.
pub const MAX_LEASES_PER_WORKER: usize = 1_000;
/// Bytes of the secret by which a coordinator knows a worker's session.
pub const SESSION_SECRET_BYTES: usize = 32;
/// Digests of cached manifests in one message of a worker.
pub const MAX_CACHED_MANIFESTS: usize = 256;
/// Largest weight of a tenant in the fair division among tenants.
pub const MAX_TENANT_WEIGHT: u32 = 1000;
/// Classes up to which a confusion matrix is written in full. For more classes, only the pairs that were confused are written.
pub const MAX_MATRIX_CLASSES: usize = 200;
/// Photos with errors, and photos with doubtful labels, that an evaluation lists for review.
pub const MAX_REVIEWED_PHOTOS: usize = 500;
/// Photos of the random sample that an audit asks about.
pub const MAX_SAMPLED_PHOTOS: usize = 60;
