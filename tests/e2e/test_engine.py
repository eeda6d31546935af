"""How the daemon gets on with engines that die, hang, talk nonsense or leave something behind. All of them fake."""
import concurrent.futures
import json
import os
import pathlib
import signal
import socket
import tempfile
import time
import unittest

from fake import CHAT, Fake, WithFakes
from harness import DATA, SECONDS_MAX, Torpord, is_alive


class EngineTest(WithFakes, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.torpord = Torpord()
        assert cls.torpord.start() == "ready\n"
        cls.threads = concurrent.futures.ThreadPoolExecutor(8)

    @classmethod
    def tearDownClass(cls):
        cls.torpord.remove()
        cls.threads.shutdown()

    def words_of(self, answer):
        return answer["error"]["message"]

    def ask_past_backoff(self, fake):
        end = time.monotonic() + SECONDS_MAX
        while time.monotonic() < end:
            answer = fake.ask()
            if answer[0] == 200 or "the next try is in" not in self.words_of(answer[2]):
                return answer
            time.sleep(0.05)
        self.fail("the backoff does not end")

    def test_dying_while_loading_is_a_502_with_its_last_words(self):
        fake = self.fake("dies")
        fake.script("load", "die the weights are upside down")
        status, _, answer = fake.ask()
        self.assertEqual(status, 502, answer)
        self.assertEqual(answer["error"]["type"], "server_error")
        self.assertIn("exited with status 3 while it was loading", self.words_of(answer))
        self.assertIn("the weights are upside down", self.words_of(answer))
        fake.script("load", "die no room left")
        status, _, answer = fake.ask("/v1/messages")
        self.assertEqual((status, answer["type"]), (502, "error"), answer)
        self.assertEqual(answer["error"]["type"], "api_error")
        self.assertRegex(self.words_of(answer), "the next try is in .*s.*upside down")
        self.assertEqual(fake.status()["state"], "failed")
        status, _, answer = self.ask_past_backoff(fake)
        self.assertEqual(status, 502)
        self.assertIn("no room left", self.words_of(answer))
        self.assertNotIn("upside down", self.words_of(answer), "words of an earlier death")
        fake.script("load", "ok")
        self.assertEqual(self.ask_past_backoff(fake)[0], 200)
        self.assertEqual(fake.status()["last_error"], "")

    def test_hanging_while_loading_can_be_ended_and_harms_nobody_else(self):
        fake, other = self.fake("hangs"), self.fake("other")
        for order in ("stop", "suspend"):
            fake.script("load", "hang")
            asked = self.threads.submit(fake.ask)
            pid = int(fake.wait_for("loading ").split()[1])
            self.assertEqual(other.ask()[0], 200)
            status, _, answer = fake.order(order, force=True)
            self.assertEqual((status, answer["state"]), (200, "stopped"), answer)
            self.assertFalse(is_alive(pid))
            status, _, answer = asked.result(SECONDS_MAX)
            self.assertEqual(status, 503, answer)
            self.assertIn("stopped while it was loading", self.words_of(answer))
        fake.script("load", "ok")
        self.assertEqual(fake.ask()[0], 200)

    def test_a_thawed_engine_that_hangs_can_be_ended(self):
        fake = self.fake("stuck", snapshot="ready")
        self.need_freezing()
        self.assertEqual(fake.ask()[0], 200)
        self.assertEqual(fake.order("suspend")[2]["tier"], "frozen")
        fake.script("health", "hang")
        asked = self.threads.submit(fake.ask)
        fake.wait_for("health hang")
        status, _, answer = fake.order("stop", force=True)
        self.assertEqual((status, answer["state"]), (200, "stopped"), answer)
        self.assertEqual(asked.result(SECONDS_MAX)[0], 503)

    def need_freezing(self):
        self.torpord.need_freezing(self)

    def test_a_readiness_answer_is_enough_though_the_connection_stays_open(self):
        fake = self.fake("open")
        fake.script("health", "open")
        asked = self.threads.submit(fake.ask)
        fake.wait_for("health open")
        self.assertEqual(asked.result(SECONDS_MAX)[0], 200)
        self.assertEqual(fake.wait_for(""), "request open", "it was asked again")

    def test_nonsense_is_a_502_in_the_shape_of_the_wire(self):
        fake = self.fake("babbles")
        for what, says in (("not-http", "not HTTP"), ("bad-length", "Content-Length"), ("too-short", "in the middle")):
            with self.subTest(what=what):
                status, _, answer = fake.ask(do=what)
                self.assertEqual(status, 502, answer)
                self.assertEqual(answer["error"]["type"], "server_error")
                self.assertIn(says, self.words_of(answer))
                status, _, answer = fake.ask("/v1/messages", do=what)
                self.assertEqual((status, answer["type"]), (502, "error"), answer)
                self.assertEqual(fake.ask()[0], 200)
        self.assertIn(fake.ask(do="too-long")[0], (200, 502))  # depends on what came with the first bytes
        self.assertEqual(fake.ask()[0], 200)

    def test_ignoring_sigterm_helps_for_the_grace_only(self):
        fake = self.fake("stays")
        fake.script("ignore-sigterm")
        self.assertEqual(fake.ask()[0], 200)
        pid = fake.status()["pid"]
        stopped = self.threads.submit(fake.order, "stop")
        fake.wait_for("sigterm")
        self.assertEqual(stopped.result(SECONDS_MAX)[2]["state"], "stopped")
        self.assertFalse(is_alive(pid))

    def test_a_model_file_that_is_gone_is_named(self):
        weights = tempfile.NamedTemporaryFile(prefix="torpor-weights-")
        fake = self.fake("gone", path=weights.name)
        self.assertEqual(fake.ask()[0], 200)
        fake.order("stop")
        weights.close()
        for path in (CHAT, "/v1/messages"):
            status, _, answer = fake.ask(path)
            self.assertEqual(status, 502, answer)
            self.assertIn(weights.name, self.words_of(answer))

    def test_what_an_engine_leaves_behind_is_ended_with_it(self):
        fake = self.fake("parent")
        fake.script("child")
        fake.script("stray-child")
        for way in ("stop", "stop by force", "kill"):
            with self.subTest(way=way):
                asked = self.threads.submit(fake.ask)
                children = [int(fake.wait_for(name + " ").split()[1]) for name in ("child", "stray-child")]
                self.assertEqual(asked.result(SECONDS_MAX)[0], 200)
                self.assertEqual([is_alive(pid) for pid in children], [True, True])
                if way == "kill":
                    os.kill(fake.status()["pid"], signal.SIGKILL)
                    fake.wait_until(lambda status: status["state"] == "stopped")
                else:
                    fake.order("stop", force=way != "stop")
                self.assertEqual([is_alive(pid) for pid in children], [False, False])

    def test_the_dead_are_reaped_also_where_their_parents_die_after_them(self):
        """A child that is dead before its parent is, too, becomes the daemon's only then."""
        fake = self.fake("slow-family")
        fake.script("slow-family")
        for _ in range(3):
            asked = self.threads.submit(fake.ask)
            family = [int(pid) for pid in fake.wait_for("slow-family ").split()[1:]]
            self.assertEqual(asked.result(SECONDS_MAX)[0], 200)
            fake.order("stop", force=True)
            self.assertEqual([is_alive(pid) for pid in family], [False, False])

    def events_of(self, text):
        return [json.loads(line.removeprefix("data: ")) for line in text.split("\n") if line.startswith("data: {")]

    def test_a_cut_stream_ends_with_the_error_of_its_wire(self):
        fake = self.fake("cuts")
        for path in (CHAT, "/v1/completions", "/v1/responses", "/v1/messages"):
            with self.subTest(path=path):
                status, headers, text = fake.ask(path, do="cut", stream=True)
                self.assertEqual((status, headers.get_content_type()), (200, "text/event-stream"))
                first, last = self.events_of(text)
                self.assertEqual(first, {"first": True})
                if path == "/v1/responses":
                    self.assertEqual(last["type"], "error")
                    message = last["message"]
                else:
                    self.assertEqual(last.get("type"), "error" if path == "/v1/messages" else None)
                    message = last["error"]["message"]
                self.assertIn("in the middle", message)
                self.assertEqual("event: error\n" in text, path in ("/v1/responses", "/v1/messages"))
                self.assertNotIn("[DONE]", text)
                self.assertEqual(fake.ask(path)[0], 200)
        self.assertEqual(fake.status()["starts"]["cold"], 1)

    def test_a_connection_closed_between_two_requests_is_not_noticed(self):
        fake = self.fake("closes")
        for _ in range(10):
            status, _, answer = fake.ask(do="close")
            self.assertEqual(status, 200, answer)
        self.assertEqual(fake.status()["starts"]["cold"], 1)

    def test_being_killed_over_and_over_is_not_its_own_failure(self):
        fake = self.fake("victim")
        for _ in range(7):
            status, _, answer = fake.ask()
            self.assertEqual(status, 200, answer)
            os.kill(fake.status()["pid"], signal.SIGKILL)
            fake.wait_until(lambda status: status["state"] == "stopped")

    def test_crashing_over_and_over_ends_in_a_backoff(self):
        fake = self.fake("crashes")
        while fake.status()["state"] != "failed":
            status, _, answer = fake.ask(do="crash")
            self.assertEqual(status, 502, answer)
        self.assertLess(fake.status()["starts"]["cold"], 10)
        answer = fake.ask()[2]
        self.assertRegex(self.words_of(answer), "the next try is in .*again and again")

    def test_an_engine_that_leaves_while_idle_is_started_again(self):
        fake = self.fake("leaves")
        self.assertEqual(fake.ask(do="exit")[0], 200)
        fake.wait_until(lambda status: status["state"] == "stopped")
        status, headers, _ = fake.ask()
        self.assertEqual(status, 200)
        self.assertIn("desc=cold", headers["Server-Timing"])
        self.assertEqual(fake.status()["starts"]["cold"], 2)

    def test_an_engine_that_leaves_just_before_its_image_is_made_can_still_be_suspended(self):
        fake = self.fake("shy", snapshot="ready")
        self.need_freezing()
        self.assertEqual(fake.ask(do="exit-when-closed")[0], 200)
        fake.wait_until(lambda status: status["state"] == "stopped")
        self.assertEqual(fake.ask()[0], 200)
        self.assertEqual(fake.order("suspend")[2]["tier"], "frozen")

    def test_without_snapshots_a_suspended_worker_is_stopped(self):
        fake = self.fake("plain")
        self.assertEqual(fake.ask()[0], 200)
        answer = fake.order("suspend")[2]
        self.assertEqual((answer["state"], answer["tier"], answer["snapshot_bytes"]), ("stopped", None, 0))
        self.assertNotIn("plain", [row["model"] for row in self.torpord.get("/api/snapshots")["snapshots"]])
        self.assertIn("desc=cold", fake.ask()[1]["Server-Timing"])

    def test_an_alias_reaches_the_engine_as_the_name(self):
        fake = self.fake("named", aliases=["gpt-4o", "claude-x"])
        for path, alias in ((CHAT, "gpt-4o"), ("/v1/messages", "claude-x")):
            status, _, answer = self.torpord.call("POST", path, {"metadata": {"model": alias}, "model": alias})
            self.assertEqual((status, answer["model"]), (200, "named"))
            self.assertEqual(fake.wait_for("request "), "request named")
        self.assertEqual(self.torpord.get("/v1/models/gpt-4o")["id"], "named")

    def test_idle_puts_a_worker_to_sleep_and_never_does_not(self):
        never, short = self.fake("wakeful", idle="never"), self.fake("sleepy", idle="200ms")
        self.assertEqual(never.ask()[0], 200)
        self.assertEqual(short.ask()[0], 200)
        short.wait_until(lambda status: status["state"] == "stopped")
        self.assertEqual(never.status()["state"], "ready")
        self.assertEqual(short.ask()[0], 200)

    def test_a_client_that_leaves_is_told_to_the_engine_though_it_sends_nothing(self):
        fake = self.fake("left")
        for tcp in (False, True):
            key = self.torpord.call("POST", "/api/keys", {"name": f"left-{tcp}"})[2]["key"]
            connection = self.torpord.connection(tcp)
            gate = str(fake.folder / f"gate-{tcp}")
            connection.request("POST", CHAT, json.dumps({"model": "left", "do": "hold", "gate": gate, "stream": True}), {"x-api-key": key})
            fake.wait_for("holding")
            connection.close()
            fake.wait_for("gone")  # its connection was closed: an event, while it waits
            fake.wait_until(lambda status: status["requests"] == 0)

    def test_a_held_stream_keeps_its_worker_from_idling(self):
        fake = self.fake("holds", idle="100ms")
        other = self.fake("clock", idle="100ms")
        gate = str(fake.folder / "gate")
        asked = self.threads.submit(fake.ask, do="hold", gate=gate, stream=True)
        fake.wait_for("holding")
        self.assertEqual(other.ask()[0], 200)
        other.wait_until(lambda status: status["state"] == "stopped")  # by now an idle one would sleep, too
        self.assertEqual(fake.status()["state"], "busy")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"go", gate)
        self.assertIn("[DONE]", asked.result(SECONDS_MAX)[2])
        fake.wait_until(lambda status: status["state"] == "stopped")


