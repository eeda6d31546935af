"""SIGKILL for the worker, criu or torpord at seeded moments of imaging, freezing and thawing: afterwards the model
answers, always the same, and nothing is left over. More rounds by hand: TORPOR_FAULT_ROUNDS=500."""
import concurrent.futures
import http.client
import os
import pathlib
import random
import signal
import time
import unittest

from harness import MODEL, SECONDS_MAX, Torpord

ROUNDS = int(os.environ.get("TORPOR_FAULT_ROUNDS", "12"))
SEED = int(os.environ.get("TORPOR_FAULT_SEED", "20261125"))


@unittest.skipUnless(MODEL.exists(), "the small model is not there; packaging/setup/fetch-model fetches it")
class FaultTest(unittest.TestCase):
    def setUp(self):
        self.torpord = Torpord()
        self.threads = concurrent.futures.ThreadPoolExecutor(4)
        self.addCleanup(self.torpord.remove)
        self.addCleanup(self.threads.shutdown)
        self.start()
        self.torpord.need_freezing(self)
        self.torpord.add_model("smol")

    def start(self):
        self.assertEqual(self.torpord.start(), "ready\n")

    def ask(self):
        return self.torpord.chat("smol", "Count to five.", temperature=0)

    def words(self):
        said = []
        self.torpord.wait_until(lambda: self.answers(said), "an answer")
        return said[0]

    def answers(self, said):
        """One that was killed while it loaded is not started again at once."""
        status, _, answer = self.ask()
        if status == 502 and "killed by signal 9 (Killed) while it was loading" in answer["error"]["message"]:
            return False
        self.assertEqual(status, 200, answer)
        said.append(answer["choices"][0]["message"]["content"])
        return True

    def attempt(self, action):
        """What the victim's death makes of a request under way is the request's affair."""
        try:
            action()
        except (OSError, http.client.HTTPException):
            pass

    def suspend(self):
        return self.torpord.call("POST", "/api/models/smol/suspend")

    def processes(self):
        """Ours by kind: the folder's name is in every command line, or in the environment."""
        found = {"worker": [], "criu": [], "torpord": [self.torpord.process.pid]}
        for folder in pathlib.Path("/proc").iterdir():
            try:
                command = (folder / "cmdline").read_bytes().split(b"\0") if folder.name.isdigit() else []
            except OSError:
                continue  # it has ended
            if not any(self.torpord.folder.encode() in part for part in command):
                continue
            if b"--images-dir" in command:
                found["criu"].append(int(folder.name))
            elif b"--model" in command and b"--host" in command:
                found["worker"].append(int(folder.name))
        return found

    def kill(self, pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def restart_if_dead(self):
        if self.torpord.process.poll() is not None:
            self.start()

    def strike(self, dice, victim, seconds):
        """After some time, or for criu as soon as there is one and then some time."""
        end = time.monotonic() + 1
        while victim == "criu" and not self.processes()["criu"] and time.monotonic() < end:
            pass
        time.sleep(dice.uniform(0, seconds))
        for pid in self.processes()[victim]:
            self.kill(pid)
        if victim == "torpord":
            self.torpord.process.wait(SECONDS_MAX)

    def test_nothing_is_lost_or_left_over(self):
        expected = self.words()
        dice = random.Random(SEED)
        for number in range(ROUNDS):
            moment, seconds = dice.choice([("imaging", 0.2), ("freeze", 0.03), ("thaw", 0.1)])
            victim = dice.choice(["worker", "criu", "torpord"])
            with self.subTest(round=number, moment=moment, victim=victim):
                if moment == "imaging":  # a fresh image: the last one is gone, and the worker as well
                    self.torpord.call("POST", "/api/models/smol/stop")
                    self.words()
                    action = None
                elif moment == "freeze":
                    self.words()
                    action = self.threads.submit(self.attempt, self.suspend)
                else:
                    self.words()
                    self.suspend()
                    action = self.threads.submit(self.attempt, self.ask)
                self.strike(dice, victim, seconds)
                if action:
                    action.result(SECONDS_MAX)
                self.restart_if_dead()
                self.assertEqual(self.words(), expected)
                self.assertEqual(self.suspend()[0], 200)
                self.torpord.wait_until(lambda: not self.processes()["worker"] and not self.processes()["criu"], "their end")
                left = [path.name for path in pathlib.Path(self.torpord.folder, "cache/snapshots").iterdir()]
                self.assertIn(left, (["smol"], []))
                self.assertEqual(self.words(), expected)
        self.assertEqual(self.torpord.stop(), 0)
        found = self.processes()
        self.assertEqual((found["worker"], found["criu"]), ([], []))


if __name__ == "__main__":
    unittest.main()
