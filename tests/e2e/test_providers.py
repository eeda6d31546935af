"""Providers: the three wires against a real llama-server, the local models, and what bad providers do."""
import pathlib
import shutil
import tempfile
import threading
import unittest

from harness import MODEL, Torpord
from scripted_provider import Reply, ScriptedProvider, script
from talk import Talk


class ProvidersTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="torpor-e2e-project-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def start(self, more=""):
        self.torpord = Torpord(more=more)
        self.addCleanup(self.torpord.remove)
        self.assertEqual(self.torpord.start(), "ready\n")

    def scripted(self, *replies, more=""):
        self.provider = ScriptedProvider(script(*replies))
        self.addCleanup(self.provider.close)
        self.start(f'[provider.scripted]\nwire = "openai-chat"\nbase_url = "{self.provider.url}/v1"\n{more}')

    @unittest.skipUnless(MODEL.exists(), "the small model is not there; packaging/setup/fetch-model fetches it")
    def test_each_wire_against_a_real_server(self):
        """llama-server speaks all three; it is reached through torpord's own port, with a key, as over a network."""
        self.start()
        self.torpord.add_model("little", args=["--predict", "64"])  # it would talk until its context is full
        key = self.torpord.call("POST", "/api/keys", {"name": "wires"})[2]["key"]
        file = pathlib.Path(self.torpord.folder, "key")
        file.touch(0o600)
        file.write_text(key + "\n")
        config = pathlib.Path(self.torpord.folder, "config.toml")
        wires = ("anthropic-messages", "openai-chat", "openai-responses")
        config.write_text(config.read_text() + "".join(
            f'[provider.{wire}]\nwire = "{wire}"\nbase_url = "http://127.0.0.1:{self.torpord.port}/v1"\nkey_file = "{file}"\n' for wire in wires))
        self.assertEqual(self.torpord.call("POST", "/api/reload")[0], 200)
        for wire in wires:
            with self.subTest(wire=wire):
                talk = Talk(self.torpord, self.folder, model=f"{wire}/little", mode="read-only")
                ended = talk.turn("Say hello.")
                self.assertIn(ended["outcome"], ("done", "limit"), ended)
                self.assertTrue(talk.last("text")["text"] or talk.last("tool_call"))
                usage = talk.last("answered")["usage"]
                self.assertGreater(usage["input"], 50)
                self.assertGreater(usage["output"], 0)
                self.assertNotIn(key, self.torpord.log())

    @unittest.skipUnless(MODEL.exists(), "the small model is not there; packaging/setup/fetch-model fetches it")
    def test_a_local_model_that_knows_no_tools_reads_a_file_and_can_be_frozen_after_it(self):
        (self.folder / "notes.txt").write_text("The bears wake up in March.\n")
        self.start()
        self.torpord.add_model("little")
        talk = Talk(self.torpord, self.folder, model="little", mode="read-only")
        self.assertEqual(talk.turn("Read the file notes.txt.")["outcome"], "done")
        call, result = talk.last("tool_call"), talk.last("tool_result")
        self.assertEqual((call["tool"], call["input"]), ("read_file", {"path": "notes.txt"}))
        self.assertIn("The bears wake up in March.", result["output"])
        self.assertIn("March", talk.last("text")["text"])
        if self.torpord.doctor()["criu"]["ok"]:
            # The daemon's own connections to itself are no worker's.
            self.assertEqual(self.torpord.call("POST", "/api/models/little/suspend")[2]["tier"], "frozen")

    def test_names_aliases_and_what_is_known(self):
        self.scripted(Reply("One."), Reply("Two."), Reply("Three."), more='[provider.scripted.models."large-2"]\naliases = ["large"]\n'
                      'price = { input = 1.0, output = 2.0 }\n')
        for model in ("large", "large-2", "scripted/large-2"):
            talk = Talk(self.torpord, self.folder, model=model)
            self.assertEqual(talk.turn("?")["outcome"], "done")
            self.assertEqual(self.provider.requests[-1]["model"], "large-2")
            self.assertAlmostEqual(talk.last("answered")["cost"], (10 * 1.0 + 5 * 2.0) / 1e6)
        Talk(self.torpord, self.folder, model="scripted/anything-else")
        status, _, answer = self.torpord.call("POST", "/api/sessions", {"folder": str(self.folder), "model": "lagre"})
        self.assertEqual(status, 404)
        self.assertIn("did you mean large?", answer["error"]["message"])

    def test_what_may_pass_is_asked_again_and_what_may_not_is_not(self):
        self.scripted(Reply(status=503), Reply(status=429), Reply("At last."), Reply(status=401), Reply(status=302), Reply(status=400))
        talk = Talk(self.torpord, self.folder, model="scripted/m")
        self.assertEqual(talk.turn("?")["outcome"], "done")
        self.assertEqual(talk.kinds().count("retried"), 2)
        for words in ("does not take the key", "a key goes to no other host", "does not take the request"):
            asked = len(self.provider.requests)
            ended = talk.turn("?")
            self.assertEqual(ended["outcome"], "failed")
            self.assertIn(words, ended["reason"])
            self.assertEqual(len(self.provider.requests), asked + 1)

    def test_interrupting_ends_a_silent_stream_at_once(self):
        silent = threading.Event()
        self.addCleanup(silent.set)
        self.scripted(Reply("Wait for it", wait=silent))
        talk = Talk(self.torpord, self.folder, model="scripted/m")
        talk.prompt("?")
        talk.wait_for("turn_started")
        self.torpord.wait_until(lambda: self.provider.requests, "the provider is asked")
        self.assertEqual(talk.post("interrupt")[2], {"interrupted": True})
        self.assertEqual(talk.wait_for("turn_ended")["outcome"], "interrupted")


if __name__ == "__main__":
    unittest.main()
