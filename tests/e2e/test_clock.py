"""A reboot, or a machine moved, gives processes another CLOCK_MONOTONIC. An image is thawed under a clock that is thirty
days ahead of the one that it was made under, and thirty days behind: timers that were pending go on, and time does not
jump for the engine. (CRIU gives each thawed process a time namespace of its own for that.)"""
import subprocess
import sys
import time
import unittest
from unittest import mock

import test_stand_in
from harness import MODEL, Torpord
from test_stand_in import CLIENTS, PATH, StandIn

DAYS_30 = 30 * 24 * 3600
# A clock cannot be set to before the machine's start, so "behind" is to come from a namespace to none.
JOURNEYS = {"ahead": (0, DAYS_30), "behind": (DAYS_30, 0), "ahead, and it was ahead already": (DAYS_30, 2 * DAYS_30)}


# Enters a time namespace (time_namespaces(7)) and becomes the program that it is given.
INTO_NAMESPACE = """
import ctypes, os, sys
libc, new_time = ctypes.CDLL(None, use_errno=True), 0x80
if libc.unshare(new_time):
    sys.exit(os.strerror(ctypes.get_errno()))
with open("/proc/self/timens_offsets", "w") as offsets:
    offsets.write(f"monotonic {sys.argv[1]} 0\\nboottime {sys.argv[1]} 0\\n")
if libc.setns(os.open("/proc/self/ns/time_for_children", os.O_RDONLY), new_time):
    sys.exit(os.strerror(ctypes.get_errno()))
os.execv(sys.argv[2], sys.argv[2:])
"""


def under_clock(seconds):
    """What runs a torpord with its monotonic clocks this much ahead."""
    return [sys.executable, "-c", INTO_NAMESPACE, str(seconds)] if seconds else []


def may_set_clocks():
    done = subprocess.run([*under_clock(DAYS_30), "/bin/cat", "/proc/uptime"], capture_output=True, text=True)
    return done.returncode == 0 and float(done.stdout.split()[0]) > DAYS_30


@unittest.skipUnless(may_set_clocks(), "needs root, and a kernel with time namespaces")
class ClockTest(unittest.TestCase):
    def travel(self, torpord, seconds):
        self.assertEqual(torpord.stop(), 0)
        torpord.through = under_clock(seconds)
        self.assertEqual(torpord.start(), "ready\n")

    @unittest.skipUnless((CLIENTS / "uvloop").exists(), "uvloop is not there; packaging/setup/fetch-test-clients fetches it")
    def test_timers_of_an_engine_go_on(self):
        for way, (made, thawed) in JOURNEYS.items():
            with self.subTest(way=way):
                def torpord_under_clock():
                    torpord = Torpord()
                    torpord.through = under_clock(made)
                    return torpord
                with mock.patch.object(test_stand_in, "Torpord", torpord_under_clock):
                    stand_in = StandIn(self)
                torpord = stand_in.torpord

                def ask():
                    status, headers, answer = torpord.call("POST", PATH, {"model": "parts", "prompt": "?"})
                    self.assertEqual(status, 200, answer)
                    return answer, headers["Server-Timing"]

                before, _ = ask()
                self.assertEqual(stand_in.suspend().get("tier"), "frozen", torpord.log()[-2000:])
                self.travel(torpord, thawed)
                self.check_goes_on(ask, before, "desc=thawed", torpord)
                # The thawed one lives under a clock of its own; so an image of it, too.
                self.assertEqual(torpord.call("DELETE", "/api/snapshots/parts")[0], 200)
                before, _ = ask()
                self.assertEqual(stand_in.suspend().get("tier"), "frozen", torpord.log()[-2000:])
                self.travel(torpord, made)
                self.check_goes_on(ask, before, "desc=thawed", torpord)

    def check_goes_on(self, ask, before, how, torpord):
        answer, timing = ask()
        self.assertIn(how, timing, torpord.log()[-2000:])
        self.assertGreaterEqual(answer["monotonic"], before["monotonic"])
        self.assertLess(answer["monotonic"], before["monotonic"] + DAYS_30 / 2)
        self.assertLess(abs(answer["wall"] - time.time()), DAYS_30 / 2)
        torpord.wait_until(lambda: ask()[0]["beats"] > answer["beats"] + 1, "the beat of a pending timer")

    @unittest.skipUnless(MODEL.exists(), "the small model is not there; packaging/setup/fetch-model fetches it")
    def test_a_real_engine_answers_and_sleeps_and_answers(self):
        for way, (made, thawed) in JOURNEYS.items():
            with self.subTest(way=way):
                torpord = Torpord()
                self.addCleanup(torpord.remove)
                torpord.through = under_clock(made)
                self.assertEqual(torpord.start(), "ready\n")
                torpord.need_freezing(self)
                torpord.add_model("smol", idle="1s")
                words = self.words(torpord, "desc=cold")
                self.assertEqual(torpord.call("POST", "/api/models/smol/suspend")[2]["tier"], "frozen")
                self.travel(torpord, thawed)
                self.assertEqual(self.words(torpord, "desc=thawed"), words)
                torpord.wait_until(lambda: torpord.get("/api/models/smol")["state"] == "asleep", "sleep after idle time")
                self.assertEqual(self.words(torpord, "desc=thawed"), words)

    def words(self, torpord, how):
        status, headers, answer = torpord.chat("smol", "Count to five.", temperature=0)
        self.assertEqual(status, 200, answer)
        self.assertIn(how, headers["Server-Timing"], torpord.log()[-2000:])
        return answer["choices"][0]["message"]["content"]


if __name__ == "__main__":
    unittest.main()
