"""Stands in for vllm, sglang and text-generation-launcher as far as Torpor calls them: the test makes a program of the
engine's name that runs this.

It takes their command lines, asks for a key where it was given one, answers on the wires, and writes what it got into
its log. Like the real ones it draws from one generator that is seeded at the start, unless a request has a seed.
"""
import http.server
import json
import os
import pathlib
import random
import signal
import socketserver
import sys

DICE = random.Random()


def flag(name):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else None


def key():
    """Of sglang's file for settings."""
    file = flag("--config")
    if not file:
        return None
    print(f"settings {oct(os.stat(file).st_mode & 0o777)}", flush=True)
    name, _, value = pathlib.Path(file).read_text().strip().partition(": ")
    assert name == "api-key", name
    return json.loads(value)


KEY = key()


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_any(self):
        print(f"{self.command} {self.path}", flush=True)
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.loads(text) if text else {}
        if self.path == "/health":
            return self.say(200, {})
        if KEY and self.headers.get_all("Authorization") != ["Bearer " + KEY]:
            return self.say(401, {"error": "Unauthorized"})
        dice = random.Random(body["seed"]) if body.get("seed") is not None else DICE
        words = " ".join(str(dice.randrange(1000)) for _ in range(8))
        self.say(200, {"words": words, "body": body, "pid": os.getpid(), "headers": list(self.headers.keys())})

    do_GET = do_POST = do_PUT = handle_any

    def say(self, status, answer):
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def address_string(self):
        return "somebody"

    def log_message(self, *_):
        pass


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


class PortServer(http.server.ThreadingHTTPServer):
    daemon_threads = True


print("argv " + json.dumps(sys.argv[1:]), flush=True)
print("environment " + json.dumps(sorted(os.environ)), flush=True)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
if flag("--uds"):
    server = UnixServer(flag("--uds"), Answer)
else:
    server = PortServer((flag("--host") or flag("--hostname"), int(flag("--port"))), Answer)
server.serve_forever()
