//! What a licence asks for, by the codes that providers use.

/// Whether a photo under this licence may be used by whoever names its author, or by anybody: the public domain, CC0 and CC BY. Of what is
/// not known, it may not.
pub(super) fn asks_for_the_name_at_most(licence: Option<&str>) -> bool {
    let Some(licence) = licence else { return false };
    let licence = licence.to_lowercase().replace([' ', '_'], "-");
    let licence = licence.as_str();
    let is_free = ["pd", "public-domain", "pdm", "cc0", "cc-zero", "cc-pd"]
        .iter()
        .any(|code| licence.strip_prefix(code).is_some_and(|rest| rest.is_empty() || rest.starts_with('-')));
    let version = ["cc-by", "by"].iter().find_map(|code| licence.strip_prefix(code));
    // Behind "by" stands a version, or what else the licence asks for: "by-sa".
    is_free
        || version.is_some_and(|rest| {
            rest.is_empty()
                || rest.starts_with("-1")
                || rest.starts_with("-2")
                || rest.starts_with("-3")
                || rest.starts_with("-4")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_licence_that_asks_for_more_than_the_name_is_told_from_one_that_does_not() {
        for free in ["pd", "PD-US", "Public domain", "cc0", "CC0 1.0", "cc-by-4.0", "CC BY 2.0", "by", "pdm"] {
            assert!(asks_for_the_name_at_most(Some(free)), "{free}");
        }
        for other in ["cc-by-sa-4.0", "CC BY-NC 2.0", "by-nd", "GFDL", "Bye", "pdx", ""] {
            assert!(!asks_for_the_name_at_most(Some(other)), "{other}");
        }
        assert!(!asks_for_the_name_at_most(None));
    }
}
