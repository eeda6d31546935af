"""What becomes of an image on its disk, with a real llama-server."""
import pathlib
import random
import subprocess
import unittest

from harness import BUILD, MODEL, Torpord


@unittest.skipUnless(MODEL.exists(), "the small model is not there; packaging/setup/fetch-model fetches it")
class SnapshotTest(unittest.TestCase):
    def setUp(self):
        self.torpord = Torpord()
        self.addCleanup(self.torpord.remove)
        self.assertEqual(self.torpord.start(), "ready\n")
        self.torpord.need_freezing(self)
        self.torpord.add_model("smol", aliases=["little"])
        self.image = pathlib.Path(self.torpord.folder, "cache/snapshots/smol/image")

    def freeze(self):
        self.assertEqual(self.torpord.chat("smol")[0], 200)
        self.assertEqual(self.torpord.call("POST", "/api/models/smol/suspend")[2]["tier"], "frozen")

    def verify(self):
        return self.torpord.call("POST", "/api/snapshots/smol/verify")[2]

    def flip(self, file, bit):
        with open(file, "r+b") as stream:
            stream.seek(bit // 8)
            byte = stream.read(1)[0]
            stream.seek(bit // 8)
            stream.write(bytes([byte ^ 1 << bit % 8]))

    def test_a_flipped_bit_is_found_wherever_it_is_and_never_answers(self):
        self.freeze()
        self.assertEqual((self.verify()["valid"], self.verify()["reason"]), (True, ""))
        dice = random.Random(20261125)
        for _ in range(100):
            files = sorted(file for file in self.image.iterdir() if file.stat().st_size)
            file = dice.choice(files)
            bit = dice.randrange(file.stat().st_size * 8)
            with self.subTest(file=file.name, bit=bit):
                self.flip(file, bit)
                verdict = self.verify()
                self.assertEqual((verdict["valid"], verdict["reason"]), (False, f"{file.name} is not as it was written"))
                self.flip(file, bit)
        self.assertTrue(self.verify()["valid"])

        for kind in ("pages-*.img", "core-*.img", "files.img"):
            with self.subTest(thawed_with_damage_in=kind):
                file = max(self.image.glob(kind), key=lambda file: file.stat().st_size)
                self.flip(file, dice.randrange(file.stat().st_size * 8))
                status, headers, answer = self.torpord.chat("smol")
                self.assertEqual(status, 200, answer)
                self.assertIn("desc=cold", headers["Server-Timing"])
                self.assertIn(f"its image is damaged: {file.name} is not as it was written", self.torpord.log())
                self.freeze()
        self.assertIn("desc=thawed", self.torpord.chat("smol")[1]["Server-Timing"])

    def test_verify_tells_a_person(self):
        self.freeze()
        verify = [BUILD / "clients/cli/torpor", "snapshot", "verify", "smol"]
        done = subprocess.run(verify, env=self.torpord.environment(), capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("as they were written", done.stdout)
        self.assertTrue(self.torpord.call("POST", "/api/snapshots/little/verify")[2]["valid"])
        self.flip(next(self.image.glob("core-*.img")), 100)
        done = subprocess.run(verify, env=self.torpord.environment(), capture_output=True, text=True)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("is not as it was written", done.stderr)
        self.assertEqual(self.torpord.call("DELETE", "/api/snapshots/smol")[0], 200)
        self.assertEqual(self.torpord.call("POST", "/api/snapshots/smol/verify")[0], 404)


if __name__ == "__main__":
    unittest.main()
