"""The shipped units under a real systemd user manager: what a killed daemon leaves, who takes it back, and what a stop ends."""
import os
import pathlib
import select
import shutil
import signal
import sqlite3
import unittest

from fake import Fake, WithFakes
from harness import BUILD, DATA, MODEL, SECONDS_MAX, Torpord, UnixConnection, lives
from plain_user import GRANTED, USER, WithPlainUser
from user_manager import UserManager, why_not

WHY_NOT = why_not()
SERVICE = "torpor.service"


class UnitTorpord(Torpord):
    """A torpord that systemd starts and ends."""

    def __init__(self, user=0, programs=None, variables=None):
        """`user`: whose it is; `programs`: where torpor and the units are, if not in the build."""
        super().__init__()
        self.cli = programs / "torpor" if programs else BUILD / "clients/cli/torpor"
        root = pathlib.Path(self.folder)
        (root / "config/torpor").mkdir(parents=True, mode=0o700)
        (root / "config.toml").rename(root / "config/torpor/config.toml")
        self.manager = UserManager(root, {"TORPOR_DATA": str(DATA), **(variables or {})}, user)

    def start(self):
        self.manager.start()
        return self.torpor("daemon", "enable")

    def torpor(self, *words):
        return self.manager.command(self.cli, *words)

    def remove(self):
        self.manager.remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self):
        return "\n".join(self.manager.journal.lines)

    def connection(self, tcp=False):
        return UnixConnection(str(self.manager.runtime / "torpor/torpor.sock"))

    def pid(self):
        """Whoever is asked: the one that runs, or the next one, for whom systemd holds the socket."""
        return self.get("/api/version")["pid"]

    def kill(self):
        """Ends when it is dead."""
        pid = self.pid()
        watched = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        assert select.select([watched], [], [], SECONDS_MAX)[0], "it did not die"
        os.close(watched)
        return pid


class WithUnits:
    """For tests that have a `torpord` of systemd's and its `manager`."""

    def kill(self):
        """Ends when systemd has started the next one and that one serves; its pid."""
        killed = self.torpord.kill()
        pid = self.torpord.pid()
        self.assertNotEqual(pid, killed)
        self.assertEqual(self.manager.property(SERVICE, "MainPID"), str(pid))
        return pid

    def systemctl(self, *words):
        said, status = self.manager.systemctl(*words)
        self.assertEqual(status, 0, said)

    def wait_for_end(self, *pids):
        self.torpord.wait_until(lambda: not any(map(lives, pids)), "their end")

    def take_a_real_worker_back(self, model):
        self.torpord.add_model("smol", path=str(model))
        self.assertEqual(self.torpord.chat("smol")[0], 200)
        pid = self.torpord.get("/api/models/smol")["pid"]
        self.torpord.wait_until(lambda: self.torpord.get("/api/models/smol")["snapshot_bytes"] > 0, "the image")
        for _ in range(2):  # one that was started, one that was thawed
            daemon = self.kill()
            status, headers, answer = self.torpord.chat("smol")
            self.assertEqual(status, 200, answer)
            self.assertIn("desc=warm", headers["Server-Timing"])
            self.assertEqual(self.torpord.get("/api/models/smol")["pid"], pid)
            self.assertEqual(self.torpord.call("POST", "/api/models/smol/suspend")[2]["tier"], "frozen")
            self.wait_for_end(pid)
            status, headers, answer = self.torpord.chat("smol")
            self.assertEqual(status, 200, answer)
            self.assertIn("desc=thawed", headers["Server-Timing"], self.torpord.log())
            self.assertEqual(self.torpord.get("/api/models/smol")["pid"], pid)
            self.assertEqual(self.manager.cgroup_of(pid), self.manager.cgroup_of(daemon))
        self.systemctl("stop", SERVICE)
        self.wait_for_end(pid)
        self.assertEqual(self.torpord.get("/api/models/smol")["state"], "asleep")
        self.assertIn("desc=thawed", self.torpord.chat("smol")[1]["Server-Timing"], self.torpord.log())


