"""The same conversation on each of the three wires, with all that a wire has to carry."""
import base64
import json
import pathlib
import shutil
import tempfile
import threading
import unittest

from harness import Torpord
from scripted_provider import Reply, ScriptedProvider, script
from talk import Talk

WIRES = ("anthropic-messages", "openai-chat", "openai-responses")
PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)


class WiresTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="torpor-e2e-project-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.provider = ScriptedProvider(script())
        self.addCleanup(self.provider.close)
        self.torpord = Torpord(more="".join(f'[provider.{wire}]\nwire = "{wire}"\nbase_url = "{self.provider.url}/v1"\n' for wire in WIRES))
        self.addCleanup(self.torpord.remove)
        self.assertEqual(self.torpord.start(), "ready\n")

    def each_wire(self, *replies, mode="read-only"):
        for wire in WIRES:
            with self.subTest(wire=wire):
                self.provider.requests.clear()
                self.provider.reply = script(*replies)
                yield Talk(self.torpord, self.folder, model=wire + "/gpt-5", mode=mode)

    def sent(self, number=-1):
        return json.dumps(self.provider.requests[number])

    def test_reasoning_parallel_calls_images_and_usage(self):
        (self.folder / "a.txt").write_text("alpha\n")
        (self.folder / "b.txt").write_text("beta\n")
        replies = (Reply("I look at both.", calls=[("read_file", {"path": "a.txt"}), ("read_file", {"path": "b.txt"})], reasoning="Two files. Näh.",
                         usage=(1000, 50, 800)), Reply("They say alpha and beta."))
        for talk in self.each_wire(*replies):
            status, _, answer = talk.post("prompt", {"text": "What do they say?", "images": [{"data": base64.b64encode(PNG).decode()}]})
            self.assertEqual(status, 202, answer)
            self.assertEqual(talk.wait_for("turn_ended")["outcome"], "done")
            self.assertIn(base64.b64encode(PNG).decode(), self.sent(0))
            events = talk.all()
            self.assertEqual([event["text"] for event in events if event["event"] == "reasoning"], ["Two files. Näh."])
            self.assertEqual([event["text"] for event in events if event["event"] == "text"], ["I look at both.", "They say alpha and beta."])
            self.assertEqual(sorted(event["output"] for event in events if event["event"] == "tool_result"), ["     1\talpha\n", "     1\tbeta\n"])
            usage = next(event for event in events if event["event"] == "answered")["usage"]
            self.assertEqual((usage["input"], usage["output"], usage["cache_read"]), (1000, 50, 800))
            # What must come back unharmed came back, and only where it belongs.
            back = {"anthropic-messages": "signed:Two files. N\\u00e4h.", "openai-chat": '"reasoning_content": "Two files. N\\u00e4h."',
                    "openai-responses": "sealed:Two files. N\\u00e4h."}
            wire = talk.last("turn_started")["provider"]
            self.assertIn(back[wire], self.sent(1))
            self.assertIn("alpha", self.sent(1))

    def test_another_wire_goes_on_without_what_is_not_its_own(self):
        self.provider.reply = script(*[Reply(f"Answer {number}.", reasoning="Thought.") for number in range(3)])
        talk = Talk(self.torpord, self.folder, model="anthropic-messages/m")
        talk.turn("One?")
        for wire in WIRES[1:]:
            self.assertEqual(talk.post("set", {"model": wire + "/m"})[0], 200)
            self.assertEqual(talk.turn("And?")["outcome"], "done")
            self.assertIn("Answer 0.", self.sent())
            self.assertNotIn("signed:", self.sent())

    def test_what_was_sent_once_stays_as_it_was(self):
        """Caches of providers hit on a prefix that is the same byte for byte."""
        (self.folder / "a.txt").write_text("alpha\n")
        for talk in self.each_wire(Reply("First."), Reply(calls=[("read_file", {"path": "a.txt"})]), Reply("Second."), Reply("Third.")):
            for prompt in ("One?", "Two?", "Three?"):
                self.assertEqual(talk.turn(prompt)["outcome"], "done")
            key = "input" if talk.last("turn_started")["provider"] == "openai-responses" else "messages"
            plain = [json.dumps(request[key]).replace(', "cache_control": {"type": "ephemeral"}', "") for request in self.provider.requests]
            for before, after in zip(plain, plain[1:]):
                self.assertTrue(after.startswith(before[:-1]), (before, after))
            rest = [{name: value for name, value in request.items() if name != key} for request in self.provider.requests]
            self.assertEqual(rest[0], rest[-1])

    def test_bad_streams_and_interrupts(self):
        for talk in self.each_wire():
            for bad in (Reply("half an answer", cut=True), Reply(raw=b"data: {no json\n\n"), Reply(raw=b""), Reply(raw=b"\x00\xff" * 1000),
                        Reply(raw=b"<html>It works!</html>"), Reply(raw=b"data: {\"type\":\"error\",\"error\":{\"message\":\"kaputt\"}}\n\n")):
                self.provider.reply = script(bad)
                ended = talk.turn("go")
                self.assertEqual((ended["outcome"], ended["can_retry"]), ("failed", True), ended)
                self.assertGreater(len(ended["reason"]), 20)
            self.provider.reply = script(Reply(calls=[("read_file", "{broken")]), Reply("sorry"))
            self.assertEqual(talk.turn("go")["outcome"], "done")
            self.assertEqual(talk.last("tool_result")["outcome"], "failed")
            silent = threading.Event()
            self.provider.reply = script(Reply("wait for it", wait=silent))
            number = talk.prompt("go")
            talk.wait_for("turn_started", number)
            talk.post("interrupt")
            self.assertEqual(talk.wait_for("turn_ended", number)["outcome"], "interrupted")
            silent.set()


if __name__ == "__main__":
    unittest.main()
