"""A real llama-server with a real model: answers, freezes, thaws, is killed, answers again."""
import json
import os
import pathlib
import signal
import threading
import time
import unittest

from harness import MODEL, Torpord, is_alive


@unittest.skipUnless(MODEL.exists(), "the small model is not there; packaging/setup/fetch-worker-parts fetches it")
class ModelTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.torpord = Torpord()
        assert cls.torpord.start() == "ready\n"
        cls.torpord.add_model("smol", aliases=["little"], args=["-c", "2048"])

    @classmethod
    def tearDownClass(cls):
        cls.torpord.remove()

    def freeze(self):
        status, _, model = self.torpord.call("POST", "/api/models/smol/suspend")
        self.assertEqual(status, 200, model)
        return model

    def need_freezing(self):
        self.torpord.need_freezing(self)

    def test_every_wire_answers_whole_and_streamed(self):
        message = [{"role": "user", "content": "Hi"}]
        for path, body in (("/v1/chat/completions", {"messages": message, "max_tokens": 4}),
                           ("/v1/completions", {"prompt": "Hi", "max_tokens": 4}),
                           ("/v1/responses", {"input": "Hi", "max_output_tokens": 4}),
                           ("/v1/messages", {"messages": message, "max_tokens": 4})):
            for stream in (False, True):
                with self.subTest(path=path, stream=stream):
                    status, headers, answer = self.torpord.call("POST", path, {"model": "little", "stream": stream, **body})
                    self.assertEqual(status, 200, answer)
                    self.assertIn("wake;dur=", headers["Server-Timing"])
                    if stream:
                        self.assertEqual(headers.get_content_type(), "text/event-stream")
                        self.assertIn("data: ", answer)
                    else:
                        self.assertEqual(answer["model"], "smol")
        self.assertGreater(self.torpord.call("POST", "/v1/messages/count_tokens",
                                             {"model": "smol", "messages": message})[2]["input_tokens"], 0)

    def test_embeddings(self):
        self.torpord.add_model("embed", args=["--embeddings", "--pooling", "mean", "-c", "512"])
        status, _, answer = self.torpord.call("POST", "/v1/embeddings", {"model": "embed", "input": "hello"})
        self.assertEqual(status, 200, answer)
        self.assertGreater(len(answer["data"][0]["embedding"]), 100)
        self.assertEqual(self.torpord.call("DELETE", "/api/models/embed")[0], 200)

    def test_frozen_thawed_killed_and_still_answering(self):
        self.need_freezing()
        self.assertEqual(self.torpord.chat("smol")[0], 200)
        pid = self.torpord.get("/api/models/smol")["pid"]
        frozen = self.freeze()
        self.assertEqual((frozen["state"], frozen["tier"], frozen["pid"]), ("asleep", "frozen", 0))
        self.assertFalse(is_alive(pid))
        for _ in range(3):
            status, headers, answer = self.torpord.chat("smol")
            self.assertEqual(status, 200, answer)
            self.assertIn("desc=thawed", headers["Server-Timing"])
            os.kill(self.torpord.get("/api/models/smol")["pid"], signal.SIGKILL)

    def test_a_truncated_image_becomes_a_cold_start(self):
        self.need_freezing()
        self.assertEqual(self.torpord.chat("smol")[0], 200)
        self.freeze()
        pages = max(pathlib.Path(self.torpord.folder, "cache/snapshots/smol/image").glob("pages-*.img"),
                    key=lambda file: file.stat().st_size)
        os.truncate(pages, pages.stat().st_size // 2)
        status, headers, answer = self.torpord.chat("smol")
        self.assertEqual(status, 200, answer)
        self.assertIn("desc=cold", headers["Server-Timing"])

    def test_no_request_is_lost_while_the_worker_freezes_over_and_over(self):
        self.need_freezing()
        self.assertEqual(self.torpord.chat("smol")[0], 200)
        self.freeze()
        answers, failures, done = [], [], threading.Event()

        def ask():
            for _ in range(25):
                status, _, answer = self.torpord.chat("smol", max_tokens=4)
                (answers if status == 200 else failures).append(answer)

        def suspend():
            while not done.wait(0.3):
                self.torpord.call("POST", "/api/models/smol/suspend")

        sleeper = threading.Thread(target=suspend)
        clients = [threading.Thread(target=ask) for _ in range(8)]
        for thread in clients + [sleeper]:
            thread.start()
        for thread in clients:
            thread.join()
        done.set()
        sleeper.join()
        self.assertEqual(failures[:3], [])
        self.assertEqual(len({answer["id"] for answer in answers}), 200)

    def test_a_client_that_leaves_frees_the_slot(self):
        connection = self.torpord.connection()
        connection.request("POST", "/v1/chat/completions",
                           json.dumps({"model": "smol", "stream": True, "max_tokens": 1500, "ignore_eos": True,
                                       "messages": [{"role": "user", "content": "Count."}]}))
        connection.getresponse().read(10)
        self.assertEqual(self.torpord.get("/api/models/smol")["requests"], 1)
        connection.sock.close()
        connection.close()
        end = time.monotonic() + 5
        while self.torpord.get("/api/models/smol")["requests"] and time.monotonic() < end:
            time.sleep(0.02)
        self.assertEqual(self.torpord.get("/api/models/smol")["requests"], 0)

    def test_an_unknown_model_names_the_nearest(self):
        status, _, answer = self.torpord.chat("smoll")
        self.assertEqual(status, 404)
        self.assertIn("did you mean smol?", answer["error"]["message"])


if __name__ == "__main__":
    unittest.main()
