"""torpord of a user who is not root: what keeps it from freezing is said, one command mends it, and then all works."""
import contextlib
import os
import pathlib
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
import unittest

from harness import CLIENTS, MODEL, Torpord, lives
from plain_user import AS_USER, GRANTED, USER, WithPlainUser, link

THAWS = 10
CHAT = "/v1/chat/completions"
# Prints the errno of what CRIU could not dump or bring back.
ASK_KERNEL = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def error(*words):
    return ctypes.get_errno() if libc.syscall(*map(ctypes.c_long, words)) < 0 else 0
print("io_uring", error(425, 4, 0), "amx", error(158, 0x1023, 18), "getppid", error(110), "close", error(3, -1))
"""


def processes():
    """Of the user."""
    found = []
    for folder in pathlib.Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and f"\nUid:\t{USER}\t" in (folder / "status").read_text():
                found.append(int(folder.name))
        except OSError:
            pass  # it has ended
    return found


def is_restore(pid):
    try:
        return b"\0restore\0" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False  # it has ended


class PlainUserTest(WithPlainUser, unittest.TestCase):
    def setUp(self):
        GRANTED.unlink(missing_ok=True)
        self.torpord = Torpord()
        self.addCleanup(self.end_all)
        for path in (self.torpord.folder, self.torpord.folder + "/config.toml"):
            os.chown(path, USER, USER)
        self.torpord.program = self.folder / "torpord"
        self.torpord.options = {**AS_USER, "cwd": self.torpord.folder}
        self.torpord.variables = {"TORPOR_DATA": str(self.data), "TORPOR_LIBEXEC": str(self.folder), "HOME": self.torpord.folder,
                                  "XDG_RUNTIME_DIR": None}
        self.start()

    def start(self):
        self.assertEqual(self.torpord.start(), "ready\n")

    def end_all(self):
        self.torpord.remove()
        for pid in processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def command(self):
        """What doctor says that root should run."""
        check = self.torpord.doctor()["criu"]
        self.assertFalse(check["ok"])
        if "command" not in check:
            self.skipTest(check["message"])
        return check["command"]

    def grant(self):
        self.run_as_root(self.command())
        self.assertEqual(self.torpord.stop(), 0)
        self.start()
        self.assertTrue(self.torpord.doctor()["criu"]["ok"], self.torpord.doctor()["criu"])

    def test_what_is_missing_is_said_and_one_command_mends_it(self):
        command = self.command()
        check = self.torpord.doctor()["criu"]
        self.assertRegex(check["message"], "criu lacks cap_checkpoint_restore.* idle workers are stopped instead$")
        self.assertIn(f"idle workers are stopped, not frozen: {self.data}/criu/criu lacks", self.torpord.log())
        doctor = subprocess.run([self.folder / "torpor", "doctor"], env=self.torpord.environment(), capture_output=True, text=True,
                                cwd="/", **AS_USER)
        self.assertEqual(doctor.returncode, 1)
        self.assertIn(f"\n  {command}\n", doctor.stdout)
        self.assertIn(f"Whoever is in the group {USER} may then", doctor.stdout)
        self.grant()
        self.assertTrue(all(check["ok"] for check in self.torpord.doctor().values()), self.torpord.doctor())
        info = GRANTED.stat()
        self.assertEqual((info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)), (0, USER, 0o750))
        # Rights that were taken away are missed at the next start, and only they are given again.
        subprocess.run(["setcap", "-r", GRANTED], check=True)
        self.assertEqual(self.torpord.stop(), 0)
        self.start()
        self.assertIn(f"{GRANTED} lacks cap_checkpoint_restore", self.torpord.doctor()["criu"]["message"])
        self.grant()

    @unittest.skipUnless(MODEL.exists(), "the small model is not there; packaging/setup/fetch-model fetches it")
    def test_a_real_worker_is_thawed_many_times_and_taken_back(self):
        self.grant()
        model = self.data / "models" / MODEL.name
        self.torpord.add_model("smol", path=str(model))

        def words():
            status, headers, answer = self.torpord.chat("smol", "Count to five.", temperature=0)
            self.assertEqual(status, 200, answer)
            return answer["choices"][0]["message"]["content"], headers["Server-Timing"]

        expected, _ = words()
        for _ in range(THAWS):
            self.assertEqual(self.torpord.call("POST", "/api/models/smol/suspend")[2].get("tier"), "frozen", self.torpord.log())
            said, timing = words()
            self.assertEqual(said, expected)
            self.assertIn("desc=thawed", timing, self.torpord.log())
        pid = self.torpord.get("/api/models/smol")["pid"]
        self.assertIn(pid, processes())
        self.kill_and_start()
        said, timing = words()
        self.assertEqual((said, self.torpord.get("/api/models/smol")["pid"]), (expected, pid))
        self.assertIn("desc=warm", timing)
        self.assertGreater(self.torpord.get("/api/models/smol")["memory_bytes"], 0)
        self.assertEqual(self.torpord.call("POST", "/api/models/smol/suspend")[2]["tier"], "frozen")
        self.assertIn("desc=thawed", words()[1])
        self.assertEqual(self.torpord.stop(), 0)
        # (Who was taken back has another parent, which may take its time.)
        self.torpord.wait_until(lambda: not any(map(lives, processes())), "the end of all")

    @unittest.skipUnless(MODEL.exists(), "the small model is not there; packaging/setup/fetch-model fetches it")
    def test_what_a_killed_torpord_was_thawing_is_ended(self):
        """Half made it has CRIU's rights, and the user may not look at its program."""
        self.grant()
        self.torpord.add_model("smol", path=str(self.data / "models" / MODEL.name))
        self.assertEqual(self.torpord.chat("smol")[0], 200)
        dice = random.Random(20261125)
        for _ in range(6):
            self.assertEqual(self.torpord.call("POST", "/api/models/smol/suspend")[2].get("tier"), "frozen", self.torpord.log())
            # Nobody waits for its answer.
            with contextlib.closing(self.torpord.connection()) as connection:
                connection.request("POST", CHAT, '{"model":"smol","messages":[{"role":"user","content":"Hi"}]}')
                self.torpord.wait_until(lambda: any(map(is_restore, processes())), "a thaw")
                time.sleep(dice.uniform(0, 0.02))
                self.kill_and_start()
            self.assertEqual(self.torpord.chat("smol")[0], 200)
            self.assertFalse(any(map(is_restore, processes())))

    def kill_and_start(self):
        self.torpord.process.kill()
        self.torpord.process.wait()
        self.start()

    def python(self):
        """One that the user can run, with the modules of the test clients."""
        for python in (sys.executable, "/usr/bin/python3"):
            version = "import sys; print('{}.{}'.format(*sys.version_info[:2]))"
            try:
                done = subprocess.run([python, "-c", version], capture_output=True, text=True, cwd="/", env={}, **AS_USER)
            except OSError:
                continue
            if done.stdout.strip() == "{}.{}".format(*sys.version_info[:2]):
                return python
        self.skipTest(f"no Python that another user can run is like {sys.executable}")

    @unittest.skipUnless((CLIENTS / "uvloop").exists(), "uvloop is not there; packaging/setup/fetch-test-clients fetches it")
    def test_an_engine_of_several_processes_with_shared_memory_is_thawed(self):
        """It opens an io_uring, too, if it can."""
        python = self.python()
        self.grant()
        shutil.copytree(CLIENTS / "uvloop", self.data / "modules/uvloop", copy_function=link, dirs_exist_ok=True)
        shutil.copy(pathlib.Path(__file__).with_name("stand_in.py"), self.data)
        status, _, answer = self.torpord.call("POST", "/api/models", {
            "name": "parts", "engine": "custom", "idle": "never", "env": {"PYTHONPATH": str(self.data / "modules")},
            "command": [python, str(self.data / "stand_in.py"), "{socket}"]})
        self.assertEqual(status, 201, answer)

        def ask(prompt):
            status, headers, answer = self.torpord.call("POST", CHAT, {"model": "parts", "prompt": prompt})
            self.assertEqual(status, 200, answer)
            return answer["answers"], headers["Server-Timing"]

        first, _ = ask("one")
        for number in range(THAWS):
            self.assertEqual(self.torpord.call("POST", "/api/models/parts/suspend")[2].get("tier"), "frozen", self.torpord.log())
            answers, timing = ask(f"again {number}")
            self.assertIn("desc=thawed", timing, self.torpord.log())
            for was, now in zip(first, answers):
                self.assertEqual(now, {**was, "said": was["said"] + 1, "turn": was["turn"] + 2, "prompt": f"again {number}"})
        self.assertEqual(self.torpord.stop(), 0)
        self.torpord.wait_until(lambda: not any(map(lives, processes())), "the end of all")
        self.assertEqual([file.name for file in pathlib.Path("/dev/shm").iterdir() if file.lstat().st_uid == USER], [])

    @unittest.skipUnless(os.uname().machine == "x86_64", "the numbers of the calls are those of x86-64")
    def test_what_criu_cannot_bring_back_is_refused_without_a_filter(self):
        enosys, ebadf = 38, 9
        launch = [self.folder / "torpor-launch", "--no-io-uring", "--no-amx", "--", self.python(), "-c",
                  ASK_KERNEL + "print(open('/proc/self/status').read())"]
        done = subprocess.run(launch, capture_output=True, text=True, cwd="/", env={"LD_PRELOAD": ""}, **AS_USER)
        self.assertIn(f"io_uring {enosys} amx {enosys} getppid 0 close {ebadf}\n", done.stdout, done.stderr)
        self.assertIn("\nSeccomp:\t0\n", done.stdout)
        launch.remove("--no-io-uring")
        done = subprocess.run(launch, capture_output=True, text=True, cwd="/", env={}, **AS_USER)
        self.assertNotIn(f"io_uring {enosys} ", done.stdout, done.stderr)
        self.assertIn(f" amx {enosys} ", done.stdout)


if __name__ == "__main__":
    unittest.main()
