"""What fake_engine.py can do wrong with an answer: each takes the connection, and ends it."""
import os
import select
import time

OK = b"HTTP/1.1 200 OK\r\n"
JSON = OK + b"Content-Type: application/json\r\n"
STREAM = OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"token":true}\n\n'
MEGABYTE = b"x" * 1_000_000


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


def wait_for_close(connection):
    while connection.recv(65536):
        pass


def whole(text, kind=b"application/json", status=b"200 OK"):
    return b"HTTP/1.1 " + status + b"\r\nContent-Type: " + kind + b"\r\nContent-Length: %d\r\n\r\n" % len(text) + text


def endless(begin, more):
    def answer(connection):
        connection.sendall(begin)
        while True:
            connection.sendall(more)
    return answer


def dripping(begin, more):
    """A byte every 10 ms, for ever."""
    def answer(connection):
        connection.sendall(begin)
        while True:
            for byte in more:
                connection.sendall(bytes([byte]))
                time.sleep(0.01)
    return answer


def says(data):
    return lambda connection: connection.sendall(data)


def silent(begin):
    def answer(connection):
        connection.sendall(begin)
        wait_for_close(connection)
    return answer


def stays(begin):
    """Without reading any more, until it is left."""
    def answer(connection):
        connection.sendall(begin)
        hung_up = select.poll()
        hung_up.register(connection, select.POLLRDHUP)
        hung_up.poll()
    return answer


def dies(begin):
    def answer(connection):
        connection.sendall(begin)
        os._exit(1)
    return answer


ANSWERS = {
    "endless-tokens": endless(STREAM, chunk(EVENT) * 100),
    "endless-event": endless(STREAM, chunk(MEGABYTE)),
    "no-tokens": silent(STREAM),
    "no-head": silent(b""),
    "half-a-head": silent(OK),
    "no-body": silent(JSON + b"Content-Length: 100\r\n\r\n{"),
    "cut-in-an-event": says(STREAM + chunk(EVENT) + chunk(b'data: {"tok')),
    "cut-in-a-chunk": says(STREAM + chunk(EVENT) + b'1000\r\ndata: {"tok'),
    "stream-for-json": says(STREAM + chunk(EVENT) + b"0\r\n\r\n"),
    "json-for-stream": says(whole(b'{"ok":true}')),
    "html": says(whole(b"<html>It works!</html>", b"text/html")),
    "html-error": says(whole(b"<html>no such thing</html>", b"text/html", b"404 Not Found")),
    "head-bomb": endless(JSON, b"x-y: " + b"z" * 1000 + b"\r\n"),
    "head-lines": says(JSON + b"x: y\r\n" * 1_000 + b"Content-Length: 2\r\n\r\n{}"),
    "head-line": endless(JSON + b"x: ", MEGABYTE),
    "dripping-head": dripping(JSON, b"x: y\r\n"),
    "dripping-body": dripping(STREAM, chunk(EVENT)),
    "death": dies(STREAM),
    "death-in-json": dies(JSON + b"Content-Length: 100\r\n\r\n{"),
    "huge-chunk": says(STREAM + chunk(EVENT) + b"fffffffffffffffff\r\n"),
    "large-chunk": says(STREAM + chunk(EVENT) + b"7fffffffffffffff\r\n"),
    "chunk-line": endless(STREAM + chunk(EVENT), MEGABYTE),
    "trailers": endless(STREAM + chunk(EVENT) + b"0\r\n", b"x: y\r\n" * 1000),
    "gigabytes": endless(JSON + b"Content-Length: 1000000000000\r\n\r\n", MEGABYTE),
    "gigabytes-in-chunks": endless(JSON + b"Transfer-Encoding: chunked\r\n\r\n", chunk(MEGABYTE)),
    "gigabytes-to-the-end": endless(JSON + b"\r\n", MEGABYTE),
    "continues": says(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nx: y\r\n\r\n" + whole(b'{"ok":true}')),
    "continues-for-ever": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "gzip": says(whole(b"\x1f\x8b\x08", b"application/json\r\nContent-Encoding: gzip")),
}

# Those that begin before the request was read; asked for with the header OpenAI-Beta, the only one that arrives.
EARLY = {
    "deaf": lambda connection: time.sleep(1000),
    "early": says(whole(b'{"early":true}')),
    "early-open": stays(whole(b'{"early":true}')),
    "early-refusal": says(whole(b'{"error":"too long"}', status=b"413 Payload Too Large")),
    "early-close": says(b""),
}
