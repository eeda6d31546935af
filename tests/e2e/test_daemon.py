"""The daemon by itself: start, stop, access, configuration. No engine needed."""
import pathlib
import signal
import unittest

from harness import Torpord, free_port

ROUTES = [  # method, path, scope
    ("GET", "/healthz", "open"), ("GET", "/readyz", "open"),
    ("POST", "/v1/chat/completions", "models"), ("POST", "/v1/completions", "models"), ("POST", "/v1/responses", "models"),
    ("POST", "/v1/embeddings", "models"), ("POST", "/v1/messages", "models"),
    ("POST", "/v1/messages/count_tokens", "models"), ("GET", "/v1/models", "models"), ("GET", "/v1/models/x", "models"),
    ("GET", "/api/version", "models"), ("GET", "/api/doctor", "admin"), ("GET", "/api/models", "admin"),
    ("POST", "/api/models", "owner"), ("GET", "/api/models/x", "admin"), ("DELETE", "/api/models/x", "owner"),
    ("POST", "/api/models/x/suspend", "admin"), ("POST", "/api/models/x/resume", "admin"),
    ("POST", "/api/models/x/stop", "admin"), ("GET", "/api/models/x/logs", "admin"), ("GET", "/api/snapshots", "admin"),
    ("DELETE", "/api/snapshots/x", "admin"), ("GET", "/api/keys", "admin"), ("POST", "/api/keys", "owner"),
    ("DELETE", "/api/keys/x", "owner"), ("POST", "/api/reload", "owner"), ("POST", "/api/shutdown", "owner"),
    ("GET", "/nowhere", "models"),
]
RANK = ["open", "models", "sessions", "admin", "owner"]


class DaemonTest(unittest.TestCase):
    def setUp(self):
        self.torpord = Torpord()
        self.assertEqual(self.torpord.start(), "ready\n")

    def tearDown(self):
        self.torpord.remove()

    def test_every_route_with_no_key_each_scope_and_foreign_headers(self):
        keys = {None: ""}
        for scope in ("models", "sessions", "admin"):
            status, _, made = self.torpord.call("POST", "/api/keys", {"name": scope, "scope": scope})
            self.assertEqual(status, 201, made)
            keys[scope] = made["key"]
        for method, path, needed in ROUTES:
            for scope, key in keys.items():
                headers = {"Authorization": "Bearer " + key} if key else {}
                status = self.torpord.call(method, path, {} if method == "POST" else None, headers, tcp=True)[0]
                with self.subTest(path=path, scope=scope):
                    if needed == "open":
                        self.assertEqual(status, 200)
                    elif scope is None:
                        self.assertEqual(status, 401)
                    elif RANK.index(scope) < RANK.index(needed):
                        self.assertEqual(status, 403)
                    else:
                        self.assertIn(status, (200, 400, 404))
            good = {"x-api-key": keys["admin"]}
            for name, value in (("Host", "example.com"), ("Origin", "https://example.com"), ("Origin", "null")):
                with self.subTest(path=path, header=name):
                    self.assertEqual(self.torpord.call(method, path, None, {**good, name: value}, tcp=True)[0], 403)
        wrong = self.torpord.call("GET", "/v1/models", None, {"Authorization": "Bearer tp-wrong"}, tcp=True)
        self.assertEqual(wrong[0], 401)

    def test_a_removed_key_opens_nothing(self):
        key = self.torpord.call("POST", "/api/keys", {"name": "k"})[2]["key"]
        self.assertEqual(self.torpord.call("GET", "/v1/models", None, {"x-api-key": key}, tcp=True)[0], 200)
        self.assertEqual(self.torpord.call("DELETE", "/api/keys/k")[0], 200)
        self.assertEqual(self.torpord.call("GET", "/v1/models", None, {"x-api-key": key}, tcp=True)[0], 401)

    def test_a_second_daemon_on_the_folder_is_refused(self):
        second = Torpord()
        second.folder = self.torpord.folder
        self.assertIn(str(self.torpord.process.pid), second.start())
        self.assertEqual(second.process.wait(10), 1)
        self.assertEqual(self.torpord.call("GET", "/healthz")[0], 200)

    def test_a_taken_port_leaves_the_socket_working(self):
        other = Torpord(f'[http]\ntcp = "127.0.0.1:{self.torpord.port}"\n')
        try:
            self.assertEqual(other.start(), "ready\n")
            checks = {check["name"]: check for check in other.get("/api/doctor")["checks"]}
            self.assertFalse(checks["tcp"]["ok"])
        finally:
            other.remove()

    def test_a_broken_configuration_is_named_and_the_last_good_one_stays(self):
        file = pathlib.Path(self.torpord.folder, "models/bad.toml")
        file.write_text('engine = "llama-server"\npaht = "/x"\n')
        status, _, answer = self.torpord.call("POST", "/api/reload")
        self.assertEqual(status, 400)
        self.assertIn("bad.toml:2", answer["error"]["message"])
        self.assertIn("did you mean path?", answer["error"]["message"])
        file.write_text('engine = "llama-server"\npath = "/x"\n')
        self.assertEqual(self.torpord.call("POST", "/api/reload")[2]["models"], 1)
        self.assertEqual(self.torpord.call("POST", "/v1/chat/completions", {"model": "bad"})[0], 502)

    def test_bad_bodies_get_a_clear_400(self):
        connection = self.torpord.connection()
        for body in (b"", b"{", b"[]", b'{"model":"a","model":"b"}', b'{"model":' + b"[" * 10000, b'{"model":"\xff"}'):
            connection.request("POST", "/v1/messages", body)
            answer = connection.getresponse()
            text = answer.read()
            self.assertEqual(answer.status, 400, text)
            self.assertIn(b'"type":"error"', text)
        connection.close()

    def test_sigterm_ends_cleanly_and_leaves_no_socket(self):
        self.assertEqual(self.torpord.stop(), 0)
        self.assertFalse(pathlib.Path(self.torpord.folder, "torpor.sock").exists())

    def test_a_killed_daemon_leaves_a_folder_that_works(self):
        self.torpord.process.send_signal(signal.SIGKILL)
        self.torpord.process.wait()
        self.assertEqual(self.torpord.start(), "ready\n")
        self.assertEqual(self.torpord.call("GET", "/readyz")[0], 200)


if __name__ == "__main__":
    unittest.main()
