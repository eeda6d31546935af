"""/metrics, read as Prometheus reads it: with its own parser."""
import collections
import json
import sys
import time
import unittest

from fake import CHAT, WithFakes
from harness import CLIENTS, SECONDS_MAX, Torpord

sys.path.insert(0, str(CLIENTS))
try:
    from prometheus_client.parser import text_string_to_metric_families
    WHY_NOT = ""
except ImportError as missing:
    WHY_NOT = f"Prometheus's parser is not in {CLIENTS} ({missing}); packaging/setup/fetch-test-clients fetches it"

TYPES = {  # as the parser names them: a counter without its _total
    "torpor_requests": "counter", "torpor_tokens": "counter", "torpor_limit_hits": "counter", "torpor_failed_keys": "counter",
    "torpor_queue_seconds": "histogram", "torpor_wake_seconds": "histogram", "torpor_first_byte_seconds": "histogram",
    "torpor_request_seconds": "histogram",
    "torpor_model_state": "gauge", "torpor_model_memory_bytes": "gauge", "torpor_model_snapshot_bytes": "gauge", "torpor_model_reserved_bytes": "gauge",
    "torpor_memory_budget_bytes": "gauge", "torpor_memory_reserved_bytes": "gauge", "torpor_model_prompt_state_bytes": "gauge",
    "torpor_model_requests": "gauge", "torpor_model_waiting": "gauge", "torpor_connections": "gauge",
    "torpor_body_bytes": "gauge", "torpor_answer_bytes": "gauge",
    "torpor_http_threads": "gauge", "torpor_database_log_bytes": "gauge"}
STATES = {"stopped", "starting", "ready", "busy", "suspending", "asleep", "resuming", "failed"}
WIRES = {"chat", "completions", "responses", "embeddings", "messages", "count_tokens"}
MESSAGES = "/v1/messages"


class Scrape:
    """One look at /metrics; every look checks what must always hold."""

    def __init__(self, test, torpord):
        status, headers, text = torpord.call("GET", "/metrics")
        test.assertEqual((status, headers["Content-Type"]), (200, "text/plain; version=0.0.4; charset=utf-8"))
        self.samples, self.types = {}, {}
        for family in text_string_to_metric_families(text):
            test.assertNotIn(family.name, self.types, "a family comes once")
            test.assertTrue(family.documentation, family.name)
            self.types[family.name] = family.type
            for sample in family.samples:
                key = (sample.name, *sorted(sample.labels.items()))
                test.assertNotIn(key, self.samples)
                self.samples[key] = sample.value
        test.assertEqual(self.types, TYPES)
        self.check_histograms(test)

    def check_histograms(self, test):
        buckets = collections.defaultdict(list)
        for (name, *labels), value in self.samples.items():
            if name.endswith("_bucket"):
                labels = dict(labels)
                bound = float(labels.pop("le"))
                buckets[name.removesuffix("_bucket"), tuple(sorted(labels.items()))].append((bound, value))
        for (name, labels), found in buckets.items():
            with test.subTest(name=name, labels=labels):
                test.assertEqual([bound for bound, _ in found], sorted(bound for bound, _ in found))
                counts = [count for _, count in found]
                test.assertEqual(counts, sorted(counts), "cumulative")
                test.assertEqual(found[-1], (float("inf"), self.samples[(name + "_count", *labels)]))
                total = self.samples[(name + "_sum", *labels)]
                least = sum(low * (count - before) for (low, before), (_, count) in zip([(0, 0), *found], found))
                test.assertGreaterEqual(total, least, "each value is over the bound below it")

    def value(self, name, **labels):
        return self.samples.get((name, *sorted(labels.items())), 0)

    def labels(self, wanted):
        return {value for _, *labels in self.samples for name, value in labels if name == wanted}

    def growing(self):
        """All that may only grow."""
        return {key: value for key, value in self.samples.items() if key[0].endswith(("_total", "_bucket", "_count", "_sum"))}


