"""An engine that misbehaves on demand, for the `custom` engine: `python3 fake_engine.py FOLDER SOCKET-OR-PORT`.

FOLDER holds its script. `load` says what to do at the start: `ok`, `die WORDS` or `hang` (before it listens).
`health` says what the readiness path does: `ok`, `hang`, or `open` (answers, and leaves the connection open).
`ignore-sigterm`, `child`, `stray-child` and `slow-family` are honoured where such a file exists. What to do with one request
stands in its body as "do" (more of it in bad_answers.py). What happens is told as lines into the pipe FOLDER/events,
where the test listens.
"""
import hashlib
import itertools
import json
import os
import pathlib
import select
import signal
import socket
import subprocess
import sys
import threading

from bad_answers import ANSWERS, EARLY

FOLDER = pathlib.Path(sys.argv[1])
FOREVER = threading.Event()
COUNT = itertools.count(1)
GROWN = []


def script(name):
    file = FOLDER / name
    return file.read_text().strip() if file.exists() else "ok"


def tell(event):
    try:
        pipe = os.open(FOLDER / "events", os.O_WRONLY | os.O_NONBLOCK)
        with os.fdopen(pipe, "wb", buffering=0) as events:
            events.write(event.encode() + b"\n")
    except OSError:
        pass  # the test has gone, or does not listen


def read_request(stream, connection):
    """Path and body, or nothing when the client has gone or was answered too early."""
    line = stream.readline().split()
    if len(line) < 2:
        return None
    length = 0
    while (header := stream.readline().strip()):
        name, _, value = header.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
        early = value.strip().decode() if name.lower() == b"openai-beta" else None
        if early in EARLY:
            tell("early " + early)
            EARLY[early](connection)
            return None
    body = stream.read(length)
    return line[1].decode(), json.loads(body) if body else {}


def whole(text, more="", length=None):
    return (f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{more}"
            f"Content-Length: {len(text) if length is None else length}\r\n\r\n{text}").encode()


def chunk(text):
    return f"{len(text):x}\r\n{text}\r\n".encode()


def begin_stream(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" +
                       chunk('event: first\ndata: {"first":true}\n\n'))


def answer(connection, body):
    """Does what the request says; false ends the connection."""
    what = body.get("do", "ok")
    if what in ANSWERS:
        try:
            ANSWERS[what](connection)
        except OSError:
            tell("gone")
            raise
        return False
    text = json.dumps({"model": body.get("model"), "pid": os.getpid(), "token": body.get("token"),
                       "count": next(COUNT)})
    if what == "not-http":
        connection.sendall(b"220 mail.example.org ESMTP\r\n\r\n")
    elif what == "too-short":
        connection.sendall(whole(text, length=len(text) + 100))
    elif what == "too-long":
        connection.sendall(whole(text) + b"and then some")
    elif what == "bad-length":
        connection.sendall(whole(text, length="many"))
    elif what == "usage":
        connection.sendall(whole(json.dumps({"usage": body["usage"]})))
        return True
    elif what == "cut":
        begin_stream(connection)
    elif what == "hold":  # a stream that goes on until the client leaves or the test lets it end
        gate = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        gate.bind(body["gate"])
        begin_stream(connection)
        tell("holding")  # only now: whoever hears it writes into the gate at once
        if connection in select.select([gate, connection], [], [])[0]:
            tell("gone")
            return False
        connection.sendall(chunk("data: [DONE]\n\n") + b"0\r\n\r\n")
        return True
    elif what == "count":  # a good stream
        begin_stream(connection)
        for number in range(body["to"]):
            connection.sendall(chunk(f'data: {{"token":"{body["token"]}","number":{number}}}\n\n'))
        connection.sendall(chunk("data: [DONE]\n\n") + b"0\r\n\r\n")
        return True
    elif what == "stream":  # so many events of so many bytes
        begin_stream(connection)
        for number in range(body.get("events", 1)):
            connection.sendall(chunk(f"data: {number:05} {'x' * body.get('bytes', 0)}\n\n"))
        connection.sendall(chunk("data: [DONE]\n\n") + b"0\r\n\r\n")
        return True
    elif what == "large":
        connection.sendall(whole(json.dumps({"text": "".join(f"{number:07}," for number in range(body["bytes"] // 8))})))
        return True
    elif what == "digest":
        connection.sendall(whole(json.dumps({"digest": hashlib.sha256(body["text"].encode()).hexdigest()})))
        return True
    elif what == "grow":  # takes so much memory, and keeps it
        GROWN.append(bytearray(b"x") * body["bytes"])
        connection.sendall(whole(text))
        return True
    elif what == "close":  # after an answer that promised to keep the connection
        connection.sendall(whole(text, "Connection: keep-alive\r\n"))
    elif what == "exit-when-closed":  # leaves as soon as the daemon closes the connection that it kept
        connection.sendall(whole(text))
        connection.recv(1)
        os._exit(0)
    elif what == "crash":
        os._exit(1)
    elif what == "exit":
        connection.sendall(whole(text, "Connection: close\r\n"))
        connection.close()
        os._exit(0)
    else:
        connection.sendall(whole(text))
        return True
    return False


def health(connection):
    what = script("health")
    tell("health " + what)
    if what == "hang":
        FOREVER.wait()
    connection.sendall(whole("{}"))
    if what == "open":
        FOREVER.wait()


def serve(connection):
    with connection, connection.makefile("rb") as stream:
        try:
            while (request := read_request(stream, connection)):
                if request[0] == "/health":
                    return health(connection)
                tell(f"request {request[1].get('model')}")
                if not answer(connection, request[1]):
                    return
        except OSError:
            pass


def main():
    if (FOLDER / "ignore-sigterm").exists():
        signal.signal(signal.SIGTERM, lambda *_: tell("sigterm"))
    for name in ("child", "stray-child"):
        if (FOLDER / name).exists():
            child = subprocess.Popen(["sleep", "1000"], start_new_session=name == "stray-child")
            tell(f"{name} {child.pid}")
    if (FOLDER / "slow-family").exists():  # a child with so much memory that its own child is dead long before it
        child = subprocess.Popen([sys.executable, "-c", "import subprocess, time; most = bytearray(1) * 500_000_000; "
                                  "print(subprocess.Popen(['sleep', '1000'], stdout=subprocess.DEVNULL).pid, flush=True); time.sleep(1000)"],
                                 stdout=subprocess.PIPE)
        tell(f"slow-family {child.pid} {int(child.stdout.readline())}")
    tell(f"loading {os.getpid()}")
    load, _, words = script("load").partition(" ")
    if load == "die":
        print(words, flush=True)
        sys.exit(3)
    if load == "hang":
        FOREVER.wait()
    if sys.argv[2].isdigit():
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", int(sys.argv[2])))
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(sys.argv[2])
    listener.listen(64)
    while True:
        connection = listener.accept()[0]
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


main()
