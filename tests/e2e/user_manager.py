"""A systemd user manager of a test's own: a real one, that knows nothing of the machine's.

It has a cgroup, a view of /run and of /sys/fs/cgroup, a runtime folder and a set of units of its own, and hears of no other
bus. What its services write, and what it says about them, is in `journal`. Only root can make one.
"""
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from harness import SECONDS_MAX

SYSTEMD = next((path for path in map(pathlib.Path, ("/lib/systemd/systemd", "/usr/lib/systemd/systemd")) if path.exists()), None)
UNITS = pathlib.Path("/usr/lib/systemd/user")
# Of the machine's units only these: what people have installed beside them is not for a test to start.
NEEDED = ("basic.target", "default.target", "exit.target", "paths.target", "shutdown.target", "sockets.target",
          "systemd-exit.service", "timers.target", "app.slice", "session.slice", "background.slice")
# $1: its cgroup, $2: what it has as /run; then its command.
ENTER = """echo $$ > "$1"/cgroup.procs && exec unshare --mount --propagation private --cgroup sh -c '
    mount --bind "$2" /run && mount -t cgroup2 cgroup2 /sys/fs/cgroup && shift 2 && exec "$@"' sh "$@" """


def cgroup_place():
    """Where a cgroup of a test can be made: our own one, if the kernel's cgroup2 is mounted."""
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        root, mounted = before.split()[3:5]
        if after.split()[0] != "cgroup2":
            continue
        own = re.search(r"^0::(.*)$", pathlib.Path("/proc/self/cgroup").read_text(), re.M)[1]
        if own.startswith(root.rstrip("/")):
            return pathlib.Path(mounted, own[len(root.rstrip("/")):].lstrip("/"))
    return None


def why_not():
    """Why there can be no user manager here; None if there can."""
    if not SYSTEMD or not (UNITS / "basic.target").exists():
        return "systemd is not installed"
    if os.geteuid() != 0:
        return "only root can give a systemd of the test's own its cgroup"
    place = cgroup_place()
    if not place:
        return "no cgroup2 is mounted here"
    try:
        made = pathlib.Path(tempfile.mkdtemp(prefix="torpor-e2e-", dir=place))
    except OSError as error:
        return f"no cgroup can be made here: {error}"
    with tempfile.TemporaryDirectory() as run:
        tried = subprocess.run(["sh", "-c", ENTER, "sh", made, run, "true"], capture_output=True, text=True, timeout=SECONDS_MAX)
    made.rmdir()
    if tried.returncode:
        return f"no namespaces with a cgroup of the test's own here: {tried.stderr.strip()}"
    return None


class Journal:
    """What journald is to a systemd that sees `run` as /run: takes lines on its two sockets."""

    def __init__(self, run):
        folder = run / "systemd/journal"
        folder.mkdir(parents=True)
        self.lines = []
        self.records = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)  # of systemd itself
        self.records.bind(str(folder / "socket"))
        self.streams = socket.socket(socket.AF_UNIX)  # what services write
        self.streams.bind(str(folder / "stdout"))
        self.streams.listen()
        for name in ("socket", "stdout"):
            (folder / name).chmod(0o666)
        for take in (self.take_records, self.take_streams):
            threading.Thread(target=take, daemon=True).start()

    def take_records(self):
        while record := self.records.recv(1 << 16):
            self.lines += re.findall(r"^MESSAGE=(.*)$", record.decode(errors="replace"), re.M)

    def take_streams(self):
        while True:
            try:
                stream, _ = self.streams.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self.take_stream, args=(stream,), daemon=True).start()

    def take_stream(self, stream):
        with stream, stream.makefile(errors="replace") as lines:
            for _ in range(7):  # identifier, unit, priority and four switches
                lines.readline()
            for line in lines:
                self.lines.append(line.rstrip("\n"))

    def close(self):
        for each in (self.records, self.streams):
            each.shutdown(socket.SHUT_RD)
            each.close()


