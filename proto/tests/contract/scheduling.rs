//! Lanes and requirements: as text, over the wire, and what is refused.

use proptest::prelude::*;
use sortinghat_proto::{ByteCount, DeviceKind, Lane, Requirements, v1};

use crate::{config, strategies};

proptest! {
    #![proptest_config(config())]

    #[test]
    fn requirements_are_the_same_after_their_text_the_wire_and_a_record(requirements in strategies::requirements()) {
        prop_assert_eq!(requirements.to_string().parse::<Requirements>(), Ok(requirements.clone()));
        let wire = requirements.clone().into_wire().unwrap_or_default();
        prop_assert_eq!(Requirements::try_from(wire), Ok(requirements.clone()));
        let stored = serde_json::to_string(&requirements).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<Requirements>(&stored).expect("just stored"), requirements);
    }

    #[test]
    fn the_order_in_which_requirements_are_given_changes_nothing(requirements in strategies::requirements()) {
        let text = requirements.to_string();
        let mut items: Vec<&str> = text.split(',').collect();
        items.reverse();
        prop_assert_eq!(items.join(",").parse::<Requirements>(), Ok(requirements));
    }

    #[test]
    fn nothing_travels_where_nothing_is_required(requirements in strategies::requirements()) {
        prop_assert_eq!(requirements.clone().into_wire().is_none(), requirements.is_empty());
    }
}

#[test]
fn a_lane_is_the_same_after_its_text_the_wire_and_a_record_and_bulk_where_nothing_is_said() {
    for lane in [Lane::Interactive, Lane::Bulk] {
        assert_eq!(lane.to_string().parse(), Ok(lane));
        assert_eq!(Lane::from(v1::Lane::from(lane)), lane);
        assert_eq!(serde_json::to_value(lane).expect("JSON"), lane.as_str());
    }
    assert_eq!((Lane::from(v1::Lane::Unspecified), Lane::default()), (Lane::Bulk, Lane::Bulk));
    let refusal = "fast".parse::<Lane>().expect_err("no lane");
    assert_eq!(refusal.message, "\"fast\" is not a lane: use interactive or bulk");
}

#[test]
fn requirements_that_contradict_each_other_are_refused_over_the_wire_as_well() {
    let cpu_with_memory =
        v1::Requirements { device_kind: "cpu".into(), min_device_memory_bytes: 1, ..Default::default() };
    let refusal = Requirements::try_from(cpu_with_memory).expect_err("a CPU has no memory of its own");
    assert_eq!(refusal.field, "requirements.min_device_memory_bytes");
    let unknown = v1::Requirements { device_kind: "tpu".into(), ..Default::default() };
    let refusal = Requirements::try_from(unknown).expect_err("not known");
    assert_eq!(refusal.field, "requirements.device_kind");
    let labels = (0..9).map(|number| (format!("l{number}"), "x".to_owned())).collect();
    let refusal = Requirements::try_from(v1::Requirements { labels, ..Default::default() }).expect_err("too many");
    assert_eq!(refusal.field, "requirements.labels");
}

#[test]
fn a_device_kind_is_what_stands_before_the_number_of_a_device() {
    for kind in [DeviceKind::Cpu, DeviceKind::Cuda] {
        for device in [kind.to_string(), format!("{kind}:7")] {
            assert_eq!(DeviceKind::of_device(&device), Some(kind));
        }
    }
    let requirements: Requirements = "device=cuda,device-memory=8GiB".parse().expect("valid");
    assert_eq!(requirements.device_kind, Some(DeviceKind::Cuda));
    assert_eq!(requirements.min_device_memory, ByteCount(8 << 30));
}
