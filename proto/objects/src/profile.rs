//! The profile of `~/.aws/credentials` and `~/.aws/config` that the tools of AWS would use. Only keys that are written down are read: what
//! a tool would have to be started or asked for is refused by name.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use crate::s3::Environment;

/// With one of these variables, credentials come from somewhere else than a profile.
pub(crate) const OTHER_SOURCES: [&str; 5] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];
/// Settings of a profile by which keys would have to be fetched.
const FETCHED: [&str; 5] =
    ["role_arn", "credential_process", "sso_session", "sso_start_url", "web_identity_token_file"];

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// A file exists but cannot be read.
    #[error("failed to read {path}: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A variable names a file by a path that depends on the folder in which the process was started, which is left then.
    #[error("{variable} names {path}, which is no absolute path: name the file from the root on", path = path.display())]
    Relative {
        /// The variable.
        variable: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// AWS_PROFILE names a profile that is in neither file.
    #[error("AWS_PROFILE names the profile {name:?}, which is neither in ~/.aws/credentials nor in ~/.aws/config")]
    Unknown {
        /// The profile.
        name: String,
    },
    /// The profile has no keys of its own.
    #[error(
        "the profile {name:?} gets its keys by {setting}, which is not supported here: `aws configure export-credentials --profile {name} \
         --format env` prints the variables to set"
    )]
    Fetched {
        /// The profile.
        name: String,
        /// The setting.
        setting: &'static str,
    },
    /// The profile is to give keys, and has none.
    #[error(
        "the profile {name:?} has no keys: write its aws_access_key_id and aws_secret_access_key into ~/.aws/credentials"
    )]
    Keyless {
        /// The profile.
        name: String,
    },
    /// The profile has one of two keys.
    #[error("the profile {name:?} has no {missing}")]
    Incomplete {
        /// The profile.
        name: String,
        /// What it lacks.
        missing: &'static str,
    },
}

/// What a profile says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) keys: Option<Keys>,
    pub(crate) region: Option<String>,
    /// The endpoint, and where it is written.
    pub(crate) endpoint: Option<(String, String)>,
}

/// Credentials that are written down.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) session_token: Option<String>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hidden")
    }
}

type Settings = BTreeMap<String, String>;

/// The profile that `AWS_PROFILE` names, or else the default one; `None` if there is no default one. Its keys are left out if variables
/// say where credentials come from.
pub(crate) fn find(environment: &Environment) -> Result<Option<Profile>, ProfileError> {
    let named = environment.get("AWS_PROFILE").or_else(|| environment.get("AWS_DEFAULT_PROFILE"));
    let name = named.unwrap_or("default");
    let mut settings = Settings::new();
    let mut is_found = false;
    let files = [("AWS_CONFIG_FILE", "config"), ("AWS_SHARED_CREDENTIALS_FILE", "credentials")];
    // What the second file says goes before what the first one says.
    for (variable, usual) in files {
        let Some(path) = environment.aws_file(variable, usual) else { continue };
        if path.is_relative() {
            return Err(ProfileError::Relative { variable, path });
        }
        if let Some(section) = read(&path)?.and_then(|text| section(&text, name)) {
            is_found = true;
            settings.extend(section);
        }
    }
    if !is_found {
        return match named {
            Some(name) => Err(ProfileError::Unknown { name: name.to_owned() }),
            None => Ok(None),
        };
    }
    let is_elsewhere =
        environment.is_true("AWS_SKIP_SIGNATURE") || OTHER_SOURCES.iter().any(|name| environment.get(name).is_some());
    let keys = if is_elsewhere { None } else { keys(name, &settings)? };
    let place = format!("endpoint_url of the profile {name:?}");
    let endpoint = settings.remove("endpoint_url").map(|value| (place, value));
    Ok(Some(Profile { keys, region: settings.remove("region"), endpoint }))
}

fn keys(name: &str, settings: &Settings) -> Result<Option<Keys>, ProfileError> {
    let incomplete = |missing| Err(ProfileError::Incomplete { name: name.to_owned(), missing });
    // A profile that has keys beside such a setting uses them to fetch others.
    if let Some(setting) = FETCHED.iter().find(|setting| settings.contains_key(**setting)) {
        return Err(ProfileError::Fetched { name: name.to_owned(), setting });
    }
    match (settings.get("aws_access_key_id"), settings.get("aws_secret_access_key")) {
        (Some(id), Some(secret)) => {
            let session_token = settings.get("aws_session_token").cloned();
            Ok(Some(Keys { id: id.clone(), secret: secret.clone(), session_token }))
        }
        (Some(_), None) => incomplete("aws_secret_access_key"),
        (None, Some(_)) => incomplete("aws_access_key_id"),
        (None, None) => Ok(None),
    }
}

