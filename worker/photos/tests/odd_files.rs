//! Files that are legal but rare, or slightly wrong: each is read right, or set aside with its reason; none is decoded to something
//! else in silence. `data/cases` holds files from the wild.

use std::{fs, path::Path};

use sortinghat_photos::{
    DecodeError, DecodeLimits, ImageFormat, Note, Photo, decode,
    derivative::{derivative, encode_png},
};

fn file(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cases").join(name)).expect("a committed file")
}

fn decoded(bytes: &[u8]) -> Result<Photo, DecodeError> {
    decode(bytes, &DecodeLimits::default())
}

/// What is unsupported about a file; `None` if it is read.
fn unsupported(bytes: &[u8]) -> Option<String> {
    match decoded(bytes) {
        Ok(_) => None,
        Err(DecodeError::UnsupportedFeature { detail, .. }) => Some(detail),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn the_layout_of_a_jpegs_scans_changes_no_pixel() {
    let interleaved = decoded(&file("a_interleaved.jpg")).expect("a JPEG");
    for name in ["b_noninterleaved.jpg", "c_partly.jpg"] {
        let photo = decoded(&file(name)).expect("a JPEG");
        let worst = photo.pixels.iter().zip(&interleaved.pixels).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst <= Some(3), "{name} differs by {worst:?}");
        assert_eq!(derivative(&photo, b"the original", 512).bytes, b"the original");
    }
}

#[test]
fn a_jpeg_without_tables_or_end_is_read_and_stored_anew() {
    for name in ["mjpeg_2x1.jpg", "samsung_no_eoi_trailer.jpg"] {
        let bytes = file(name);
        let photo = decoded(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(photo.notes, [Note::Mended], "{name}");
        assert_eq!(derivative(&photo, &bytes, 512).format, ImageFormat::Png);
    }
    let whole = file("a_interleaved.jpg");
    for left_out in [2, 3, 40] {
        let error = decoded(&whole[..whole.len() - left_out]).expect_err("nothing follows the cut");
        assert_eq!(error.reason(), "truncated");
    }
}

#[test]
fn arithmetic_and_lossless_jpegs_are_unsupported_and_not_damaged() {
    assert_eq!(unsupported(&file("arith_2x2_120.jpg")).as_deref(), Some("arithmetic coding"));
    let lossless = b"\xff\xd8\xff\xc3\x00\x0b\x08\x00\x10\x00\x10\x01\x01\x11\x00\xff\xda\x00\x08\x01\x01\x00\x01\x00\x00\x12\xff\xd9";
    assert_eq!(unsupported(lossless).as_deref(), Some("lossless JPEG"));
}

/// A TIFF of one row of grey pixels, given by the bytes of their samples.
fn tiff(bits: u16, format: u16, samples: &[u8]) -> Vec<u8> {
    let width = (samples.len() * 8 / usize::from(bits)) as u16;
    let tags = [
        (256, width),
        (257, 1),
        (258, bits),
        (259, 1),
        (262, 1),
        (273, 8 + 2 + 9 * 12 + 4),
        (277, 1),
        (279, samples.len() as u16),
        (339, format),
    ];
    let mut file = b"II*\0\x08\0\0\0".to_vec();
    file.extend((tags.len() as u16).to_le_bytes());
    for (tag, value) in tags {
        file.extend([tag, 3].map(u16::to_le_bytes).concat());
        file.extend(1u32.to_le_bytes());
        file.extend(u32::from(value).to_le_bytes());
    }
    [file, vec![0; 4], samples.to_vec()].concat()
}

/// The grey values of a TIFF.
fn greys(file: &[u8]) -> Vec<u8> {
    decoded(file).expect("a TIFF").pixels.chunks_exact(3).map(|pixel| pixel[0]).collect()
}

#[test]
fn the_range_of_a_tiffs_wide_samples_becomes_black_to_white() {
    let floats = |values: &[f32]| tiff(32, 3, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>());
    assert_eq!(greys(&floats(&[0.0, 0.25, 0.5, 1.0])), [0, 64, 128, 255]);
    let whole = |values: &[u32]| tiff(32, 1, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>());
    assert_eq!(greys(&whole(&[0, 1 << 30, 1 << 31, u32::MAX])), [0, 64, 128, 255]);
    assert_eq!(greys(&whole(&[0, 0])), [0, 0], "black is black");
}

#[test]
fn a_tiff_whose_samples_have_no_agreed_range_is_unsupported() {
    let floats = |values: &[f32]| tiff(32, 3, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>());
    for values in [[0.0, 200.0], [-1.0, 1.0], [0.5, f32::NAN], [0.0, 0.001]] {
        assert!(unsupported(&floats(&values)).is_some(), "{values:?}");
    }
    let whole = |values: &[u32]| tiff(32, 1, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>());
    let detail = unsupported(&whole(&[0, 65_535])).expect("samples of 16 bits in 32");
    assert!(detail.contains("would be black"), "{detail}");
    let signed =
        |bits, values: &[i16]| tiff(bits, 2, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>());
    for bits in [16, 32] {
        assert!(unsupported(&signed(bits, &[0, 1000, 0, 0])).is_some_and(|detail| detail.contains("signed")));
    }
}

#[test]
fn a_png_with_a_wrong_checksum_is_stored_anew() {
    for name in ["crc0.png", "adler0.png"] {
        let bytes = file(name);
        let photo = decoded(&bytes).expect("a PNG that a lenient reader opens");
        let stored = derivative(&photo, &bytes, 512);
        assert!(stored.bytes == encode_png(photo.width, photo.height, &photo.pixels), "{name} is kept as it is");
        assert!(stored.is_mended, "{name}");
    }
}

#[test]
fn a_colour_profile_is_noted_and_stays_in_the_stored_file() {
    let mut profile = vec![0; 132];
    profile[36..40].copy_from_slice(b"acsp");
    let mut segment = b"\xff\xe2".to_vec();
    segment.extend((2 + 14 + profile.len() as u16).to_be_bytes());
    segment.extend(b"ICC_PROFILE\0\x01\x01");
    segment.extend(profile);
    let plain = file("a_interleaved.jpg");
    let profiled = [&plain[..2], &segment, &plain[2..]].concat();
    let photo = decoded(&profiled).expect("a JPEG");
    assert_eq!(photo.notes, [Note::ColorProfile]);
    assert_eq!(derivative(&photo, &profiled, 512).bytes, profiled);
    assert!(decoded(&plain).expect("a JPEG").notes.is_empty());
}
