"""The statistics of the comparison, against published values and hand counts."""

import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from paired_difference import bootstrap_interval, check_places, mcnemar_exact, wilson


class PairedDifference(unittest.TestCase):
    def test_the_wilson_interval_of_148_of_190_is_71_5_to_83_2_percent(self):
        low, high = wilson(148, 190)
        self.assertAlmostEqual(low, 0.715, places=3)
        self.assertAlmostEqual(high, 0.832, places=3)

    def test_mcnemar_counts_both_tails_of_the_discordant_photos(self):
        # 3 or fewer, or 9 or more, of 12 fair coins: 2 * (1 + 12 + 66 + 220) / 4096.
        self.assertAlmostEqual(mcnemar_exact(3, 9), 598 / 4096)
        self.assertEqual(mcnemar_exact(0, 0), 1.0)
        self.assertEqual(mcnemar_exact(5, 5), 1.0)

    def test_photos_of_one_group_are_drawn_together(self):
        # 100 photos, one direction for each half: as two groups a draw holds all of one half or of the other.
        differences = {index: 1.0 if index < 50 else -1.0 for index in range(100)}
        alone = bootstrap_interval(differences, {index: index for index in differences})
        together = bootstrap_interval(differences, {index: index < 50 for index in differences})
        self.assertEqual(together, (-1.0, 1.0))
        self.assertGreater(alone[0], -0.3)
        self.assertLess(alone[1], 0.3)

    def test_predictions_from_other_folds_are_not_compared(self):
        here = {"a": (("cat", "0"), [True]), "b": (("cat", "1"), [True])}
        check_places(here, {"a": (("cat", "0"), [False]), "b": (("cat", "1"), [True])})
        with self.assertRaises(SystemExit):
            check_places(here, {"a": (("cat", "1"), [True]), "b": (("cat", "1"), [True])})


if __name__ == "__main__":
    unittest.main()