class UserManager:
    def __init__(self, folder, variables, user=0):
        """`folder`: made by the caller for all of it; `variables`: of its and its services' environment."""
        self.folder, self.user = pathlib.Path(folder), user
        self.cgroups = pathlib.Path(tempfile.mkdtemp(prefix="torpor-e2e-", dir=cgroup_place()))
        self.cgroup, self.others = self.cgroups / "manager", self.cgroups / "others"  # whom it starts, and what we do
        for path in (self.cgroup, self.others):
            path.mkdir()
        units = self.folder / "units"
        units.mkdir()
        for name in NEEDED:
            if (UNITS / name).exists():
                shutil.copy(UNITS / name, units)
        paths = {name: self.folder / below for name, below in (("CONFIG_HOME", "config"), ("STATE_HOME", "state"),
                                                               ("CACHE_HOME", "cache"), ("RUNTIME_DIR", "run"))}
        for path in paths.values():
            path.mkdir(mode=0o700, exist_ok=True)
        self.runtime = paths["RUNTIME_DIR"]
        kept = {name: value for name, value in os.environ.items() if name == "PATH" or name.endswith("SAN_OPTIONS")}
        self.variables = {**kept, "HOME": str(self.folder), **{"XDG_" + name: str(path) for name, path in paths.items()},
                          "SYSTEMD_UNIT_PATH": f"{paths['CONFIG_HOME']}/systemd/user:{units}", **variables}
        self.run = self.folder / "slash-run"
        (self.run / "systemd/system").mkdir(parents=True)  # the sign of a machine that systemd has booted
        self.journal = Journal(self.run)
        self.process = None

    def as_user(self, command):
        words = [str(word) for word in command]
        return words if not self.user else ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", *words]

    def start(self):
        """Ends when it has reached its target."""
        if self.user:
            subprocess.run(["chown", "-R", f"{self.user}:{self.user}", self.folder], check=True)
            for name in (".", "cgroup.procs", "cgroup.subtree_control"):
                os.chown(self.cgroup / name, self.user, self.user)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.settimeout(SECONDS_MAX)
            notify.bind(str(self.folder / "notify"))
            (self.folder / "notify").chmod(0o666)
            self.process = subprocess.Popen(
                ["sh", "-c", ENTER, "sh", self.cgroup, self.run, *self.as_user([SYSTEMD, "--user", "--log-target=journal"])],
                env={**self.variables, "NOTIFY_SOCKET": str(self.folder / "notify")}, stdin=subprocess.DEVNULL)
            while b"READY=1" not in notify.recv(4096).splitlines():
                pass

    def command(self, *words):
        """Runs a command where it is; what it wrote, and its status."""
        enter = ["sh", "-c", 'echo $$ > "$1"/cgroup.procs && shift && exec "$@"', "sh", self.others,
                 "nsenter", "--target", str(self.process.pid), "--mount", "--", *self.as_user(words)]
        done = subprocess.run(enter, env=self.variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=SECONDS_MAX, cwd="/")
        return done.stdout, done.returncode

    def systemctl(self, *words):
        return self.command("systemctl", "--user", *words)

    def property(self, unit, name):
        return self.systemctl("show", "--value", "--property", name, unit)[0].strip()

    def cgroup_of(self, pid):
        """Below its own."""
        path = re.search(r"^0::(.*)$", pathlib.Path(f"/proc/{pid}/cgroup").read_text(), re.M)[1]
        return path.partition(f"/{self.cgroups.name}/manager/")[2]

    def processes(self):
        """All that it, its services or our commands have started and that still lives."""
        found = []
        for path in self.cgroups.rglob("cgroup.procs"):
            try:
                found += map(int, path.read_text().split())
            except OSError:
                pass  # the cgroup has gone meanwhile
        return [pid for pid in found if not self.process or pid != self.process.pid]

    def remove(self):
        if self.process:
            self.process.kill()  # first: it would start what is ended again
            self.process.wait(SECONDS_MAX)
        end = time.monotonic() + SECONDS_MAX
        while self.cgroups.exists():
            for pid in self.processes():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            try:
                for path in sorted([self.cgroups, *filter(pathlib.Path.is_dir, self.cgroups.rglob("*"))], reverse=True):
                    path.rmdir()
            except OSError:  # what was killed has not ended yet
                assert time.monotonic() < end, f"{self.processes()} do not end"
                time.sleep(0.01)
        self.journal.close()
