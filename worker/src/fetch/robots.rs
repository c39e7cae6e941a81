//! The rules that a host publishes for robots (RFC 9309), as far as they matter to who fetches single URLs.

/// The rules for us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rules(Vec<Rule>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    allows: bool,
    pattern: String,
}

impl Rules {
    /// What a host allows that does not say: nothing.
    pub(super) fn nothing() -> Self {
        Self(vec![Rule { allows: false, pattern: "/".to_owned() }])
    }

    /// The rules for the robot with this name in lower case, or else those for all robots. What cannot be understood is ignored.
    pub(super) fn parse(text: &str, robot: &str) -> Self {
        let (mut own, mut of_all) = (None::<Vec<Rule>>, Vec::new());
        let (mut for_us, mut for_all, mut in_names) = (false, false, false);
        for line in text.trim_start_matches('\u{feff}').lines() {
            let line = line.split('#').next().unwrap_or_default();
            let Some((field, value)) = line.split_once(':') else { continue };
            let (field, value) = (field.trim().to_ascii_lowercase(), value.trim());
            match field.as_str() {
                "user-agent" => {
                    if !in_names {
                        (for_us, for_all) = (false, false);
                    }
                    in_names = true;
                    for_all |= value == "*";
                    if value.to_ascii_lowercase() == robot {
                        for_us = true;
                        own.get_or_insert_default();
                    }
                }
                "allow" | "disallow" => {
                    in_names = false;
                    if value.is_empty() {
                        continue;
                    }
                    let rule = Rule { allows: field == "allow", pattern: value.to_owned() };
                    if for_us {
                        own.get_or_insert_default().push(rule.clone());
                    }
                    if for_all {
                        of_all.push(rule);
                    }
                }
                _ => {}
            }
        }
        Self(own.unwrap_or(of_all))
    }

    /// Whether this path with its query may be fetched. The longest rule decides, and of two that are equally long the one that allows.
    pub(super) fn allow(&self, path: &str) -> bool {
        let matching = self.0.iter().filter(|rule| matches(&rule.pattern, path));
        matching.max_by_key(|rule| (rule.pattern.len(), rule.allows)).is_none_or(|rule| rule.allows)
    }
}

/// Whether a path begins as a pattern says, in which `*` stands for any characters, and `$` at its end for the end.
fn matches(pattern: &str, path: &str) -> bool {
    let (pattern, is_whole) = match pattern.strip_suffix('$') {
        Some(pattern) => (pattern, true),
        None => (pattern, false),
    };
    let mut parts = pattern.split('*');
    let Some(mut rest) = path.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let last = if is_whole { parts.pop() } else { None };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    match last {
        Some(last) => rest.ends_with(last),
        None => !is_whole || rest.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_rule_decides_and_a_group_of_our_own_replaces_that_of_all() {
        let text = "# a comment\nUser-agent: other\nDisallow: /\n\nUser-agent: *\nDisallow: /private # not for robots\n\
                    Allow: /private/open\nDisallow: /*.gif$\nDisallow:\nSitemap: https://a/s.xml\n";
        let rules = Rules::parse(text, "sortinghat");
        for (path, allowed) in [
            ("/", true),
            ("/private/x.jpg", false),
            ("/private/open/x.jpg", true),
            ("/a/b.gif", false),
            ("/a/b.gif?size=2", true),
            ("/a/b.gift", true),
        ] {
            assert_eq!(rules.allow(path), allowed, "{path}");
        }
        let named = format!("{text}\nUser-Agent: SortingHat\nUser-agent: friend\nDisallow: /ours\n");
        let rules = Rules::parse(&named, "sortinghat");
        assert!(rules.allow("/private/x.jpg") && !rules.allow("/ours/x.jpg"));
        assert!(Rules::parse("User-agent: sortinghat\n", "sortinghat").allow("/x"), "a group without a rule");
        assert!(Rules::parse("<html>no rules</html>", "sortinghat").allow("/x"));
        assert!(!Rules::nothing().allow("/x"));
    }

    #[test]
    fn a_pattern_is_a_beginning_unless_it_ends_with_a_dollar() {
        for (pattern, path, expected) in [
            ("/a", "/ab", true),
            ("/a$", "/ab", false),
            ("/a$", "/a", true),
            ("*", "/x", true),
            ("/*/b", "/a/b/c", true),
            ("/*/b$", "/a/b/c", false),
            ("/*/c$", "/a/b/c", true),
            ("/a*b*c", "/aXbYcZ", true),
            ("/a*b*c", "/aXcYb", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }
}