@unittest.skipIf(WHY_NOT, WHY_NOT)
class SystemdTest(WithUnits, WithFakes, unittest.TestCase):
    def setUp(self):
        self.torpord = UnitTorpord()
        self.addCleanup(self.torpord.remove)
        self.manager = self.torpord.manager
        said, status = self.torpord.start()
        self.assertEqual(status, 0, said)

    def awake(self, name="m", **keys):
        """A model whose worker runs, and its pid."""
        fake = self.fake(name, **keys)
        status, _, answer = fake.ask()
        self.assertEqual(status, 200, answer)
        return fake, answer["pid"]

    def test_enable_makes_it_systemds(self):
        pid = self.torpord.pid()
        self.assertEqual(self.manager.property(SERVICE, "MainPID"), str(pid))
        for unit in (SERVICE, "torpor.socket"):
            self.assertEqual(self.manager.systemctl("is-enabled", unit)[0], "enabled\n")
            self.assertEqual(self.manager.systemctl("is-active", unit)[0], "active\n")
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        for line in ("\nNoNewPrivs:\t0\n", "\nSeccomp:\t0\n"):  # CRIU and engines need it so
            self.assertIn(line, status)
        views = [pathlib.Path(f"/proc/{each}/ns/mnt").readlink() for each in (pid, self.manager.process.pid)]
        self.assertEqual(views[0], views[1])
        _, worker = self.awake()
        for each in (pid, worker):
            self.assertEqual(self.manager.cgroup_of(each), "app.slice/" + SERVICE)
        self.torpord.wait_until(lambda: f"(pid {pid}) serves" in self.torpord.log(), "a line in the journal")

    def test_workers_are_taken_back_again_and_again(self):
        fakes = [self.awake("on-socket"), self.awake("on-port", listen="{port}")]
        for _ in range(3):
            self.systemctl("reset-failed", SERVICE)  # it counts how often it starts, and gives up
            killed = self.torpord.kill()
            self.assertEqual([lives(pid) for _, pid in fakes], [True, True])
            daemon = self.torpord.pid()
            self.assertNotEqual(daemon, killed)
            for fake, pid in fakes:
                status, headers, answer = fake.ask()
                self.assertEqual((status, answer["pid"]), (200, pid))
                self.assertIn("desc=warm", headers["Server-Timing"])
                self.assertEqual(fake.status()["pid"], pid)
                self.assertEqual(self.manager.cgroup_of(pid), self.manager.cgroup_of(daemon))
        for fake, pid in fakes:
            said = f"{fake.name}: its worker of an earlier torpord (pid {pid}) is taken back"
            self.torpord.wait_until(lambda: self.torpord.log().count(said) == 3, said)
        for fake, pid in fakes:
            self.assertEqual(fake.order("suspend")[0], 200)
            self.wait_for_end(pid)
            self.assertEqual(fake.ask()[0], 200)

    def test_when_systemd_gives_up_the_next_verb_starts_one_that_takes_them_back(self):
        fake, pid = self.awake()
        self.torpord.wait_until(self.kill_and_see_whether_systemd_gave_up, "giving up")
        self.assertIn("Start request repeated too quickly", self.torpord.log())
        said, status = self.torpord.torpor("ps")
        self.assertEqual(status, 0, said)
        status, headers, answer = fake.ask()
        self.assertEqual((status, answer["pid"]), (200, pid))
        self.assertIn("desc=warm", headers["Server-Timing"])
        # And it is systemd's again.
        said, status = self.torpord.torpor("daemon", "enable")
        self.assertEqual(status, 0, said)
        self.assertEqual(self.manager.property(SERVICE, "MainPID"), str(self.torpord.pid()))
        self.assertEqual(fake.ask()[0], 200)

    def kill_and_see_whether_systemd_gave_up(self):
        pid = int(self.manager.property(SERVICE, "MainPID"))
        if lives(pid):  # or systemd waits to start the next one
            os.kill(pid, signal.SIGKILL)
        return self.manager.property("torpor.socket", "ActiveState") == "failed"

    def test_a_foreign_process_with_its_number_is_named_and_left_alone(self):
        fake, pid = self.awake()
        self.manager.process.send_signal(signal.SIGSTOP)  # it is to find the change when it starts the next one
        self.torpord.kill()
        database = sqlite3.connect(pathlib.Path(self.torpord.folder, "state/torpor/torpor.db"))
        with database:
            changed = database.execute("UPDATE worker SET token = '00000000000000000000000000000000'")
            self.assertEqual(changed.rowcount, 1)
        database.close()
        self.manager.process.send_signal(signal.SIGCONT)
        try:
            self.torpord.wait_until(lambda: f"process {pid} may be its worker" in self.torpord.log(), "a warning")
            status, _, answer = fake.ask()
            self.assertEqual(status, 200, answer)
            self.assertNotEqual(answer["pid"], pid)
            self.systemctl("stop", SERVICE)
            self.wait_for_end(answer["pid"])
            self.assertTrue(lives(pid), self.torpord.log())
        finally:
            os.kill(pid, signal.SIGKILL)

    def test_a_stop_ends_the_workers_and_the_next_request_starts_all_again(self):
        fake, first = self.awake()
        daemon = self.kill()
        _, second = self.awake("another")
        self.systemctl("stop", SERVICE)
        self.assertEqual([lives(pid) for pid in (first, second, daemon)], [False, False, False])
        self.assertEqual(self.manager.property(SERVICE, "Result"), "success")
        status, _, answer = fake.ask()  # the socket is still systemd's
        self.assertEqual(status, 200, answer)
        self.systemctl("restart", SERVICE)
        self.wait_for_end(answer["pid"])
        self.assertEqual(fake.ask()[0], 200)

    def test_disabled_it_leaves_nothing(self):
        fake = Fake(self.torpord, "m")
        self.addCleanup(fake.events.close)
        self.addCleanup(shutil.rmtree, fake.folder)
        pid = fake.ask()[2]["pid"]
        daemon = self.kill()
        said, status = self.torpord.torpor("daemon", "disable")
        self.assertEqual(status, 0, said)
        self.assertEqual([lives(pid), lives(daemon)], [False, False])
        self.assertEqual(self.manager.processes(), [])
        self.assertEqual(list(self.manager.cgroup.rglob("torpor*")), [])
        self.assertFalse((self.manager.runtime / "torpor/torpor.sock").exists())
        self.assertEqual(list((self.manager.folder / "config/systemd").rglob("torpor*")), [])

    @unittest.skipUnless(MODEL.exists(), "the small model is not there; packaging/setup/fetch-model fetches it")
    def test_a_real_worker_is_taken_back_and_freezes_and_thaws(self):
        self.torpord.need_freezing(self)
        self.take_a_real_worker_back(MODEL)