class BrokenThawTest(unittest.TestCase):
    """With a CRIU that restores the process and then fails."""

    def setUp(self):
        self.data = tempfile.TemporaryDirectory(prefix="torpor-data-")
        criu = pathlib.Path(self.data.name, "criu/criu")
        criu.parent.mkdir()
        criu.write_text(f'#!/bin/sh\n"{DATA}/criu/criu" "$@" || exit 1\n[ "$1" != restore ]\n')
        criu.chmod(0o755)
        self.torpord = Torpord()
        self.torpord.variables["TORPOR_DATA"] = self.data.name
        self.addCleanup(self.data.cleanup)
        self.addCleanup(self.torpord.remove)
        self.assertEqual(self.torpord.start(), "ready\n")

    def test_what_a_failed_thaw_made_is_ended(self):
        self.torpord.need_freezing(self)
        fake = Fake(self.torpord, "half", snapshot="ready")
        self.addCleanup(fake.remove)
        self.assertEqual(fake.ask()[0], 200)
        pid = fake.status()["pid"]
        self.assertEqual(fake.order("suspend")[2]["tier"], "frozen")
        self.assertFalse(is_alive(pid))
        status, headers, answer = fake.ask()
        self.assertEqual(status, 200, answer)
        self.assertIn("desc=cold", headers["Server-Timing"])
        self.assertNotEqual(answer["pid"], pid)
        fake.wait_until(lambda _: not is_alive(pid))


if __name__ == "__main__":
    unittest.main()
