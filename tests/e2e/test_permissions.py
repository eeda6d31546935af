"""What agents may do: rules that people gave, settings of a user and of a project, and trust."""
import os
import pathlib
import pty
import shutil
import subprocess
import tempfile
import unittest

from harness import BUILD, SECONDS_MAX, Torpord
from scripted_provider import Reply, ScriptedProvider, script
from talk import Talk
from test_turns import provider_config

TORPOR = BUILD / "clients/cli/torpor"


class PermissionsTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="torpor-e2e-project-")).resolve()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.provider = ScriptedProvider(script())
        self.addCleanup(self.provider.close)
        self.torpord = Torpord(more=provider_config(self.provider.url))
        self.addCleanup(self.torpord.remove)
        self.assertEqual(self.torpord.start(), "ready\n")

    def torpor(self, *words, stdin=subprocess.DEVNULL):
        done = subprocess.run([TORPOR, *words], env=self.torpord.environment(), cwd=self.folder, capture_output=True, text=True,
                              timeout=SECONDS_MAX, stdin=stdin)
        return done.returncode, done.stdout, done.stderr

    def settings(self, text):
        (self.folder / ".torpor").mkdir(exist_ok=True)
        (self.folder / ".torpor/settings.toml").write_text(text)

    def run_line(self, line):
        """The call's outcome, or "asked"."""
        self.provider.reply = script(Reply(calls=[("bash", {"command": line})]), Reply("done"))
        talk = Talk(self.torpord, self.folder, "scripted/scripted", "workspace-write")
        number = talk.prompt("run")
        self.assertTrue(talk.read(lambda event: event["event"] in ("question", "turn_ended")))
        if "question" in talk.kinds():
            talk.post("interrupt")
            talk.wait_for("turn_ended", turn=number)
            return "asked"
        return talk.last("tool_result")["outcome"]

    def test_rules_of_people(self):
        self.assertEqual(self.run_line("echo one"), "asked")
        self.assertEqual(self.torpor("permissions", "add", "bash(echo:*)")[0], 0)
        self.assertEqual(self.run_line("echo one"), "done")
        self.assertEqual(self.torpor("permissions", "add", "bash(echo two)", "--decision", "deny")[0], 0)
        self.assertEqual(self.run_line("echo two"), "denied")
        listed = self.torpor("permissions", "ls")[1].splitlines()
        self.assertEqual([row.split()[1:3] for row in listed[1:]], [["allow", "bash(echo:*)"], ["deny", "bash(echo"]])
        self.assertEqual(self.torpor("permissions", "rm", listed[1].split()[0])[0], 0)
        self.assertEqual(self.run_line("echo one"), "asked")
        self.assertEqual(self.torpor("permissions", "rm", "99")[0], 1)
        status, _, err = self.torpor("permissions", "add", "bash(")
        self.assertEqual(status, 2)
        self.assertIn("'bash(' is not a rule", err)

    def test_a_project_loosens_only_when_it_is_trusted_as_it_is(self):
        self.settings('[permissions]\nallow = ["bash(echo:*)"]\ndeny = ["bash(echo never)"]\n')
        self.assertEqual(self.run_line("echo one"), "asked")
        self.assertEqual(self.run_line("echo never"), "denied")
        self.assertIn("torpor trust shows it", self.torpor("permissions", "ls")[2])
        status, _, err = self.torpor("trust")
        self.assertEqual(status, 2)
        self.assertIn("there is no terminal to ask on", err)
        status, out, _ = self.torpor("trust", "--yes")
        self.assertEqual(status, 0)
        self.assertIn('allow = ["bash(echo:*)"]', out)
        self.assertEqual(self.run_line("echo one"), "done")
        self.settings('[permissions]\nallow = ["bash"]\n')
        self.assertEqual(self.run_line("echo one"), "asked", "changed since it was looked at")
        self.assertEqual(self.torpor("trust", "--yes")[0], 0)
        self.assertEqual(self.run_line("true | echo one"), "done")
        self.assertEqual(self.torpor("trust", "--revoke")[0], 0)
        self.assertEqual(self.run_line("echo one"), "asked")

    def test_trust_asks_on_a_terminal(self):
        self.settings('[permissions]\nallow = ["bash(echo:*)"]\n')
        for answer, outcome in (b"n\n", "asked"), (b"y\n", "done"):
            ours, theirs = pty.openpty()
            os.write(ours, answer)
            self.torpor("trust", stdin=theirs)
            os.close(ours)
            os.close(theirs)
            self.assertEqual(self.run_line("echo one"), outcome)

    def test_only_the_owner_gives_rights(self):
        key = self.torpord.call("POST", "/api/keys", {"name": "guest", "scope": "sessions"})[2]["key"]
        bearer = {"Authorization": "Bearer " + key}
        self.assertEqual(self.torpord.call("GET", "/api/permissions", None, bearer, tcp=True)[0], 200)
        for path, body in ("/api/permissions", {"folder": "/x", "rule": "bash"}), ("/api/trust", {"folder": "/x", "hash": "y"}):
            self.assertEqual(self.torpord.call("POST", path, body, bearer, tcp=True)[0], 403)

    def test_broken_settings_make_it_ask(self):
        self.assertEqual(self.torpor("permissions", "add", "bash(echo:*)")[0], 0)
        self.assertEqual(self.run_line("echo one"), "done")
        self.settings("[permissions]\ndeny = [\n")
        self.assertEqual(self.run_line("echo one"), "asked")
        self.assertIn("settings.toml:", self.torpor("permissions", "ls")[2])


if __name__ == "__main__":
    unittest.main()
