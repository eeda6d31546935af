"""Good and bad clients and engines at once, from a seed: `python3 tests/e2e/mixed_client.py --seed 7 --seconds 60`.

Several threads do one thing after the other, chosen by the seed, against models whose engines are fake; one of them
is stopped, frozen and started meanwhile. Every good request to the steady model must get its own answer; everything
else an answer that its kind allows. At the end nothing is left. What fails says its seed, thread and step; how the
threads fall between each other is the machine's choice.
"""
import argparse
import json
import random
import socket
import sys
import threading
import time
import traceback

from bad_answers import ANSWERS
from fake import CHAT, Fake
from harness import SECONDS_MAX, Torpord
from raw import Answer, head, post, read_all

LIMITS = """
[limits]
body_bytes = "4MiB"
bodies_in_flight_bytes = "64MiB"
head_time = "2s"
body_stall = "2s"
body_time = "4s"
idle_time = "3s"
send_stall = "20s"
first_byte = "20s"
stall = "20s"
stream_time = "20s"
"""
WIRES = [CHAT, "/v1/messages", "/v1/completions", "/v1/responses"]
DEADLY = {"death", "death-in-json"}
BAD_BYTES = [
    b"\0" * 50, b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n", b"GET / HTTP/1.1\nHost: x\n\n",
    head(CHAT, *["x: y"] * 200), head("/" + "x" * 5000, method="GET"), head(CHAT, "x: " + "y" * 20_000), head(CHAT, "Content-Length: -5"),
    head(CHAT, "Content-Length: 1000000000000"), head(CHAT, "Content-Length: 5", "Content-Length: 6"), head(CHAT, "Transfer-Encoding: gzip"),
    head(CHAT, "Content-Length: 5", "Transfer-Encoding: chunked"), head(CHAT, "Transfer-Encoding: chunked") + b"-2\r\n",
    head(CHAT, "Transfer-Encoding: chunked") + b"fffffffffffffff\r\n", post(b"{"), post(b"[" * 5000), post(b'{"model":"\xff"}'),
    post(b'{"model":"steady","model":"steady"}'), post({"model": 5}), post({"model": "nobody"}), post({"model": "steady"}, "Content-Encoding: gzip"),
    head("/v1/%00", method="GET"), head("/..%2f", method="GET"), head(CHAT, method="TRACE"),
]


