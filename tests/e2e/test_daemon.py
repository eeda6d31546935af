"""The daemon by itself: start, stop, access, configuration. No engine needed."""
import pathlib
import re
import signal
import stat
import unittest

from harness import Torpord, free_port

TABLE = pathlib.Path(__file__).resolve().parents[2] / "daemon/routes.cc"
METHODS = {"get": "GET", "post": "POST", "remove": "DELETE"}
RANK = ["open", "models", "sessions", "admin", "owner"]


def routes():
    """Method, path and scope of every route that there is; the source is the one table."""
    found = re.findall(r'Route\{Method::(\w+), "([^"]+)", Scope::(\w+)', TABLE.read_text())
    return [(METHODS[method], re.sub(r"\{\w+\}", "x", pattern), scope) for method, pattern, scope in found]


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
        table = routes()
        self.assertGreater(len(table), 20)
        self.assertEqual(len(table), TABLE.read_text().count("Route{Method::"))
        for method, path, needed in [*table, ("GET", "/nowhere", "models")]:
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

    def test_wrong_keys_are_told_to_wait_and_right_ones_never(self):
        good = {"x-api-key": self.torpord.call("POST", "/api/keys", {"name": "k"})[2]["key"]}
        wrong = {"x-api-key": "tp-" + "w" * 43}
        waits = []
        for number in range(1, 41):
            path = "/v1/messages" if number % 2 else "/nowhere"
            status, headers, answer = self.torpord.call("POST", path, {}, wrong, tcp=True)
            self.assertEqual(status, 401 if number <= 5 else 429, answer)
            if status == 429:
                waits.append(int(headers["Retry-After"]))
                self.assertIn(f"try another one in {waits[-1]} s", answer["error"]["message"])
            if number > 8:  # by now they wait for longer than a busy machine takes
                self.assertEqual(self.torpord.call("GET", "/v1/models", None, good, tcp=True)[0], 200)
        self.assertEqual(waits[:4], [1, 2, 4, 8])
        self.assertEqual(set(waits[6:]), {60})
        self.assertEqual(self.torpord.call("GET", "/v1/models", None, None, tcp=True)[0], 401)  # no key is no wrong key
        self.assertIn("\ntorpor_failed_keys_total 40\n", self.torpord.get("/metrics"))
        self.assertIn('torpor_limit_hits_total{limit="failed_keys"} 35\n', self.torpord.get("/metrics"))
        log = self.torpord.log()
        told = re.findall(r"a wrong key from ([0-9.]+) for ([^:]+): (\d+) in a row", log)
        self.assertEqual([count for _, _, count in told], ["1", "2", "4", "8", "16", "32"])
        self.assertEqual({address for address, _, _ in told}, {"127.0.0.1"})
        self.assertEqual({route for _, route, _ in told}, {"/v1/messages", "a path that is not there"})
        self.assertNotIn("wwww", log)

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
            self.assertFalse(other.doctor()["tcp"]["ok"])
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

    def test_a_config_broken_at_the_start_is_said_and_mended_by_reload(self):
        self.torpord.stop()
        file = pathlib.Path(self.torpord.folder, "config.toml")
        good = file.read_text()
        file.write_text(good + '[engines]\nlama-server = "/bin/true"\n')
        self.assertEqual(self.torpord.start(), "ready\n")
        check = self.torpord.doctor()["config"]
        self.assertFalse(check["ok"])
        self.assertIn("config.toml:4", check["message"])
        self.assertIn("did you mean llama-server?", check["message"])
        self.assertEqual(self.torpord.call("GET", "/readyz")[0], 200)
        self.assertEqual(self.torpord.call("POST", "/api/reload")[0], 400)

        file.write_text(good + '[engines]\nllama-server = "/nowhere/llama-server"\n')
        pathlib.Path(self.torpord.folder, "models").mkdir(exist_ok=True)
        pathlib.Path(self.torpord.folder, "models/m.toml").write_text('engine = "llama-server"\npath = "/dev/null"\n')
        self.assertEqual(self.torpord.call("POST", "/api/reload")[2]["models"], 1)
        self.assertTrue(self.torpord.doctor()["config"]["ok"])
        status, _, answer = self.torpord.chat("m")
        self.assertEqual(status, 502)
        self.assertIn("/nowhere/llama-server", answer["error"]["message"])

    def test_a_bad_model_at_the_start_leaves_the_others_and_the_port(self):
        self.torpord.stop()
        models = pathlib.Path(self.torpord.folder, "models")
        good = 'engine = "llama-server"\npath = "/dev/null"\n'
        (models / "good.toml").write_text(good + 'aliases = ["shared"]\n')
        (models / "late.toml").write_text(good + 'aliases = ["shared"]\n')
        (models / "bad.toml").write_text(good + "idel = '1m'\n")
        (models / "broken.toml").write_text("[`\n")
        (models / "folder.toml").mkdir()
        self.assertEqual(self.torpord.start(), "ready\n")
        answer = self.torpord.get("/api/models")
        self.assertEqual([model["name"] for model in answer["models"]], ["good"])
        check = self.torpord.doctor()["config"]
        self.assertFalse(check["ok"])
        for text in (answer["config_error"], check["message"], self.torpord.log()):
            for part in ("bad.toml:3: 'idel' is not a key of a model; did you mean idle?", "broken.toml:1: ", "folder.toml",
                         "late.toml: the alias shared of late is taken by good", "the other models are served"):
                self.assertIn(part, text)
        self.assertEqual(self.torpord.call("GET", "/v1/models", None, {"x-api-key": "tp-"}, tcp=True)[0], 401)

        status, _, answer = self.torpord.call("POST", "/api/reload")  # all stays as it was
        self.assertEqual(status, 400)
        self.assertIn("bad.toml:3", answer["error"]["message"])
        self.assertEqual([model["name"] for model in self.torpord.get("/api/models")["models"]], ["good"])
        added = {"name": "bad", "engine": "custom", "command": ["/bin/cat", "{socket}"]}
        status, _, answer = self.torpord.call("POST", "/api/models", added)
        self.assertEqual(status, 409)
        self.assertIn("bad.toml is there already", answer["error"]["message"])
        (models / "folder.toml").rmdir()
        status, _, answer = self.torpord.call("DELETE", "/api/models/broken")
        self.assertEqual(status, 400)
        self.assertRegex(answer["error"]["message"], "broken.toml is removed, but nothing is taken until this is mended: .*bad.toml:3")
        self.assertFalse((models / "broken.toml").exists())
        (models / "late.toml").write_text(good)
        self.assertEqual(self.torpord.call("POST", "/api/models", {**added, "replace": True})[0], 201)
        answer = self.torpord.get("/api/models")
        self.assertEqual(([model["name"] for model in answer["models"]], answer["config_error"]), (["bad", "good", "late"], ""))
        self.assertTrue(self.torpord.doctor()["config"]["ok"])

    def test_files_are_for_their_owner_only(self):
        key = self.torpord.call("POST", "/api/keys", {"name": "k"})[2]["key"]
        self.torpord.call("POST", "/api/models", {"name": "m", "engine": "custom", "command": ["/bin/cat", "{socket}"]})
        self.torpord.call("GET", "/v1/models", None, {"x-api-key": key}, tcp=True)
        root = pathlib.Path(self.torpord.folder)
        found = {path.relative_to(root).as_posix(): stat.S_IMODE(path.lstat().st_mode) for path in root.rglob("*")}
        self.assertEqual(stat.S_IMODE(root.stat().st_mode), 0o700)
        for name in ("torpor.sock", "torpor.db", "torpor.db-wal", "torpor.pid", "torpor.lock", "logs/torpord.log", "models/m.toml"):
            self.assertEqual(oct(found[name]), oct(0o600), name)
        del found["config.toml"]  # written by this test
        for name, mode in found.items():
            self.assertEqual(mode & 0o077, 0, f"{name} {mode:o}")

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
