"""The daemon is killed again and again while sessions run turns; each goes on as if nothing had been.

The commands that the model runs leave a line each in a file outside of Torpor, which tells what really happened and how often.
TORPOR_CHAOS_SECONDS makes it longer, TORPOR_CHAOS_SEED another one. A seed decides what is asked and when the daemon is killed;
where exactly that hits is up to the machine."""
import collections
import http.client
import os
import pathlib
import random
import re
import shutil
import tempfile
import threading
import time
import unittest

from harness import Torpord
from scripted_provider import Reply, ScriptedProvider
from talk import Talk
from test_turns import provider_config

SECONDS = float(os.environ.get("TORPOR_CHAOS_SECONDS", "40"))
SEED = int(os.environ.get("TORPOR_CHAOS_SEED", "1"))
SESSIONS = 3


def plan_of(name):
    """What the model does in the turn of this name: for each answer its calls, (tool, seconds)."""
    dice = random.Random(f"{SEED} {name}")
    return [[(dice.choice(["bash", "bash", "read_file"]), dice.choice([0, 0, 0.02, 0.1])) for _ in range(dice.choice([1, 1, 2, 4]))]
            for _ in range(dice.choice([0, 1, 1, 2, 3]))]


class SessionChaosTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="torpor-e2e-chaos-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.effects = self.folder / "effects"
        self.effects.touch()
        (self.folder / "project").mkdir()
        self.provider = ScriptedProvider(self.reply)
        self.addCleanup(self.provider.close)
        self.torpord = Torpord(more=provider_config(self.provider.url))
        self.addCleanup(self.torpord.remove)
        self.assertEqual(self.torpord.start(), "ready\n")
        self.is_over = threading.Event()
        self.errors = []
        self.kills = 0
        self.ended = collections.defaultdict(set)  # turns, by session
        self.up = threading.Lock()  # held while there is no daemon

    def reply(self, request):
        """By the conversation alone, as a model: so an answer that was lost is given again."""
        messages = request["messages"]
        prompt = re.compile(r"turn (\d+-\d+-\d+|last)\b")
        at = max(i for i, message in enumerate(messages) if message["role"] == "user" and prompt.search(str(message["content"])))
        name = prompt.findall(str(messages[at]["content"]))[-1]
        answers = sum(message["role"] == "assistant" for message in messages[at:])
        plan = plan_of(name) if name != "last" else []
        if answers >= len(plan):
            return Reply(f"turn {name} is over")
        calls = []
        for i, (tool, seconds) in enumerate(plan[answers]):
            token = f"{name}.{answers}.{i}"
            command = f"echo {token} >> {self.effects}" + (f"; sleep {seconds}" if seconds else "")
            calls.append(("bash", {"command": command}, f"c{token}") if tool == "bash" else ("read_file", {"path": f"{token}"}, f"c{token}"))
        return Reply("Next.", calls)

    def kill_again_and_again(self):
        dice = random.Random(SEED)
        while not self.is_over.wait(dice.choice([0.05, 0.1, 0.2, 0.4]) + dice.random() * 0.3):
            with self.up:
                self.torpord.process.kill()
                self.torpord.process.wait()
                self.kills += 1
                self.assertEqual(self.torpord.start(), "ready\n")

    def insist(self, ask):
        """Asks until there is an answer: the status and body."""
        while True:
            try:
                status, _, body = ask()
                if status != 503:
                    return status, body
            except (OSError, http.client.HTTPException):
                with self.up:
                    pass

    def send(self, talk, name, acknowledged):
        """A prompt, said again until it is acknowledged; its number."""
        attempt = 0
        while True:
            attempt += 1
            try:
                status, _, answer = talk.post("prompt", {"text": f"turn {name}-{attempt}"})
            except (OSError, http.client.HTTPException):
                with self.up:
                    pass
                continue  # it may be there, or not
            if status != 503:
                self.assertEqual(status, 202, answer)
                acknowledged[answer["event"]] = f"turn {name}-{attempt}"
                return answer["event"]

    def talk_until(self, end, talk, number, turns, acknowledged):
        """Prompts, sometimes two at once, answers questions, interrupts now and then, and waits for each turn's end."""
        dice = random.Random(f"{SEED} {number}")
        while time.monotonic() < end:
            sent = []
            for _ in range(dice.choice([1, 1, 1, 2])):
                sent.append(self.send(talk, f"{number}-{turns[number]}", acknowledged))
                turns[number] += 1
            if dice.random() < 0.1:
                time.sleep(dice.random() * 0.1)
                self.assertEqual(self.insist(lambda: talk.post("interrupt"))[0], 200)
            for turn in sent:
                self.follow(talk, turn, dice)

    def follow(self, talk, turn, dice):
        """Until this turn has ended. Those of prompts whose acknowledgement was lost end on the way."""
        while turn not in self.ended[talk.id]:
            seen = len(talk.events)
            try:
                talk.read(lambda event: event["event"] in ("question", "turn_ended"))
            except (OSError, http.client.HTTPException):
                with self.up:
                    pass
            for event in talk.events[seen:]:
                if event["event"] == "question":
                    answer = dice.choice(["once", "once", "no"])
                    status, body = self.insist(lambda: talk.answer(event["seq"], answer))
                    self.assertIn(status, (200, 409), body)  # 409: it is there already, only its acknowledgement was lost
                elif event["event"] == "turn_ended":
                    if event["outcome"] == "failed":
                        self.assertEqual(event.get("limit"), "turn_resumes", event)
                    self.ended[talk.id].add(event["turn"])
            if len(talk.events) == seen:
                time.sleep(0.005)

    def test_sessions_go_on_after_kills(self):
        modes = ["danger-full-access", "workspace-write", "danger-full-access"]
        talks = [Talk(self.torpord, self.folder / "project", "scripted/scripted", modes[i % 3]) for i in range(SESSIONS)]
        turns, acknowledged = [0] * SESSIONS, [{} for _ in talks]
        end = time.monotonic() + SECONDS

        def client(number):
            try:
                self.talk_until(end, talks[number], number, turns, acknowledged[number])
            except BaseException as error:  # a thread's failure is the test's
                self.errors.append(error)
        clients = [threading.Thread(target=client, args=(number,)) for number in range(SESSIONS)]
        killer = threading.Thread(target=self.kill_again_and_again)
        for thread in [*clients, killer]:
            thread.start()
        for thread in clients:
            thread.join()
        self.is_over.set()
        killer.join()
        if self.errors:
            raise self.errors[0]
        happened = collections.Counter(self.effects.read_text().split())
        outcomes = collections.Counter()
        for talk, acks in zip(talks, acknowledged):
            outcomes += self.check(talk, acks, happened)
        print(f"measured: seed {SEED}: {sum(turns)} turns, {self.kills} kills, outcomes {dict(outcomes)}, "
              f"{sum(count for count in happened.values())} effects")
        self.assertGreater(self.kills, 0)
        for talk in talks:  # and it still works
            self.assertEqual(talk.turn("turn last")["outcome"], "done")

    def check(self, talk, acknowledged, happened):
        seen = list(talk.events)
        talk.events = []
        log = talk.all()
        self.assertEqual(log[:len(seen)], seen, "an event that was told is not what is stored")
        self.assertEqual([event["seq"] for event in log], list(range(1, len(log) + 1)))
        for number, text in acknowledged.items():
            self.assertEqual((log[number - 1]["event"], log[number - 1]["text"]), ("prompt", text))
        whole = {(event["turn"], event["answer"]) for event in log if event["event"] == "answered"}
        calls = [event for event in log if event["event"] == "tool_call" and (event["turn"], event["answer"]) in whole]
        results = collections.defaultdict(list)
        started = collections.Counter()
        for event in log:
            if event["event"] == "tool_result":
                results[event["turn"], event["call"]].append(event)
            if event["event"] == "tool_started":
                started[event["turn"], event["call"]] += 1
        outcomes = collections.Counter()
        for call in calls:
            key = (call["turn"], call["call"])
            self.assertEqual(len(results[key]), 1, call)
            self.assertLessEqual(started[key], 1, call)
            result = results[key][0]
            outcomes[result["outcome"]] += 1
            if call["tool"] != "bash":
                continue
            times = happened[call["input"]["command"].split()[1]]
            bounds = {"done": (1, 1), "interrupted": (0, 1), "denied": (0, 0), "skipped": (0, 0)}[result["outcome"]]
            self.assertTrue(bounds[0] <= times <= bounds[1], (times, call, result))
            if result["outcome"] == "interrupted":
                self.assertRegex(result["output"], "may have happened|it was interrupted")
        ended = collections.Counter(event["outcome"] for event in log if event["event"] == "turn_ended")
        began = {event["turn"] for event in log if event["event"] == "turn_started"}
        self.assertEqual(began, {event["turn"] for event in log if event["event"] == "turn_ended"})
        return outcomes + collections.Counter({f"turns {outcome}": count for outcome, count in ended.items()})


if __name__ == "__main__":
    unittest.main()