/// The text of a file, or `None` if there is no such file.
fn read(path: &Path) -> Result<Option<String>, ProfileError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(ProfileError::Unreadable { path: path.to_owned(), source }),
    }
}

/// The settings of a profile, `[NAME]` or `[profile NAME]`. Lines that are indented belong to the setting before them, such as those of
/// `s3 =`, and are left out.
fn section(text: &str, profile: &str) -> Option<Settings> {
    let (mut found, mut is_inside) = (None, false);
    for line in text.lines().filter(|line| !line.trim_start().starts_with(['#', ';'])) {
        if let Some(header) = line.trim().strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let header = header.0.trim();
            let name = header.strip_prefix("profile ").map_or(header, str::trim);
            is_inside = name.trim_matches(['"', '\'']) == profile;
            if is_inside {
                found.get_or_insert_with(Settings::new);
            }
        } else if is_inside
            && !line.starts_with([' ', '\t'])
            && let (Some(settings), Some((name, value))) = (found.as_mut(), line.split_once('='))
        {
            settings.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "[default]\nregion = eu-central-1\n\n[profile lab]\nregion=eu-west-3\ns3 =\n  region = nowhere\n\
                          endpoint_url = https://s3.lab.example.org\n[profile sso]\nsso_session = lab\n";
    const CREDENTIALS: &str = "# keys\n[default]\naws_access_key_id = AKIA\naws_secret_access_key = s3cr=t\n[half]\naws_access_key_id = AKIB\n\
                               [role]\naws_access_key_id = AKIC\naws_secret_access_key = s\nrole_arn = arn:aws:iam::1:role/r\n";

    /// The profile that these variables choose from the two files above.
    fn find_with(variables: &[(&str, &str)]) -> Result<Option<Profile>, String> {
        let home = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(home.path().join(".aws")).expect("writable");
        fs::write(home.path().join(".aws/config"), CONFIG).expect("writable");
        fs::write(home.path().join(".aws/credentials"), CREDENTIALS).expect("writable");
        let home = home.path().to_str().expect("text");
        let variables = [("HOME", home)].into_iter().chain(variables.iter().copied());
        find(&Environment::of(variables)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_default_profile_gives_keys_and_region() {
        let profile = find_with(&[]).expect("readable").expect("there is a default one");
        let keys = profile.keys.expect("written down");
        assert_eq!((keys.id.as_str(), keys.secret.as_str(), keys.session_token), ("AKIA", "s3cr=t", None));
        assert_eq!((profile.region.as_deref(), profile.endpoint), (Some("eu-central-1"), None));
    }

    #[test]
    fn a_named_profile_goes_before_the_default_one_and_indented_lines_are_not_its_own() {
        let profile = find_with(&[("AWS_PROFILE", "lab")]).expect("readable").expect("it exists");
        assert_eq!(profile.region.as_deref(), Some("eu-west-3"));
        assert_eq!(profile.endpoint.expect("set").1, "https://s3.lab.example.org");
        assert_eq!(profile.keys, None);
    }

    #[test]
    fn the_keys_of_variables_go_before_those_of_a_profile() {
        let profile = find_with(&[("AWS_ACCESS_KEY_ID", "AKIZ")]).expect("readable").expect("there is a default one");
        assert_eq!((profile.keys, profile.region.as_deref()), (None, Some("eu-central-1")));
    }

    #[test]
    fn a_profile_that_does_not_work_is_refused_with_its_name_and_the_reason() {
        for (name, reason) in [
            ("nobody", "neither in"),
            ("sso", "sso_session"),
            ("half", "no aws_secret_access_key"),
            ("role", "role_arn"),
        ] {
            let refused = find_with(&[("AWS_PROFILE", name)]).expect_err("it does not work");
            assert!(refused.contains(name) && refused.contains(reason), "{refused}");
        }
    }

    #[test]
    fn a_store_that_asks_for_no_signature_needs_no_keys_of_a_profile() {
        let variables = [("AWS_PROFILE", "sso"), ("AWS_SKIP_SIGNATURE", "true")];
        assert_eq!(find_with(&variables).expect("no key is needed").expect("it exists").keys, None);
    }

    #[test]
    fn a_file_by_a_relative_path_is_refused_with_its_variable() {
        let refused = find_with(&[("AWS_SHARED_CREDENTIALS_FILE", "keys")]).expect_err("relative");
        assert!(refused.contains("AWS_SHARED_CREDENTIALS_FILE names keys"), "{refused}");
    }

    #[test]
    fn without_files_there_is_no_profile() {
        assert_eq!(find(&Environment::default()).expect("nothing to read"), None);
        assert_eq!(find(&Environment::of([("HOME", "/nonexistent")])).expect("nothing to read"), None);
    }
}
