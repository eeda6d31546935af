"""An engine built like the large ones, for the `custom` engine: `python3 stand_in.py SOCKET`.

Several processes: one that speaks HTTP (on uvloop), workers that it asks over socket pairs, and Python's resource
tracker. They share memory by name, and semaphores that were unlinked after they were made; the server holds an idle
HTTP connection to a port of its own and a lock on a file. Each of these keeps a plain CRIU from dumping or thawing it.
"""
import asyncio
import fcntl
import http.client
import http.server
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from multiprocessing import shared_memory

import uvloop

WORKERS = 2
BYTES = 4 * 1024 * 1024


def work(number, pipe, shared_name, lock, turn):
    """Answers with what only this process and the shared memory know."""
    shared = shared_memory.SharedMemory(name=shared_name)
    secret = os.urandom(8).hex()
    while True:
        prompt = pipe.recv()
        print("asked", flush=True)  # its log grows
        with lock:
            turn.value += 1
            shared.buf[number] = (shared.buf[number] + 1) % 256
            pipe.send({"worker": number, "pid": os.getpid(), "secret": secret, "said": shared.buf[number], "turn": turn.value,
                       "sum": sum(shared.buf[WORKERS:WORKERS + 256]), "prompt": prompt})


class Idle(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def ask_all(pipes, prompt):
    answers = []
    for pipe in pipes:
        pipe.send(prompt)
        answers.append(pipe.recv())
    return answers


async def serve(socket_path, pipes):
    beats = 0

    async def beat():
        """A timer that is always pending, so that there is one in the image."""
        nonlocal beats
        while True:
            await asyncio.sleep(0.01)
            beats += 1

    async def answer(reader, writer):
        while (line := await reader.readline()):
            length = 0
            while (header := (await reader.readline()).strip()):
                if header.lower().startswith(b"content-length:"):
                    length = int(header.split(b":")[1])
            body = json.loads(await reader.readexactly(length)) if length else {}
            said = {"answers": ask_all(pipes, body.get("prompt"))} if line.startswith(b"POST") else {}
            said |= {"beats": beats, "monotonic": time.monotonic(), "wall": time.time()}
            text = json.dumps(said).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, socket_path)
    beating = asyncio.ensure_future(beat())
    end = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
    print("ready", flush=True)
    await end.wait()
    beating.cancel()
    server.close()


def main():
    shared = shared_memory.SharedMemory(create=True, size=BYTES)  # also starts the resource tracker
    shared.buf[WORKERS:WORKERS + 256] = bytes(range(256))
    spawn = multiprocessing.get_context("spawn")
    # Semaphores with a name: glibc makes them under another one and unlinks that, so what is mapped counts as deleted
    # and yet is not. One without a name is gone for all but those who have it.
    lock, turn = spawn.Lock(), spawn.Value("i", 0)
    nameless = multiprocessing.get_context("fork").Lock()
    nameless.acquire()
    pipes = []
    for number in range(WORKERS):
        ours, theirs = multiprocessing.Pipe()  # a socket pair
        spawn.Process(target=work, args=(number, theirs, shared.name, lock, turn), daemon=True).start()
        pipes.append(ours)
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Idle)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    idle = http.client.HTTPConnection(*web.server_address)
    idle.request("GET", "/")
    idle.getresponse().read()  # and stays open
    locked = tempfile.NamedTemporaryFile(prefix="torpor-stand-in-")
    fcntl.flock(locked, fcntl.LOCK_EX)
    uvloop.install()
    asyncio.run(serve(sys.argv[1], pipes))
    shared.unlink()


if __name__ == "__main__":
    main()
