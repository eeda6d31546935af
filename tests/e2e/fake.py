"""A model whose engine is fake_engine.py, for tests that need an engine of a certain behaviour."""
import os
import pathlib
import select
import shutil
import sys
import tempfile
import time

from harness import SECONDS_MAX

FAKE = pathlib.Path(__file__).with_name("fake_engine.py")
WIRES = ["openai-chat", "openai-completions", "openai-responses", "openai-embeddings", "anthropic-messages"]
CHAT = "/v1/chat/completions"


class Fake:
    """One model whose engine is fake: its script, and what it tells."""

    def __init__(self, torpord, name, listen="{socket}", **keys):
        self.torpord, self.name = torpord, name
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="torpor-fake-"))
        os.mkfifo(self.folder / "events")
        # Opened for writing, too: the pipe does not end when an engine does.
        self.events = open(os.open(self.folder / "events", os.O_RDWR | os.O_NONBLOCK), "rb", buffering=0)
        self.told = b""
        keys = {"wires": WIRES, "idle": "never", "snapshot": "off", **keys}
        status, _, answer = torpord.call("POST", "/api/models", {
            "name": name, "engine": "custom", "command": [sys.executable, str(FAKE), str(self.folder), listen], **keys})
        assert status == 201, answer

    def script(self, name, text=""):
        (self.folder / name).write_text(text)

    def wait_for(self, start):
        """The next event that starts like this; those before it are passed over."""
        while True:
            while b"\n" not in self.told:
                assert select.select([self.events], [], [], SECONDS_MAX)[0], f"no {start} was told"
                self.told += self.events.read(4096)
            event, _, self.told = self.told.partition(b"\n")
            if event.decode().startswith(start):
                return event.decode()

    def ask(self, path=CHAT, **body):
        return self.torpord.call("POST", path, {"model": self.name, **body})

    def order(self, what, force=False):
        return self.torpord.call("POST", f"/api/models/{self.name}/{what}" + ("?force=true" if force else ""))

    def status(self):
        return self.torpord.get("/api/models/" + self.name)

    def wait_until(self, is_so):
        end = time.monotonic() + SECONDS_MAX
        while not is_so(self.status()):
            assert time.monotonic() < end, self.status()
            time.sleep(0.01)
        return self.status()

    def remove(self):
        self.order("stop", force=True)
        self.events.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class WithFakes:
    """For tests that have a `torpord`."""

    def fake(self, name, **keys):
        """A model that goes with the test."""
        made = Fake(self.torpord, name, **keys)
        self.addCleanup(made.remove)
        return made
