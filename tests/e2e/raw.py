"""Requests as bytes, and answers from bytes, where http.client would be too well-mannered."""
import json
import re


def head(path, *lines, method="POST"):
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def post(body, *lines, path="/v1/chat/completions"):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return head(path, f"Content-Length: {len(body)}", *lines) + body


class Answer:
    """The first answer in these bytes; `rest` is what follows it."""
    def __init__(self, raw):
        self.head, _, rest = raw.partition(b"\r\n\r\n")
        self.status = int(self.head[9:12])
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", self.head)
        self.body, self.rest = rest[:int(length[1])], rest[int(length[1]):]

    def json(self):
        return json.loads(self.body)


def read_all(connection):
    """What comes until the other side closes."""
    got = b""
    try:
        while (piece := connection.recv(65536)):
            got += piece
    except ConnectionError:
        pass
    return got
