//! Reads what a colour profile calls itself. Profiles are not applied.

/// Where the table of tags starts in a profile, after its header of 128 bytes.
const TAG_TABLE: usize = 128;
/// More tags than any profile has.
const MAX_TAGS: usize = 256;

/// Whether a profile means other colours than sRGB, which is what a picture without a profile means. Damaged profiles mean nothing,
/// and a profile of which only the beginning is there is judged by that.
pub(super) fn is_not_srgb(profile: &[u8]) -> bool {
    profile.get(36..40) == Some(b"acsp") && !description(profile).is_some_and(|name| name.contains("srgb"))
}

/// The description in lower case: ASCII in profiles of version 2, UTF-16 in those of version 4. Its letters are all that is kept, so
/// that both read alike.
fn description(profile: &[u8]) -> Option<String> {
    let number = |at: usize| Some(u32::from_be_bytes(profile.get(at..at + 4)?.try_into().ok()?) as usize);
    let tags = (0..number(TAG_TABLE)?.min(MAX_TAGS)).map(|index| TAG_TABLE + 4 + 12 * index);
    let entry = tags.into_iter().find(|at| profile.get(*at..at + 4) == Some(b"desc"))?;
    let start = number(entry + 4)?.min(profile.len());
    let end = start.saturating_add(number(entry + 8)?).min(profile.len());
    let letters = profile[start..end].iter().filter(|byte| byte.is_ascii_alphanumeric());
    Some(letters.map(|byte| char::from(byte.to_ascii_lowercase())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(description: &[u8]) -> Vec<u8> {
        let mut profile = vec![0; TAG_TABLE];
        profile[36..40].copy_from_slice(b"acsp");
        let length = (description.len() as u32).to_be_bytes();
        let entry = [b"\0\0\0\x01desc".as_slice(), &(TAG_TABLE as u32 + 16).to_be_bytes(), &length].concat();
        [profile, entry, description.to_vec()].concat()
    }

    #[test]
    fn srgb_is_known_by_its_name_in_either_version() {
        assert!(!is_not_srgb(&profile(b"desc\0\0\0\0\0\0\0\x12sRGB IEC61966-2.1\0")));
        assert!(!is_not_srgb(&profile(b"mluc\0\0\0\0\0\0\0\x01\0\0\0\x0cenUS\0\0\0\x08\0\0\0\x1c\0s\0R\0G\0B")));
        assert!(is_not_srgb(&profile(b"desc\0\0\0\0\0\0\0\x11Adobe RGB (1998)\0")));
        assert!(!is_not_srgb(b"no profile at all"));
        assert!(is_not_srgb(&profile(b"mluc")[..140]), "a profile whose name is cut off");
    }
}
