"""A torpord of its own on a folder of its own, and small HTTP clients for it."""
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

BUILD = pathlib.Path(os.environ.get("TORPOR_BUILD", "build")).resolve()
DATA = pathlib.Path(os.environ.get("TORPOR_DATA") or
                    pathlib.Path(os.environ.get("XDG_DATA_HOME", pathlib.Path.home() / ".local/share")) / "torpor")
MODEL = DATA / "models/SmolLM2-135M-Instruct.Q4_1.gguf"
# What packaging/setup/fetch-test-clients fetches.
CLIENTS = DATA / "test-clients/python{}.{}".format(*sys.version_info[:2])
SECONDS_MAX = int(os.environ.get("TORPOR_TEST_SECONDS", "120"))


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=SECONDS_MAX):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(self.timeout)
        try:
            sock.connect(self.path)
        except OSError:
            sock.close()
            raise
        self.sock = sock


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_alive(pid):
    return pid > 0 and pathlib.Path(f"/proc/{pid}").exists()


def lives(pid):
    """A zombie that its parent has yet to reap does not."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def memory_bound(bytes_max):
    """What a bound for the daemon's memory is in this build: sanitizers keep what was freed, and books about it."""
    return bytes_max * (8 if BUILD.name.endswith(("asan", "tsan")) else 1)


def pss_of(pid):
    """Memory of a process: its share of what it shares, in bytes."""
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * int(next(line.split()[1] for line in text.splitlines() if line.startswith("Pss:")))


class Torpord:
    def __init__(self, config=None, more=""):
        """`config`: its config.toml instead of the usual one; `more`: what the usual one has after [http]."""
        self.folder = tempfile.mkdtemp(prefix="torpor-e2e-")
        os.chmod(self.folder, 0o700)
        self.port = free_port()
        pathlib.Path(self.folder, "config.toml").write_text(config or f'[http]\ntcp = "127.0.0.1:{self.port}"\n' + more)
        self.process = None
        self.program = BUILD / "daemon/torpord"
        self.options = {}  # for Popen
        self.variables = {}  # for its environment, over the usual ones; None: not set
        self.through = []  # what becomes torpord: a program and its arguments

    def environment(self):
        variables = dict(os.environ, TORPOR_DIR=self.folder, TORPOR_DATA=str(DATA)) | self.variables
        return {name: value for name, value in variables.items() if value is not None}

    def start(self):
        """Starts it and waits until it says that it is ready; returns what it said."""
        reader, writer = os.pipe()
        self.process = subprocess.Popen([*self.through, self.program, "--ready-fd", str(writer)], env=self.environment(),
                                        pass_fds=[writer], stdin=subprocess.DEVNULL, **self.options)
        os.close(writer)
        with os.fdopen(reader) as said:
            return said.read()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(SECONDS_MAX)
        return self.process.returncode if self.process else None

    def remove(self):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self):
        path = pathlib.Path(self.folder, "logs/torpord.log")
        return path.read_text() if path.exists() else ""

    def doctor(self):
        return {check["name"]: check for check in self.get("/api/doctor")["checks"]}

    def gauge(self, name):
        """A number of /metrics that has no labels."""
        lines = self.get("/metrics").splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith(name + " ")))

    def need_freezing(self, test):
        criu = self.doctor()["criu"]
        if not criu["ok"]:
            test.skipTest(criu["message"])

    def wait_until(self, is_so, what=""):
        """Polls what gives no sign of its own."""
        end = time.monotonic() + SECONDS_MAX
        while not is_so():
            assert time.monotonic() < end, f"{what} did not come about\n{self.log()[-4000:]}"
            time.sleep(0.01)

    def connection(self, tcp=False):
        if tcp:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS_MAX)
        return UnixConnection(self.folder + "/torpor.sock")

    def call(self, method, path, body=None, headers=None, tcp=False):
        """Status, headers, and the answer (parsed when it is JSON)."""
        connection = self.connection(tcp)
        connection.request(method, path, None if body is None else json.dumps(body), headers or {})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        is_json = answer.headers.get_content_type() == "application/json"
        return answer.status, answer.headers, json.loads(text) if is_json and text else text

    def get(self, path):
        return self.call("GET", path)[2]

    def add_model(self, name, **keys):
        # One thread each: the tests run side by side, and threads that wait for each other by spinning would crawl.
        if keys.get("engine", "llama-server") == "llama-server":
            keys["args"] = [*keys.get("args", []), "--threads", "1"]
        status, _, answer = self.call("POST", "/api/models",
                                      {"name": name, "engine": "llama-server", "path": str(MODEL), **keys})
        assert status == 201, answer
        return answer

    def chat(self, model, content="Say hi.", **keys):
        return self.call("POST", "/v1/chat/completions",
                         {"model": model, "max_tokens": 8, "messages": [{"role": "user", "content": content}], **keys})
