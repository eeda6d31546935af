"""What the measurements share: building, processes, memory, medians, and one way to print a table."""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("TORPOR_BUILD") or ROOT / "build").resolve()
DATA = pathlib.Path(os.environ.get("TORPOR_DATA") or
                    pathlib.Path(os.environ.get("XDG_DATA_HOME") or pathlib.Path.home() / ".local/share") / "torpor")
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "torpor-bench"
MODEL = DATA / "models/SmolLM2-135M-Instruct.Q4_1.gguf"
SECONDS_MAX = 180


def say(text):
    print(text, file=sys.stderr, flush=True)


def build():
    """The programs as they are in the tree now, unless $TORPOR_BUILD names a folder that is to be taken as it is."""
    if "TORPOR_BUILD" in os.environ:
        return
    if not (BUILD / "build.ninja").exists():
        subprocess.run(["meson", "setup", BUILD, "--buildtype=debugoptimized"], cwd=ROOT, check=True, stdout=sys.stderr)
    subprocess.run(["ninja", "-C", BUILD], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def engine():
    return os.environ.get("LLAMA_SERVER") or shutil.which("llama-server") or str(DATA / "engines/llama-server/llama-server")


def llama_swap():
    """Its program, or None."""
    return os.environ.get("LLAMA_SWAP") or shutil.which("llama-swap")


NO_LLAMA_SWAP = "no llama-swap on PATH or in $LLAMA_SWAP"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def folder_of_its_own():
    folder = tempfile.mkdtemp(prefix="torpor-bench-")
    os.chmod(folder, 0o700)
    try:
        yield pathlib.Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Program:
    """A process with a session of its own; end() takes all of it."""

    def __init__(self, arguments, log=None, environment=None, **keys):
        self.log = open(log, "wb") if log else subprocess.DEVNULL
        self.process = subprocess.Popen([str(word) for word in arguments], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                        env={**os.environ, **(environment or {})}, start_new_session=True, **keys)
        self.pid = self.process.pid

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                pass
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        if self.log != subprocess.DEVNULL:
            self.log.close()


class Torpord:
    """A torpord on a folder of its own."""

    def __init__(self, folder, config="", models=None, environment=None):
        self.folder, self.environment, self.program = folder, environment or {}, None
        self.port = free_port()
        (folder / "config.toml").write_text(f'[http]\ntcp = "127.0.0.1:{self.port}"\n{config}')
        (folder / "models").mkdir(mode=0o700, exist_ok=True)
        for name, text in (models or {}).items():
            (folder / f"models/{name}.toml").write_text(text)

    @property
    def socket(self):
        return str(self.folder / "torpor.sock")

    @property
    def variables(self):
        return {"TORPOR_DIR": str(self.folder), "TORPOR_DATA": str(DATA), **self.environment}

    def start(self):
        """Returns when it says that it is ready."""
        reader, writer = os.pipe()
        self.program = Program([BUILD / "daemon/torpord", "--ready-fd", writer], environment=self.variables, pass_fds=[writer])
        os.close(writer)
        with os.fdopen(reader) as said:
            answer = said.read()
        if answer != "ready\n":
            raise RuntimeError(f"torpord did not start: {answer}")

    def cli(self, *words):
        return subprocess.run([str(BUILD / "clients/cli/torpor"), *words], env={**os.environ, **self.variables}, text=True, check=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout

    def key(self):
        return self.cli("key", "add", "bench").strip()

    def log(self):
        path = self.folder / "logs/torpord.log"
        return path.read_text() if path.exists() else ""

    def end(self):
        if self.program:
            self.program.end()
            self.program = None


def connect(address):
    """A path is a unix socket, a number a port on loopback."""
    if isinstance(address, int):
        connection = socket.create_connection(("127.0.0.1", address), SECONDS_MAX)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(SECONDS_MAX)
    connection.connect(address)
    return connection


class Answer:
    def __init__(self, status, headers, body, first_ms, total_ms):
        self.status, self.headers, self.body, self.first_ms, self.total_ms = status, headers, body, first_ms, total_ms


def ask(address, method, path, body=None, headers=None):
    """One request on a connection of its own; first_ms is until the body's first byte."""
    data = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", f"Content-Length: {len(data)}"]
    lines += ["Content-Type: application/json"] if data else []
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    began = time.perf_counter()
    with connect(address) as connection:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
        got, first = b"", None
        while True:
            piece = connection.recv(65536)
            got += piece
            if first is None and b"\r\n\r\n" in got and not got.endswith(b"\r\n\r\n"):
                first = time.perf_counter()
            if not piece or has_ended(got):
                break
    total = time.perf_counter()
    head, _, rest = got.partition(b"\r\n\r\n")
    if not head:
        raise ConnectionError("no answer")
    return Answer(int(head.split()[1]), head.decode().lower(), rest, ((first or total) - began) * 1e3, (total - began) * 1e3)


def has_ended(got):
    head, found, rest = got.partition(b"\r\n\r\n")
    if not found:
        return False
    length = re.search(rb"\r\ncontent-length: *(\d+)", head.lower())
    return len(rest) >= int(length.group(1)) if length else rest.endswith(b"0\r\n\r\n")


def wait_until(question, seconds=SECONDS_MAX, gap=0.0005):
    """The time in ms until `question` is true; asks tightly, since a wait here would be measured too."""
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        try:
            if question():
                return (time.perf_counter() - began) * 1e3
        except (OSError, ConnectionError):
            pass
        time.sleep(gap)
    raise TimeoutError(f"not true after {seconds} s")


def tree(pid):
    """The process and what it started."""
    children = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def pss_mib(pids):
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            found = re.search(r"^Pss: +(\d+)", pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
            total += int(found.group(1)) if found else 0
    return total / 1024


def median(values):
    return statistics.median(values) if values else float("nan")


def print_table(title, columns, rows):
    """Markdown, aligned: it is read in a terminal and pasted into docs/measurements.md."""
    cells = [columns] + [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    print(f"\n{title}\n")
    for number, row in enumerate(cells):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    print(flush=True)
