"""[pool] memory: workers that share a budget. All engines are fake; each says that it takes 400 MB of 1 GB."""
import concurrent.futures
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time
import unittest

from fake import CHAT, Fake
from harness import BUILD, SECONDS_MAX, Torpord

MB = 1_000_000
OFTEN = 12  # so often that what a start happened to take tells nothing


class MemoryTest(unittest.TestCase):
    def setUp(self):
        self.torpord = Torpord(more='[pool]\nmemory = "1GB"\n')
        self.addCleanup(self.torpord.remove)
        self.assertEqual(self.torpord.start(), "ready\n")
        self.threads = concurrent.futures.ThreadPoolExecutor(16)
        self.addCleanup(self.threads.shutdown)

    def fakes(self, *names, **keys):
        made = [Fake(self.torpord, name, **{"memory": "400MB", **keys}) for name in names]
        for fake in made:
            self.addCleanup(fake.remove)
        return made

    def ask(self, *fakes):
        for fake in fakes:
            status, _, answer = fake.ask()
            self.assertEqual(status, 200, answer)

    def models(self):
        return {one["name"]: one for one in self.torpord.get("/api/models")["models"]}

    def those_with_memory(self):
        return sorted(name for name, one in self.models().items() if one["reserved_bytes"])

    def hold(self, fake):
        """A request that goes on until what is returned is called; that gives its answer."""
        gate = str(fake.folder / "gate")
        asked = self.threads.submit(fake.ask, do="hold", gate=gate, stream=True)
        fake.wait_for("holding")

        def let_go():
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"go", gate)
            return asked.result(SECONDS_MAX)
        return let_go

    def set_budget(self, text):
        config = pathlib.Path(self.torpord.folder, "config.toml")
        config.write_text(re.sub('memory = ".*"', f'memory = "{text}"', config.read_text()))
        self.assertEqual(self.torpord.call("POST", "/api/reload")[0], 200)

    def test_four_share_room_for_two(self):
        fakes = self.fakes("a", "b", "c", "d")
        answers = [self.threads.submit(fake.ask) for _ in range(5) for fake in fakes]
        while not all(answer.done() for answer in answers):
            self.assertLessEqual(sum(one["reserved_bytes"] for one in self.models().values()), 1000 * MB)
        self.assertEqual([answer.result()[0] for answer in answers], [200] * 20)
        self.assertEqual(self.torpord.gauge("torpor_memory_budget_bytes"), 1000 * MB)
        self.assertIn(self.torpord.gauge("torpor_memory_reserved_bytes"), (400 * MB, 800 * MB))
        self.assertIn("of 1.0 GB", self.torpord.doctor()["memory"]["message"])

    def test_the_one_that_is_used_seldom_makes_room(self):
        a, b, c = self.fakes("a", "b", "c")
        self.ask(*[a] * OFTEN, b, c)
        self.assertEqual(self.those_with_memory(), ["a", "c"])
        self.assertIn("b: put to sleep to make room", self.torpord.log())

    def test_a_pinned_one_stays(self):
        a, = self.fakes("a", pinned=True)
        b, c = self.fakes("b", "c")
        d, = self.fakes("d", memory="700MB")
        self.ask(a, b, c, b)
        self.assertEqual(self.those_with_memory(), ["a", "b"])
        status, headers, answer = d.ask()
        self.assertEqual(status, 503)
        self.assertRegex(answer["error"]["message"], r"a worker of d takes about 700\.0 MB, but of \[pool\] memory = 1\.0 GB "
                                                     r"there is at most 600\.0 MB beside the pinned a: raise it")
        self.assertEqual(self.those_with_memory(), ["a", "b"], "nobody leaves for one that never fits")

    def test_busy_ones_finish_first_and_leave_after_a_while(self):
        a, b, c = self.fakes("a", "b", "c")
        end_a, end_b = self.hold(a), self.hold(b)
        asked = self.threads.submit(c.ask)
        c.wait_until(lambda status: status["waits_for_memory"])
        shown = subprocess.run([BUILD / "clients/cli/torpor", "ps"], env=self.torpord.environment(), capture_output=True, text=True)
        self.assertRegex(shown.stdout, r"(?m)^c +stopped, waits for memory ")
        self.torpord.wait_until(lambda: "put to sleep to make room" in self.torpord.log(), "room_patience is over")
        self.assertEqual(self.those_with_memory(), ["a", "b"], "both still answer")
        leaves, stays = (a, b) if "a: put to sleep" in self.torpord.log() else (b, a)
        again = self.threads.submit(leaves.ask)  # waits until it comes back
        self.assertIn("[DONE]", (end_a if leaves is a else end_b)()[2])
        self.assertEqual(asked.result(SECONDS_MAX)[0], 200)
        self.assertEqual(again.result(SECONDS_MAX)[0], 200)
        self.assertEqual(stays.status()["state"], "busy")
        self.assertIn("[DONE]", (end_b if leaves is a else end_a)()[2])

    def test_those_who_hang_up_wait_no_longer(self):
        a, b, c, d = self.fakes("a", "b", "c", "d")
        end_a, end_b = self.hold(a), self.hold(b)
        connection = self.torpord.connection()
        connection.request("POST", CHAT, json.dumps({"model": "c"}))
        c.wait_until(lambda status: status["waits_for_memory"])
        connection.close()
        c.wait_until(lambda status: not status["waits_for_memory"])
        asked = self.threads.submit(d.ask)
        d.wait_until(lambda status: status["waits_for_memory"])
        self.assertIn("[DONE]", end_a()[2])
        self.assertIn("[DONE]", end_b()[2])
        self.assertEqual(asked.result(SECONDS_MAX)[0], 200)
        self.assertNotIn("c", self.those_with_memory())

    def test_one_that_never_fits_is_refused_at_once(self):
        folder = pathlib.Path(self.torpord.folder)
        status, _, answer = self.torpord.call("POST", "/api/models", {"name": "huge", "engine": "custom", "command": ["true", "{socket}"], "memory": "2GB"})
        self.assertEqual(status, 400)
        self.assertIn("a worker of huge takes about 2.0 GB, but of [pool] memory = 1.0 GB there is at most 1.0 GB", answer["error"]["message"])
        added = subprocess.run([BUILD / "clients/cli/torpor", "model", "add", "huge", "--engine", "custom", "--memory", "1500MB", "--", "true", "{socket}"],
                               env=self.torpord.environment(), capture_output=True, text=True)
        self.assertEqual(added.returncode, 2)
        self.assertIn("takes about 1.5 GB", added.stderr)
        self.assertEqual([file.name for file in (folder / "models").glob("huge*")], [])
        with open(folder / "weights.gguf", "wb") as weights:
            weights.truncate(5_000 * MB)  # what no file says is guessed by the size of its weights
        status, _, answer = self.torpord.call("POST", "/api/models", {"name": "huge", "engine": "llama-server", "path": str(folder / "weights.gguf")})
        self.assertEqual(status, 400)
        self.assertRegex(answer["error"]["message"], r"takes about 6\.\d GB")

    def test_another_budget_holds_at_once(self):
        a, b, c = self.fakes("a", "b", "c")
        self.ask(a, *[b] * OFTEN)
        self.set_budget("500MB")
        a.wait_until(lambda status: status["state"] == "stopped")
        self.assertEqual(self.those_with_memory(), ["b"])
        self.ask(c)
        self.assertEqual(self.those_with_memory(), ["c"])
        end_c = self.hold(c)
        asked = self.threads.submit(a.ask)
        a.wait_until(lambda status: status["waits_for_memory"])
        self.set_budget("1GB")
        self.assertEqual(asked.result(SECONDS_MAX)[0], 200)
        self.assertIn("[DONE]", end_c()[2])
        self.ask(b)
        self.set_budget("300MB")  # of which none may have any
        self.torpord.wait_until(lambda: self.those_with_memory() == [], "all are asleep")
        status, _, answer = a.ask()
        self.assertEqual(status, 503)
        self.assertIn("at most 300.0 MB", answer["error"]["message"])

    def test_workers_that_are_taken_back_count(self):
        a, b, c = self.fakes("a", "b", "c")
        self.ask(a, b)
        os.kill(self.torpord.process.pid, signal.SIGKILL)
        self.torpord.process.wait()
        self.assertEqual(self.torpord.start(), "ready\n")
        self.assertEqual(self.those_with_memory(), ["a", "b"])
        self.assertEqual(self.torpord.gauge("torpor_memory_reserved_bytes"), 800 * MB)
        self.ask(c)
        self.assertEqual(len(self.those_with_memory()), 2)
        self.assertIn("c", self.those_with_memory())

    def test_a_worker_that_takes_more_is_counted_with_more(self):
        a, = self.fakes("a", memory="20MB")
        b, c = self.fakes("b", "c")
        self.ask(b)
        self.ask(*[a] * OFTEN)
        self.assertEqual(a.ask(do="grow", bytes=300 * MB)[0], 200)
        end = time.monotonic() + SECONDS_MAX
        while a.status()["reserved_bytes"] < 300 * MB:  # it is looked at now and then, while it is used
            self.assertLess(time.monotonic(), end)
            self.ask(a)
        self.ask(c)
        self.assertEqual(self.those_with_memory(), ["a", "c"])
        a.order("stop")
        self.ask(b)
        self.assertEqual(self.those_with_memory(), ["b", "c"])


if __name__ == "__main__":
    unittest.main()
