"""What clients send by mistake or by malice: each gets its 4xx in the wire's shape, or a closed connection, and the
daemon is as before."""
import json
import pathlib
import socket
import unittest

from fake import CHAT, Fake
from harness import SECONDS_MAX, Torpord, memory_bound, pss_of
from raw import Answer, head, post, read_all

MESSAGES = "/v1/messages"
LIMITS = """
[limits]
body_bytes = "4MiB"
bodies_in_flight_bytes = "16MiB"
head_time = "1s"
body_stall = "1s"
body_time = "3s"
connections = 300
"""
GROWTH_MAX = memory_bound(64 * 1024 * 1024)  # of the daemon under a flood of 1 GB


class BadClientTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.torpord = Torpord(more=LIMITS)
        assert cls.torpord.start() == "ready\n"
        cls.good = Fake(cls.torpord, "good")
        cls.key = cls.torpord.call("POST", "/api/keys", {"name": "client"})[2]["key"]

    @classmethod
    def tearDownClass(cls):
        cls.good.remove()
        cls.torpord.remove()

    def tearDown(self):
        """Whatever a test did, the daemon answers, and nothing is left of it."""
        status, _, answer = self.good.ask()
        self.assertEqual((status, answer["model"]), (200, "good"))
        self.torpord.wait_until(lambda: self.torpord.gauge("torpor_connections") == 1, "closed connections")  # its own
        self.torpord.wait_until(lambda: self.torpord.gauge("torpor_body_bytes") == 0, "bodies that are let go")
        self.assertEqual((self.good.status()["requests"], self.good.status()["waiting"]), (0, 0))

    def connect(self, tcp=False):
        connection = socket.socket(socket.AF_INET if tcp else socket.AF_UNIX)
        self.addCleanup(connection.close)
        connection.settimeout(SECONDS_MAX)
        connection.connect(("127.0.0.1", self.torpord.port) if tcp else self.torpord.folder + "/torpor.sock")
        return connection

    def send(self, *pieces, tcp=False, ends=False):
        """What comes back until the daemon closes. `ends`: the sending side is shut down."""
        connection = self.connect(tcp)
        try:
            for piece in pieces:
                connection.sendall(piece)
            if ends:
                connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has closed; what it said comes now
        with connection:  # closed at once: it would be waited for
            return read_all(connection)

    def refused(self, status, *pieces, path=CHAT, says="", tcp=False):
        """One answer with this status in the shape of this path's wire, and then a closed connection."""
        raw = self.send(*pieces, tcp=tcp)
        self.assertRegex(raw[:20], rb"^HTTP/1.1 \d\d\d ", pieces[0][:80])
        answer = Answer(raw)
        self.assertEqual((answer.status, answer.rest), (status, b""), (pieces[0][:80], raw[:500]))
        self.assertIn(b"\r\nConnection: close", answer.head)
        error = answer.json()
        if path == MESSAGES:
            self.assertEqual(error["type"], "error")
        self.assertIn("type" if path.startswith("/v1/") else "kind", error["error"])
        self.assertIn(says, error["error"]["message"])
        return error

    def test_bodies_that_are_no_good_request(self):
        deep = b'{"model":"good","x":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
        for path in (CHAT, MESSAGES):
            for body, says in ((b"", "JSON"), (b"{", "JSON"), (b'{"model":"good"', "JSON"), (b'{"model":"good"} x', "JSON"),
                               (b"[" * 10_000, "deeper than 512"), (deep, "deeper than 512"), (b"[]", "object"), (b'"good"', "object"),
                               (b'{"model":"good","model":"good"}', "'model' is given twice"),
                               (b'{"model":"good","stream":true,"stream":false}', "'stream' is given twice"),
                               (b'{"model":1}', "'model' must be"), (b'{"model":["good"]}', "'model' must be"), (b"{}", "'model' is missing"),
                               (b'{"model":"good","stream":"yes"}', "'stream' must be"), (b'{"model":"good","stream":1}', "'stream' must be"),
                               (b'{"model":"\xff"}', ""), (b'{"model":"good","x":"\xed\xa0\x80"}', ""), (b"\xef\xbb\xbf\x00{}", "")):
                with self.subTest(path=path, body=body[:60]):
                    error = self.refused(400, post(body, path=path), path=path, says=says)
                    self.assertEqual(error["error"]["type"], "invalid_request_error")

    def test_a_gigabyte_in_chunks(self):
        piece = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        before = pss_of(self.torpord.process.pid)
        for tcp in (False, True):
            lines = ["Transfer-Encoding: chunked", "x-api-key: " + self.key]
            pieces = [head(CHAT, *lines), *[piece] * 1000]
            self.refused(413, *pieces, says="larger than 4194304 bytes", tcp=tcp)
            self.refused(413, head(MESSAGES, *lines), *pieces[1:], path=MESSAGES, tcp=tcp)
        self.assertLess(pss_of(self.torpord.process.pid) - before, GROWTH_MAX)

    def test_a_gigabyte_of_headers(self):
        before = pss_of(self.torpord.process.pid)
        line = b"x-y: " + b"z" * 1000 + b"\r\n"
        for tcp in (False, True):
            self.refused(431, b"POST /v1/messages HTTP/1.1\r\n", *[line * 1000] * 1000, path=MESSAGES, tcp=tcp)
            self.refused(431, b"GET / HTTP/1.1\r\nx: ", *[b"y" * 1_000_000] * 1000, path="/", tcp=tcp)
        self.assertLess(pss_of(self.torpord.process.pid) - before, GROWTH_MAX)

    def test_lines_of_a_head(self):
        for path in (CHAT, MESSAGES, "/api/models"):
            self.refused(431, head(path, *["x: y"] * 1000), path=path, says="more than 100 headers")
            self.refused(431, head(path, "x: " + "y" * 10_000), path=path, says="longer than")
            self.refused(431, head(path, "x: " + "y" * 1_000_000), path=path)
        self.refused(414, head("/v1/" + "x" * 1_000_000, method="GET"), says="address")
        self.refused(414, head("/v1/" + "x" * 3000, method="GET"), says="address")
        for line in ("x: a\0b", "x: a\n b", "x: a\r\n b", " x: a", "x : a", "no colon", "x\0: a", "x: \x7f"):
            with self.subTest(line=line):
                self.refused(400, head(CHAT, line))

    def test_lengths_that_cannot_be_believed(self):
        for path in (CHAT, MESSAGES):
            self.refused(413, head(path, "Content-Length: 1000000000000"), path=path, says="4194304 bytes")
            for lines in (["Content-Length: -1"], ["Content-Length: ten"], ["Content-Length: 0x10"], ["Content-Length: 10, 10"],
                          ["Content-Length: 99999999999999999999999"], ["Content-Length: 10", "Content-Length: 11"],
                          ["Content-Length: 2", "Transfer-Encoding: chunked"], ["Transfer-Encoding: chunked", "Content-Length: 0"],
                          ["Transfer-Encoding: gzip, chunked"], ["Transfer-Encoding: identity"], ["Transfer-Encoding: xchunked"],
                          ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"]):
                with self.subTest(path=path, lines=lines):
                    self.refused(400, head(path, *lines) + b"0\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n", path=path)

    def test_chunks_that_cannot_be_believed(self):
        for path in (CHAT, MESSAGES):
            for chunks, status in ((b"zz\r\n", 400), (b"-2\r\n", 400), (b"0x5\r\nhello\r\n", 400), (b"\r\n", 400), (b"5\nhello\r\n", 400),
                                   (b"2\r\nabc\r\n", 400), (b"fffffffffffffffff\r\n", 400), (b"ffffffffffffffff\r\n", 413),
                                   (b"7fffffffffffffff\r\n", 413), (b"5;" + b"x" * 10_000, 431),
                                   (b"0\r\n" + b"x: y\r\n" * 1000 + b"\r\n", 431)):
                with self.subTest(path=path, chunks=chunks[:20]):
                    self.refused(status, head(path, "Transfer-Encoding: chunked") + chunks, path=path)

    def test_good_chunks(self):
        body = b'{"model":"good"}'
        chunks = b"".join(b"%X;a=b\r\n%c\r\n" % (1, byte) for byte in body) + b"0\r\nx: y\r\n\r\n"
        raw = self.send(head(CHAT, "Transfer-Encoding: chunked", "Connection: close") + chunks)
        self.assertEqual(Answer(raw).json()["model"], "good")

    def test_senders_that_do_not_go_on(self):
        """Each is let go at its limit: head_time, body_stall."""
        for begin in (b"", b"P", b"POST /v1/messages HT", head(CHAT)[:-2]):
            if begin:
                self.assertEqual(self.send(begin), b"")
        self.refused(408, head(CHAT, "Content-Length: 100") + b"{", says="next piece")
        self.refused(408, head(MESSAGES, "Transfer-Encoding: chunked") + b"5\r\nhel", path=MESSAGES, says="next piece")

    def drip(self, begin, more):
        """Sends a byte whenever there is nothing to read for a while, until there is."""
        connection = self.connect()
        connection.sendall(begin)
        connection.settimeout(0.05)
        got = b""
        for byte in more:
            try:
                got = connection.recv(65536)
                break
            except TimeoutError:
                pass
            try:
                connection.sendall(bytes([byte]))
            except OSError:
                break
        connection.settimeout(SECONDS_MAX)
        return got + read_all(connection)

    def test_senders_that_drip(self):
        """A sign of life now and then is not enough: head_time and body_time count from the beginning."""
        forever = b"x" * 100 * SECONDS_MAX
        self.assertEqual(self.drip(b"GET / HTTP/1.1\r\nx: ", forever), b"")
        for path, more in ((CHAT, ["Content-Length: 1000000"]), (MESSAGES, ["Transfer-Encoding: chunked"])):
            begin = head(path, *more) + (b"10000\r\n" if "chunked" in more[0] else b"")
            answer = Answer(self.drip(begin, forever))
            self.assertEqual(answer.status, 408)
            self.assertIn("whole body did not come within 3s", answer.json()["error"]["message"])

    def test_slow_senders_leave_room_for_others(self):
        slow = [self.connect() for _ in range(250)]
        for connection in slow:
            connection.sendall(head(CHAT, "Content-Length: 100") + b"{")
        self.assertEqual(self.good.ask()[0], 200)
        self.assertEqual(self.torpord.call("GET", "/healthz")[0], 200)
        statuses = [Answer(read_all(connection)).status for connection in slow]
        self.assertLessEqual(set(statuses), {408, 503})
        self.assertIn(408, statuses)

    def test_a_client_that_shuts_its_sending_side_has_errors_and_short_answers_but_is_gone_for_engines(self):
        self.assertEqual(Answer(self.send(head("/healthz", method="GET"), ends=True)).status, 200)
        self.assertEqual(Answer(self.send(post({"model": "nobody"}), ends=True)).status, 404)
        self.assertEqual(Answer(self.send(head(CHAT, "Content-Length: 10") + b"{", ends=True)).status, 400)
        self.assertEqual(self.send(b"GET /healthz HT", ends=True), b"")
        for tcp in (False, True):
            gate = str(self.good.folder / "gate")
            pathlib.Path(gate).unlink(missing_ok=True)
            connection = self.connect(tcp)
            connection.sendall(post({"model": "good", "do": "hold", "gate": gate, "stream": True}, "x-api-key: " + self.key))
            self.good.wait_for("holding")
            connection.shutdown(socket.SHUT_WR)
            self.good.wait_for("gone")  # the engine sees that its connection was closed
            got = read_all(connection)
            self.assertNotIn(b"[DONE]", got)
            self.torpord.wait_until(lambda: self.good.status()["requests"] == 0, "a free slot")

    def test_pipelined_requests_are_answered_in_order(self):
        ask = post({"model": "good", "n": 1})
        requests = [ask, head("/api/version", method="GET"), ask, head("/healthz", method="GET"), ask, ask, head("/v1/models", method="GET"),
                    ask, head("/api/models/good", method="GET"), post({"model": "good"}, "Connection: close")]
        kinds = ["pid", "components", "pid", "ok", "pid", "pid", "data", "pid", "state", "pid"]
        raw = self.send(b"".join(requests))
        for kind in kinds:
            answer = Answer(raw)
            self.assertEqual(answer.status, 200)
            self.assertIn(kind, answer.json())
            raw = answer.rest
        self.assertEqual(raw, b"")

    def test_nothing_is_answered_after_a_refusal(self):
        self.refused(404, post({"model": "nobody"}) + head("/healthz", method="GET"), says="nobody")

    def test_expect_continue(self):
        body = json.dumps({"model": "good"}).encode()
        for tcp in (False, True):
            connection = self.connect(tcp)
            connection.sendall(head(CHAT, f"Content-Length: {len(body)}", "Expect: 100-continue", "Connection: close", "x-api-key: " + self.key))
            said = b""
            while not said.endswith(b"\r\n\r\n"):
                said += connection.recv(1)
            self.assertEqual(said, b"HTTP/1.1 100 Continue\r\n\r\n")
            connection.sendall(body)
            self.assertEqual(Answer(read_all(connection)).json()["model"], "good")
        expect = "Expect: 100-continue"
        self.refused(401, head(MESSAGES, "Content-Length: 10", expect), path=MESSAGES, tcp=True)  # without a key
        self.refused(404, head("/nowhere", "Content-Length: 10", expect), path="/nowhere")
        self.refused(413, head(CHAT, "Content-Length: 10000000", expect))
        self.refused(415, head(CHAT, "Content-Length: 10", "Content-Encoding: gzip", expect))

    def test_a_stranger_is_refused_before_its_body_is_read(self):
        body = b"x" * 1_000_000
        self.refused(401, head(MESSAGES, "Content-Length: 4000000"), *[body] * 3, path=MESSAGES, tcp=True)
        self.refused(401, head(CHAT, "Transfer-Encoding: chunked"), tcp=True)

    def test_compressed_bodies(self):
        for coding in ("gzip", "br", "deflate, gzip", "zstd"):
            for path in (CHAT, MESSAGES):
                self.refused(415, post(b"\x1f\x8b" + b"x" * 100, "Content-Encoding: " + coding, path=path), path=path, says="uncompressed")
        raw = self.send(post({"model": "good"}, "Content-Encoding: identity", "Connection: close"))
        self.assertEqual(Answer(raw).status, 200)

    def test_other_content_types_change_nothing(self):
        for kind in ("multipart/form-data; boundary=x", "multipart/form-data", "application/x-www-form-urlencoded", "text/plain"):
            raw = self.send(post({"model": "good"}, "Content-Type: " + kind, "Connection: close"))
            self.assertEqual(Answer(raw).status, 200, raw)

    def test_what_is_not_http_1_1(self):
        for data, status in ((b"GET /\r\n\r\n", 400), (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505), (b"GET / HTTP/3.0\r\n\r\n", 505),
                             (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400), (b"SSH-2.0-OpenSSH\r\n\r\n", 400), (b"\0" * 100, 400),
                             (b"GET / HTTP/1.1\nHost: x\n\n", 400), (b"GET / HTTP/1.1\r\nHost: x\n\r\n", 400), (b"\r\n\r\n", 400)):
            with self.subTest(data=data):
                self.refused(status, data, path="/")
        for version, more in ((b"1.0", b""), (b"1.0", b"Connection: close\r\n"), (b"1.1", b"Connection: close\r\n")):
            raw = self.send(b"GET /healthz HTTP/" + version + b"\r\n" + more + b"\r\n")
            self.assertEqual(Answer(raw).json(), {"ok": True})

    def test_methods_and_addresses(self):
        for target in ("http://localhost/healthz", "localhost:80", "*", "healthz", "/a b", "/\x01"):
            with self.subTest(target=target):
                self.refused(400, head(target, method="GET"), path="/")
        self.refused(400, b"CONNECT example.org:443 HTTP/1.1\r\n\r\n", path="/")
        for method, status in (("TRACE", 405), ("OPTIONS", 405), ("PUT", 405), ("PATCH", 405), ("GET", 405), ("BREW", 400)):
            with self.subTest(method=method):
                self.refused(status, head(CHAT, method=method))
        for target in ("/v1/%00", "/%2e%2e/%2e%2e/etc/passwd", "/../../etc/passwd", "/v1/models/%00", "/v1/models/..%2f..", "/%ff",
                       "/v1/models/%ff%fe", "/api/models/%2e%2e", "/v1//models", "/v1/models/", "/%zz", "//healthz", "/healthz/"):
            with self.subTest(target=target):
                self.refused(404, head(target, method="GET"), path=target)
        for more in ("Range: bytes=0-1", "Range: bytes=1-,0-,0-,-1", "Accept: */*;q=0.1", "Upgrade: websocket"):
            raw = self.send(head("/healthz", more, "Connection: close", method="GET"))
            self.assertEqual(Answer(raw).json(), {"ok": True}, more)


if __name__ == "__main__":
    unittest.main()
