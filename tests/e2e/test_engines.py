"""The rows of the engines that are too large to be had here: their command lines, keys and weights, with a program
in their place that takes them; that it is imaged and thawed, and throws other dice each time."""
import http.client
import json
import os
import pathlib
import socket
import sys
import tempfile
import unittest

import raw
from harness import Torpord

STAND_IN = pathlib.Path(__file__).with_name("engine_stand_in.py")
PROGRAMS = {"vllm": "vllm", "sglang": "sglang", "tgi": "text-generation-launcher"}
CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
EMBEDDINGS, MESSAGES, COUNT = "/v1/embeddings", "/v1/messages", "/v1/messages/count_tokens"
# What the engines have beside their wires, as a client might try to reach it.
FORBIDDEN = ["/sleep", "/v1/sleep", "/v1/../sleep", "/v1/chat/completions/../../../sleep", "/v1/%2e%2e/sleep", "//sleep", "/v1//../wake_up",
             "/wake_up?tags=weights", "/is_sleeping", "/release_memory_occupation", "/v1/%2E%2E/release_memory_occupation",
             "/v1\\..\\resume_memory_occupation", "/collective_rpc", "http://localhost/sleep", "/v1/chat/completions%2f..%2f..%2fsleep",
             "/v1/chat/completions;/../../sleep", "/update_weights_from_disk", "/generate"]


class EnginesTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="torpor-programs-")
        self.addCleanup(folder.cleanup)
        self.programs = pathlib.Path(folder.name, "bin")
        self.programs.mkdir()
        for program in PROGRAMS.values():
            file = self.programs / program
            file.write_text(f"#!/bin/sh\nexec {sys.executable} {STAND_IN} \"$@\"\n")
            file.chmod(0o755)
        self.weights = pathlib.Path(folder.name, "weights")
        self.weights.mkdir()
        (self.weights / "config.json").write_text("{}")
        self.torpord = Torpord()
        self.addCleanup(self.torpord.remove)
        self.torpord.variables["PATH"] = f"{self.programs}:{os.environ['PATH']}"
        self.assertEqual(self.torpord.start(), "ready\n")

    def add(self, engine, **keys):
        """The model is called like its engine."""
        status, _, answer = self.torpord.call("POST", "/api/models", {
            "name": engine, "engine": engine, "path": str(self.weights), "idle": "never", **keys})
        self.assertEqual(status, 201, answer)

    def ask(self, model, path=CHAT, **body):
        status, headers, answer = self.torpord.call("POST", path, {"model": model, **body}, {"Authorization": "Bearer of-the-client"})
        self.assertEqual(status, 200, answer)
        return answer, headers["Server-Timing"]

    def lines(self, model, start):
        log = pathlib.Path(self.torpord.folder, "logs", model + ".log").read_text()
        return [line.removeprefix(start) for line in log.splitlines() if line.startswith(start)]

    def argv(self, model):
        return json.loads(self.lines(model, "argv ")[0])

    def test_each_is_called_as_it_wants_to_be(self):
        workers = self.torpord.folder + "/workers"
        for engine in PROGRAMS:
            self.add(engine, snapshot="off", args=["--of", "its own"])
            self.ask(engine)
        self.assertEqual(self.argv("vllm"), ["serve", str(self.weights), "--uds", f"{workers}/vllm.sock", "--served-model-name", "vllm",
                                             "--of", "its own"])
        port = self.argv("sglang")[8]
        self.assertEqual(self.argv("sglang"), ["serve", "--model-path", str(self.weights), "--served-model-name", "sglang",
                                               "--host", "127.0.0.1", "--port", port, "--config", f"{workers}/sglang.yaml",
                                               "--log-level", "warning", "--of", "its own"])
        port = self.argv("tgi")[5]
        self.assertEqual(self.argv("tgi"), ["--model-id", str(self.weights), "--hostname", "127.0.0.1", "--port", port,
                                            "--prometheus-port", "0", "--shard-uds-path", f"{workers}/tgi.shard", "--of", "its own"])
        self.assertEqual(self.ask("tgi", CHAT)[0]["body"]["model"], "tgi")
        self.assertEqual(self.ask("vllm", MESSAGES)[0]["body"]["model"], "vllm")
        # Nothing is fetched and nobody told, unless the model's own environment says so.
        for engine in PROGRAMS:
            self.assertIn("HF_HUB_OFFLINE", json.loads(self.lines(engine, "environment ")[0]))
        checks = self.torpord.doctor()
        self.assertEqual({name: checks["engine:" + name]["message"] for name in PROGRAMS},
                         {name: str(self.programs / program) for name, program in PROGRAMS.items()})

    def test_a_port_is_called_with_a_key_that_is_in_no_command_line(self):
        self.add("sglang", snapshot="off")
        answer, _ = self.ask("sglang")
        self.assertEqual(self.lines("sglang", "settings "), ["0o600"])
        self.assertFalse(pathlib.Path(self.torpord.folder, "workers/sglang.yaml").exists(), "it is there for the start only")
        argv = self.argv("sglang")
        stranger = http.client.HTTPConnection("127.0.0.1", int(argv[argv.index("--port") + 1]))
        self.addCleanup(stranger.close)
        stranger.request("POST", CHAT, "{}")
        self.assertEqual(stranger.getresponse().status, 401)
        environment = pathlib.Path(f"/proc/{answer['pid']}/environ").read_bytes().decode().split("\0")
        key = next(pair for pair in environment if pair.startswith("TORPOR_WORKER_TOKEN=")).partition("=")[2]
        self.assertNotIn(key, " ".join(argv))
        logs = "".join(file.read_text() for file in pathlib.Path(self.torpord.folder, "logs").iterdir())
        self.assertNotIn(key, logs)
        # Another daemon that takes the worker back still knows it.
        self.torpord.process.kill()
        self.torpord.process.wait()
        self.assertEqual(self.torpord.start(), "ready\n")
        again, _ = self.ask("sglang")
        self.assertEqual(again["pid"], answer["pid"], self.torpord.log()[-2000:])

    def test_each_is_imaged_and_thawed(self):
        self.torpord.need_freezing(self)
        for engine in PROGRAMS:
            with self.subTest(engine=engine):
                self.add(engine)
                self.ask(engine)
                self.assertEqual(self.torpord.call("POST", f"/api/models/{engine}/suspend")[2].get("tier"), "frozen", self.torpord.log())
                self.assertIn("desc=thawed", self.ask(engine)[1], self.torpord.log()[-2000:])

    def test_two_thaws_of_one_image_throw_different_dice(self):
        self.torpord.need_freezing(self)
        self.add("vllm")
        self.ask("vllm")
        words = {path: [] for path in (CHAT, COMPLETIONS, RESPONSES, MESSAGES)}
        for path, said in words.items():
            for body in ({}, {"seed": None}):
                self.torpord.call("POST", "/api/models/vllm/suspend")
                answer, timing = self.ask("vllm", path, temperature=1, **body)
                self.assertIn("desc=thawed", timing, self.torpord.log()[-2000:])
                said.append(answer["words"])
        self.assertEqual(len(set(words[CHAT] + words[COMPLETIONS] + words[RESPONSES])), 6, words)
        # Anthropic's wire has no seed: what is left is what the engine does by itself. (This also shows that the
        # stand-in would answer alike.)
        self.assertEqual(words[MESSAGES][0], words[MESSAGES][1])

    def test_a_seed_is_given_where_none_is_and_nothing_else_is_touched(self):
        self.torpord.need_freezing(self)
        self.add("vllm", aliases=["another"])
        asked = {"messages": [{"role": "user", "content": 'a "seed" {'}], "stop": ["seed"], "metadata": {"seed": 1}}
        got = self.ask("another", **asked)[0]["body"]
        seed = got.pop("seed")
        self.assertTrue(0 <= seed < 2**31, seed)
        self.assertEqual(got, {"model": "vllm", **asked})
        self.assertEqual(self.ask("vllm", seed=7)[0]["body"], {"model": "vllm", "seed": 7})
        self.assertEqual(self.ask("vllm", seed=0)[0]["body"], {"model": "vllm", "seed": 0})
        for path in (MESSAGES, COUNT, EMBEDDINGS):
            self.assertEqual(self.ask("vllm", path)[0]["body"], {"model": "vllm"})
        self.add("tgi", snapshot="off")  # always its first start: no dice that were thrown before
        self.assertEqual(self.ask("tgi")[0]["body"], {"model": "tgi"})

    def test_nothing_but_the_wires_comes_through(self):
        self.add("vllm", snapshot="off")
        self.add("sglang", snapshot="off")
        for model in ("vllm", "sglang"):
            self.ask(model)
        for path in FORBIDDEN:
            for method in ("POST", "GET"):
                body = json.dumps({"model": "vllm"}).encode()
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.connect(self.torpord.folder + "/torpor.sock")
                    connection.sendall(raw.head(path, f"Content-Length: {len(body)}", "Connection: close", method=method) + body)
                    self.assertIn(raw.Answer(raw.read_all(connection)).status, (400, 404, 405), path)
        for model in ("vllm", "sglang"):
            self.assertEqual(set(self.lines(model, "POST ")), {CHAT})
            self.assertEqual(set(self.lines(model, "GET ")), {"/health"})

    def test_changed_weights_void_the_image(self):
        """Nobody has them open."""
        self.torpord.need_freezing(self)
        self.add("vllm")
        self.ask("vllm")
        self.torpord.call("POST", "/api/models/vllm/suspend")
        (self.weights / "config.json").write_text('{"other": true}')
        self.assertIn("desc=cold", self.ask("vllm")[1])
        self.assertIn(f"its snapshot is void: {self.weights}/config.json changed", self.torpord.log())

    def test_what_it_cannot_serve_is_said(self):
        for keys, words in (({"path": ""}, "path is missing: the folder with the model"),
                            ({"path": str(self.weights / "config.json")}, "is a file, but vllm serves a folder"),
                            ({"path": "/nobody/SmolLM2-135M"}, "download it first"),
                            ({"args": ["--served_model_name=x"]}, "--served-model-name is set by Torpor itself"),
                            ({"args": ["--uds", "/tmp/x"]}, "--uds is set by Torpor itself"),
                            ({"engine": "sglang", "name": "a:b"}, "takes what follows a colon for an adapter"),
                            ({"engine": "tgi", "args": ["-p", "80"]}, "-p is set by Torpor itself")):
            status, _, answer = self.torpord.call("POST", "/api/models", {"name": "m", "engine": "vllm", "path": str(self.weights), **keys})
            self.assertEqual(status, 400, keys)
            self.assertIn(words, answer["error"]["message"], keys)


if __name__ == "__main__":
    unittest.main()
