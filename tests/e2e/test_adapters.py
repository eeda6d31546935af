"""Adapters: several models on one worker, with a real llama-server and two real LoRA files."""
import concurrent.futures
import os
import pathlib
import shutil
import tempfile
import unittest

from harness import MODEL, Torpord
from lora import WHY_NOT, make_adapter

NAMES = ("smol", "french", "dutch")
# Long enough to be kept for reuse beside llama-server's slots, if it were allowed to.
PROMPTS = ("What is the capital of France? Tell me about the town, the river that flows through it, and who lives there.",
           "List ten kinds of bears, where they sleep, what they eat and how long they live, one a line, with Latin names.",
           "Why is the sky blue by day, red in the evening and black at night? Explain it to a child in short sentences.")


@unittest.skipIf(WHY_NOT, WHY_NOT)
class AdapterTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="torpor-lora-"))
        cls.torpord = Torpord()
        assert cls.torpord.start() == "ready\n"
        for seed, name in enumerate(NAMES[1:]):
            make_adapter(cls.folder / f"{name}.gguf", seed)
        cls.torpord.add_model("plain", args=["-c", "2048"], snapshot="off")
        # Slots of their own: in a buffer that they share, the sums come out a little different with each neighbour.
        cls.add("smol", NAMES[1:], aliases=["little"], args=["--parallel", "4"])

    @classmethod
    def tearDownClass(cls):
        cls.torpord.remove()
        shutil.rmtree(cls.folder)

    @classmethod
    def add(cls, model, adapters, **keys):
        return cls.torpord.add_model(model, adapter={name: {"path": str(cls.folder / f"{name}.gguf")} for name in adapters},
                                     args=["-c", "4096", *keys.pop("args", [])], **keys)

    def say(self, model, prompt=PROMPTS[0], **keys):
        status, headers, answer = self.torpord.chat(model, prompt, temperature=0, max_tokens=8, **keys)
        self.assertEqual(status, 200, answer)
        return answer["choices"][0]["message"]["content"]

    def pid(self, model="smol"):
        return self.torpord.get("/api/models/" + model)["pid"]

    def test_each_answers_with_its_own_weights_and_keeps_to_them(self):
        for prompt in PROMPTS[:2]:
            expected = {name: self.say(name, prompt) for name in NAMES}
            self.assertEqual(len(set(expected.values())), 3, expected)
            self.assertEqual(expected["smol"], self.say("plain", prompt), "the adapters change the model's own answers")
            self.assertEqual(expected["smol"], self.say("little", prompt), "asked for by an alias")
        self.torpord.call("POST", "/api/models/plain/stop")
        # A prompt that one of them left behind, in a slot or beside, must not be taken up by another.
        expected = {(name, prompt): self.say(name, prompt) for prompt in PROMPTS for name in NAMES}
        for name, prompt in (("french", 0), ("smol", 0), ("french", 1), ("french", 0), ("dutch", 0), ("dutch", 1), ("smol", 1),
                             ("smol", 0), ("french", 0), ("smol", 2), ("dutch", 0)):
            self.assertEqual(self.say(name, PROMPTS[prompt]), expected[name, PROMPTS[prompt]], (name, prompt))
        jobs = [(name, prompt) for _ in range(2) for prompt in PROMPTS[:2] for name in NAMES]
        pid = self.pid()
        with concurrent.futures.ThreadPoolExecutor(6) as threads:
            said = list(threads.map(lambda job: self.say(*job), jobs))
        self.assertEqual([one == expected[job] for one, job in zip(said, jobs)], [True] * len(jobs))
        self.assertEqual(self.pid(), pid, "one process serves them all")

    def test_every_wire_that_can_choose_does_and_the_others_say_so(self):
        message = [{"role": "user", "content": PROMPTS[0]}]
        def text(answer):
            if "choices" in answer:
                choice = answer["choices"][0]
                return choice["text"] if "text" in choice else choice["message"]["content"]
            return answer["output"][0]["content"][0]["text"]
        for path, body in (("/v1/completions", {"prompt": PROMPTS[0], "max_tokens": 8}),
                           ("/v1/responses", {"input": PROMPTS[0], "max_output_tokens": 8}),
                           ("/v1/chat/completions", {"messages": message, "max_tokens": 8})):
            said = set()
            for name in NAMES:
                status, _, answer = self.torpord.call("POST", path, {"model": name, "temperature": 0, **body})
                self.assertEqual(status, 200, answer)
                said.add(text(answer))
                status, headers, answer = self.torpord.call("POST", path, {"stream": True, "model": name, **body})
                self.assertEqual((status, headers.get_content_type()), (200, "text/event-stream"), answer)
            self.assertEqual(len(said), 3, (path, said))
        for path in ("/v1/messages", "/v1/messages/count_tokens", "/v1/embeddings"):
            status, _, answer = self.torpord.call("POST", path, {"model": "french", "messages": message, "max_tokens": 8})
            self.assertEqual(status, 400, answer)
            self.assertIn("french does not speak", answer["error"]["message"])
        # The model itself still speaks Anthropic's, right behind an adapter with the same prompt.
        def ask():
            status, _, answer = self.torpord.call("POST", "/v1/messages", {"model": "smol", "messages": message, "max_tokens": 8,
                                                                           "temperature": 0})
            self.assertEqual(status, 200, answer)
            return answer["content"][0]["text"]
        expected = self.say("smol")
        for name in NAMES:
            self.say(name)
            self.assertEqual(ask(), expected, name)
            self.assertEqual(self.say("smol"), expected, name)

    def test_one_snapshot_keeps_them_all_and_is_void_when_an_adapter_changes(self):
        self.torpord.need_freezing(self)
        shutil.copy(self.folder / "french.gguf", self.folder / "changing.gguf")
        self.add("frozen", ["changing"])
        expected = {name: self.say(name) for name in ("frozen", "changing")}
        self.assertEqual(expected["changing"], self.say("french"))
        for name in ("changing", "frozen"):  # both names put the same worker to sleep
            self.assertEqual(self.torpord.call("POST", f"/api/models/{name}/suspend")[2]["tier"], "frozen")
            status, headers, answer = self.torpord.chat(name, PROMPTS[0], temperature=0, max_tokens=8)
            self.assertEqual((status, answer["choices"][0]["message"]["content"]), (200, expected[name]), answer)
            self.assertIn("desc=thawed", headers["Server-Timing"])
        self.assertEqual({name: self.say(name) for name in ("frozen", "changing")}, expected)
        snapshots = [snapshot["model"] for snapshot in self.torpord.get("/api/snapshots")["snapshots"]]
        self.assertEqual([name for name in snapshots if name in ("frozen", "changing")], ["frozen"])
        self.torpord.call("POST", "/api/models/frozen/suspend")
        shutil.copy(self.folder / "dutch.gguf", self.folder / "beside")
        os.rename(self.folder / "beside", self.folder / "changing.gguf")
        status, headers, answer = self.torpord.chat("changing", PROMPTS[0], temperature=0, max_tokens=8)
        self.assertIn("desc=cold", headers["Server-Timing"])
        self.assertEqual(answer["choices"][0]["message"]["content"], self.say("dutch"))

    def test_lists_keys_logs_and_metrics_know_them_by_name(self):
        listed = {model["id"]: model["parent"] for model in self.torpord.get("/v1/models")["data"]}
        self.assertEqual([listed[name] for name in NAMES], [None, "smol", "smol"])
        self.assertEqual(self.torpord.get("/v1/models/french")["parent"], "smol")
        self.assertEqual(self.torpord.get("/v1/models/little")["id"], "smol")
        shown = self.torpord.get("/api/models/smol")["adapters"]
        self.assertEqual([adapter["name"] for adapter in shown], ["dutch", "french"])
        self.say("dutch")
        self.assertIn('torpor_requests_total{model="dutch",wire="chat",outcome="ok"}', self.torpord.get("/metrics"))
        log = pathlib.Path(self.torpord.folder, "logs/requests.jsonl")
        self.torpord.wait_until(lambda: log.exists() and '"model":"dutch"' in log.read_text(), "a line of the request log")
        keys = {}
        for name in NAMES[:2]:
            status, _, made = self.torpord.call("POST", "/api/keys", {"name": "for-" + name, "models": [name]})
            self.assertEqual(status, 201, made)
            keys[name] = {"x-api-key": made["key"]}
        body = {"max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}
        for holder, key in keys.items():
            for name in NAMES:
                status, _, answer = self.torpord.call("POST", "/v1/chat/completions", {"model": name, **body}, key, tcp=True)
                self.assertEqual(status, 200 if name == holder else 403, answer)
            models = self.torpord.call("GET", "/v1/models", None, key, tcp=True)[2]["data"]
            self.assertEqual([model["id"] for model in models], [holder])
        status, _, answer = self.torpord.chat("frensh")
        self.assertEqual(status, 404)
        self.assertIn("did you mean french?", answer["error"]["message"])

    def test_what_makes_no_sense_is_refused(self):
        def refused(wanted, status=400, **keys):
            answer = self.torpord.call("POST", "/api/models", {"name": "new", "engine": "llama-server", "path": str(MODEL), **keys})
            self.assertEqual(answer[0], status, answer[2])
            self.assertIn(wanted, answer[2]["error"]["message"])
        good = str(self.folder / "french.gguf")
        refused("the adapter name french of", 409, adapter={"french": {"path": good}})
        refused("is taken by", 409, adapter={"smol": {"path": good}})
        refused("is taken by", 409, adapter={"little": {"path": good}})
        refused("is taken by new", 409, adapter={"twice": {"path": good}}, aliases=["twice"])
        refused("cannot be read", adapter={"x": {"path": "/nowhere.gguf"}})
        refused("absolute", adapter={"x": {"path": "here.gguf"}})
        refused("scale", adapter={"x": {"path": good, "scale": 1e9}})
        refused("not a known key; did you mean scale?", adapter={"x": {"path": good, "scal": 1}})
        refused("--lora is set by Torpor", adapter={"x": {"path": good}}, args=["--lora", good])
        refused("do not go together", adapter={"x": {"path": good}}, args=["--embeddings"])
        refused("the engine custom serves no adapters", engine="custom", command=["/bin/cat", "{socket}"], adapter={"x": {"path": good}})
        for name in ("smol", "french"):
            status, _, answer = self.torpord.chat(name, lora=[{"id": 1, "scale": 1}])
            self.assertEqual(status, 400, answer)
            self.assertIn("ask for an adapter by its name", answer["error"]["message"])
        status, _, answer = self.torpord.call("DELETE", "/api/models/french")
        self.assertEqual(status, 400, answer)

    def test_the_scale_is_how_much_of_it_is_applied(self):
        self.torpord.add_model("scaled", args=["-c", "2048"], snapshot="off", adapter={
            "none-of-it": {"path": str(self.folder / "french.gguf"), "scale": 0},
            "half-of-it": {"path": str(self.folder / "french.gguf"), "scale": 0.5}})
        self.assertEqual(self.say("none-of-it"), self.say("smol"))
        self.assertEqual(len({self.say("half-of-it"), self.say("smol"), self.say("french")}), 3)
        self.torpord.call("DELETE", "/api/models/scaled")


if __name__ == "__main__":
    unittest.main()
