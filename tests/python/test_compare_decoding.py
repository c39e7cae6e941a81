"""Tests of what `make compare-decoding` counts."""

import sys
import unittest
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "worker/photos/tests/golden"))

from compare_decoding import opens, verdict  # noqa: E402


class Verdict(unittest.TestCase):
    """Each file belongs to one count."""

    GREY = np.full((2, 3, 3), 128, np.uint8)

    def test_rounding_is_the_same_and_more_differs(self):
        self.assertEqual(verdict(self.GREY, self.GREY + 4, "JPEG")[0], "same")
        self.assertEqual(verdict(self.GREY, self.GREY + 4, "PNG"), ("differs", "a sample by 4 of 255"))
        self.assertEqual(verdict(self.GREY, self.GREY + 90, "JPEG")[0], "differs")

    def test_other_sides_differ(self):
        turned = self.GREY.transpose(1, 0, 2)
        self.assertEqual(verdict(self.GREY, turned, "PNG"), ("differs", "3 x 2 here, 2 x 3 in Pillow"))

    def test_what_one_refuses_is_told_apart(self):
        self.assertEqual(verdict(None, self.GREY, "PNG")[0], "only they")
        self.assertEqual(verdict(self.GREY, None, "OSError")[0], "only we")
        self.assertEqual(verdict(None, None, "OSError")[0], "neither")

    def test_bytes_that_are_no_picture_do_not_open(self):
        self.assertFalse(opens(b"no picture"))


if __name__ == "__main__":
    unittest.main()
