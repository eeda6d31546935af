"""The tool Agent: sessions that a call begins."""
import pathlib
import shutil
import subprocess
import tempfile
import threading
import unittest

from harness import BUILD, SECONDS_MAX, Torpord
from scripted_provider import Reply, ScriptedProvider, script
from talk import Talk
from test_turns import provider_config

TORPOR = BUILD / "clients/cli/torpor"


def agent(prompt, **keys):
    return ("Agent", {"description": "a task", "prompt": prompt, **keys})


def text_of(request):
    """What the model was told last, by whoever that was."""
    content = request["messages"][-1]["content"]
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


class AgentsTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="torpor-e2e-project-")).resolve()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.provider = ScriptedProvider(script())
        self.addCleanup(self.provider.close)
        self.torpord = Torpord(more=provider_config(self.provider.url))
        self.addCleanup(self.torpord.remove)
        self.assertEqual(self.torpord.start(), "ready\n")

    def talk(self, mode="workspace-write"):
        return Talk(self.torpord, self.folder, "scripted/scripted", mode)

    def child(self, talk, started):
        """The session that this call began, as a Talk of its own."""
        other = Talk.__new__(Talk)
        other.torpord, other.id, other.events = self.torpord, started["session"], []
        return other

    def children(self):
        return [row for row in self.torpord.get("/api/sessions?called=true")["sessions"] if "caller" in row]

    def script(self, by_task, first, last="all done"):
        """The caller's first answer is `first`; a child whose prompt has a key of `by_task` answers so; then `last`."""
        told = []

        def reply(request):
            text = text_of(request)
            for task, answer in by_task.items():
                if any(task in text_of({"messages": [message]}) and message["role"] == "user" for message in request["messages"][:2]):
                    return answer(request) if callable(answer) else answer
            told.append(request)
            return first if len(told) == 1 else Reply(last)
        self.provider.reply = reply
        return told

    def test_the_result_of_an_agent_reaches_its_caller(self):
        (self.folder / "notes.txt").write_text("milk\n")
        steps = script(Reply("I look.", [("read_file", {"path": "notes.txt"})], usage=(100, 10)), Reply("It says milk.", usage=(200, 20)))
        told = self.script({"What does notes.txt say": steps}, Reply(calls=[agent("What does notes.txt say?", name="scout")]))
        talk = self.talk()
        ended = talk.turn("ask somebody")
        self.assertEqual((ended["outcome"], ended["calls"]), ("done", 1))
        result = talk.last("tool_result")
        self.assertEqual((result["outcome"], result["output"]), ("done", "It says milk."))
        self.assertEqual(result["detail"]["usage"]["input"], 300)
        self.assertEqual(ended["usage"]["input"], 320, "what agents take counts")
        self.assertIn("It says milk.", text_of(told[1]))
        [row] = self.children()
        self.assertEqual((row["id"], row["caller"], row["title"]), (result["detail"]["session"], talk.id, "scout: a task"))
        self.assertNotIn("caller", [key for row in self.torpord.get("/api/sessions")["sessions"] for key in row])
        offered = [tool["function"]["name"] for request in self.provider.requests for tool in request["tools"] if request not in told]
        self.assertNotIn("Agent", offered)

    def test_agents_work_side_by_side(self):
        both = threading.Barrier(2)

        def meet(request):
            both.wait(SECONDS_MAX)  # neither answers before the other is asked
            return Reply("met")
        self.script({"task one": meet, "task two": meet}, Reply(calls=[agent("task one"), agent("task two")]))
        talk = self.talk()
        self.assertEqual(talk.turn("both")["outcome"], "done")
        self.assertEqual([event["output"] for event in talk.events if event["event"] == "tool_result"], ["met", "met"])

    def test_an_agent_has_no_more_rights_than_its_caller_and_asks_through_it(self):
        write = ("write_file", {"path": "made.txt", "content": "x\n"})
        self.script({"Write one": script(Reply(calls=[write]), Reply("written")), "Write two": script(Reply(calls=[write]), Reply("explored"))},
                    Reply(calls=[agent("Write one."), agent("Write two.", subagent_type="explore")]))
        talk = self.talk("read-only")
        number = talk.prompt("go")
        asked = talk.wait_for("agent_question")
        self.assertEqual((asked["title"], asked["tool"]), ("write made.txt (1 line)", "write_file"))
        self.assertNotEqual(asked["session"], talk.id)
        other = talk.wait_for("agent_question", after=asked["seq"])
        for one in asked, other:
            status, _, answer = self.torpord.call("POST", f"/api/sessions/{one['session']}/answer", {"question": one["question"], "answer": "no"})
            self.assertEqual(status, 200, answer)
        self.assertEqual(talk.wait_for("agent_decided")["answer"], "no")
        self.assertEqual(talk.wait_for("turn_ended", turn=number)["outcome"], "done")
        self.assertFalse((self.folder / "made.txt").exists())
        self.assertEqual({row["mode"] for row in self.children()}, {"read-only"})

    def test_the_agents_mode_is_never_above_its_kind(self):
        self.script({"Look": Reply("seen")}, Reply(calls=[agent("Look.", subagent_type="explore"), agent("Look.")]))
        self.talk("danger-full-access").turn("go")
        self.assertEqual(sorted(row["mode"] for row in self.children()), ["danger-full-access", "read-only"])

    def test_an_interruption_reaches_the_agents(self):
        never = threading.Event()
        self.addCleanup(never.set)
        self.script({"Wait": Reply("I begin", wait=never)}, Reply(calls=[agent("Wait.")]))
        talk = self.talk()
        number = talk.prompt("go")
        child = self.child(talk, talk.wait_for("tool_started"))
        child.wait_for("turn_started")
        self.assertTrue(talk.post("interrupt")[2]["interrupted"])
        self.assertEqual(child.wait_for("turn_ended")["outcome"], "interrupted")
        self.assertEqual(talk.wait_for("turn_ended", turn=number)["outcome"], "interrupted")
        self.assertEqual(talk.last("tool_result")["outcome"], "interrupted")

    def test_an_agent_goes_on_after_the_daemon_was_killed(self):
        go = threading.Event()
        steps = [Reply("lost", wait=threading.Event())]

        def reply(request):
            return steps.pop() if steps else Reply("found")
        self.script({"Search": reply}, Reply(calls=[agent("Search.")]))
        talk = self.talk()
        number = talk.prompt("go")
        child = self.child(talk, talk.wait_for("tool_started"))
        child.wait_for("turn_started")
        self.torpord.process.kill()
        self.torpord.process.wait()
        go.set()
        self.assertEqual(self.torpord.start(), "ready\n")
        self.assertEqual(talk.wait_for("turn_ended", turn=number)["outcome"], "done")
        self.assertEqual(talk.last("tool_result")["output"], "found")
        self.assertEqual(len(self.children()), 1, "it was begun once")

    def test_what_cannot_be_begun_is_told(self):
        self.script({}, Reply(calls=[agent("x", subagent_type="explorer"), agent("x", model="nosuch/model"), ("Agent", {"prompt": "x"})]))
        talk = self.talk()
        talk.turn("go")
        outputs = [event["output"] for event in talk.events if event["event"] == "tool_result"]
        self.assertIn("there is no kind of agent 'explorer'; did you mean explore?", outputs[0])
        self.assertIn("nosuch", outputs[1])
        self.assertIn("'description' is missing", outputs[2])
        self.assertEqual(self.children(), [])

    def test_a_failed_agent_is_a_failed_call(self):
        self.script({"Fail": Reply(status=400)}, Reply(calls=[agent("Fail.")]))
        talk = self.talk()
        self.assertEqual(talk.turn("go")["outcome"], "done")
        self.assertEqual(talk.last("tool_result")["outcome"], "failed")
        self.assertIn("scripted to fail", talk.last("tool_result")["output"])

    def test_a_session_goes_with_those_that_it_began(self):
        self.script({"Look": Reply("seen")}, Reply(calls=[agent("Look.")]))
        talk = self.talk()
        talk.turn("go")
        self.assertEqual(self.torpord.call("DELETE", f"/api/sessions/{talk.id}")[0], 200)
        self.assertEqual(self.children(), [])

    def test_run_answers_for_agents_too(self):
        steps = script(Reply(calls=[("write_file", {"path": "made.txt", "content": "x\n"})]), Reply("written"))
        self.script({"Write": steps}, Reply(calls=[agent("Write it.")]))
        done = subprocess.run([TORPOR, "run", "--model", "scripted", "--mode", "read-only", "--allow", "write_file", "go"], cwd=self.folder,
                              env=self.torpord.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS_MAX)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((self.folder / "made.txt").read_text(), "x\n")


if __name__ == "__main__":
    unittest.main()
