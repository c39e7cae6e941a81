//! Checks that the specs of several kinds make. Each refusal names the field at fault.

use std::ops::RangeInclusive;

use crate::{ObjectRef, Refusal, v1};

/// Puts the name of the field that was parsed into a refusal.
pub(super) fn at(field: &str) -> impl FnOnce(Refusal) -> Refusal + '_ {
    move |refusal| refusal.at(field)
}

/// `value`, or `default` where the wire says nothing.
pub(super) fn or_default(value: u32, default: u32) -> u32 {
    if value == 0 { default } else { value }
}

/// `value`, if it is one of the `allowed` ones.
pub(super) fn in_range(value: u32, allowed: RangeInclusive<u32>, field: &str) -> Result<u32, Refusal> {
    if allowed.contains(&value) {
        return Ok(value);
    }
    let (low, high) = (allowed.start(), allowed.end());
    Err(Refusal::invalid(field, format!("{field} must be {low} to {high}, not {value}")))
}

/// `value`, if it is above 0 and at most 1.
pub(super) fn share(value: f64, field: &str) -> Result<f64, Refusal> {
    if value > 0.0 && value <= 1.0 {
        return Ok(value);
    }
    Err(Refusal::invalid(field, format!("{field} must be above 0 and at most 1, not {value}")))
}

/// The object that a field names; a field that is not set is refused.
pub(super) fn required_object(object: Option<v1::ObjectRef>, field: &str) -> Result<ObjectRef, Refusal> {
    let object =
        object.ok_or_else(|| Refusal::invalid(field, format!("{field} is missing: upload it and name its digest")))?;
    object.try_into().map_err(at(field))
}
