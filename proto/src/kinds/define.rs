//! The macro that turns the table of kinds into types and into the conversions from and to the wire.

/// Defines [`JobKind`](super::JobKind) and [`JobSpec`](super::JobSpec) from the rows of the table.
///
/// A row is `Variant = "name", SpecType { facts }`. `Variant` is also the arm of the `oneof` in `specs.proto`, and the facts are the
/// fields of [`Row`](super::Row). So an arm without a row, a row without an arm and a missing fact are errors of the compiler.
macro_rules! job_kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal, $spec:ident { $($facts:tt)* })+) => {
        /// The kinds of jobs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum JobKind {
            $($(#[$doc])* #[serde(rename = $name)] $kind,)+
        }

        impl JobKind {
            /// All kinds, in the order in which they are usually run.
            pub const ALL: &'static [Self] = &[$(Self::$kind),+];

            const fn row(self) -> &'static Row {
                match self {
                    $(Self::$kind => &Row { name: $name, $($facts)* },)+
                }
            }
        }

        /// What a job shall do, with every default filled in.
        #[derive(Debug, Clone, PartialEq)]
        pub enum JobSpec {
            $($(#[$doc])* $kind($spec),)+
        }

        impl JobSpec {
            /// The kind of the job.
            pub fn kind(&self) -> JobKind {
                match self {
                    $(Self::$kind(_) => JobKind::$kind,)+
                }
            }

            fn spec(&self) -> &dyn Spec {
                match self {
                    $(Self::$kind(spec) => spec,)+
                }
            }

            fn spec_mut(&mut self) -> &mut dyn Spec {
                match self {
                    $(Self::$kind(spec) => spec,)+
                }
            }
        }

        impl TryFrom<v1::JobSpec> for JobSpec {
            type Error = Refusal;

            /// Validates a spec: the [`Refusal`] names the field at fault.
            fn try_from(wire: v1::JobSpec) -> Result<Self, Refusal> {
                match wire.kind {
                    $(Some(v1::job_spec::Kind::$kind(spec)) => spec.try_into().map(Self::$kind),)+
                    None => Err(Refusal::invalid("spec.kind", format!("a job needs one of {}", names().join(", ")))),
                }
            }
        }

        impl From<JobSpec> for v1::JobSpec {
            fn from(spec: JobSpec) -> Self {
                let kind = match spec {
                    $(JobSpec::$kind(spec) => v1::job_spec::Kind::$kind(spec.into()),)+
                };
                Self { kind: Some(kind) }
            }
        }

        impl v1::job_spec::Kind {
            fn job_kind(&self) -> JobKind {
                match self {
                    $(Self::$kind(_) => JobKind::$kind,)+
                }
            }

            fn spec(&self) -> &dyn WireSpec {
                match self {
                    $(Self::$kind(spec) => spec,)+
                }
            }
        }
    };
}

pub(super) use job_kinds;
