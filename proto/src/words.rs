//! Numbers and choices as people read them, in the same form on the command line and in reports.

/// 0.852 as "85.2%".
pub fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// 12345 as "12,345".
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// "1 photo", "2 photos", "1,000 classes".
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// "ingest, finetune or classify".
pub fn any_of(choices: &[&str]) -> String {
    match choices {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [others @ .., last] => format!("{} or {last}", others.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([counted(1, "photo", "photos"), counted(2000, "photo", "photos")], ["1 photo", "2,000 photos"]);
        assert_eq!(percent(0.8521), "85.2%");
    }

    #[test]
    fn choices_are_listed_with_or_before_the_last() {
        assert_eq!([any_of(&[]), any_of(&["a"]), any_of(&["a", "b"])], ["", "a", "a or b"]);
        assert_eq!(any_of(&["a", "b", "c"]), "a, b or c");
    }
}
