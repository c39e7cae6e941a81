//! Decodes files for `make compare-decoding`. Reads paths from standard input, one a line. For each it writes a line: `photo WIDTH HEIGHT
//! STORED`, followed by the RGB pixels and by STORED bytes of the picture that a dataset would keep; or the reason of a refusal and its
//! message.

use std::{
    fs,
    io::{self, BufRead as _, Write as _},
};

use sortinghat_photos::{
    DecodeLimits, decode,
    derivative::{DEFAULT_SHORT_SIDE, derivative},
};

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    for path in io::stdin().lock().lines() {
        let bytes = fs::read(path?)?;
        match decode(&bytes, &DecodeLimits::default()) {
            Ok(photo) => {
                let stored = derivative(&photo, &bytes, DEFAULT_SHORT_SIDE).bytes;
                writeln!(out, "photo {} {} {}", photo.width, photo.height, stored.len())?;
                out.write_all(&photo.pixels)?;
                out.write_all(&stored)?;
            }
            Err(error) => writeln!(out, "{} {}", error.reason(), error.to_string().replace('\n', " "))?,
        }
        out.flush()?;
    }
    Ok(())
}
