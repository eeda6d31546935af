"""An engine of several processes is frozen and thawed, over and over, and needs each option and step for it."""
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import unittest

from harness import BUILD, DATA, Torpord

STAND_IN = pathlib.Path(__file__).with_name("stand_in.py")
CLIENTS = DATA / "test-clients" / f"python{sys.version_info.major}.{sys.version_info.minor}"
THAWS = 20
PATH = "/v1/chat/completions"


class StandIn:
    def __init__(self, test, without=None, launcher=None, snapshot="ready"):
        """`without`: an option that CRIU is not given; `launcher`: another torpor-launch."""
        self.torpord = Torpord()
        test.addCleanup(self.torpord.remove)
        if without:
            data = tempfile.TemporaryDirectory(prefix="torpor-data-")
            test.addCleanup(data.cleanup)
            criu = pathlib.Path(data.name, "criu/criu")
            criu.parent.mkdir()
            criu.write_text(f"""#!{sys.executable}
import os, sys
words = sys.argv[1:]
for at in [at for at, word in enumerate(words) if word == {without!r}]:
    del words[at:at + (2 if at + 1 < len(words) and not words[at + 1].startswith("-") else 1)]
os.execv({str(DATA / "criu/criu")!r}, ["criu", *words])
""")
            criu.chmod(0o755)
            self.torpord.variables["TORPOR_DATA"] = data.name
        if launcher:
            folder = tempfile.TemporaryDirectory(prefix="torpor-libexec-")
            test.addCleanup(folder.cleanup)
            for program in ("gpu/launch/torpor-launch", "gpu/criu_hook/torpor-criu-hook"):
                shutil.copy(BUILD / program, folder.name)
            place = pathlib.Path(folder.name, "torpor-launch")
            place.write_text(launcher)
            self.torpord.variables["TORPOR_LIBEXEC"] = folder.name
        test.assertEqual(self.torpord.start(), "ready\n")
        self.torpord.need_freezing(test)
        status, _, answer = self.torpord.call("POST", "/api/models", {
            "name": "parts", "engine": "custom", "idle": "never", "snapshot": snapshot, "env": {"PYTHONPATH": str(CLIENTS)},
            "command": [sys.executable, str(STAND_IN), "{socket}"]})
        test.assertEqual(status, 201, answer)

    def ask(self, prompt):
        status, headers, answer = self.torpord.call("POST", PATH, {"model": "parts", "prompt": prompt})
        assert status == 200, answer
        return answer["answers"], headers["Server-Timing"]

    def suspend(self):
        return self.torpord.call("POST", "/api/models/parts/suspend")[2]

    def await_image(self):
        """Until it was made, or could not be made."""
        self.torpord.wait_until(lambda: "parts: snapshot of" in self.torpord.log() or "no snapshot could be made" in self.torpord.log())

    def shared_files(self):
        """Those of its files in /dev/shm that its image has, and that are there."""
        image = pathlib.Path(self.torpord.folder, "cache/snapshots/parts/image")
        names = {file.name.removeprefix("shm-") for file in image.glob("shm-*")}
        assert names, self.torpord.log()[-3000:]
        return names & set(os.listdir("/dev/shm"))

    def named_shared_files(self):
        """What its processes have mapped of /dev/shm and still has a name there."""
        mapped = set()
        for pid in self.processes():
            for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
                if " /dev/shm/" in line:
                    mapped.add(int(line.split()[4]))
        return {entry.name for entry in os.scandir("/dev/shm") if entry.inode() in mapped}

    def session(self, leader):
        """The members of its session, those that have ended and are not reaped yet as well."""
        found = []
        for folder in pathlib.Path("/proc").iterdir():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split() if folder.name.isdigit() else []
            except OSError:
                continue  # it is gone
            if len(fields) > 3 and int(fields[3]) == leader:
                found.append(int(folder.name))
        return found

    def processes(self):
        found = []
        for folder in pathlib.Path("/proc").iterdir():
            try:
                if folder.name.isdigit() and self.torpord.folder.encode() in (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                pass  # it has ended
        return found


@unittest.skipUnless((CLIENTS / "uvloop").exists(), "uvloop is not there; packaging/setup/fetch-test-clients fetches it")
class StandInTest(unittest.TestCase):
    def test_one_image_thaws_twenty_times_and_leaves_nothing(self):
        stand_in = StandIn(self)
        first, _ = stand_in.ask("one")
        self.assertEqual(stand_in.suspend().get("tier"), "frozen", stand_in.torpord.log())
        for number in range(THAWS):
            answers, timing = stand_in.ask(f"again {number}")
            self.assertIn("desc=thawed", timing, stand_in.torpord.log()[-1500:])
            self.assertNotEqual(stand_in.shared_files(), set())
            for was, now in zip(first, answers):
                # The same processes with what they knew, from the same moment on: this is their second answer.
                self.assertEqual(now, {**was, "said": was["said"] + 1, "turn": was["turn"] + 2, "prompt": f"again {number}"})
            if number % 3 == 2:  # after a crash and, as far as that can be had, after a reboot
                os.kill(stand_in.torpord.get("/api/models/parts")["pid"], signal.SIGKILL)
                stand_in.torpord.wait_until(lambda: stand_in.torpord.get("/api/models/parts")["state"] == "asleep")
            else:
                self.assertEqual(stand_in.suspend()["tier"], "frozen")
            self.assertEqual(stand_in.shared_files(), set())
        self.assertEqual(stand_in.torpord.stop(), 0)
        # (A sanitizer's symbolizer may outlive torpord for a moment.)
        stand_in.torpord.wait_until(lambda: not stand_in.processes(), "the end of all")
        self.assertEqual(stand_in.shared_files(), set())

    def test_its_files_go_with_it_where_its_image_went_before(self):
        stand_in = StandIn(self)
        stand_in.ask("one")
        self.assertEqual(stand_in.suspend().get("tier"), "frozen")
        stand_in.ask("thawed")
        names = stand_in.shared_files()
        self.assertNotEqual(names, set())
        self.assertEqual(stand_in.torpord.call("DELETE", "/api/snapshots/parts")[0], 200)
        os.kill(stand_in.torpord.get("/api/models/parts")["pid"], signal.SIGKILL)
        stand_in.torpord.wait_until(lambda: stand_in.torpord.get("/api/models/parts")["state"] == "stopped")
        self.assertEqual(names & set(os.listdir("/dev/shm")), set())

    def test_after_a_reboot_it_thaws(self):
        """As far as one can be had here: no process of it lives, /dev/shm and the runtime folder are empty."""
        stand_in = StandIn(self)
        first, _ = stand_in.ask("one")
        self.assertEqual(stand_in.suspend().get("tier"), "frozen")
        stand_in.ask("awake when the power fails")
        leader = stand_in.torpord.get("/api/models/parts")["pid"]
        stand_in.torpord.process.kill()
        stand_in.torpord.process.wait()
        for pid in stand_in.session(leader):
            os.kill(pid, signal.SIGKILL)
        # Whoever has its number or is of its session, zombies too: after a reboot there are none.
        stand_in.torpord.wait_until(lambda: not stand_in.session(leader), "the end of all")
        for name in stand_in.shared_files():
            os.unlink("/dev/shm/" + name)
        os.unlink(stand_in.torpord.folder + "/torpor.sock")
        shutil.rmtree(stand_in.torpord.folder + "/workers")
        self.assertEqual(stand_in.torpord.start(), "ready\n")
        answers, timing = stand_in.ask("after")
        self.assertIn("desc=thawed", timing, stand_in.torpord.log()[-1500:])
        self.assertEqual([answer["secret"] for answer in answers], [answer["secret"] for answer in first])

    def test_shared_memory_goes_with_a_worker_that_has_no_image(self):
        """Its resource tracker is killed with it, and no image tells the names."""
        stand_in = StandIn(self, snapshot="off")
        for way in ("stopped by force", "killed"):
            with self.subTest(way=way):
                stand_in.ask("one")
                made = stand_in.named_shared_files()
                self.assertGreater(len(made), 1)
                pid = stand_in.torpord.get("/api/models/parts")["pid"]
                if way == "killed":
                    os.kill(pid, signal.SIGKILL)
                    stand_in.torpord.wait_until(lambda: stand_in.torpord.get("/api/models/parts")["state"] == "stopped")
                else:
                    os.kill(pid, signal.SIGSTOP)  # deaf to a polite word
                    stand_in.torpord.call("POST", "/api/models/parts/stop?force=true")
                self.assertEqual(made & set(os.listdir("/dev/shm")), set())

    @unittest.skipIf(os.geteuid(), "a plain user's CRIU is root's copy, which no script can stand in for")
    def test_it_cannot_do_without_any_option_or_step(self):
        for option in ("--link-remap", "--tcp-close", "--file-locks", "--action-script"):
            with self.subTest(without=option):
                stand_in = StandIn(self, without=option)
                stand_in.ask("one")
                stand_in.await_image()
                stand_in.suspend()
                self.assertNotIn("desc=thawed", stand_in.ask("two")[1])
        with self.subTest(without="the filter of io_uring"):
            real = BUILD / "gpu/launch/torpor-launch"
            stand_in = StandIn(self, launcher=f"""#!{sys.executable}
import os, sys
os.execv({str(real)!r}, ["torpor-launch"] + [word for word in sys.argv[1:] if word != "--no-io-uring"])
""")
            stand_in.ask("one")
            self.assertNotEqual(stand_in.suspend().get("tier"), "frozen")


if __name__ == "__main__":
    unittest.main()
