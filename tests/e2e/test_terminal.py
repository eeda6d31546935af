"""torpor on a terminal: a real one (tmux), a real torpord, a provider that is scripted."""
import pathlib
import shutil
import subprocess
import tempfile
import time
import unittest

from harness import BUILD, SECONDS_MAX, Torpord, lives
from scripted_provider import Reply, ScriptedProvider, script
from talk import Talk
from test_turns import provider_config

TORPOR = BUILD / "clients/cli/torpor"


@unittest.skipUnless(shutil.which("tmux"), "tmux is not installed")
class TerminalTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="torpor-e2e-project-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def start(self, *replies):
        self.provider = ScriptedProvider(script(*replies))
        self.addCleanup(self.provider.close)
        self.torpord = Torpord(more=provider_config(self.provider.url))
        self.addCleanup(self.torpord.remove)
        self.assertEqual(self.torpord.start(), "ready\n")

    def tmux(self, *words):
        return subprocess.run(["tmux", "-L", self.folder.name, "-f", "/dev/null", *map(str, words)], env=self.torpord.environment() | {"TERM": "xterm"},
                              capture_output=True, text=True, timeout=SECONDS_MAX)

    def open(self, *words):
        done = self.tmux("new-session", "-d", "-x", 150, "-y", 50, "-c", self.folder, *([TORPOR, *words] if words else [TORPOR]))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.tmux("set-option", "-g", "remain-on-exit", "on")
        self.addCleanup(self.tmux, "kill-server")

    def screen(self, window="0"):
        return self.tmux("capture-pane", "-p", "-t", window).stdout

    def wait_for(self, *texts, window="0"):
        end = time.monotonic() + SECONDS_MAX
        while not all(text in self.screen(window) for text in texts):
            self.assertLess(time.monotonic(), end, f"no {texts} in:\n{self.screen(window)}")
            time.sleep(0.02)

    def type(self, text):
        self.tmux("send-keys", "-l", text)
        self.tmux("send-keys", "Enter")

    def test_a_conversation_with_a_question_and_back_again(self):
        self.start(Reply("Hello there."), Reply(calls=[("write_file", {"path": "note.txt", "content": "milk\n"})]), Reply("It is written."))
        self.open("chat", "--model", "scripted", "--mode", "read-only")
        self.wait_for("/help shows what else", "\n>")
        self.type("Good morning!")
        self.wait_for("Hello there.")
        self.type("Write a note.")
        self.wait_for("? write note.txt", "y once")
        self.tmux("send-keys", "x")  # no answer
        self.tmux("send-keys", "y")
        self.wait_for("It is written.", "owner: once")
        self.assertEqual((self.folder / "note.txt").read_text(), "milk\n")
        self.tmux("send-keys", "C-d")
        self.wait_for("comes back")
        self.tmux("kill-server")
        self.open("-c")
        self.wait_for("It is written.", "\n>")

    def test_two_terminals_a_run_and_an_http_client_share_a_session(self):
        self.start(Reply("Hello there."), Reply(calls=[("write_file", {"path": "note.txt", "content": "milk\n"})]), Reply("It is written."), Reply("From the run."))
        self.open("chat", "--model", "scripted", "--mode", "read-only")
        self.wait_for("\n>")
        session = self.torpord.get("/api/sessions")["sessions"][0]["id"]
        other = Talk.__new__(Talk)
        other.torpord, other.id, other.events = self.torpord, session, []
        self.assertEqual(self.tmux("new-window", "-d", "-n", "second", "-c", self.folder, TORPOR, "attach", session[:12]).returncode, 0)
        self.type("Good morning!")
        self.wait_for("Hello there.")
        self.wait_for("Hello there.", window="second")
        self.type("Write a note.")
        self.wait_for("? write note.txt", window="second")
        self.tmux("send-keys", "-t", "second", "y")  # the other one is faster
        for window in ("0", "second"):
            self.wait_for("owner: once", "It is written.", window=window)
        ran = subprocess.run([TORPOR, "run", "--session", session[:12], "And now?"], env=self.torpord.environment(), cwd=self.folder,
                             stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS_MAX)
        self.assertEqual(ran.stdout, "From the run.\n", ran.stderr)
        for window in ("0", "second"):
            self.wait_for("From the run.", window=window)
        self.assertEqual([event["text"] for event in other.all() if event["event"] == "text"], ["Hello there.", "It is written.", "From the run."])
        self.tmux("kill-server")

    def test_ctrl_c_interrupts_and_ctrl_d_lets_it_go_on(self):
        self.start(Reply(calls=[("bash", {"command": "sleep 1000"})]), Reply(calls=[("bash", {"command": "echo it is over"})]), Reply("Done at last."))
        self.open("chat", "--model", "scripted", "--mode", "danger-full-access")
        self.wait_for("\n>")
        self.type("Wait.")
        self.wait_for("sleep 1000")
        self.tmux("send-keys", "C-c")
        self.wait_for("interrupted")
        self.type("Go on.")
        self.tmux("send-keys", "C-d")
        self.wait_for("comes back")
        session = self.torpord.get("/api/sessions")["sessions"][0]["id"]
        talk = Talk.__new__(Talk)
        talk.torpord, talk.id, talk.events = self.torpord, session, []
        talk.wait_for("turn_ended", outcome="done")

    def test_what_models_and_tools_say_cannot_touch_the_terminal(self):
        evil = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b1m\u202etxt.exe"
        (self.folder / "evil.txt").write_text(evil)
        self.start(Reply(evil, calls=[("read_file", {"path": "evil.txt"})]), Reply("The end."))
        self.open("chat", "--model", "scripted")
        self.wait_for("\n>")
        title = self.tmux("display-message", "-p", "#{pane_title}").stdout
        self.type("Read it.")
        self.wait_for("The end.", "^[]0;owned^G", "^[[2J", "<U+202E>", "Read it.")
        self.assertEqual(self.tmux("display-message", "-p", "#{pane_title}").stdout, title)

    def test_slash_commands(self):
        self.start()
        self.open("chat", "--model", "scripted")
        self.wait_for("\n>")
        self.type("/mode read-only")
        self.wait_for("the mode is read-only now")
        self.type("/stauts")
        self.wait_for("there is no /stauts", "status")
        process = int(self.tmux("display-message", "-p", "#{pane_pid}").stdout)
        self.type("/quit")
        self.torpord.wait_until(lambda: not lives(process), "it has left")


if __name__ == "__main__":
    unittest.main()
