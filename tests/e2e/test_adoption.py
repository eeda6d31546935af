"""What a daemon that is killed leaves running, and what the next one makes of it."""
import pathlib
import sqlite3
import subprocess
import sys
import unittest

from fake import WithFakes
from harness import MODEL, Torpord, is_alive, lives


class AdoptionTest(WithFakes, unittest.TestCase):
    def setUp(self):
        self.torpord = Torpord()
        self.addCleanup(self.torpord.remove)
        self.assertEqual(self.torpord.start(), "ready\n")

    def awake(self, name="m", **keys):
        """A model whose worker runs, and its pid."""
        fake = self.fake(name, **keys)
        status, _, answer = fake.ask()
        self.assertEqual(status, 200, answer)
        return fake, answer["pid"]

    def kill(self):
        self.torpord.process.kill()
        self.torpord.process.wait()

    def restart(self):
        self.kill()
        self.assertEqual(self.torpord.start(), "ready\n")

    def change(self, sql):
        database = sqlite3.connect(pathlib.Path(self.torpord.folder, "torpor.db"))
        with database:
            self.assertEqual(database.execute(sql).rowcount, 1)
        database.close()

    def assert_replaced(self, fake, pid, why):
        """Its worker was ended, and another one answers."""
        self.assertIn(why, self.torpord.log())
        self.torpord.wait_until(lambda: not is_alive(pid), "its end")
        status, _, answer = fake.ask()
        self.assertEqual(status, 200, answer)
        self.assertNotEqual(answer["pid"], pid)

    def test_workers_are_taken_back_again_and_again(self):
        fakes = [self.awake("on-socket"), self.awake("on-port", listen="{port}")]
        for _ in range(3):
            self.restart()
            for fake, pid in fakes:
                status, headers, answer = fake.ask()
                self.assertEqual((status, answer["pid"]), (200, pid))
                self.assertIn("desc=warm", headers["Server-Timing"])
                self.assertEqual(fake.status()["pid"], pid)
        for fake, pid in fakes:
            self.assertEqual(fake.order("suspend")[0], 200)
            self.torpord.wait_until(lambda: not is_alive(pid), "its end")
            self.assertEqual(fake.ask()[0], 200)

    def test_one_that_died_meanwhile_is_started_again(self):
        fake, pid = self.awake()
        self.kill()
        subprocess.run(["kill", "-9", str(pid)], check=True)
        self.assertEqual(self.torpord.start(), "ready\n")
        status, _, answer = fake.ask()
        self.assertEqual(status, 200, answer)
        self.assertNotEqual(answer["pid"], pid)

    def test_one_that_ends_after_it_was_taken_back_is_started_again(self):
        fake, pid = self.awake()
        self.restart()
        self.assertEqual(fake.ask()[2]["pid"], pid)
        subprocess.run(["kill", "-9", str(pid)], check=True)
        status, _, answer = fake.ask()
        self.assertEqual(status, 200, answer)
        self.assertNotEqual(answer["pid"], pid)

    def test_one_whose_model_changed_is_ended(self):
        fake, pid = self.awake()
        self.kill()
        file = pathlib.Path(self.torpord.folder, "models/m.toml")
        file.write_text(file.read_text() + 'args = ["--more"]\n')
        self.assertEqual(self.torpord.start(), "ready\n")
        self.assert_replaced(fake, pid, "the engine's arguments changed")

    def test_one_whose_model_is_gone_is_ended(self):
        _, pid = self.awake()
        self.kill()
        pathlib.Path(self.torpord.folder, "models/m.toml").unlink()
        self.assertEqual(self.torpord.start(), "ready\n")
        self.torpord.wait_until(lambda: not is_alive(pid), "its end")

    def test_one_that_nobody_can_reach_is_ended(self):
        fake, pid = self.awake()
        self.kill()
        next(pathlib.Path(self.torpord.folder).glob("**/workers/m.sock")).unlink()
        self.assertEqual(self.torpord.start(), "ready\n")
        self.assert_replaced(fake, pid, "it does not listen on its socket")

    def test_a_foreign_process_with_its_number_is_named_and_left_alone(self):
        fake, pid = self.awake()
        self.kill()
        self.change("UPDATE worker SET token = '00000000000000000000000000000000'")
        self.assertEqual(self.torpord.start(), "ready\n")
        try:
            self.assertIn(f"process {pid} may be its worker", self.torpord.log())
            status, _, answer = fake.ask()
            self.assertEqual(status, 200, answer)
            self.assertNotEqual(answer["pid"], pid)
            self.assertTrue(lives(pid), self.torpord.log())
        finally:
            subprocess.run(["kill", "-9", str(pid)], check=True)

    def test_a_number_that_another_process_has_by_now_is_no_proof(self):
        fake, pid = self.awake()
        self.kill()
        stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self.addCleanup(stranger.communicate, b"\n")
        self.change(f"UPDATE worker SET pid = {stranger.pid}")
        self.assertEqual(self.torpord.start(), "ready\n")
        self.assertIsNone(stranger.poll())
        self.assert_replaced(fake, pid, "their worker is gone")  # it carried our token all the same
        self.assertIsNone(stranger.poll())

    @unittest.skipUnless(MODEL.exists(), "the small model is not there; packaging/setup/fetch-model fetches it")
    def test_a_real_worker_is_taken_back_and_then_freezes_and_thaws(self):
        self.torpord.need_freezing(self)
        self.torpord.add_model("smol")
        self.assertEqual(self.torpord.chat("smol")[0], 200)
        pid = self.torpord.get("/api/models/smol")["pid"]
        self.torpord.wait_until(lambda: self.torpord.get("/api/models/smol")["snapshot_bytes"] > 0, "the image")
        self.restart()
        self.assertEqual(self.torpord.chat("smol")[0], 200)
        self.assertEqual(self.torpord.get("/api/models/smol")["pid"], pid)
        self.assertEqual(self.torpord.call("POST", "/api/models/smol/suspend")[2]["tier"], "frozen")
        status, headers, answer = self.torpord.chat("smol")
        self.assertEqual(status, 200, answer)
        self.assertIn("desc=thawed", headers["Server-Timing"])
        self.restart()  # and one that was thawed
        self.assertEqual(self.torpord.chat("smol")[0], 200)
        self.assertEqual(self.torpord.get("/api/models/smol")["pid"], pid)


if __name__ == "__main__":
    unittest.main()
