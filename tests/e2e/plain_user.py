"""A user who is not root, for tests that root runs, and what that user needs in places where that user may go."""
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from harness import BUILD, DATA

# A user and group that nobody has, others for each run of the tests.
USER = 60000 + os.getpid() % 5000
GRANTED = pathlib.Path(f"/usr/local/lib/torpor/criu-{USER}")
PROGRAMS = ("daemon/torpord", "clients/cli/torpor", "gpu/launch/torpor-launch", "gpu/launch/libtorpor-refuse.so",
            "gpu/criu_hook/torpor-criu-hook")
AS_USER = {"user": USER, "group": USER, "extra_groups": [], "umask": 0o077}


def link(source, target):
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@unittest.skipIf(os.geteuid(), "only root can become another user and give rights to a file")
@unittest.skipUnless((DATA / "criu/criu").exists(), "CRIU is not there; packaging/setup/fetch-criu builds it")
@unittest.skipUnless(shutil.which("setcap"), "setcap is not there; it comes with libcap2-bin")
class WithPlainUser:
    @classmethod
    def setUpClass(cls):
        # What the tests use may lie where nobody but root can go.
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="torpor-plain-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        cls.folder.chmod(0o755)
        cls.data = cls.folder / "data"
        (cls.data / "criu").mkdir(parents=True)
        shutil.copy2(DATA / "criu/criu", cls.data / "criu")
        for part in ("engines", "models"):
            if (DATA / part).exists():
                shutil.copytree(DATA / part, cls.data / part, symlinks=True, copy_function=link)
        for program in PROGRAMS:
            shutil.copy2(BUILD / program, cls.folder)
        had_folder = GRANTED.parent.exists()
        cls.addClassCleanup(lambda: had_folder or shutil.rmtree(GRANTED.parent, ignore_errors=True))
        cls.addClassCleanup(GRANTED.unlink, missing_ok=True)

    def run_as_root(self, command):
        """What doctor says that root should run."""
        self.assertTrue(command.startswith("sudo "), command)
        done = subprocess.run(["sh", "-c", command.removeprefix("sudo ")], capture_output=True, text=True)
        if done.returncode and "setcap" in done.stderr:
            self.skipTest(done.stderr)  # a file system, or a container, without capabilities
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
