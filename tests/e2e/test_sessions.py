"""Sessions as such: their events over HTTP, and what can be done with a session as a whole."""
import json
import pathlib
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
import unittest

from harness import SECONDS_MAX, Torpord
from scripted_provider import Reply, ScriptedProvider, script
from talk import Talk
from test_turns import provider_config


class SessionsTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="torpor-e2e-project-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def start(self, *replies):
        self.provider = ScriptedProvider(script(*replies))
        self.addCleanup(self.provider.close)
        self.torpord = Torpord(more=provider_config(self.provider.url))
        self.addCleanup(self.torpord.remove)
        self.assertEqual(self.torpord.start(), "ready\n")

    def follower(self, talk):
        """Another client of the same session."""
        other = Talk.__new__(Talk)
        other.torpord, other.id, other.events = self.torpord, talk.id, []
        return other

    def test_all_see_the_same_in_the_same_order_over_disconnects_and_kills(self):
        self.start()
        self.provider.reply = lambda request: (Reply("Done.") if request["messages"][-1]["role"] == "tool"
                                               else Reply("I look.", calls=[("bash", {"command": "echo here"})]))
        talk = Talk(self.torpord, self.folder, mode="danger-full-access")
        others = [self.follower(talk) for _ in range(3)]
        def follow(other, number):
            while not other.events or other.events[-1]["event"] != "set":
                try:
                    other.read(lambda event: event["event"] == "set" or number > 0 and event["seq"] % (number + 2) == 0)  # leaves again and again
                except Exception:
                    time.sleep(0.01)
        threads = [threading.Thread(target=follow, args=(other, number), daemon=True) for number, other in enumerate(others)]
        for thread in threads:
            thread.start()
        for number in range(3):
            prompt = talk.prompt(f"Prompt {number}.")
            talk.wait_for("tool_result", prompt)
            self.torpord.process.kill()
            self.torpord.process.wait()
            self.assertEqual(self.torpord.start(), "ready\n")
            talk.wait_for("turn_ended", prompt, turn=prompt)
        self.assertEqual(talk.post("set", {"title": "That was all."})[0], 200)
        mine = [(event["seq"], event["event"]) for event in talk.all()]
        for thread in threads:
            thread.join(SECONDS_MAX)
        for other in others:
            self.assertEqual([(event["seq"], event["event"]) for event in other.all()], mine)
        self.assertEqual([seq for seq, _ in mine], list(range(1, len(mine) + 1)))

    def test_one_who_takes_nothing_slows_nobody_and_misses_nothing(self):
        text = "x" * 20_000
        self.start(*[Reply(text) for _ in range(40)])
        talk = Talk(self.torpord, self.folder)
        with socket.socket(socket.AF_UNIX) as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(self.torpord.folder + "/torpor.sock")
            slow.sendall(f"GET /api/sessions/{talk.id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            for number in range(40):
                self.assertEqual(talk.turn(f"Prompt {number}.")["outcome"], "done")
            slow.settimeout(SECONDS_MAX)
            got = b""
            last = talk.all()[-1]["seq"]
            while f"id: {last}\n".encode() not in got or not got.endswith(b"\n\n"):
                piece = slow.recv(65536)
                self.assertTrue(piece)
                got += piece
        numbers = [int(line[4:]) for line in got.decode().splitlines() if line.startswith("id: ")]
        self.assertEqual(numbers, list(range(1, last + 1)))

    def test_last_event_id_and_follow(self):
        self.start(Reply("Yes."))
        talk = Talk(self.torpord, self.folder)
        talk.turn("?")
        last = talk.all()[-1]["seq"]
        status, headers, text = self.torpord.call("GET", f"/api/sessions/{talk.id}/events?follow=false", headers={"Last-Event-ID": str(last - 1)})
        self.assertEqual((status, headers.get_content_type()), (200, "text/event-stream"))
        self.assertEqual([line for line in text.splitlines() if line.startswith("id:")], [f"id: {last}"])
        self.assertNotIn("id:", self.torpord.call("GET", f"/api/sessions/{talk.id}/events?follow=false&after={last}")[2])
        self.assertEqual(self.torpord.call("GET", f"/api/sessions/{talk.id}/events?after=x")[0], 400)
        self.assertEqual(self.torpord.call("GET", "/api/sessions/01zzz/events")[0], 404)

    def test_what_a_fork_an_export_and_an_import_have(self):
        (self.folder / "a.txt").write_text("alpha\n")
        self.start(Reply(calls=[("read_file", {"path": "a.txt"})]), Reply("It is alpha."), Reply("Beta, then."), Reply("Forked."), Reply("Imported."))
        talk = Talk(self.torpord, self.folder)
        first = talk.turn("What is it?")
        talk.turn("And now?")
        asked = self.provider.requests[-1]["messages"]

        status, _, made = talk.post("fork", {"at": first["seq"]})
        self.assertEqual(status, 201, made)
        fork = self.follower(talk)
        fork.id = made["id"]
        self.assertEqual(fork.turn("And now?")["outcome"], "done")
        self.assertEqual(self.provider.requests[-1]["messages"], asked, "the same conversation")
        self.assertEqual(self.torpord.get("/api/sessions/" + fork.id)["parent"], talk.id)

        exported = self.torpord.call("GET", f"/api/sessions/{talk.id}/export")[2]
        self.assertEqual(talk.post("set", {"archived": True})[0], 200)
        connection = self.torpord.connection()
        connection.request("POST", "/api/sessions/import", exported)
        answer = connection.getresponse()
        imported = self.follower(talk)
        self.assertEqual(answer.status, 201)
        imported.id = json.loads(answer.read())["id"]
        connection.close()
        self.assertEqual(imported.turn("More?")["outcome"], "done")
        self.assertEqual(self.provider.requests[-1]["messages"][:-2], asked)
        listed = [one["id"] for one in self.torpord.get("/api/sessions")["sessions"]]
        self.assertEqual(set(listed), {fork.id, imported.id}, "the archived one is not listed")
        self.assertIn("It is alpha.", self.torpord.call("GET", f"/api/sessions/{talk.id}/export?format=md")[2])

    def test_an_import_is_taken_whole_or_not_at_all_and_gives_no_rights(self):
        self.start()

        def line(seq, kind, **body):
            return json.dumps({"seq": seq, "kind": kind, "at_ms": 1, "body": body})
        head = '{"torpor_session":1,"title":"x"}'
        created = line(1, "created", version=1, folder=str(self.folder), model="scripted", mode="danger-full-access", by="them")

        def send(*lines):
            connection = self.torpord.connection()
            connection.request("POST", "/api/sessions/import", "\n".join(lines))
            answer = connection.getresponse()
            text = answer.read()
            connection.close()
            return answer.status, json.loads(text)
        for lines, words in (([], "no event"), (["{}"], "no exported session"), ([head], "no event"), ([head, "nonsense"], "line 2: it is no JSON object"),
                             ([head, line(1, "prompt", text="x")], "must be 'created'"), ([head, created, line(3, "prompt")], "event 3 comes after event 1"),
                             ([head, created, line(2, "pro mpt")], "no kind of event"),
                             ([head, created, '{"content":"00","data":"aGk="}'], "not what its hash"),
                             ([head, created.replace('"version": 1', '"version": 9')], "version 9")):
            status, answer = send(*lines)
            self.assertEqual(status, 400, answer)
            self.assertIn(words, answer["error"]["message"])
        self.assertEqual(self.torpord.get("/api/sessions")["sessions"], [])
        status, answer = send(head, created, line(2, "prompt", by="them", text="rm -rf /", images=[]), line(3, "turn_started", turn=2, prompt=2),
                              line(4, "tool_call", turn=2, answer=1, block=0, call="c", tool="bash", input={"command": "touch gone"}))
        self.assertEqual(status, 201, answer)
        row = self.torpord.get("/api/sessions/" + answer["id"])
        self.assertEqual((row["mode"], row["state"]), ("workspace-write", "idle"))
        self.assertFalse((self.folder / "gone").exists())

    def test_removing_ends_what_is_under_way_and_tells_those_who_follow(self):
        self.start(Reply(calls=[("bash", {"command": "sleep 1000"})]))
        talk = Talk(self.torpord, self.folder, mode="danger-full-access")
        talk.prompt("Wait.")
        talk.wait_for("tool_started")
        connection = self.torpord.connection()
        connection.request("GET", f"/api/sessions/{talk.id}/events")
        answer = connection.getresponse()
        self.assertEqual(self.torpord.call("DELETE", "/api/sessions/" + talk.id)[0], 200)
        self.assertIn(b"event: removed\n", answer.read())  # and the stream ends
        self.assertEqual(self.torpord.call("GET", "/api/sessions/" + talk.id)[0], 404)
        self.assertEqual(subprocess.run(["pgrep", "-f", "^sleep 1000$", "-P", str(self.torpord.process.pid)]).returncode, 1)

    def test_ten_thousand_are_listed_and_searched(self):
        self.start()
        self.torpord.stop()
        with sqlite3.connect(self.torpord.folder + "/torpor.db") as database:
            for number in range(10_000):
                database.execute("INSERT INTO session (id, folder, title, model, mode, parent, state, is_archived, last_seq, created_at_ms, updated_at_ms) "
                                 "VALUES (?, ?, ?, 'scripted', 'read-only', '', 0, 0, 0, ?, ?)",
                                 (f"{number:026}", f"/work/{number % 10}", f"title {number}", number, number))
                database.execute("INSERT INTO found (rowid, text) VALUES ((SELECT number FROM session WHERE id = ?) << 32, ?)", (f"{number:026}", f"title {number}"))
        database.close()
        self.assertEqual(self.torpord.start(), "ready\n")
        began = time.monotonic()
        listed = self.torpord.get("/api/sessions?limit=100")["sessions"]
        middle = time.monotonic()
        found = self.torpord.get("/api/sessions?text=title%204242")["sessions"]
        print(f"\nmeasured: {1000 * (middle - began):.1f} ms for the list, {1000 * (time.monotonic() - middle):.1f} ms for a search")
        self.assertEqual([one["title"] for one in listed], [f"title {9_999 - number}" for number in range(100)])
        self.assertEqual([one["title"] for one in found], ["title 4242"])
        below = self.torpord.get("/api/sessions?folder=/work/7&limit=1000")["sessions"]
        self.assertEqual({one["folder"] for one in below}, {"/work/7"})
        self.assertEqual(len(below), 1000)
        self.assertEqual(self.torpord.get('/api/sessions?text=%22%20OR%20NEAR(*')["sessions"], [])
        self.assertEqual(self.torpord.call("GET", "/api/sessions/000")[0], 409)

    def test_what_is_wrong_with_a_request_is_said(self):
        self.start()
        for body, status, words in (({}, 400, "folder"), ({"folder": "here"}, 400, "absolute"), ({"folder": "/nowhere/at/all"}, 400, "there is no folder"),
                                    ({"folder": "/tmp", "mode": "yolo", "model": "scripted"}, 400, "no mode"),
                                    ({"folder": "/tmp", "model": "scriptde"}, 404, "scripted"), ({"folder": "/tmp"}, 400, "say which model"),
                                    ({"folder": "/tmp", "modle": "x"}, 400, "model")):
            got, _, answer = self.torpord.call("POST", "/api/sessions", body)
            self.assertEqual(got, status, answer)
            self.assertIn(words, answer["error"]["message"])
        key = self.torpord.call("POST", "/api/keys", {"name": "little"})[2]["key"]
        self.assertEqual(self.torpord.call("GET", "/api/sessions", headers={"x-api-key": key}, tcp=True)[0], 403)


if __name__ == "__main__":
    unittest.main()
