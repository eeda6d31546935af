"""The torpor command as people and scripts use it. No engine needed."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import unittest

from harness import BUILD, DATA, SECONDS_MAX, free_port

TORPOR = BUILD / "clients/cli/torpor"


class CliTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="torpor-cli-")
        pathlib.Path(self.folder, "config.toml").write_text(f'[http]\ntcp = "127.0.0.1:{free_port()}"\n')
        self.environment = dict(os.environ, TORPOR_DIR=self.folder, TORPOR_DATA=str(DATA))
        self.environment.pop("NO_COLOR", None)

    def tearDown(self):
        self.torpor("daemon", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)

    def torpor(self, *words, text=""):
        """Exit status, standard output, standard error."""
        done = subprocess.run([TORPOR, *words], env=self.environment, input=text, capture_output=True, text=True,
                              timeout=SECONDS_MAX)
        return done.returncode, done.stdout, done.stderr

    def add_models(self, *names):
        for name in names:
            status, _, error = self.torpor("model", "add", name, "--engine", "custom", "--", "/bin/cat", "{socket}")
            self.assertEqual(status, 0, error)

    def test_twenty_at_once_start_one_daemon(self):
        verbs = [subprocess.Popen([TORPOR, "daemon", "start"], env=self.environment,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) for _ in range(10)]
        verbs += [subprocess.Popen([TORPOR, "ps", "--json"], env=self.environment, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, text=True) for _ in range(10)]
        for verb in verbs:
            output = verb.communicate(timeout=SECONDS_MAX)[0]
            self.assertEqual(verb.returncode, 0, output)
        log = pathlib.Path(self.folder, "logs/torpord.log").read_text()
        self.assertEqual(len(re.findall(r"torpord [0-9.]+ \(pid \d+\) serves", log)), 1, log)

    def test_a_model_that_was_not_taken_is_said_where_models_are_listed(self):
        folder = pathlib.Path(self.folder, "models")
        folder.mkdir(mode=0o700)
        (folder / "wrong.toml").write_text('engine = "llama-sever"\n')
        for words in (("ps",), ("model", "ls"), ("ps", "--json")):
            status, _, error = self.torpor(*words)
            self.assertEqual(status, 0, error)
            self.assertIn("wrong.toml:1: 'llama-sever' is not an engine", error)
        self.assertNotEqual(self.torpor("doctor")[0], 0)
        self.assertEqual(self.torpor("model", "rm", "wrong")[0], 0)
        self.assertEqual(self.torpor("doctor")[1].count("no mistakes"), 1)
        self.assertNotIn("wrong.toml", self.torpor("ps")[2])

    def test_status_and_stop_say_whether_it_runs(self):
        self.assertEqual(self.torpor("daemon", "status")[0], 3)
        self.assertEqual(self.torpor("daemon", "start")[0], 0)
        status, output, _ = self.torpor("daemon", "status", "--json")
        self.assertEqual(status, 0)
        pid = json.loads(output)["pid"]
        self.assertEqual(self.torpor("daemon", "restart")[0], 0)
        self.assertNotEqual(json.loads(self.torpor("daemon", "status", "--json")[1])["pid"], pid)
        self.assertEqual(self.torpor("daemon", "stop")[0], 0)
        status, _, error = self.torpor("daemon", "stop")
        self.assertEqual(status, 3)
        self.assertIn("torpor daemon start", error)

    def test_a_daemon_that_cannot_start_says_why(self):
        pathlib.Path(self.folder, "torpor.db").write_text("this is no database, but somebody's notes\n" * 100)
        for verb in (["daemon", "start"], ["ps"]):
            status, _, error = self.torpor(*verb)
            self.assertNotEqual(status, 0)
            self.assertIn("torpor.db", error)

    def test_the_daemon_outlives_its_terminal_and_is_started_again_after_a_kill(self):
        self.assertEqual(self.torpor("ps")[0], 0)
        first = json.loads(self.torpor("daemon", "status", "--json")[1])["pid"]
        os.kill(first, signal.SIGKILL)
        self.assertEqual(self.torpor("ps")[0], 0)
        self.assertNotEqual(json.loads(self.torpor("daemon", "status", "--json")[1])["pid"], first)

    def test_a_key_stands_alone_on_standard_output(self):
        status, output, _ = self.torpor("key", "add", "laptop", "--scope", "models")
        self.assertEqual(status, 0)
        self.assertRegex(output, r"\Atp-[A-Za-z0-9_-]{43}\n\Z")
        listed = self.torpor("key", "ls", "--json")[1]
        self.assertEqual([key["name"] for key in json.loads(listed)], ["laptop"])
        self.assertNotIn(output.strip(), listed)
        log = pathlib.Path(self.folder, "logs/torpord.log").read_text()
        self.assertNotIn(output.strip(), log)
        self.assertIn("owner", self.torpor("key", "add", "x", "--scope", "owner")[2])
        self.assertEqual(self.torpor("key", "rm", "laptop")[0], 0)
        self.assertEqual(json.loads(self.torpor("key", "ls", "--json")[1]), [])

    def test_what_was_mistyped_is_named(self):
        self.add_models("llama3", "qwen")
        for words, meant in ((["sp"], "ps"), (["mdoel", "ls"], "model"), (["model", "lsx"], "ls"), (["ps", "--jsno"], "--json"),
                             (["suspend", "lama3"], "llama3"), (["ask", "qwem", "hi"], "qwen"), (["logs", "lama3"], "llama3")):
            with self.subTest(words=words):
                status, output, error = self.torpor(*words)
                self.assertNotEqual(status, 0)
                self.assertEqual(output.strip(), "")
                self.assertIn(f"did you mean {meant}?", error)

    def test_models_are_added_listed_and_removed(self):
        self.add_models("one")
        status, _, error = self.torpor("model", "add", "one", "--engine", "custom", "--", "/bin/cat", "{socket}")
        self.assertNotEqual(status, 0)
        self.assertIn("--replace", error)
        self.assertEqual([model["name"] for model in json.loads(self.torpor("model", "ls", "--json")[1])], ["one"])
        self.assertIn("one", self.torpor("model", "ls")[1])
        self.assertTrue(pathlib.Path(self.folder, "models/one.toml").exists())
        self.assertEqual(self.torpor("model", "rm", "one")[0], 0)
        self.assertFalse(pathlib.Path(self.folder, "models/one.toml").exists())
        self.assertEqual(json.loads(self.torpor("ps", "--json")[1]), [])

    def test_a_file_edited_by_hand_is_taken_at_reload_or_refused_with_its_line(self):
        self.assertEqual(self.torpor("ps")[0], 0)
        file = pathlib.Path(self.folder, "models/hand.toml")
        file.write_text('engine = "custom"\ncommand = ["/bin/cat", "{socket}"]\n')
        self.assertEqual(self.torpor("reload")[0], 0)
        file.write_text('engine = "custom"\ncomand = ["/bin/cat", "{socket}"]\n')
        status, _, error = self.torpor("reload")
        self.assertNotEqual(status, 0)
        self.assertIn("hand.toml:2", error)
        self.assertIn("did you mean command?", error)
        self.assertEqual(len(json.loads(self.torpor("ps", "--json")[1])), 1)

    def test_help_has_examples_and_completions_parse(self):
        status, output, _ = self.torpor("--help")
        self.assertEqual(status, 0)
        self.assertIn("torpor ask", output)
        self.assertIn("Examples:", self.torpor("model", "add", "--help")[1])
        for shell in ("bash", "zsh", "fish"):
            script = self.torpor("completions", shell)[1]
            self.assertIn("torpor", script)
            if shutil.which(shell):
                done = subprocess.run([shell, "-n"], input=script, text=True, capture_output=True)
                self.assertEqual(done.returncode, 0, done.stderr)

    def test_version_names_both_programs(self):
        status, output, _ = self.torpor("version")
        self.assertEqual(status, 0)
        self.assertRegex(output, r"torpor +\d+\.\d+")


if __name__ == "__main__":
    unittest.main()
