"""What an engine made of a long prompt outlives its process and its slot, and nothing of it is taken for another's."""
import os
import pathlib
import random
import shutil
import signal
import threading
import time
import unittest

from fake import WithFakes
from harness import MODEL, SECONDS_MAX, Torpord

WORDS = ("apple river stone cloud train garden window music paper silver yellow engine mountain coffee winter summer bridge pencil "
         "orange market").split()
ANTHROPIC = "/v1/messages"


def opening(tokens, seed):
    """One question of about so many tokens, and unlike that of any other seed."""
    dice = random.Random(seed)
    return [{"role": "user", "content": " ".join(dice.choice(WORDS) for _ in range(tokens)) + ". Which of these words is a colour?"}]


class Talk:
    """One conversation with a model; each turn sends all of it again."""

    def __init__(self, torpord, model, tokens, seed):
        self.torpord, self.model = torpord, model
        self.messages = opening(tokens, seed)

    def ask(self, path="/v1/chat/completions", **keys):
        """The answer's text, and how many tokens of the prompt had to be read."""
        status, _, answer = self.torpord.call("POST", path, {
            "model": self.model, "messages": self.messages, "max_tokens": 8, "temperature": 0, **keys})
        assert status == 200, answer
        usage = answer["usage"]
        if path == ANTHROPIC:
            return "".join(part.get("text", "") for part in answer["content"]), usage["input_tokens"]
        return answer["choices"][0]["message"]["content"], usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]

    def go_on(self, said):
        self.messages = [*self.messages, {"role": "assistant", "content": said}, {"role": "user", "content": "Name another one."}]


