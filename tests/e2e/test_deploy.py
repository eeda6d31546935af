"""torpor deploy: a file becomes a model that is seen to answer, sleep and wake; whatever fails leaves what was there."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

from fake import FAKE, Fake, WIRES
from harness import BUILD, MODEL, SECONDS_MAX, Torpord, is_alive

TORPOR = BUILD / "clients/cli/torpor"


class DeployTest(unittest.TestCase):
    def setUp(self):
        self.torpord = Torpord()
        self.addCleanup(self.torpord.remove)
        self.assertEqual(self.torpord.start(), "ready\n")
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="torpor-deploy-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def deploy(self, file, *words):
        """Exit status, standard output, standard error."""
        done = subprocess.run([TORPOR, "deploy", file, *words], env=self.torpord.environment(), capture_output=True, text=True,
                              cwd=self.folder, stdin=subprocess.DEVNULL, timeout=SECONDS_MAX)
        return done.returncode, done.stdout, done.stderr

    def write(self, name, text):
        (self.folder / name).write_text(text)
        return name

    def real(self, name, args="", **links):
        """A file for the real model, with a path relative to it."""
        if not (self.folder / "weights.gguf").exists():
            os.symlink(MODEL, self.folder / "weights.gguf")
        return self.write(name, f'engine = "llama-server"\npath = "weights.gguf"\nargs = ["--threads", "1", "-c", "1024"{args}]\n')

    def fake(self, name, script="ok", more=""):
        """A file for a fake engine whose script is a folder of its own."""
        folder = self.folder / (name + "-script")
        folder.mkdir(exist_ok=True)
        (folder / "load").write_text(script)
        if not (folder / "events").exists():
            os.mkfifo(folder / "events")
        command = json.dumps([sys.executable, str(FAKE), str(folder), "{socket}"])
        return self.write(name + ".toml", f'engine = "custom"\ncommand = {command}\nsnapshot = "off"\nidle = "never"\n{more}')

    def installed(self, name):
        file = pathlib.Path(self.torpord.folder, "models", name + ".toml")
        return file.read_text() if file.exists() else None

    def models(self):
        return sorted(model["name"] for model in self.torpord.get("/api/models")["models"])

    @unittest.skipUnless(MODEL.exists(), "the small model is not there; packaging/setup/fetch-model fetches it")
    def test_a_real_model_is_deployed_measured_and_replaced(self):
        self.torpord.need_freezing(self)
        file = self.real("smol.toml")
        status, said, error = self.deploy(file, "--dry-run")
        self.assertEqual((status, error), (0, ""))
        self.assertIn("would add smol", said)
        self.assertRegex(said, r"runs       \S*llama-server --host \S+smol.sock .*--threads 1")
        self.assertIn("98.4 MB", said)
        self.assertEqual((self.models(), self.installed("smol")), ([], None), "a dry run changes nothing")

        status, said, error = self.deploy(file)
        self.assertEqual((status, error), (0, ""))
        self.assertRegex(said, r"smol is deployed: cold start \d+ ms")
        self.assertRegex(said, r"next wake  \d+ ms, measured, from a snapshot of [\d.]+ MB")
        curl = next(line.removeprefix("try it     ") for line in said.splitlines() if line.startswith("try it "))
        answer = subprocess.run(["sh", "-c", curl], capture_output=True, text=True, timeout=SECONDS_MAX)
        self.assertTrue(json.loads(answer.stdout)["choices"][0]["message"]["content"], answer)
        model = self.torpord.get("/api/models/smol")
        self.assertEqual((model["state"], model["starts"]), ("ready", {"cold": 1, "thawed": 1}))
        self.assertEqual(model["path"], str(self.folder / "weights.gguf"))
        self.assertIn("Made by torpor deploy", self.installed("smol"))

        pid, before = model["pid"], self.installed("smol")
        status, said, error = self.deploy(self.real("smol.toml", ', "--no-such-flag"'))
        self.assertEqual((status, said), (1, ""))
        self.assertIn("while it was loading", error)
        self.assertIn("--no-such-flag", error, "the engine's last words")
        self.assertIn("nothing has changed, smol is as it was", error)
        model = self.torpord.get("/api/models/smol")
        self.assertEqual((model["state"], model["pid"], self.installed("smol")), ("ready", pid, before))
        self.assertTrue(is_alive(pid))
        self.assertGreater(model["snapshot_bytes"], 0)

        status, said, error = self.deploy(self.real("smol.toml", ', "--parallel", "2"'), "--json")
        self.assertEqual((status, error), (0, ""))
        done = json.loads(said)
        self.assertEqual((done["action"], done["start"], done["wake"]), ("replace", "cold", "thawed"))
        self.assertFalse(is_alive(pid))
        self.assertIn("--parallel", self.installed("smol"))
        self.assertEqual(self.models(), ["smol"], "what was tried is gone")
        self.assertEqual(list(pathlib.Path(self.torpord.folder, "logs").glob("*trial*")), [])

    def test_mistakes_are_said_with_file_and_line_and_change_nothing(self):
        for text, wanted, code in (('engine = "llama-server"\npath = "missing.gguf"\n', f"one.toml:2: the model file {self.folder}/missing.gguf cannot be read", 2),
                                   ('engine = "llama-sever"\n', "one.toml:1: 'llama-sever' is not an engine", 2),
                                   ('engine = "custom"\ncomand = ["x"]\n', "one.toml:2: 'comand' is not a key", 2),
                                   ('engine = \n', "one.toml:1", 2),
                                   ('engine = "custom"\ncommand = ["no-such-program", "{socket}"]\n', "no-such-program", 1)):
            for words in ((), ("--dry-run",)):
                status, said, error = self.deploy(self.write("one.toml", text), *words)
                self.assertEqual((status, said), (code, ""), error)
                self.assertIn(wanted, error)
        self.assertEqual(self.deploy("nowhere.toml")[0], 1)
        self.assertEqual(self.deploy(self.write("model.txt", ""))[0], 2)
        self.assertEqual((self.models(), self.installed("one")), ([], None))
        pathlib.Path(self.torpord.folder, "models").mkdir(mode=0o700, exist_ok=True)
        pathlib.Path(self.torpord.folder, "models/broken.toml").write_text("engine\n")
        status, _, error = self.deploy(self.fake("one"))
        self.assertEqual(status, 1)
        self.assertRegex(error, "nothing can be deployed until this is mended: .*broken.toml:1")

    def test_no_key_can_deploy(self):
        key = self.torpord.call("POST", "/api/keys", {"name": "boss", "scope": "admin"})[2]["key"]
        status, _, answer = self.torpord.call("POST", "/api/deploy", {"name": "x"}, {"x-api-key": key}, tcp=True)
        self.assertEqual(status, 403, answer)

    def test_a_new_model_that_does_not_start_is_not_installed(self):
        status, _, error = self.deploy(self.fake("dies", "die the weights are upside down"))
        self.assertEqual(status, 1)
        self.assertIn("the weights are upside down", error)
        self.assertIn("nothing is installed", error)
        self.assertEqual((self.models(), self.installed("dies")), ([], None))

    def test_the_old_one_serves_on_beside_one_that_is_tried_and_cancelled(self):
        file = self.fake("one")
        text = (self.folder / file).read_text()
        status, said, error = self.deploy(file)
        self.assertEqual((status, error), (0, ""))
        self.assertIn("a cold start; there is no snapshot: its file says", said)
        self.assertEqual(self.installed("one"), text, "as it was written, where no path needed to be changed")
        pid = self.torpord.get("/api/models/one")["pid"]
        for number in (signal.SIGINT, signal.SIGKILL):
            self.fake("one", "hang", 'aliases = ["uno"]\n')
            deploying = subprocess.Popen([TORPOR, "deploy", file], env=self.torpord.environment(), cwd=self.folder, text=True,
                                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self.torpord.wait_until(lambda: "one.trial" in self.models() and self.torpord.get("/api/models/one.trial")["pid"],
                                    "a trial")
            trial = self.torpord.get("/api/models/one.trial")["pid"]
            self.assertEqual(self.torpord.chat("one")[2]["pid"], pid)
            self.assertIn("another deploy is under way", self.deploy(file)[2])
            deploying.send_signal(number)
            _, error = deploying.communicate(timeout=SECONDS_MAX)
            if number == signal.SIGINT:
                self.assertEqual(deploying.returncode, 1)
                self.assertIn("cancelled; nothing has changed, one is as it was", error)
            self.torpord.wait_until(lambda: "one.trial" not in self.models(), "the end of the trial")
            self.torpord.wait_until(lambda: not is_alive(trial), "the trial's end")
            self.assertEqual((self.torpord.chat("one")[2]["pid"], self.installed("one")), (pid, text))
            (self.folder / "one-script/load").write_text("ok")
            self.torpord.wait_until(lambda: "another deploy" not in self.deploy(self.fake("other"), "--json")[2], "the next turn")

    def test_what_was_there_is_given_back_when_the_new_one_fails_after_all(self):
        file = self.fake("one")
        self.assertEqual(self.deploy(file)[0], 0)
        text = self.installed("one")
        fake = [sys.executable, str(FAKE), str(self.folder / "one-script")]
        script = f'case "$0" in *trial*) exec {" ".join(fake)} "$0";; esac; echo not this time; exit 7'
        self.write(file, f'engine = "custom"\ncommand = {json.dumps(["/bin/sh", "-c", script, "{socket}"])}\nsnapshot = "off"\n')
        status, said, error = self.deploy(file)
        self.assertEqual((status, said), (1, ""))
        self.assertIn("not this time", error)
        self.assertIn("one is what it was before, and its next start is cold", error)
        self.assertEqual((self.installed("one"), self.models()), (text, ["one"]))
        self.assertEqual(self.torpord.chat("one")[0], 200)

        # The same with one that hangs, until somebody has enough.
        self.write(file, (self.folder / file).read_text().replace("exit 7", "exec sleep 1000"))
        deploying = subprocess.Popen([TORPOR, "deploy", file], env=self.torpord.environment(), cwd=self.folder, text=True,
                                     stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.torpord.wait_until(lambda: self.torpord.get("/api/models/one")["state"] == "starting", "the start of the new one")
        pid = self.torpord.get("/api/models/one")["pid"]
        deploying.send_signal(signal.SIGINT)
        self.assertIn("cancelled; one is what it was before", deploying.communicate(timeout=SECONDS_MAX)[1])
        self.assertEqual((self.installed("one"), self.torpord.chat("one")[0]), (text, 200))
        self.assertFalse(is_alive(pid))

    def test_a_cancelled_new_model_is_taken_away(self):
        file = self.fake("slow", "hang")
        deploying = subprocess.Popen([TORPOR, "deploy", file], env=self.torpord.environment(), cwd=self.folder, text=True,
                                     stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.torpord.wait_until(lambda: self.models() == ["slow"] and self.torpord.get("/api/models/slow")["pid"], "a start")
        pid = self.torpord.get("/api/models/slow")["pid"]
        deploying.send_signal(signal.SIGINT)
        _, error = deploying.communicate(timeout=SECONDS_MAX)
        self.assertIn("cancelled; nothing is installed", error)
        self.torpord.wait_until(lambda: self.models() == [] and not is_alive(pid), "its end")
        self.assertEqual(self.installed("slow"), None)

    def test_a_torpord_that_is_killed_on_the_way_leaves_what_was_there(self):
        file = self.fake("one")
        self.assertEqual(self.deploy(file)[0], 0)
        text = self.installed("one")
        self.fake("one", "hang", 'aliases = ["uno"]\n')
        deploying = subprocess.Popen([TORPOR, "deploy", file], env=self.torpord.environment(), cwd=self.folder, text=True,
                                     stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.torpord.wait_until(lambda: "one.trial" in self.models() and self.torpord.get("/api/models/one.trial")["pid"], "a trial")
        trial = self.torpord.get("/api/models/one.trial")["pid"]
        self.torpord.process.kill()
        self.torpord.process.wait()
        self.assertIn("broke off", deploying.communicate(timeout=SECONDS_MAX)[1])
        self.assertEqual(self.torpord.start(), "ready\n")
        self.assertEqual((self.models(), self.installed("one")), (["one"], text))
        self.torpord.wait_until(lambda: not is_alive(trial), "the trial's end")
        self.assertEqual(self.torpord.chat("one")[0], 200)


if __name__ == "__main__":
    unittest.main()