@unittest.skipIf(WHY_NOT, WHY_NOT)
class MetricsTest(WithFakes, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.torpord = Torpord()
        assert cls.torpord.start() == "ready\n"

    @classmethod
    def tearDownClass(cls):
        cls.torpord.remove()

    def scrape(self):
        return Scrape(self, self.torpord)

    def scrape_until(self, is_so):
        """A request is counted when its answer has left, which its client may know a little earlier."""
        end = time.monotonic() + SECONDS_MAX
        while not is_so(found := self.scrape()):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)
        return found

    def test_a_request_shows_up_in_each_family_with_its_labels(self):
        fake = self.fake("shown")
        before = self.scrape()
        self.assertEqual(fake.ask(do="usage", usage={"prompt_tokens": 7, "completion_tokens": 3})[0], 200)
        self.assertEqual(fake.ask(MESSAGES, do="usage", usage={"input_tokens": 5, "output_tokens": 2})[0], 200)
        self.assertEqual(fake.ask(do="not-http")[0], 502)
        after = self.scrape_until(lambda found: found.value("torpor_request_seconds_count", model="shown") == 3)
        for wire, outcome in (("chat", "ok"), ("messages", "ok"), ("chat", "engine")):
            self.assertEqual(after.value("torpor_requests_total", model="shown", wire=wire, outcome=outcome), 1)
        self.assertEqual(after.value("torpor_tokens_total", model="shown", direction="input"), 12)
        self.assertEqual(after.value("torpor_tokens_total", model="shown", direction="output"), 5)
        self.assertEqual(after.value("torpor_wake_seconds_count", model="shown", tier="cold"), 1)
        self.assertGreater(after.value("torpor_wake_seconds_sum", model="shown", tier="cold"), 0)
        self.assertEqual(after.value("torpor_wake_seconds_count", model="shown", tier="frozen"), 0)
        self.assertEqual(after.value("torpor_first_byte_seconds_count", model="shown"), 2)
        self.assertEqual(after.value("torpor_queue_seconds_count", model="shown"), 3)
        self.assertGreaterEqual(after.value("torpor_request_seconds_sum", model="shown"),
                                after.value("torpor_wake_seconds_sum", model="shown", tier="cold"))
        states = [key for key in after.samples if key[0] == "torpor_model_state" and ("model", "shown") in key]
        self.assertEqual(len(states), 1)
        self.assertGreater(after.value("torpor_model_memory_bytes", model="shown"), 0)
        self.assertEqual(after.value("torpor_model_waiting", model="shown"), 0)
        self.assertGreaterEqual(after.value("torpor_connections"), 1)
        for key, value in before.growing().items():
            self.assertGreaterEqual(after.samples[key], value, key)

    def test_what_is_refused_is_counted_by_reason_and_by_limit(self):
        fake = self.fake("few")
        made = self.torpord.call("POST", "/api/keys", {"name": "few", "requests_per_minute": 1})[2]
        key = {"x-api-key": made["key"]}
        asked = lambda headers: self.torpord.call("POST", CHAT, {"model": "few"}, headers, tcp=True)[0]
        before = self.scrape()
        self.assertEqual([asked(key), asked(key), asked(None), asked({"x-api-key": "tp-wrong"})], [200, 429, 401, 401])
        self.assertEqual(fake.ask(MESSAGES, model="nobody")[0], 404)
        self.assertEqual(self.torpord.call("POST", CHAT, {"model": 1})[0], 400)
        after = self.scrape_until(lambda found: found.value("torpor_request_seconds_count", model="few") == 1)
        grew = lambda name, **labels: after.value(name, **labels) - before.value(name, **labels)
        self.assertEqual(grew("torpor_requests_total", model="few", wire="chat", outcome="ok"), 1)
        self.assertEqual(grew("torpor_requests_total", model="few", wire="chat", outcome="busy"), 1)
        self.assertEqual(grew("torpor_requests_total", model="-", wire="chat", outcome="unauthorized"), 2)
        self.assertEqual(grew("torpor_requests_total", model="-", wire="messages", outcome="not_found"), 1)
        self.assertEqual(grew("torpor_requests_total", model="-", wire="chat", outcome="invalid"), 1)
        self.assertEqual(grew("torpor_limit_hits_total", limit="requests_per_minute"), 1)
        self.assertEqual(grew("torpor_failed_keys_total"), 1)
        self.assertEqual(after.value("torpor_queue_seconds_count", model="few"), 1, "what was refused at once waited for nothing")

    def test_what_strangers_write_becomes_no_label(self):
        fake = self.fake("bounded")
        for number in range(20):
            self.assertEqual(self.torpord.call("POST", CHAT, {"model": f'made-up"\n{number}'})[0], 404)
            self.torpord.call("POST", f"/v1/made/up/{number}", {})
        self.assertEqual(fake.ask()[0], 200)
        found = self.scrape()
        configured = {model["name"] for model in self.torpord.get("/api/models")["models"]}
        self.assertLessEqual(found.labels("model") - {"-"}, configured | {"shown", "few", "thawed"})
        self.assertLessEqual(found.labels("wire"), WIRES)
        self.assertLessEqual(found.labels("state"), STATES)
        self.assertLessEqual(found.labels("tier"), {"cold", "frozen"})
        self.assertLessEqual(found.labels("direction"), {"input", "output"})
        self.assertNotIn("made", json.dumps(sorted(map(str, found.samples))))

    def test_a_thaw_is_told_from_a_cold_start(self):
        self.torpord.need_freezing(self)
        fake = self.fake("thawed", snapshot="ready")
        self.assertEqual(fake.ask()[0], 200)
        self.assertEqual(fake.order("suspend")[2]["tier"], "frozen")
        asleep = self.scrape()
        self.assertEqual(asleep.value("torpor_model_state", model="thawed", state="asleep"), 1)
        self.assertGreater(asleep.value("torpor_model_snapshot_bytes", model="thawed"), 0)
        self.assertEqual(asleep.value("torpor_model_memory_bytes", model="thawed"), 0)
        self.assertEqual(fake.ask()[0], 200)
        after = self.scrape_until(lambda found: found.value("torpor_request_seconds_count", model="thawed") == 2)
        for tier in ("cold", "frozen"):
            self.assertEqual(after.value("torpor_wake_seconds_count", model="thawed", tier=tier), 1)


if __name__ == "__main__":
    unittest.main()