class Mixture:
    def __init__(self, seed, seconds, threads):
        self.seed, self.seconds, self.thread_count = seed, seconds, threads
        self.failures, self.done = [], {}
        self.lock = threading.Lock()
        self.torpord = Torpord(more=LIMITS)

    # ---- what a thread can do; each takes its random numbers

    def connect(self, dice):
        tcp = dice.random() < 0.5
        connection = socket.socket(socket.AF_INET if tcp else socket.AF_UNIX)
        connection.settimeout(SECONDS_MAX)
        connection.connect(("127.0.0.1", self.torpord.port) if tcp else self.torpord.folder + "/torpor.sock")
        return connection

    def ask(self, dice, path, body, *lines):
        """All that comes for one request."""
        with self.connect(dice) as connection:
            connection.sendall(post(body, "x-api-key: " + self.key, *lines, path=path))
            connection.settimeout(SECONDS_MAX)
            return read_all(connection)

    def good_whole(self, dice):
        token = str(dice.random())
        pad = "x" * dice.choice([0, 10, 5_000, 200_000, 1_000_000])
        answer = Answer(self.ask(dice, dice.choice(WIRES), {"model": "steady", "token": token, "pad": pad}, "Connection: close"))
        assert (answer.status, answer.json()["token"]) == (200, token), answer.head

    def good_stream(self, dice):
        token, count = str(dice.random()), dice.choice([1, 5, 300])
        raw = self.ask(dice, dice.choice(WIRES), {"model": "steady", "stream": True, "do": "count", "to": count, "token": token},
                       "Connection: close")
        assert raw.startswith(b"HTTP/1.1 200 "), raw[:300]
        events = [json.loads(line[6:]) for line in raw.split(b"\n") if line.startswith(b'data: {"token"')]
        assert events == [{"token": token, "number": number} for number in range(count)], (token, events[:5], len(events))
        assert raw.endswith(b"0\r\n\r\n"), raw[-300:]

    def good_pipeline(self, dice):
        tokens = [str(dice.random()) for _ in range(dice.randint(2, 8))]
        requests = [post({"model": "steady", "token": token}, "x-api-key: " + self.key) for token in tokens]
        requests.append(head("/healthz", "Connection: close", method="GET"))
        with self.connect(dice) as connection:
            connection.sendall(b"".join(requests))
            raw = read_all(connection)
        for token in tokens:
            answer = Answer(raw)
            assert answer.json()["token"] == token, (token, answer.head, answer.body[:300])
            raw = answer.rest
        assert Answer(raw).json() == {"ok": True}, raw[:300]

    def good_in_pieces(self, dice):
        token = str(dice.random())
        data = post({"model": "steady", "token": token}, "x-api-key: " + self.key, "Connection: close")
        with self.connect(dice) as connection:
            while data:
                size = dice.randint(1, 200)
                connection.sendall(data[:size])
                data = data[size:]
            answer = Answer(read_all(connection))
        assert (answer.status, answer.json()["token"]) == (200, token), answer.head

    def restless(self, dice):
        token = str(dice.random())
        answer = Answer(self.ask(dice, CHAT, {"model": "restless", "token": token}, "Connection: close"))
        if answer.status == 200:
            assert answer.json()["token"] == token, answer.body
        else:  # it was stopped while it was asked
            assert answer.status in (502, 503), answer.body

    def order(self, dice):
        what, query = dice.choice(["suspend", "stop", "resume"]), dice.choice(["", "?force=true"])
        status, _, answer = self.torpord.call("POST", f"/api/models/restless/{what}{query}")
        assert status in (200, 409, 502, 503), answer

    def bad_bytes(self, dice):
        data = dice.choice(BAD_BYTES)
        with self.connect(dice) as connection:
            connection.sendall(data)
            raw = read_all(connection)
        assert raw == b"" or Answer(raw).status in (400, 401, 403, 404, 405, 408, 413, 414, 415, 431, 505), raw[:300]

    def broken_bytes(self, dice):
        """A good request with some bytes of it changed."""
        data = bytearray(post({"model": "steady", "token": "t"}, "x-api-key: " + self.key, "Connection: close"))
        for _ in range(dice.randint(1, 5)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        with self.connect(dice) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            raw = read_all(connection)
        assert raw == b"" or raw.startswith(b"HTTP/1.1 "), raw[:300]

    def cut_short(self, dice):
        """Sends some of a request, and leaves, or waits to be left."""
        data = post({"model": "steady", "pad": "x" * 1000}, "x-api-key: " + self.key)
        with self.connect(dice) as connection:
            connection.sendall(data[:dice.randrange(len(data))])
            if dice.random() < 0.05:
                read_all(connection)

    def too_much(self, dice):
        piece = b"40000\r\n" + b"x" * 0x40000 + b"\r\n"
        with self.connect(dice) as connection:
            connection.sendall(head(CHAT, "Transfer-Encoding: chunked", "x-api-key: " + self.key))
            try:
                for _ in range(30):
                    connection.sendall(piece)
            except ConnectionError:
                pass
            raw = read_all(connection)
        assert Answer(raw).status == 413, raw[:300]

    def leave(self, dice):
        body = {"model": dice.choice(["steady", "restless"]), "stream": True, "do": "count", "to": 20_000, "token": "left"}
        with self.connect(dice) as connection:
            connection.sendall(post(body, "x-api-key: " + self.key))
            if dice.random() < 0.3:
                connection.shutdown(socket.SHUT_WR)
            for _ in range(dice.randint(0, 5)):
                connection.recv(4096)

    def bad_engine(self, dice):
        what = dice.choice(sorted(ANSWERS))
        if what in DEADLY and dice.random() < 0.8:
            return
        path, stream = dice.choice(WIRES[:2]), dice.random() < 0.7
        leaves = dice.random() < 0.9
        with self.connect(dice) as connection:
            connection.sendall(post({"model": "bad", "do": what, "stream": stream}, "x-api-key: " + self.key, "Connection: close", path=path))
            if leaves:
                connection.settimeout(dice.random())
            try:
                raw = b"".join(iter(lambda: connection.recv(65536), b""))
            except TimeoutError:
                return  # it was left
        assert raw.startswith(b"HTTP/1.1 "), (what, raw[:300])
        status = int(raw[9:12])
        if status == 200 and b"text/event-stream" in raw[:500]:
            assert b'"error"' in raw[-1000:] or what == "stream-for-json", (what, raw[-1000:])
        else:
            assert status in (400, 502, 503, 504) or what in ("json-for-stream", "continues", "head-lines"), (what, raw[:500])

    def routes(self, dice):
        path = dice.choice(["/metrics", "/api/models", "/api/version", "/v1/models", "/api/requests", "/healthz", "/api/models/steady"])
        assert self.torpord.call("GET", path)[0] == 200, path

    # ---- the whole

    def actions(self):
        often = [self.good_whole, self.good_stream, self.good_pipeline, self.good_in_pieces, self.bad_bytes, self.broken_bytes, self.leave]
        return often * 3 + [self.restless, self.cut_short, self.bad_engine, self.bad_engine, self.routes, self.too_much]

    def act(self, index, actions, end):
        dice = random.Random(f"{self.seed}/{index}")
        step = 0
        while time.monotonic() < end and not self.failures:
            step += 1
            action = dice.choice(actions)
            try:
                action(dice)
            except Exception:  # whatever it is, it is told with its seed
                with self.lock:
                    self.failures.append(f"seed {self.seed}, thread {index}, step {step}, {action.__name__}:\n{traceback.format_exc()}")
            with self.lock:
                self.done[action.__name__] = self.done.get(action.__name__, 0) + 1

    def settle(self, fakes):
        for name in ("torpor_body_bytes", "torpor_answer_bytes"):
            self.torpord.wait_until(lambda: self.torpord.gauge(name) == 0, name + " 0")
        self.torpord.wait_until(lambda: self.torpord.gauge("torpor_connections") == 1, "closed connections")
        for fake in fakes:
            fake.wait_until(lambda status: status["requests"] == status["waiting"] == 0)
        status, _, answer = fakes[0].ask(token="last")
        assert (status, answer["token"]) == (200, "last"), answer

    def run(self):
        """What failed, as text; nothing if all was well."""
        try:
            assert self.torpord.start() == "ready\n"
            self.key = self.torpord.call("POST", "/api/keys", {"name": "mixed"})[2]["key"]
            fakes = [Fake(self.torpord, "steady"), Fake(self.torpord, "restless", idle="100ms", snapshot="ready"), Fake(self.torpord, "bad")]
            assert fakes[0].ask()[0] == 200
            end = time.monotonic() + self.seconds
            kinds = [self.actions()] * (self.thread_count - 1) + [[self.order, self.restless]]
            threads = [threading.Thread(target=self.act, args=(i, kind, end)) for i, kind in enumerate(kinds)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            try:
                self.settle(fakes)
            except Exception:
                self.failures.append(f"seed {self.seed}, at the end:\n{traceback.format_exc()}")
            if (status := self.torpord.stop()) != 0:
                self.failures.append(f"seed {self.seed}: torpord ended with {status}\n{self.torpord.log()[-4000:]}")
            return "\n".join(self.failures)
        finally:
            self.torpord.remove()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--threads", type=int, default=6)
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    mixture = Mixture(arguments.seed, arguments.seconds, arguments.threads)
    failed = mixture.run()
    print(failed or f"all well: {sum(mixture.done.values())} actions: " + ", ".join(f"{n} {name}" for name, n in sorted(mixture.done.items())))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