@unittest.skipUnless(MODEL.exists(), "the small model is not there; packaging/setup/fetch-model fetches it")
class PromptTest(unittest.TestCase):
    # All that is read anew of a conversation that was given back: its last answer's last token, and what was said since.
    NEW = 40

    def start(self, more="", **keys):
        self.torpord = Torpord(more=more)
        self.addCleanup(self.torpord.remove)
        self.assertEqual(self.torpord.start(), "ready\n")
        self.add("smol", **keys)

    def add(self, name, **keys):
        keys["args"] = ["--ctx-size", "4096", *keys.get("args", [])]
        self.torpord.add_model(name, **{"idle": "never", **keys})

    def suspend(self, model="smol", **body):
        status, _, answer = self.torpord.call("POST", f"/api/models/{model}/suspend", body or None)
        self.assertEqual(status, 200, answer)
        self.assertEqual(answer["pid"], 0)
        return answer

    def suspend_without_image(self):
        """So that no image can hold what the disk is to be asked for."""
        self.suspend()
        self.torpord.call("DELETE", "/api/snapshots/smol")
        self.assertEqual(self.torpord.get("/api/models/smol")["state"], "stopped")

    def folder(self, model="smol"):
        return pathlib.Path(self.torpord.folder, "cache/prompts", model)

    def states(self, model="smol"):
        return sorted(self.folder(model).glob("*.state"))

    def test_conversations_go_on_after_a_freeze_as_if_there_had_been_none(self):
        self.start(args=["--parallel", "2", "--kv-unified"])
        self.torpord.need_freezing(self)
        # The image is to know nothing of what is said later.
        self.torpord.call("POST", "/api/models/smol/resume")
        self.torpord.wait_until(lambda: self.torpord.get("/api/models/smol")["snapshot_bytes"] > 0, "an image")
        one, two = Talk(self.torpord, "smol", 1000, 1), Talk(self.torpord, "smol", 500, 2)
        for talk in (one, two):
            talk.go_on(talk.ask()[0])
        undisturbed = [talk.ask() for talk in (one, two)]
        self.assertLess(max(read for _, read in undisturbed), self.NEW)
        self.assertEqual(self.suspend()["tier"], "frozen")
        self.assertEqual(len(self.states()), 2)
        for file in self.folder().iterdir():
            self.assertEqual(file.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.folder().stat().st_mode & 0o777, 0o700)
        self.assertEqual(self.torpord.get("/api/models/smol")["prompt_state_bytes"], sum(file.stat().st_size for file in self.states()))
        for talk, (said, _) in zip((two, one), reversed(undisturbed)):
            again, read = talk.ask()
            self.assertEqual(again, said)
            self.assertLess(read, self.NEW)
        # On the other wire, which cannot say which slot it wants; and with short questions between.
        self.suspend()
        for talk in (one, two):
            self.torpord.chat("smol")
            self.torpord.call("POST", ANTHROPIC, {"model": "smol", "max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}]})
            self.assertLess(talk.ask(ANTHROPIC)[1], self.NEW)
        # The next daemon has them, too.
        self.suspend()
        self.torpord.stop()
        self.torpord.start()
        again, read = one.ask()
        self.assertEqual(again, undisturbed[0][0])
        self.assertLess(read, self.NEW)
        # With the model it all goes.
        self.torpord.call("POST", "/api/models/smol/stop")
        self.assertFalse(self.folder().exists())

    def test_a_conversation_that_lost_its_slot_comes_back_from_disk(self):
        self.start(args=["--parallel", "1", "--cache-ram", "0"])  # so that the engine keeps no copy itself
        one, two = Talk(self.torpord, "smol", 500, 3), Talk(self.torpord, "smol", 500, 4)
        one.go_on(one.ask()[0])
        two.go_on(two.ask()[0])
        said, read = one.ask()
        self.assertLess(read, self.NEW)
        self.assertLess(two.ask()[1], self.NEW)
        self.assertEqual(one.ask(stream=False)[0], said)
        # A client's own choice of a slot is not contradicted.
        self.assertLess(one.ask(id_slot=0)[1], self.NEW)
        # Over a cold start.
        self.suspend_without_image()
        again, read = one.ask()
        self.assertEqual(again, said)
        self.assertLess(read, self.NEW)
        self.assertIn("given back", self.torpord.log())

    def test_slots_that_share_a_context_do_not_cost_each_other_their_prompts(self):
        self.start(args=["--ctx-size", "1536"])
        talks = [Talk(self.torpord, "smol", 500, seed) for seed in (5, 6, 7)]
        for talk in talks:
            talk.go_on(talk.ask()[0])
        for talk in talks:
            self.assertLess(talk.ask()[1], self.NEW)

    def test_other_arguments_make_it_void_and_damage_is_found(self):
        self.start()
        talk = Talk(self.torpord, "smol", 500, 8)
        said, whole = talk.ask()
        self.suspend_without_image()
        state, = self.states()
        # Another model's, of other arguments.
        self.add("changed", args=["--cache-type-k", "q8_0"])
        shutil.copytree(self.folder(), self.folder("changed"), dirs_exist_ok=True)
        self.torpord.stop()
        self.torpord.start()
        other = Talk(self.torpord, "changed", 500, 8)
        self.assertEqual(other.ask()[1], whole)
        self.assertIn("the engine's arguments changed", self.torpord.log())
        with open(state, "r+b") as stream:
            stream.seek(state.stat().st_size // 2)
            byte = stream.read(1)[0]
            stream.seek(-1, os.SEEK_CUR)
            stream.write(bytes([byte ^ 1]))
        self.assertEqual(talk.ask(), (said, whole))
        self.assertIn("it is not as it was written", self.torpord.log())
        self.assertEqual(self.states(), [])
        # Written anew, and then wrong in its name only.
        self.suspend_without_image()
        state, = self.states()
        state.rename(state.with_name("elsewhere.state"))
        self.assertEqual(talk.ask(), (said, whole))

    def test_the_budget_holds_for_all_and_off_is_off(self):
        self.start(more='[pool]\nprompt_state = "20MB"\n')
        self.add("tiny")
        talks = [Talk(self.torpord, name, 500, 9) for name in ("smol", "tiny")]
        for talk in talks:
            talk.ask()
            self.suspend(talk.model)
        self.assertEqual((len(self.states("smol")), len(self.states("tiny"))), (0, 1))
        self.add("silent", snapshot="off")
        silent = Talk(self.torpord, "silent", 500, 9)
        silent.ask()
        self.suspend("silent")
        self.assertFalse(self.folder("silent").exists())
        self.torpord.stop()
        pathlib.Path(self.torpord.folder, "config.toml").write_text('[http]\ntcp = "off"\n[pool]\nprompt_state = "off"\n')
        self.torpord.start()
        self.assertGreater(talks[1].ask()[1], 500)
        self.assertNotIn("given back", self.torpord.log())

    def test_a_daemon_killed_while_it_saves_leaves_nothing_half(self):
        self.start()
        talk = Talk(self.torpord, "smol", 1000, 10)
        said, whole = talk.ask()

        def suspend():
            try:
                self.torpord.call("POST", "/api/models/smol/suspend")
            except OSError:
                pass  # killed

        asked = threading.Thread(target=suspend)
        asked.start()
        self.torpord.wait_until(self.states, "a state's file")
        self.torpord.process.send_signal(signal.SIGKILL)
        self.torpord.process.wait(SECONDS_MAX)
        asked.join()
        for record in self.folder().glob("*.record"):  # it may have been quick
            record.unlink()
        self.torpord.start()
        self.torpord.wait_until(lambda: not self.states(), "the end of what was half written")
        self.assertEqual(talk.ask()[0], said)
        self.suspend()
        self.assertEqual(len(self.states()), 1)
        again, read = talk.ask()
        self.assertEqual(again, said)
        self.assertLess(read, self.NEW)
        self.assertLess(read, whole)


class WithStateTest(WithFakes, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.torpord = Torpord()
        assert cls.torpord.start() == "ready\n"

    @classmethod
    def tearDownClass(cls):
        cls.torpord.remove()

    def snapshot(self, name):
        return next(entry for entry in self.torpord.get("/api/snapshots")["snapshots"] if entry["model"] == name)

    def count(self, fake):
        status, _, answer = fake.ask()
        self.assertEqual(status, 200, answer)
        return answer["count"]

    def suspend(self, fake, **body):
        return self.torpord.call("POST", f"/api/models/{fake.name}/suspend", body or None)

    def test_what_an_engine_without_slots_has_in_memory_is_kept_when_asked_for(self):
        fake = self.fake("counts", snapshot="ready")
        self.torpord.need_freezing(self)
        self.assertEqual([self.count(fake) for _ in range(3)], [1, 2, 3])
        fake.wait_until(lambda status: status["snapshot_bytes"] > 0)
        made = self.count(fake)
        self.assertEqual(self.suspend(fake)[0], 200)
        self.assertLessEqual(self.count(fake), made)  # as the image has it
        self.assertFalse(self.snapshot("counts")["with_state"])
        last = max(self.count(fake) for _ in range(5))
        status, _, answer = self.suspend(fake, with_state=True)
        self.assertEqual((status, answer["tier"]), (200, "frozen"), answer)
        self.assertTrue(self.snapshot("counts")["with_state"])
        self.assertTrue(self.snapshot("counts")["valid"])
        self.assertEqual(self.count(fake), last + 1)
        # Until it is asked for again, each wake-up is from there.
        self.suspend(fake)
        self.assertEqual(self.count(fake), last + 1)
        self.assertEqual(self.suspend(fake, with_state=True)[0], 200)
        self.assertEqual(self.count(fake), last + 2)

    def test_what_cannot_be_kept_is_said_and_the_worker_goes_on(self):
        fake = self.fake("cannot")
        self.assertEqual(self.count(fake), 1)
        status, _, answer = self.suspend(fake, with_state=True)
        self.assertEqual(status, 400, answer)
        self.assertIn('snapshot = "off"', answer["error"]["message"])
        self.assertEqual(self.count(fake), 2)
        self.assertEqual(self.suspend(fake, with_state="yes")[0], 400)
        self.assertEqual(self.suspend(fake, with_slate=True)[0], 400)


if __name__ == "__main__":
    unittest.main()
