"""What the gateway adds to engines: limits, fairness, keep_alive, metrics and the request log."""
import concurrent.futures
import json
import pathlib
import socket
import time
import unittest

from fake import CHAT, WithFakes
from harness import SECONDS_MAX, Torpord


class GatewayTest(WithFakes, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.torpord = Torpord(more="[limits]\nrequests_per_model = 1\n")
        assert cls.torpord.start() == "ready\n"

    @classmethod
    def tearDownClass(cls):
        cls.torpord.remove()

    def key(self, name, **limits):
        status, _, made = self.torpord.call("POST", "/api/keys", {"name": name, **limits})
        self.assertEqual(status, 201, made)
        self.addCleanup(self.torpord.call, "DELETE", "/api/keys/" + name)
        return {"x-api-key": made["key"]}

    def ask(self, model, key, path=CHAT, **body):
        return self.torpord.call("POST", path, {"model": model, **body}, key, tcp=True)

    def test_a_key_asks_so_often_a_minute(self):
        self.fake("minute")
        key = self.key("often", requests_per_minute=2)
        status, headers, _ = self.ask("minute", key)
        self.assertEqual((status, headers["x-ratelimit-remaining-requests"]), (200, "1"))
        self.assertEqual(headers["anthropic-ratelimit-requests-limit"], "2")
        self.assertEqual(self.ask("minute", key)[0], 200)
        status, headers, answer = self.ask("minute", key)
        self.assertEqual(status, 429)
        self.assertGreater(int(headers["Retry-After"]), 1)
        self.assertIn("2 times a minute", answer["error"]["message"])
        self.assertEqual(self.torpord.call("GET", "/v1/models", None, key, tcp=True)[0], 200)

    def test_a_key_for_some_models_sees_and_asks_only_those(self):
        self.fake("mine", aliases=["also-mine"])
        self.fake("theirs")
        key = self.key("guest", models=["also-mine"])
        self.assertEqual(self.ask("mine", key)[0], 200)
        status, _, answer = self.ask("theirs", key, "/v1/messages")
        self.assertEqual((status, answer["error"]["type"]), (403, "permission_error"))
        listed = self.torpord.call("GET", "/v1/models", None, key, tcp=True)[2]["data"]
        self.assertEqual([model["id"] for model in listed], ["mine"])
        self.assertEqual(self.torpord.call("GET", "/v1/models/theirs", None, key, tcp=True)[0], 403)
        for path in (CHAT, "/v1/messages"):
            status, _, answer = self.ask("their", key, path)
            self.assertEqual(status, 404)
            self.assertEqual(answer["error"]["message"], "there is no model 'their'; there is mine")
            self.assertRegex(self.torpord.call("POST", path, {"model": "their"})[2]["error"]["message"],
                             "did you mean theirs\\? There are .*mine.*, theirs$")
        self.assertIn("did you mean also-mine? There is mine", self.ask("also-min", key)[2]["error"]["message"])
        self.assertEqual(self.torpord.call("GET", "/v1/models/their", None, key, tcp=True)[2]["error"]["message"],
                         "there is no model 'their'; there is mine")
        self.assertEqual(self.torpord.call("POST", "/api/keys", {"name": "x", "models": ["nobody"]})[0], 404)

    def test_one_caller_with_many_requests_does_not_starve_another(self):
        self.fake("fair")
        many, few = self.key("many"), self.key("few")
        self.assertEqual(self.ask("fair", few)[0], 200)  # awake
        with concurrent.futures.ThreadPoolExecutor(41) as threads:
            gate = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            path = str(pathlib.Path(self.torpord.folder) / "gate.sock")
            holder = threads.submit(self.ask, "fair", few, CHAT, do="hold", gate=path, stream=True)
            self.wait(lambda: self.torpord.get("/api/models/fair")["requests"] == 1)
            asked = [threads.submit(self.ask, "fair", many) for _ in range(30)]
            self.wait(lambda: self.torpord.get("/api/models/fair")["waiting"] == 30)
            asked.append(threads.submit(self.ask, "fair", few))
            self.wait(lambda: self.torpord.get("/api/models/fair")["waiting"] == 31)
            self.wait(lambda: self.opens(gate, path))
            self.assertEqual({one.result(SECONDS_MAX)[0] for one in asked}, {200})
            self.assertEqual(holder.result(SECONDS_MAX)[0], 200)
            gate.close()
        # By the daemon's own log: threads of a busy machine hear of their answers in any order.
        self.wait(lambda: self.torpord.get("/api/requests").count('"fair"') == 33)
        keys = [row["key"] for row in map(json.loads, self.torpord.get("/api/requests").splitlines()) if row["model"] == "fair"]
        self.assertLess(keys[2:].index("few"), 3, keys)

    def opens(self, gate, path):
        try:
            gate.sendto(b"go", path)
            return True
        except OSError:
            return False  # the engine has not bound it yet

    def wait(self, is_so):
        end = time.monotonic() + SECONDS_MAX
        while not is_so():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)

    def test_keep_alive_of_a_request_counts_until_the_worker_ends(self):
        fake = self.fake("kept", idle="10m")
        self.assertEqual(fake.ask()[0], 200)
        self.assertEqual(fake.status()["state"], "ready")
        self.assertEqual(fake.ask(keep_alive=0)[0], 200)
        fake.wait_until(lambda status: status["state"] == "stopped")
        self.assertEqual(fake.ask(keep_alive="100ms")[0], 200)
        fake.wait_until(lambda status: status["state"] == "stopped")
        self.assertEqual(fake.ask(keep_alive="whenever")[0], 400)

    def test_a_stream_that_waits_for_a_wake_up_is_told_so(self):
        fake = self.fake("slow")
        fake.script("load", "hang")
        for path, ping in ((CHAT, b": slow is waking up"), ("/v1/messages", b"event: ping")):
            connection = self.torpord.connection()
            connection.request("POST", path, json.dumps({"model": "slow", "stream": True}))
            answer = connection.getresponse()
            self.assertEqual((answer.status, answer.headers.get_content_type()), (200, "text/event-stream"))
            told = b""
            while ping not in told:
                told += answer.read1()
            fake.order("stop", force=True)
            rest = answer.read()
            self.assertIn(b'"error"', rest)  # an event, since the stream had begun
            connection.close()

    def test_metrics_and_the_request_log_count_and_tell_no_content(self):
        fake = self.fake("counted")
        self.assertEqual(fake.ask(messages=[{"role": "user", "content": "a secret thing"}])[0], 200)
        self.assertEqual(fake.ask(do="not-http")[0], 502)
        # A request is counted once its answer is sent, which its client may know first.
        self.wait(lambda: 'model="counted",wire="chat",outcome="engine"} 1' in self.torpord.call("GET", "/metrics")[2])
        status, headers, text = self.torpord.call("GET", "/metrics")
        self.assertEqual((status, headers.get_content_type()), (200, "text/plain"))
        for line in text.splitlines():
            self.assertRegex(line, r'^(# (HELP|TYPE) \w+ .+|\w+(\{(\w+="[^"]*",?)*\})? [0-9.e+-]+)$')
        self.assertIn('torpor_requests_total{model="counted",wire="chat",outcome="ok"} 1', text)
        self.assertIn('torpor_requests_total{model="counted",wire="chat",outcome="engine"} 1', text)
        self.assertRegex(text, r'torpor_model_state\{model="counted",state="\w+"\} 1')
        self.wait(lambda: self.torpord.get("/api/requests").count('"counted"') == 2)  # it is written a few times a second
        log = self.torpord.get("/api/requests")
        rows = [row for row in map(json.loads, log.splitlines()) if row["model"] == "counted"]
        self.assertEqual([row["status"] for row in rows], [200, 502])
        self.assertEqual(rows[0]["key"], "owner")
        self.assertNotIn("secret thing", log)


if __name__ == "__main__":
    unittest.main()