@unittest.skipIf(WHY_NOT, WHY_NOT)
class PlainUserSystemdTest(WithUnits, WithPlainUser, unittest.TestCase):
    """systemd's user is not root, and CRIU has the rights of its file: nothing of the unit may take them away."""

    @unittest.skipUnless(MODEL.exists(), "the small model is not there; packaging/setup/fetch-model fetches it")
    def test_a_real_worker_is_taken_back_and_freezes_and_thaws(self):
        for unit in (SERVICE, "torpor.socket"):  # beside the programs of that user
            text = (BUILD / "packaging" / unit).read_text()
            (self.folder / unit).write_text(text.replace(str(BUILD / "daemon/torpord"), str(self.folder / "torpord")))
        GRANTED.unlink(missing_ok=True)
        self.torpord = UnitTorpord(USER, self.folder, {"TORPOR_DATA": str(self.data), "TORPOR_LIBEXEC": str(self.folder)})
        self.addCleanup(self.torpord.remove)
        self.manager = self.torpord.manager
        said, status = self.torpord.start()
        self.assertEqual(status, 0, said)
        check = self.torpord.doctor()["criu"]
        if "command" not in check:
            self.skipTest(check["message"])
        self.run_as_root(check["command"])
        self.systemctl("restart", SERVICE)
        self.assertTrue(self.torpord.doctor()["criu"]["ok"], self.torpord.doctor()["criu"])
        self.take_a_real_worker_back(self.data / "models" / MODEL.name)


if __name__ == "__main__":
    unittest.main()
