"""torpor run and torpor sessions, as scripts use them."""
import json
import pathlib
import shutil
import signal
import subprocess
import tempfile
import unittest

from harness import BUILD, SECONDS_MAX, Torpord
from scripted_provider import Reply, ScriptedProvider, script
from test_turns import provider_config

TORPOR = BUILD / "clients/cli/torpor"


class RunTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="torpor-e2e-project-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def start(self, *replies):
        self.provider = ScriptedProvider(script(*replies))
        self.addCleanup(self.provider.close)
        self.torpord = Torpord(more=provider_config(self.provider.url))
        self.addCleanup(self.torpord.remove)
        self.assertEqual(self.torpord.start(), "ready\n")

    def torpor(self, *words, text=None):
        given = {"input": text} if text is not None else {"stdin": subprocess.DEVNULL}
        return subprocess.run([TORPOR, *map(str, words)], env=self.torpord.environment(), cwd=self.folder, capture_output=True, text=True,
                              timeout=SECONDS_MAX, **given)

    def run_prompt(self, *words, **keys):
        return self.torpor("run", "--model", "scripted", *words, **keys)

    def test_the_answer_is_on_standard_output_and_all_else_beside_it(self):
        (self.folder / "notes.txt").write_text("milk\n")
        self.start(Reply(calls=[("read_file", {"path": "notes.txt"})]), Reply("It says milk."))
        done = self.run_prompt("What does it say?")
        self.assertEqual((done.returncode, done.stdout), (0, "It says milk.\n"), done.stderr)
        self.assertIn('read_file {"path":"notes.txt"}', done.stderr)

    def test_what_is_not_allowed_is_denied_and_what_is_is_not_asked(self):
        self.start(Reply(calls=[("bash", {"command": "echo one > made"})]), Reply("I may not."),
                   Reply(calls=[("bash", {"command": "echo two > made"})]), Reply("Done."))
        done = self.run_prompt("Make it.")
        self.assertEqual(done.returncode, 0)
        self.assertIn("not allowed: echo one > made (--allow 'bash(echo one > made)' allows it)", done.stderr)
        self.assertFalse((self.folder / "made").exists())
        done = self.run_prompt("Make it.", "--allow", "bash(echo:*)")
        self.assertEqual((self.folder / "made").read_text(), "two\n", done.stderr)

    def test_outputs_for_programs(self):
        self.start(Reply("Yes."), Reply("No."))
        answer = json.loads(self.run_prompt("?", "--output", "json").stdout)
        self.assertEqual((answer["text"], answer["outcome"], answer["usage"]["input"]), ("Yes.", "done", 10))
        lines = [json.loads(line) for line in self.run_prompt("?", "-c", "--output", "stream-json").stdout.splitlines()]
        numbers = [line["seq"] for line in lines if "seq" in line]
        self.assertEqual(numbers, sorted(set(numbers)))
        self.assertEqual([line["event"] for line in lines][-1], "turn_ended")
        self.assertEqual(len(self.torpord.get("/api/sessions")["sessions"]), 1, "-c goes on with it")

    def test_the_status_says_how_it_ended(self):
        self.start(Reply(status=400), Reply(calls=[("bash", {"command": "sleep 1000"})]))
        self.assertEqual(self.run_prompt("?").returncode, 1)
        self.assertEqual(self.torpor("run", "?", "--model", "nosuch").returncode, 1)
        self.assertEqual(self.run_prompt("").returncode, 2)
        self.assertEqual(self.run_prompt("?", "--mode", "yolo").returncode, 2)
        process = subprocess.Popen([TORPOR, "run", "--model", "scripted", "--mode", "danger-full-access", "--output", "stream-json", "Wait."],
                                   env=self.torpord.environment(), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # a background job's is ignored
        with process.stdout:
            for line in process.stdout:
                if json.loads(line)["event"] == "tool_started":
                    process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(SECONDS_MAX), 130)

    def test_a_result_in_a_form_of_ones_own(self):
        (self.folder / "form.json").write_text(json.dumps({"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}))
        result = ("StructuredOutput", {"colour": "blue"})
        self.start(Reply("It is blue."), Reply(calls=[("StructuredOutput", {"colour": "green"})]), Reply(calls=[result]),
                   Reply("one"), Reply("two"), Reply("three"))
        done = self.run_prompt("Which?", "--schema", "form.json")
        self.assertEqual((done.returncode, json.loads(done.stdout)), (0, {"colour": "blue"}), done.stderr)
        self.assertNotIn("tool_choice", self.provider.requests[0])
        self.assertEqual(self.provider.requests[1]["tool_choice"], {"type": "function", "function": {"name": "StructuredOutput"}})
        self.assertIn("The result is still to come", self.provider.requests[1]["messages"][-1]["content"])
        self.assertIn("'colour' must be one of red, blue", self.provider.requests[2]["messages"][-1]["content"])
        offered = self.provider.requests[0]["tools"][-1]["function"]
        self.assertEqual((offered["name"], offered["parameters"]["required"]), ("StructuredOutput", ["colour"]))
        done = self.run_prompt("Which?", "--schema", "form.json", "--output", "json")
        answer = json.loads(done.stdout)
        self.assertEqual((done.returncode, answer["outcome"]), (1, "failed"))
        self.assertIn("without a result", answer["reason"])
        self.assertEqual(len(self.provider.requests), 6)

    def test_a_form_that_is_none_is_refused_before_anything_is_asked(self):
        self.start()
        for form, complaint in [("{", "form.json is no JSON"), ('{"type":"string"}', "the schema must be one of an object"),
                                ('{"type":"object","properties":{"a":{"unevaluatedItems":true}}}', "properties.a.unevaluatedItems is not understood")]:
            (self.folder / "form.json").write_text(form)
            done = self.run_prompt("Which?", "--schema", "form.json")
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(complaint, done.stderr)
        self.assertEqual(self.provider.requests, [])

    def test_a_pipe_comes_before_the_prompt(self):
        self.start(Reply("Fine."))
        self.run_prompt("Review this.", text="--- a\n+++ b\n")
        self.assertEqual(self.provider.requests[0]["messages"][-1]["content"], "--- a\n+++ b\n\n\nReview this.")

    def test_it_goes_on_over_a_kill_of_torpord(self):
        self.start(Reply(calls=[("bash", {"command": f"touch {self.folder}/begun; while [ ! -e {self.folder}/go ]; do sleep 0.05; done"})]),
                   Reply("All is well."))
        process = subprocess.Popen([TORPOR, "run", "--model", "scripted", "--mode", "danger-full-access", "Wait."], env=self.torpord.environment(),
                                   cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.torpord.wait_until(lambda: (self.folder / "begun").exists(), "the command has begun")
        self.torpord.process.kill()
        self.torpord.process.wait()
        (self.folder / "go").touch()
        self.assertEqual(self.torpord.start(), "ready\n")
        output, errors = process.communicate(timeout=SECONDS_MAX)
        self.assertEqual((process.returncode, output), (0, "All is well.\n"), errors)
        self.assertIn("torpord was started again, and goes on", errors)

    def test_sessions_are_listed_found_shown_exported_and_removed(self):
        self.start(Reply("Bears sleep."), Reply("Bats, too."))
        self.run_prompt("What do bears do?")
        self.run_prompt("And bats?")
        listed = self.torpor("sessions", "ls").stdout
        self.assertIn("What do bears do?", listed)
        self.assertIn("And bats?", listed)
        found = json.loads(self.torpor("sessions", "search", "bears", "--json").stdout)
        self.assertEqual(len(found), 1)
        one = found[0]["id"][:14]
        self.assertIn("Bears sleep.", self.torpor("sessions", "show", one).stdout)
        exported = self.torpor("sessions", "export", one).stdout
        imported = self.torpor("sessions", "import", "-", text=exported)
        self.assertEqual(imported.returncode, 0, imported.stderr)
        self.assertIn("Bears sleep.", self.torpor("sessions", "show", imported.stdout.strip()).stdout)
        self.assertIn("is renamed", self.torpor("sessions", "rename", one, "About bears").stdout)
        self.assertIn("is removed", self.torpor("sessions", "rm", one).stdout)
        gone = self.torpor("sessions", "show", one)
        self.assertEqual(gone.returncode, 1)
        self.assertIn("there is no session", gone.stderr)
        broken = self.torpor("sessions", "import", "-", text=exported.replace('"seq":2', '"seq":7', 1))
        self.assertEqual(broken.returncode, 2)
        self.assertRegex(broken.stderr, r"line \d+: event 7 comes after event 1")

    def test_a_key_is_kept_where_others_cannot_read_it(self):
        self.start()
        done = self.torpor("login", "anthropic", text="sk-very-secret\n")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("sk-very-secret", done.stdout + done.stderr)
        file = pathlib.Path(self.torpord.folder, "provider-keys/anthropic")
        self.assertEqual((file.stat().st_mode & 0o777, file.read_text()), (0o600, "sk-very-secret\n"))
        provider = next(one for one in self.torpord.get("/api/providers")["providers"] if one["name"] == "anthropic")
        self.assertTrue(provider["has_key"])
        file.chmod(0o644)
        refused = self.torpor("run", "?", "--model", "anthropic/claude-x")
        self.assertIn("others may read", refused.stderr)
        self.assertEqual(self.torpor("logout", "anthropic").returncode, 0)
        self.assertFalse(file.exists())
        self.assertIn("torpor login anthropic", self.torpor("run", "?", "--model", "anthropic/claude-x").stderr)


if __name__ == "__main__":
    unittest.main()
