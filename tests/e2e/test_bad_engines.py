"""What engines do wrong: the client hears of it in its wire's words, other models go on, nothing is kept."""
import concurrent.futures
import json
import unittest

from fake import CHAT, Fake
from harness import SECONDS_MAX, Torpord, memory_bound, pss_of

MESSAGES = "/v1/messages"
LIMITS = """
[limits]
send_stall = "1s"
first_byte = "1s"
stall = "1s"
stream_time = "3s"
"""
# A whole answer may take 64 MiB, and the string that it is collected in up to twice that.
GROWTH_MAX = memory_bound(200 * 1024 * 1024)


class BadEngineTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.torpord = Torpord(more=LIMITS)
        assert cls.torpord.start() == "ready\n"
        cls.bad, cls.good = Fake(cls.torpord, "bad"), Fake(cls.torpord, "good")
        cls.threads = concurrent.futures.ThreadPoolExecutor(8)
        assert cls.good.ask()[0] == cls.bad.ask()[0] == 200  # awake

    @classmethod
    def tearDownClass(cls):
        cls.torpord.remove()
        cls.threads.shutdown()

    def tearDown(self):
        for fake in (self.bad, self.good):
            fake.wait_until(lambda status: status["requests"] == 0)
            status, _, answer = fake.ask()
            self.assertEqual((status, answer.get("model")), (200, fake.name), answer)
        self.torpord.wait_until(lambda: self.torpord.gauge("torpor_body_bytes") == 0, "bodies that are let go")
        self.torpord.wait_until(lambda: self.torpord.gauge("torpor_answer_bytes") == 0, "answers that are let go")

    def ask(self, what, path=CHAT, **body):
        """The bad model's answer. Meanwhile the good one is asked, too, and answers."""
        asked = self.threads.submit(self.bad.ask, path, do=what, **body)
        self.bad.wait_for("request bad")
        for _ in range(3):
            status, _, answer = self.good.ask()
            self.assertEqual((status, answer["model"]), (200, "good"), what)
        return asked.result(SECONDS_MAX)

    def message_of(self, error, path):
        self.assertEqual(error.get("type"), "error" if path == MESSAGES else None, error)
        return error["error"]["message"]

    def fails(self, status, what, says="", **body):
        """An error with this status, on both wires."""
        for path in (CHAT, MESSAGES):
            with self.subTest(what=what, path=path):
                got, _, answer = self.ask(what, path, **body)
                self.assertEqual(got, status, answer)
                self.assertIn(says, self.message_of(answer, path))

    def breaks(self, what, says=""):
        """A stream whose last event is an error, on both wires."""
        for path in (CHAT, MESSAGES):
            with self.subTest(what=what, path=path):
                status, headers, text = self.ask(what, path, stream=True)
                self.assertEqual((status, headers.get_content_type()), (200, "text/event-stream"), text)
                self.assertEqual(path == MESSAGES, "event: error\n" in text)
                last = [line for line in text.splitlines() if line.startswith("data: ")][-1]
                self.assertIn(says, self.message_of(json.loads(last[6:]), path))

    def test_no_answer_has_deadlines(self):
        self.fails(504, "no-head", "did not answer within 1s")
        self.fails(504, "half-a-head", "did not answer within 1s")
        self.fails(504, "dripping-head", "did not answer within 1s")
        self.fails(504, "no-body", "did not go on within 1s")
        self.breaks("no-tokens", "did not go on within 1s")

    def test_an_endless_answer_has_an_end(self):
        self.breaks("endless-tokens", "did not end within 3s")
        self.breaks("dripping-body", "did not end within 3s")
        before = pss_of(self.torpord.process.pid)
        status, _, text = self.ask("endless-event", stream=True)
        self.assertIn("did not end within 3s", text[-500:])
        self.assertLess(pss_of(self.torpord.process.pid) - before, GROWTH_MAX)

    def test_a_client_that_leaves_ends_endless_tokens(self):
        for path in (CHAT, MESSAGES):
            connection = self.torpord.connection()
            connection.request("POST", path, json.dumps({"model": "bad", "stream": True, "do": "endless-tokens"}))
            answer = connection.getresponse()
            self.assertIn(b"token", answer.read1())
            self.assertEqual(self.bad.status()["requests"], 1)
            answer.close()
            connection.close()
            self.bad.wait_for("gone")  # the engine's connection was closed

    def test_cut_streams(self):
        self.breaks("cut-in-an-event", "in the middle")
        self.breaks("cut-in-a-chunk", "in the middle")
        self.breaks("large-chunk", "in the middle")
        self.breaks("huge-chunk", "chunk size")
        self.breaks("chunk-line", "too long")
        self.breaks("trailers", "without end")
        self.fails(502, "too-short", "in the middle")

    def test_answers_of_another_kind(self):
        self.fails(502, "stream-for-json", "an event stream where a whole answer")
        self.fails(502, "json-for-stream", "a whole answer where an event stream", stream=True)
        self.fails(502, "html", "text/html, not JSON")
        self.fails(502, "html", "text/html, not JSON", stream=True)
        self.fails(400, "html-error", "its status is 404")
        self.fails(502, "gzip", "Content-Encoding")
        for path in (CHAT, MESSAGES):
            self.assertEqual(self.ask("continues", path)[0], 200)

    def test_heads_without_end(self):
        before = pss_of(self.torpord.process.pid)
        for what in ("head-bomb", "head-line", "continues-for-ever"):
            self.fails(502, what, "not HTTP")
        self.assertEqual(self.ask("head-lines")[0], 200)
        self.assertLess(pss_of(self.torpord.process.pid) - before, GROWTH_MAX)

    def test_a_whole_answer_has_a_limit(self):
        before = pss_of(self.torpord.process.pid)
        for what in ("gigabytes", "gigabytes-in-chunks", "gigabytes-to-the-end"):
            self.fails(502, what, "larger than 67108864 bytes")
        self.assertLess(pss_of(self.torpord.process.pid) - before, GROWTH_MAX)
        self.assertIn('torpor_limit_hits_total{limit="answer_bytes"} 6\n', self.torpord.get("/metrics"))

    def test_death_after_the_head(self):
        mortal = Fake(self.torpord, "mortal")
        self.addCleanup(mortal.remove)
        for path in (CHAT, MESSAGES):
            status, _, text = mortal.ask(path, do="death", stream=True)
            self.assertEqual(status, 200)
            self.assertIn("in the middle", text)
            mortal.wait_until(lambda status: status["state"] == "stopped")
            self.assertEqual(mortal.ask()[0], 200)
        status, _, answer = mortal.ask(MESSAGES, do="death-in-json")
        self.assertEqual((status, answer["type"]), (502, "error"))
        mortal.wait_until(lambda status: status["state"] == "stopped")

    def early(self, what):
        """A request that is larger than the socket's buffer; what the engine does comes in a header."""
        body = {"model": "bad", "pad": "x" * 3_000_000}
        return self.threads.submit(self.torpord.call, "POST", CHAT, body, {"OpenAI-Beta": what})

    def test_an_engine_that_does_not_read_the_request(self):
        asked = self.early("deaf")
        self.bad.wait_for("early deaf")
        self.assertEqual(self.good.ask()[0], 200)
        self.assertEqual(self.torpord.gauge("torpor_body_bytes") > 3_000_000, True)
        status, _, answer = asked.result(SECONDS_MAX)
        self.assertEqual(status, 504)
        self.assertIn("did not take the request within 1s", answer["error"]["message"])

    def test_an_engine_that_answers_before_it_has_read_the_request(self):
        for what in ("early", "early-open") * 3:
            status, _, answer = self.early(what).result(SECONDS_MAX)
            self.assertEqual((status, answer), (200, {"early": True}))
            status, _, answer = self.bad.ask()
            self.assertEqual((status, answer.get("model")), (200, "bad"), answer)  # not what was left of the other
            status, _, answer = self.early("early-refusal").result(SECONDS_MAX)
            self.assertEqual((status, answer), (413, {"error": "too long"}))
        status, _, answer = self.early("early-close").result(SECONDS_MAX)
        self.assertEqual(status, 502, answer)


if __name__ == "__main__":
    unittest.main()
