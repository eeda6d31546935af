"""A short run of the mixed client; longer ones by hand (mixed_client.py)."""
import os
import unittest

from mixed_client import Mixture

SECONDS = 10


class MixedTest(unittest.TestCase):
    def test_good_and_bad_at_once(self):
        seed = int(os.environ.get("TORPOR_TEST_SEED", "0")) or int.from_bytes(os.urandom(4), "little")
        mixture = Mixture(seed, SECONDS, threads=6)
        self.assertEqual(mixture.run(), "", f"again: TORPOR_TEST_SEED={seed}")
        for kind in ("good_whole", "good_stream", "good_pipeline", "bad_bytes", "restless", "order"):
            self.assertIn(kind, mixture.done)


if __name__ == "__main__":
    unittest.main()
