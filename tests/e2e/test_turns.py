"""Turns over HTTP, with a provider that says what each test needs. The first tests have the names of the public harness's
scenarios."""
import os
import pathlib
import shutil
import tempfile
import threading
import unittest

from harness import Torpord
from scripted_provider import Reply, ScriptedProvider, script
from talk import Talk


def provider_config(url):
    return f'[provider.scripted]\nwire = "openai-chat"\nbase_url = "{url}/v1"\n[provider.scripted.models.scripted]\n'


class TurnsTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="torpor-e2e-project-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.provider = ScriptedProvider(script())
        self.addCleanup(self.provider.close)
        self.torpord = Torpord(more=provider_config(self.provider.url))
        self.addCleanup(self.torpord.remove)
        self.assertEqual(self.torpord.start(), "ready\n")

    def talk(self, mode="workspace-write"):
        return Talk(self.torpord, self.folder, "scripted/scripted", mode)

    def replies(self, *replies):
        self.provider.reply = script(*replies)

    def result(self, talk):
        return talk.last("tool_result")

    def test_streaming_text(self):
        self.replies(Reply("Mock streaming says hello from the parity harness."))
        talk = self.talk("read-only")
        self.assertEqual(talk.turn("hello")["outcome"], "done")
        self.assertEqual(talk.kinds(), ["created", "prompt", "turn_started", "text", "answered", "turn_ended"])
        self.assertEqual(talk.last("text")["text"], "Mock streaming says hello from the parity harness.")
        self.assertEqual(talk.last("prompt")["by"], "owner")

    def test_read_file_roundtrip(self):
        (self.folder / "fixture.txt").write_text("alpha parity line\nbeta line\n")
        self.replies(Reply(calls=[("read_file", {"path": "fixture.txt"})]), Reply("done"))
        talk = self.talk("read-only")
        self.assertEqual(talk.turn("read")["calls"], 1)
        self.assertEqual(self.result(talk)["output"], "     1\talpha parity line\n     2\tbeta line\n")
        self.assertIn("alpha parity line", self.provider.requests[1]["messages"][-1]["content"])

    def test_write_file_allowed(self):
        self.replies(Reply(calls=[("write_file", {"path": "generated/output.txt", "content": "created by mock service\n"})]), Reply("done"))
        talk = self.talk("workspace-write")
        talk.turn("write")
        self.assertEqual(self.result(talk)["outcome"], "done")
        self.assertEqual((self.folder / "generated/output.txt").read_text(), "created by mock service\n")
        self.assertNotIn("question", talk.kinds())

    def test_write_file_denied(self):
        self.replies(Reply(calls=[("write_file", {"path": "generated/denied.txt", "content": "no\n"})]), Reply("I may not."))
        talk = self.talk("read-only")
        number = talk.prompt("write")
        question = talk.wait_for("question")
        self.assertEqual(question["title"], "write generated/denied.txt (1 line)")
        self.assertEqual(talk.answer(question["seq"], "no")[0], 200)
        self.assertEqual(talk.wait_for("turn_ended", turn=number)["outcome"], "done")
        self.assertEqual(self.result(talk)["outcome"], "denied")
        self.assertFalse((self.folder / "generated").exists())

    def test_multi_tool_turn_roundtrip(self):
        (self.folder / "fixture.txt").write_text("alpha parity line\n")
        self.replies(Reply("Both.", [("read_file", {"path": "fixture.txt"}), ("read_file", {"path": "missing.txt"}), ("bash", {"command": "wc -l fixture.txt"})]),
                     Reply("done"))
        talk = self.talk("danger-full-access")
        self.assertEqual(talk.turn("both")["calls"], 3)
        sent = [message for message in self.provider.requests[1]["messages"] if message["role"] == "tool"]
        self.assertEqual([message["tool_call_id"] for message in sent], ["call_1_0", "call_1_1", "call_1_2"])
        self.assertEqual(sent[2]["content"], "1 fixture.txt\n")

    def test_bash_stdout_roundtrip(self):
        self.replies(Reply(calls=[("bash", {"command": "printf 'alpha from bash'", "timeout": 10000})]), Reply("done"))
        talk = self.talk("danger-full-access")
        talk.turn("run")
        self.assertEqual((self.result(talk)["output"], self.result(talk)["detail"]), ("alpha from bash", {"exit_status": 0}))

    def test_bash_permission_prompt_approved(self):
        self.replies(Reply(calls=[("bash", {"command": "printf 'approved via prompt'"})]), Reply("done"))
        talk = self.talk("workspace-write")
        talk.prompt("run")
        question = talk.wait_for("question")
        self.assertEqual(question["detail"], "printf 'approved via prompt'")
        self.assertEqual(self.torpord.get(f"/api/sessions/{talk.id}")["state"], "asking")
        self.assertEqual(talk.answer(question["seq"])[0], 200)
        self.assertEqual(talk.wait_for("turn_ended")["outcome"], "done")
        self.assertEqual(self.result(talk)["output"], "approved via prompt")

    def test_bash_permission_prompt_denied(self):
        self.replies(Reply(calls=[("bash", {"command": "touch never"})]), Reply("done"))
        talk = self.talk("workspace-write")
        talk.prompt("run")
        talk.answer(talk.wait_for("question")["seq"], "no", "use the file tool")
        talk.wait_for("turn_ended")
        self.assertEqual(self.result(talk)["outcome"], "denied")
        self.assertIn("use the file tool", self.provider.requests[1]["messages"][-1]["content"])
        self.assertFalse((self.folder / "never").exists())

    def test_token_cost_reporting(self):
        self.replies(Reply(calls=[("read_file", {"path": "x"})], usage=(1000, 20)), Reply("done", usage=(2000, 30)))
        talk = self.talk()
        ended = talk.turn("go")
        self.assertEqual((ended["usage"]["input"], ended["usage"]["output"], ended["answers"]), (3000, 50, 2))
        self.assertEqual(talk.last("answered")["usage"]["input"], 2000)

    def test_prompts_queue_and_can_be_withdrawn(self):
        go = threading.Event()
        self.replies(Reply("first", wait=go), Reply("third"))
        talk = self.talk()
        first = talk.prompt("one")
        talk.wait_for("turn_started")
        second, third = talk.prompt("two"), talk.prompt("three")
        self.assertEqual(talk.post("withdraw", {"prompt": second})[0], 200)
        self.assertEqual(talk.post("withdraw", {"prompt": second})[0], 409)
        self.assertEqual(talk.post("withdraw", {"prompt": first})[0], 409)
        go.set()
        self.assertEqual(talk.wait_for("turn_ended", third)["turn"], first)
        talk.wait_for("turn_ended", turn=third)
        self.assertEqual([event["prompt"] for event in talk.all() if event["event"] == "turn_started"], [first, third])
        self.assertEqual(talk.wait_for("prompt_withdrawn")["prompt"], second)

    def test_steering_reaches_the_model_between_two_tool_calls(self):
        self.replies(Reply(calls=[("bash", {"command": "while [ ! -e go ]; do sleep 0.01; done"})]), Reply(calls=[("bash", {"command": "true"})]), Reply("done"))
        talk = self.talk("danger-full-access")
        talk.prompt("go")
        talk.wait_for("tool_started")
        self.assertEqual(talk.post("steer", {"text": "mind the gap"})[0], 202)
        (self.folder / "go").touch()
        talk.wait_for("turn_ended")
        self.assertEqual([message["role"] for message in self.provider.requests[1]["messages"][-2:]], ["tool", "user"])
        self.assertEqual(self.provider.requests[1]["messages"][-1]["content"], "mind the gap")
        self.assertEqual(talk.post("steer", {"text": "too late"})[0], 409)

    def test_interrupt_in_a_stream(self):
        never = threading.Event()
        self.addCleanup(never.set)
        self.replies(Reply("a long answer", wait=never), Reply("next"))
        talk = self.talk()
        number = talk.prompt("go")
        self.torpord.wait_until(lambda: self.provider.requests, "a request")
        self.assertTrue(talk.post("interrupt")[2]["interrupted"])
        self.assertEqual(talk.wait_for("turn_ended", turn=number)["outcome"], "interrupted")
        self.assertFalse(talk.post("interrupt")[2]["interrupted"])
        self.assertEqual(talk.turn("again")["outcome"], "done")

    def test_interrupt_in_bash_ends_all_that_it_started(self):
        self.replies(Reply(calls=[("bash", {"command": "echo begun; sleep 1000 & echo $! > pid; wait"})]), Reply("next"))
        talk = self.talk("danger-full-access")
        number = talk.prompt("go")
        self.torpord.wait_until(lambda: (self.folder / "pid").exists() and (self.folder / "pid").read_text().strip(), "the child")
        self.assertTrue(talk.post("interrupt")[2]["interrupted"])
        self.assertEqual(talk.wait_for("turn_ended", turn=number)["outcome"], "interrupted")
        self.assertEqual(self.result(talk)["outcome"], "interrupted")
        self.assertTrue(self.result(talk)["output"].startswith("begun\n"))
        self.assertFalse(pathlib.Path("/proc", (self.folder / "pid").read_text().strip()).exists())

    def test_a_failed_provider_is_explained_and_the_turn_retried(self):
        self.replies(Reply(status=400), Reply("well"))
        talk = self.talk()
        ended = talk.turn("go")
        self.assertEqual((ended["outcome"], ended["can_retry"]), ("failed", True))
        self.assertTrue(ended["reason"])
        status, _, answer = talk.post("retry")
        self.assertEqual(status, 202)
        self.assertEqual(talk.wait_for("turn_ended", answer["event"])["outcome"], "done")
        self.assertEqual(talk.post("retry")[0], 409)

    def test_the_first_answer_wins_and_the_other_is_told_by_whom(self):
        key = self.torpord.call("POST", "/api/keys", {"name": "laptop", "scope": "sessions"})[2]["key"]
        self.replies(Reply(calls=[("bash", {"command": "echo x >> ran"})]), Reply("done"))
        talk = self.talk()
        talk.prompt("go")
        question = talk.wait_for("question")["seq"]
        status, _, _ = self.torpord.call("POST", f"/api/sessions/{talk.id}/answer", {"question": question, "answer": "once"},
                                         {"Authorization": f"Bearer {key}"}, tcp=True)
        self.assertEqual(status, 200)
        status, _, answer = talk.answer(question, "no")
        self.assertEqual(status, 409)
        self.assertIn("laptop", answer["error"]["message"])
        talk.wait_for("turn_ended")
        self.assertEqual(talk.last("decided")["by"], "laptop")
        self.assertEqual((self.folder / "ran").read_text(), "x\n")

    def test_bad_streams_end_in_a_failed_turn_with_a_reason(self):
        talk = self.talk()
        for bad in (Reply("half an answer", cut=True), Reply(raw=b"data: {no json\n\n"), Reply(raw=b""), Reply(raw=b"\x00\xff" * 1000)):
            self.replies(bad, bad, bad, bad)
            ended = talk.turn("go")
            self.assertEqual((ended["outcome"], ended["can_retry"]), ("failed", True), ended)
            self.assertGreater(len(ended["reason"]), 10)
        self.replies(Reply(calls=[("read_file", "{broken")]), Reply("sorry"))
        self.assertEqual(talk.turn("go")["outcome"], "done")
        self.assertEqual(self.result(talk)["outcome"], "failed")

    def test_the_environment_of_tools_is_the_clients_without_keys(self):
        self.replies(Reply(calls=[("bash", {"command": "env"})]), Reply("done"))
        talk = self.talk("danger-full-access")
        status, _, _ = talk.post("environment", {"PATH": os.environ["PATH"], "VIRTUAL_ENV": "/venv", "OPENAI_API_KEY": "secret", "LD_PRELOAD": "x"})
        self.assertEqual(status, 200)
        talk.turn("env")
        output = self.result(talk)["output"]
        self.assertIn("VIRTUAL_ENV=/venv", output)
        for hidden in ("secret", "LD_PRELOAD", "TORPOR_DIR"):
            self.assertNotIn(hidden, output)

    def test_sigterm_ends_a_command_and_the_next_daemon_goes_on(self):
        self.replies(Reply(calls=[("bash", {"command": "echo x >> ran; sleep 1000 & echo $! > pid; wait"})]), Reply("I see"))
        talk = self.talk("danger-full-access")
        number = talk.prompt("go")
        self.torpord.wait_until(lambda: (self.folder / "pid").exists() and (self.folder / "pid").read_text().strip(), "the child")
        self.assertEqual(self.torpord.stop(), 0)
        self.assertFalse(pathlib.Path("/proc", (self.folder / "pid").read_text().strip()).exists())
        self.assertEqual(self.torpord.start(), "ready\n")
        self.assertEqual(talk.wait_for("turn_ended", turn=number)["outcome"], "done")
        self.assertEqual(self.result(talk)["outcome"], "interrupted")
        self.assertIn("may have happened", self.result(talk)["output"])
        self.assertEqual((self.folder / "ran").read_text(), "x\n")

    def test_what_is_wrong_with_a_request_is_said(self):
        talk = self.talk()
        self.assertEqual(talk.post("prompt", {"text": ""})[0], 400)
        self.assertEqual(talk.post("prompt", {"words": "x"})[0], 400)
        self.assertEqual(talk.post("prompt", {"text": "x", "images": [{"data": "AAAA"}]})[0], 400)
        self.assertEqual(talk.post("answer", {"question": 1, "answer": "once"})[0], 404)
        self.assertEqual(talk.post("retry")[0], 409)
        self.assertEqual(self.torpord.call("POST", "/api/sessions/nothing/prompt", {"text": "x"})[0], 404)
        key = self.torpord.call("POST", "/api/keys", {"name": "small"})[2]["key"]
        status, _, _ = self.torpord.call("POST", f"/api/sessions/{talk.id}/prompt", {"text": "x"}, {"Authorization": f"Bearer {key}"}, tcp=True)
        self.assertEqual(status, 403)


if __name__ == "__main__":
    unittest.main()
