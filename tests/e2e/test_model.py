"""A real llama-server with a real model: answers, freezes, thaws, is killed, answers again."""
import json
import os
import pathlib
import signal
import threading
import time
import unittest

from harness import MODEL, Torpord, UnixConnection, is_alive


@unittest.skipUnless(MODEL.exists(), "the small model is not there; packaging/setup/fetch-model fetches it")
class ModelTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.torpord = Torpord()
        assert cls.torpord.start() == "ready\n"
        cls.torpord.add_model("smol", aliases=["little"], args=["-c", "2048", "--slots"])

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
        self.every_wire()

    def test_every_wire_answers_over_tcp_with_a_key(self):
        key = self.torpord.call("POST", "/api/keys", {"name": "wires"})[2]["key"]
        self.every_wire(tcp=True, sent={"x-api-key": key})
        self.embed("embed-tcp", tcp=True, headers={"Authorization": "Bearer " + key})

    def every_wire(self, tcp=False, sent=None):
        message = [{"role": "user", "content": "Hi"}]
        for path, body in (("/v1/chat/completions", {"messages": message, "max_tokens": 4}),
                           ("/v1/completions", {"prompt": "Hi", "max_tokens": 4}),
                           ("/v1/responses", {"input": "Hi", "max_output_tokens": 4}),
                           ("/v1/messages", {"messages": message, "max_tokens": 4})):
            for stream in (False, True):
                with self.subTest(path=path, stream=stream):
                    status, headers, answer = self.torpord.call("POST", path, {"model": "little", "stream": stream, **body}, sent, tcp)
                    self.assertEqual(status, 200, answer)
                    self.assertIn("wake;dur=", headers["Server-Timing"])
                    if stream:
                        self.assertEqual(headers.get_content_type(), "text/event-stream")
                        self.assertIn("data: ", answer)
                    else:
                        self.assertEqual(answer["model"], "smol")
        self.assertGreater(self.torpord.call("POST", "/v1/messages/count_tokens",
                                             {"model": "smol", "messages": message}, sent, tcp)[2]["input_tokens"], 0)

    def test_embeddings(self):
        self.embed("embed")

    def embed(self, name, **how):
        self.torpord.add_model(name, args=["--embeddings", "--pooling", "mean", "-c", "512"], snapshot="off")
        status, _, answer = self.torpord.call("POST", "/v1/embeddings", {"model": name, "input": "hello"}, **how)
        self.assertEqual(status, 200, answer)
        self.assertGreater(len(answer["data"][0]["embedding"]), 100)
        self.assertEqual(self.torpord.call("DELETE", "/api/models/" + name)[0], 200)

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

    def begin_stream(self, path="/v1/chat/completions", **body):
        """A long stream from which something came already: the connection, and the answer."""
        connection = self.torpord.connection()
        connection.request("POST", path, json.dumps({"model": "smol", "stream": True, "ignore_eos": True, **body}))
        answer = connection.getresponse()
        text = b""
        while b"data: {" not in text.replace(b'data: {"type":"ping"}', b""):  # on a busy machine it is told to wait first
            piece = answer.read1(1000)
            self.assertTrue(piece, text)
            text += piece
        return connection, answer

    def busy_slots(self):
        """As the engine itself tells."""
        connection = UnixConnection(self.torpord.folder + "/workers/smol.sock")
        connection.request("GET", "/slots")
        slots = json.loads(connection.getresponse().read())
        connection.close()
        return sum(slot["is_processing"] for slot in slots)

    def test_a_client_that_leaves_frees_the_slot(self):
        connection, answer = self.begin_stream(max_tokens=1500, messages=[{"role": "user", "content": "Count."}])
        self.assertEqual(self.torpord.get("/api/models/smol")["requests"], 1)
        self.assertEqual(self.busy_slots(), 1)
        answer.close()
        connection.close()
        # Torpor closes the worker's connection at once (test_engine.py); llama-server looks for that after each token,
        # and its 1500 would take far longer.
        began = time.monotonic()
        self.torpord.wait_until(lambda: self.torpord.get("/api/models/smol")["requests"] == 0, "a free lease")
        freed = time.monotonic()
        self.torpord.wait_until(lambda: self.busy_slots() == 0, "an idle slot")
        print(f"\nmeasured: after a client left, torpord let go after {1000 * (freed - began):.0f} ms, llama-server after "
              f"{1000 * (time.monotonic() - began):.0f} ms")

    def test_a_worker_killed_in_mid_stream_is_an_error_event_and_the_next_request_thaws(self):
        self.need_freezing()
        self.assertEqual(self.torpord.chat("smol")[0], 200)
        self.freeze()
        message = [{"role": "user", "content": "Count."}]
        for path, body in (("/v1/chat/completions", {"messages": message, "max_tokens": 1500}),
                           ("/v1/messages", {"messages": message, "max_tokens": 1500}),
                           ("/v1/responses", {"input": "Count.", "max_output_tokens": 1500})):
            with self.subTest(path=path):
                connection, answer = self.begin_stream(path, **body)
                os.kill(self.torpord.get("/api/models/smol")["pid"], signal.SIGKILL)
                *_, event = answer.read().decode().strip().split("\n\n")
                connection.close()
                name, _, data = event.rpartition("data: ")
                self.assertEqual(name, "" if path.endswith("completions") else "event: error\n")
                last = json.loads(data)
                self.assertEqual(last.get("type"), None if path.endswith("completions") else "error")
                self.assertIn("engine", last["message"] if path.endswith("responses") else last["error"]["message"])
                status, headers, answer = self.torpord.chat("smol")
                self.assertEqual(status, 200, answer)
                self.assertIn("desc=thawed", headers["Server-Timing"])

    def test_an_unknown_model_names_the_nearest(self):
        status, _, answer = self.torpord.chat("smoll")
        self.assertEqual(status, 404)
        self.assertIn("did you mean smol?", answer["error"]["message"])


if __name__ == "__main__":
    unittest.main()
