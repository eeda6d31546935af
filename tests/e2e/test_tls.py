"""The TCP port with TLS: answers on all wires, clients that are slow or leave, certificates that change, who may call."""
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import select
import signal
import socket
import ssl
import unittest

from fake import CHAT, Fake
from harness import SECONDS_MAX, Torpord, free_port
from tls import TlsTorpord, make_certificate, read_all, request

WIRES = [CHAT, "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/messages", "/v1/messages/count_tokens"]
CLIENT_HELLO = b"\x16\x03\x01\x02\x00\x01\x00"  # the beginning of one


class TlsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.torpord = TlsTorpord('hosts = ["box.example.org"]\n[limits]\nrequests_per_model = 1\nhead_time = "1s"\n')
        assert cls.torpord.start() == "ready\n"
        cls.key = cls.torpord.call("POST", "/api/keys", {"name": "k", "scope": "admin"})[2]["key"]
        cls.fake = Fake(cls.torpord, "m")

    @classmethod
    def tearDownClass(cls):
        cls.fake.remove()
        cls.torpord.remove()

    def ask(self, path=CHAT, **body):
        return self.torpord.call("POST", path, {"model": "m", **body}, {"x-api-key": self.key}, tcp=True)

    def connect(self):
        connection = self.torpord.tls_socket()
        self.addCleanup(connection.close)
        return connection

    def gate(self, name):
        gate = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(gate.close)
        return gate, str(pathlib.Path(self.torpord.folder) / name)

    def test_whole_and_streamed_answers_on_all_wires(self):
        for path in WIRES:
            with self.subTest(path=path):
                status, _, answer = self.ask(path)
                self.assertEqual((status, answer["model"]), (200, "m"))
                status, headers, text = self.ask(path, do="stream", stream=True, events=3)
                self.assertEqual((status, headers.get_content_type()), (200, "text/event-stream"))
                self.assertEqual(re.findall(r"^data: (\d+)", text, re.M), ["00000", "00001", "00002"])
                self.assertIn("[DONE]", text)
        self.assertEqual(self.torpord.call("GET", "/v1/models", None, None, tcp=True)[0], 401)

    def test_curl_with_the_certificate_and_by_the_name_that_is_allowed(self):
        url = f":{self.torpord.port}{CHAT}"
        asked = ["-H", "Authorization: Bearer " + self.key, "-d", '{"model":"m"}']
        self.assertIn('"model": "m"', self.torpord.curl("https://localhost" + url, *asked))
        streamed = self.torpord.curl("-N", "https://localhost" + url, *asked[:-1], '{"model":"m","do":"stream","stream":true}')
        self.assertIn("data: [DONE]", streamed)
        resolved = ["--resolve", f"box.example.org:{self.torpord.port}:127.0.0.1"]
        self.assertIn('"model": "m"', self.torpord.curl("https://box.example.org" + url, *asked, *resolved))
        from_its_page = ["-H", f"Origin: https://box.example.org:{self.torpord.port}"]
        self.assertIn('"model": "m"', self.torpord.curl("https://box.example.org" + url, *asked, *resolved, *from_its_page))
        for foreign in ("Host: other.example.org", "Origin: https://other.example.org"):
            self.assertRegex(self.torpord.curl("https://localhost" + url, *asked, "-H", foreign), "Host header|Origin")

    def test_old_versions_and_other_protocols_are_refused(self):
        old = self.torpord.context()
        old.minimum_version, old.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, ssl.TLSVersion.TLSv1_1
        old.set_ciphers("DEFAULT@SECLEVEL=0")
        with self.assertRaisesRegex(ssl.SSLError, "(?i)protocol.version"):
            self.torpord.tls_socket(old)
        for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
            context = self.torpord.context()
            context.minimum_version = context.maximum_version = version
            context.set_alpn_protocols(["h2", "http/1.1"])
            with self.torpord.tls_socket(context) as connection:
                self.assertEqual((connection.version(), connection.selected_alpn_protocol()), (name, "http/1.1"))
                connection.sendall(request("/healthz", self.key, close=True))
                self.assertIn(b'{"ok":true}', read_all(connection))
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
        with self.torpord.tls_socket(context) as first:
            self.assertFalse(first.session_reused)
            session = first.session
        with context.wrap_socket(self.torpord.plain_socket(), server_hostname="localhost", session=session) as second:
            self.assertTrue(second.session_reused)  # by its ticket
        only_h2 = self.torpord.context()
        only_h2.set_alpn_protocols(["h2"])
        with self.assertRaisesRegex(ssl.SSLError, "(?i)no.application.protocol"):
            self.torpord.tls_socket(only_h2)

    def test_plain_http_is_told_to_use_tls(self):
        with self.torpord.plain_socket() as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            got = read_all(connection)
        self.assertRegex(got, rb"^HTTP/1.1 400 ")
        head, _, body = got.partition(b"\r\n\r\n")
        self.assertIn(b"https", body)
        self.assertIn(b"Content-Length: %d\r\n" % len(body), head + b"\r\n")
        with self.torpord.plain_socket() as connection:
            connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            self.assertNotIn(b"HTTP", read_all(connection))

    def test_half_handshakes_hold_no_thread_and_are_closed(self):
        held = []
        for number in range(300):  # more than there may be threads
            held.append(self.torpord.plain_socket())
            held[-1].sendall(CLIENT_HELLO[:number % 8])
        self.torpord.wait_until(lambda: self.gauge("torpor_connections") >= 300, "the connections")
        self.assertLess(self.gauge("torpor_http_threads"), 256)
        self.assertEqual(self.ask()[0], 200)
        for connection in held:
            self.assertEqual(read_all(connection), b"")  # within head_time, and well before idle_time
            connection.close()

    def gauge(self, name):
        return float(re.search(rf"^{name} (.+)$", self.torpord.call("GET", "/metrics")[2], re.M)[1])

    def test_many_requests_on_one_connection(self):
        connection = self.torpord.connection(tcp=True)
        for number in range(20):
            streamed = {"do": "stream", "stream": True} if number % 2 else {}
            connection.request("POST", CHAT, json.dumps({"model": "m", **streamed}), {"x-api-key": self.key})
            if number == 0:
                sock = connection.sock
            answer = connection.getresponse()
            self.assertEqual(answer.status, 200)
            answer.read()
            self.assertIs(connection.sock, sock)
        connection.close()

    def test_requests_in_one_record_are_answered_in_order(self):
        connection = self.connect()
        connection.sendall(request(CHAT, self.key, {"model": "m"}) + request("/healthz", self.key) +
                           request(CHAT, self.key, {"model": "m", "do": "stream", "stream": True}) + request("/healthz", self.key, close=True))
        got = read_all(connection)
        self.assertEqual(len(re.findall(rb"HTTP/1.1 200 ", got)), 4, got)
        self.assertLess(got.index(b'"pid"'), got.index(b'{"ok":true}'))
        self.assertTrue(got.endswith(b'{"ok":true}'))

    def test_a_request_that_comes_during_a_stream_waits_for_its_end(self):
        gate, path = self.gate("during")
        connection = self.connect()
        connection.sendall(request(CHAT, self.key, {"model": "m", "do": "hold", "gate": path, "stream": True}))
        self.fake.wait_for("holding")
        connection.sendall(request("/healthz", self.key, close=True))
        gate.sendto(b"go", path)
        got = read_all(connection)
        self.assertIn(b"[DONE]", got)
        self.assertTrue(got.endswith(b'{"ok":true}'), got)

    def test_a_client_that_leaves_frees_its_worker(self):
        for how in ("politely", "at once"):
            _, path = self.gate("leaves-" + how.replace(" ", "-"))
            connection = self.torpord.tls_socket()
            connection.sendall(request(CHAT, self.key, {"model": "m", "do": "hold", "gate": path, "stream": True}))
            self.fake.wait_for("holding")
            self.assertEqual(self.fake.status()["requests"], 1)
            if how == "politely":  # close_notify first
                with self.assertRaises((ssl.SSLError, OSError)):
                    connection.settimeout(SECONDS_MAX)
                    connection.unwrap()  # complains about the stream that still comes
                connection.close()
            else:
                socket.socket(fileno=connection.detach()).close()
            self.fake.wait_until(lambda status: status["requests"] == 0)
            self.assertEqual(self.ask()[0], 200)  # there is one place, and it is free

    def test_a_large_body_arrives_whole(self):
        text = "".join(f"{number:07}," for number in range(1024 * 1024))
        status, _, answer = self.ask(do="digest", text=text)
        self.assertEqual((status, answer["digest"]), (200, hashlib.sha256(text.encode()).hexdigest()))
        connection = self.connect()  # and in chunks, one a record
        body = json.dumps({"model": "m", "do": "digest", "text": text[:1_000_000]}).encode()
        connection.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nx-api-key: {self.key}\r\nConnection: close\r\n"
                           "Transfer-Encoding: chunked\r\n\r\n".encode())
        for start in range(0, len(body), 5000):
            piece = body[start:start + 5000]
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        connection.sendall(b"0\r\n\r\n")
        self.assertIn(hashlib.sha256(text[:1_000_000].encode()).hexdigest().encode(), read_all(connection))

    def slow_socket(self):
        """One that takes little at a time."""
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.settimeout(SECONDS_MAX)
        plain.connect(("127.0.0.1", self.torpord.port))
        connection = self.torpord.context().wrap_socket(plain, server_hostname="localhost")
        self.addCleanup(connection.close)
        return connection

    def test_a_slow_reader_gets_a_large_answer_whole(self):
        connection = self.slow_socket()
        size = 8 * 1024 * 1024
        connection.sendall(request(CHAT, self.key, {"model": "m", "do": "large", "bytes": size}, close=True))
        first = connection.recv(100)
        self.assertEqual(self.ask()[0], 200)  # nobody else is held up, nor the worker
        got = first + read_all(connection)
        body = json.loads(got.partition(b"\r\n\r\n")[2])
        self.assertEqual(body["text"], "".join(f"{number:07}," for number in range(size // 8)))

    def test_a_slow_reader_gets_a_large_stream_whole(self):
        connection = self.slow_socket()
        connection.sendall(request(CHAT, self.key, {"model": "m", "do": "stream", "stream": True, "events": 500, "bytes": 16_000}, close=True))
        first = connection.recv(100)
        self.assertEqual(self.torpord.call("GET", "/healthz", tcp=True)[0], 200)
        got = first + read_all(connection)
        self.assertEqual(re.findall(rb"data: (\d{5}) ", got), [b"%05d" % number for number in range(500)])
        self.assertTrue(got.endswith(b"0\r\n\r\n"))

    def test_a_thread_writes_over_tls_as_well(self):
        self.assertEqual(self.ask()[0], 200)
        connection = self.torpord.connection(tcp=True)
        connection.request("GET", "/api/requests?follow=true", headers={"x-api-key": self.key})
        answer = connection.getresponse()
        self.assertEqual(answer.status, 200)
        self.assertIn(b'"m"', answer.readline())
        connection.close()

    def test_many_clients_at_once(self):
        with concurrent.futures.ThreadPoolExecutor(16) as threads:
            asked = [threads.submit(self.ask, **({"do": "stream", "stream": True} if number % 2 else {})) for number in range(64)]
            self.assertEqual({one.result(SECONDS_MAX)[0] for one in asked}, {200})


class DeadlineTest(unittest.TestCase):
    """What drips in within TLS records counts no more than what does not come at all."""

    def setUp(self):
        limits = ('head_time = "1s"\n', 'idle_time = "1s"\n', 'body_stall = "1s"\n')
        self.torpord = TlsTorpord("[limits]\n" + "".join(limits))
        self.addCleanup(self.torpord.remove)
        self.assertEqual(self.torpord.start(), "ready\n")
        self.key = self.torpord.call("POST", "/api/keys", {"name": "k"})[2]["key"]

    def drip_until_closed(self, raw):
        """Sends half a record of 16 kB, a byte at a time; false if that could go on for ever."""
        raw.sendall(b"\x17\x03\x03\x40\x00")
        for _ in range(SECONDS_MAX * 5):
            if select.select([raw], [], [], 0.2)[0]:
                return True
            try:
                raw.sendall(b"x")
            except ConnectionError:
                return True
        return False

    def test_a_body_that_stalls_gets_a_408_without_tls_too(self):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(SECONDS_MAX)
            connection.connect(self.torpord.folder + "/torpor.sock")
            connection.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{".encode())
            self.assertRegex(read_all(connection), rb"^HTTP/1.1 408 ")

    def test_half_a_head_is_closed(self):
        with self.torpord.tls_socket() as connection:
            connection.sendall(b"GET /healthz HT")
            self.assertEqual(read_all(connection), b"")

    def test_a_drip_between_requests_and_within_a_body_ends(self):
        head = (f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nx-api-key: {self.key}\r\nContent-Length: 100000\r\n\r\n").encode()
        for before in (b"", head):
            with self.subTest(before=before[:4]):
                connection = self.torpord.tls_socket()
                connection.sendall(before)
                raw = socket.socket(fileno=os.dup(connection.fileno()))
                self.assertTrue(self.drip_until_closed(raw))
                raw.close()
                if before:
                    self.assertRegex(connection.recv(1000), rb"^HTTP/1.1 408 ")
                connection.close()


class CertificateTest(unittest.TestCase):
    def start(self, *arguments, **keys):
        torpord = TlsTorpord(*arguments, **keys)
        self.addCleanup(torpord.remove)
        self.assertEqual(torpord.start(), "ready\n")
        return torpord

    def test_reload_takes_a_new_certificate_and_a_broken_one_keeps_the_old(self):
        torpord = self.start()
        kept = torpord.connection(tcp=True)
        kept.request("GET", "/healthz")
        kept.getresponse().read()
        self.assertEqual(torpord.serial(), 1)

        make_certificate(torpord.root, "next", serial=2)
        for end in (".pem", ".key"):  # put in its place
            (torpord.root / ("next" + end)).rename(torpord.root / ("box" + end))
        self.assertEqual(torpord.serial(), 1)
        self.assertEqual(torpord.reload(), (200, ""))
        self.assertEqual(torpord.serial(), 2)
        kept.request("GET", "/healthz")  # connections from before live on
        self.assertEqual(kept.getresponse().status, 200)
        kept.close()

        make_certificate(torpord.root, "third", serial=3)  # under another name, by SIGHUP
        torpord.configure(name="third")
        torpord.process.send_signal(signal.SIGHUP)
        torpord.wait_until(lambda: torpord.serial() == 3, "the third certificate")

        for end, text, words in ((".pem", "nonsense", "holds no certificate"), (".key", "nonsense", "holds no key"),
                                 (".key", (torpord.root / "box.key").read_text(), "is not that of the certificate")):
            file = torpord.root / ("third" + end)
            good = file.read_text()
            file.write_text(text)
            status, message = torpord.reload()
            self.assertEqual(status, 400)
            self.assertIn(words, message)
            self.assertIn(str(file), message)
            self.assertFalse(torpord.doctor()["config"]["ok"])
            self.assertEqual(torpord.serial(), 3)
            file.write_text(good)
        (torpord.root / "third.key").chmod(0o644)
        status, message = torpord.reload()
        self.assertEqual(status, 400)
        self.assertIn("chmod 600", message)
        (torpord.root / "third.key").chmod(0o600)
        self.assertEqual(torpord.reload(), (200, ""))
        self.assertTrue(torpord.doctor()["config"]["ok"])

    def test_doctor_tells_of_tls_and_warns_before_a_certificate_expires(self):
        torpord = self.start()
        self.assertIn("(TLS)", torpord.doctor()["tcp"]["message"])
        self.assertTrue(torpord.doctor()["certificate"]["ok"])
        make_certificate(torpord.root, days=10)
        self.assertEqual(torpord.reload(), (200, ""))
        check = torpord.doctor()["certificate"]
        self.assertFalse(check["ok"])
        self.assertIn("put another in its place", check["message"])
        self.assertIn("put another in its place", torpord.log())

    def test_a_broken_certificate_at_the_start_leaves_the_socket_working(self):
        torpord = TlsTorpord()
        self.addCleanup(torpord.remove)
        (torpord.root / "box.pem").unlink()
        self.assertEqual(torpord.start(), "ready\n")
        check = torpord.doctor()["tcp"]
        self.assertFalse(check["ok"])
        self.assertIn("box.pem", check["message"])
        with self.assertRaises(OSError):
            torpord.plain_socket()

    def test_beyond_loopback_only_with_a_certificate_or_when_told(self):
        port = free_port()
        torpord = Torpord(f'[http]\ntcp = "0.0.0.0:{port}"\n')
        self.addCleanup(torpord.remove)
        self.assertEqual(torpord.start(), "ready\n")
        check = torpord.doctor()["config"]
        self.assertFalse(check["ok"])
        self.assertIn("allow_plain_http", check["message"])
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.1", port), SECONDS_MAX)
        torpord.stop()

        file = pathlib.Path(torpord.folder, "config.toml")
        file.write_text(file.read_text() + "allow_plain_http = true\n")
        torpord.port = port
        self.assertEqual(torpord.start(), "ready\n")
        check = torpord.doctor()["tcp"]
        self.assertTrue(check["ok"])
        self.assertIn("travel readable", check["message"])
        for host, status in (("192.0.2.1", 200), ("localhost", 200), ("box.example.org", 403)):
            self.assertEqual(torpord.call("GET", "/healthz", None, {"Host": f"{host}:{port}"}, tcp=True)[0], status, host)

    def test_ipv6_with_tls(self):
        torpord = TlsTorpord()
        self.addCleanup(torpord.remove)
        try:
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind(("::1", 0))
        except OSError:
            self.skipTest("there is no IPv6 here")
        config = torpord.root / "config.toml"
        config.write_text(config.read_text().replace("127.0.0.1:", "[::]:"))
        self.assertEqual(torpord.start(), "ready\n")
        self.assertIn(f"[::]:{torpord.port}", torpord.doctor()["tcp"]["message"])
        for url in ("https://localhost", "https://[::1]"):
            got = torpord.curl("-k", f"{url}:{torpord.port}/healthz")
            self.assertEqual(got, '{"ok":true}')
        self.assertEqual(torpord.call("GET", "/healthz", tcp=True)[0], 200)  # IPv4

    def test_a_daemon_that_stops_says_goodbye(self):
        torpord = self.start()
        connection = torpord.tls_socket(ssl_context_that_minds_truncation(torpord))
        connection.sendall(request("/healthz", "none"))
        while b'{"ok":true}' not in connection.recv(65536):
            pass
        self.assertEqual(torpord.stop(), 0)
        self.assertEqual(connection.recv(100), b"")  # an end without close_notify would be an error
        connection.close()


def ssl_context_that_minds_truncation(torpord):
    context = torpord.context()
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    return context


if __name__ == "__main__":
    unittest.main()
