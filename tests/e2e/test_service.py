"""The daemon as a service: its socket, its signals, the service manager, and what it must not tell."""
import concurrent.futures
import contextlib
import http.client
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import unittest

from fake import Fake
from harness import BUILD, SECONDS_MAX, Torpord, UnixConnection, is_alive

# Passes descriptor argv[1] on as the first one of a service manager, then becomes torpord.
ACTIVATE = ("import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); "
            "os.execv(sys.argv[2], sys.argv[2:])")


class ServiceTest(unittest.TestCase):
    def setUp(self):
        self.torpord = Torpord()
        self.addCleanup(self.torpord.remove)
        self.threads = concurrent.futures.ThreadPoolExecutor(4)
        self.addCleanup(self.threads.shutdown)

    def start(self):
        self.assertEqual(self.torpord.start(), "ready\n")

    def answers(self, path):
        connection = UnixConnection(str(path))
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def test_a_socket_that_vanished_is_bound_again(self):
        self.start()
        path = pathlib.Path(self.torpord.folder, "torpor.sock")
        kept = UnixConnection(str(path))
        kept.request("GET", "/healthz")
        kept.getresponse().read()
        for _ in range(3):
            path.unlink()
            self.torpord.wait_until(lambda: self.answers(path), "a socket")
        kept.request("GET", "/healthz")  # connections from before live on
        self.assertEqual(kept.getresponse().status, 200)
        kept.close()
        path.rename(str(path) + ".away")
        self.torpord.wait_until(lambda: self.answers(path), "a socket")

    def use_xdg_folders(self):
        root = pathlib.Path(self.torpord.folder)
        self.torpord.variables["TORPOR_DIR"] = None
        for name, below in (("CONFIG_HOME", "config"), ("STATE_HOME", "state"), ("CACHE_HOME", "cache"), ("RUNTIME_DIR", "run")):
            (root / below).mkdir(mode=0o700)
            self.torpord.variables["XDG_" + name] = str(root / below)
        (root / "config/torpor").mkdir(mode=0o700)
        (root / "config.toml").rename(root / "config/torpor/config.toml")
        return root / "run"

    def test_a_runtime_folder_that_vanished_is_made_again(self):
        run = self.use_xdg_folders()
        self.start()
        path = run / "torpor/torpor.sock"
        self.assertTrue(self.answers(path))
        with self.stopped():
            shutil.rmtree(run / "torpor")
        self.torpord.wait_until(lambda: self.answers(path), "a socket")
        self.torpord.wait_until(lambda: (run / "torpor/torpor.pid").exists(), "torpor.pid")
        path.unlink()  # the new folder is watched, too
        self.torpord.wait_until(lambda: self.answers(path), "a socket")
        with self.stopped():
            shutil.rmtree(run)  # the last logout, and nobody may make it again
            run.write_text("")
        self.torpord.wait_until(lambda: "cannot be made again yet" in self.daemon_log(), "a complaint")
        run.unlink()
        run.mkdir(mode=0o700)  # the next login
        self.torpord.wait_until(lambda: self.answers(path), "a socket")
        self.assertEqual(self.torpord.stop(), 0)
        self.assertFalse(path.exists())

    @contextlib.contextmanager
    def stopped(self):
        """While something is done to the daemon that it must not see half-done."""
        self.torpord.process.send_signal(signal.SIGSTOP)
        yield
        self.torpord.process.send_signal(signal.SIGCONT)

    def daemon_log(self):
        return pathlib.Path(self.torpord.folder, "state/torpor/logs/torpord.log").read_text()

    def test_socket_activation_and_notify(self):
        folder = self.torpord.folder
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind(folder + "/notify")
        notify.settimeout(SECONDS_MAX)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(folder + "/torpor.sock")
        listener.listen()
        self.torpord.variables["NOTIFY_SOCKET"] = folder + "/notify"
        early = self.threads.submit(self.answers, folder + "/torpor.sock")  # waits in the backlog
        self.torpord.process = subprocess.Popen(
            [sys.executable, "-c", ACTIVATE, str(listener.fileno()), BUILD / "daemon/torpord"], env=self.torpord.environment(),
            pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.assertEqual(notify.recv(100), b"READY=1")
        self.assertTrue(early.result(SECONDS_MAX))
        self.assertTrue(self.answers(folder + "/torpor.sock"))
        fake = Fake(self.torpord, "m")
        self.assertEqual(fake.ask()[0], 200)
        environment = pathlib.Path(f"/proc/{fake.status()['pid']}/environ").read_bytes()
        for name in (b"LISTEN_FDS", b"NOTIFY_SOCKET"):
            self.assertNotIn(name, environment)
        fake.remove()
        self.torpord.process.send_signal(signal.SIGTERM)
        self.assertEqual(notify.recv(100), b"STOPPING=1")
        self.assertEqual(self.torpord.process.wait(SECONDS_MAX), 0)
        self.assertTrue(os.path.exists(folder + "/torpor.sock"), "it is the service manager's")
        for each in (notify, listener):
            each.close()

    def test_descriptors_for_another_process_are_left_alone(self):
        self.torpord.variables.update(LISTEN_PID="1", LISTEN_FDS="1")
        self.start()
        self.assertTrue(self.answers(self.torpord.folder + "/torpor.sock"))

    def hold(self):
        """A model with a stream under way, that request, and how to let it end."""
        fake = Fake(self.torpord, "m")
        self.addCleanup(fake.events.close)
        self.addCleanup(shutil.rmtree, fake.folder, True)
        fake.script("stray-child")
        gate = str(fake.folder / "gate")
        asked = self.threads.submit(fake.ask, do="hold", gate=gate, stream=True)
        self.stray = int(fake.wait_for("stray-child ").split()[1])
        fake.wait_for("holding")
        return fake, asked, gate

    def stopping(self):
        self.torpord.process.send_signal(signal.SIGTERM)
        self.torpord.wait_until(lambda: '"stopping; ' in self.torpord.log(), "the beginning of the end")

    def test_sigterm_lets_a_request_finish(self):
        self.start()
        fake, asked, gate = self.hold()
        self.stopping()
        self.assertFalse(asked.done())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"go", gate)
        status, _, text = asked.result(SECONDS_MAX)
        self.assertEqual(status, 200)
        self.assertIn("[DONE]", text)
        self.assertEqual(self.torpord.process.wait(SECONDS_MAX), 0)

    def test_a_second_sigterm_ends_at_once_and_the_next_daemon_takes_the_worker_back(self):
        self.start()
        fake, asked, _ = self.hold()
        pid = fake.status()["pid"]
        self.stopping()
        self.torpord.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.torpord.process.wait(SECONDS_MAX), 1)
        self.assertIsNotNone(asked.exception(SECONDS_MAX))
        self.assertEqual([is_alive(pid), is_alive(self.stray)], [True, True])
        self.start()
        status, _, answer = fake.ask()
        self.assertEqual((status, answer["pid"]), (200, pid))
        self.assertTrue(is_alive(self.stray), "part of the worker")

    def test_sighup_takes_a_new_model_file(self):
        self.start()
        file = pathlib.Path(self.torpord.folder, "models/late.toml")
        file.write_text('engine = "custom"\ncommand = ["/bin/cat", "{socket}"]\n')
        self.torpord.process.send_signal(signal.SIGHUP)
        self.torpord.wait_until(lambda: [model["name"] for model in self.torpord.get("/api/models")["models"]] == ["late"],
                                "the model")
        file.write_text("engine = 7\n")
        self.torpord.process.send_signal(signal.SIGHUP)
        self.torpord.wait_until(lambda: not self.torpord.doctor()["config"]["ok"], "the complaint")
        self.assertIn("late.toml:1", self.torpord.doctor()["config"]["message"])

    def limits_of(self, pid):
        """Soft and hard limit of its open files."""
        text = pathlib.Path(f"/proc/{pid}/limits").read_text()
        return [int(number) for number in re.search(r"^Max open files +(\d+) +(\d+)", text, re.M).groups()]

    def start_limited(self, soft, hard):
        limited = (f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard})); "
                   "os.execv(sys.argv[1], sys.argv[1:])")
        reader, writer = os.pipe()
        self.torpord.process = subprocess.Popen(
            [sys.executable, "-c", limited, BUILD / "daemon/torpord", "--ready-fd", str(writer)], env=self.torpord.environment(),
            pass_fds=[writer], stdin=subprocess.DEVNULL)
        os.close(writer)
        with os.fdopen(reader) as said:
            self.assertEqual(said.read(), "ready\n")

    def test_the_daemon_may_open_more_files_than_its_shell_and_its_workers_may_not(self):
        self.start_limited(1024, 12_000)
        self.assertEqual(self.limits_of(self.torpord.process.pid), [12_000, 12_000])
        self.assertTrue(self.torpord.doctor()["open files"]["ok"])
        fake = Fake(self.torpord, "m")
        self.addCleanup(fake.remove)
        self.assertEqual(fake.ask()[0], 200)
        self.assertEqual(self.limits_of(fake.status()["pid"]), [1024, 12_000])

    def test_connections_that_do_not_fit_are_said(self):
        self.start_limited(1024, 2000)
        check = self.torpord.doctor()["open files"]
        self.assertFalse(check["ok"])
        for words in ("2000", "connections = 4096"):
            self.assertIn(words, check["message"])
            self.assertIn(words, self.torpord.log())

    def test_no_secret_is_written_or_told(self):
        config = pathlib.Path(self.torpord.folder, "config.toml")
        config.write_text(config.read_text() + '[log]\nlevel = "debug"\n')
        self.start()
        key = self.torpord.call("POST", "/api/keys", {"name": "k", "scope": "admin"})[2]["key"]
        wrong = "tp-" + "w" * 43
        for header in ("x-api-key", "Authorization"):
            for value in (key, wrong):
                said = value if header == "x-api-key" else "Bearer " + value
                self.torpord.call("GET", "/v1/models", None, {header: said}, tcp=True)
        fake = Fake(self.torpord, "m", env={"HF_TOKEN": "hf-very-secret"})
        self.addCleanup(fake.remove)
        prompt = "a prompt that nobody else may read"
        status, headers, answer = self.torpord.call("POST", "/v1/chat/completions", {"model": "m", "prompt": prompt},
                                                    {"x-api-key": key}, tcp=True)
        self.assertEqual(status, 200, answer)
        environment = pathlib.Path(f"/proc/{fake.status()['pid']}/environ").read_bytes()
        token = dict(line.split(b"=", 1) for line in environment.split(b"\0") if line)[b"TORPOR_WORKER_TOKEN"].decode()
        fake.order("stop")
        fake.ask(do="exit")
        told = "".join(str(self.torpord.get(path)) for path in ("/api/models", "/api/keys", "/api/doctor", "/api/snapshots",
                                                                 "/api/version", "/v1/models"))
        told += str(headers)
        logs = list(pathlib.Path(self.torpord.folder, "logs").iterdir())
        self.assertIn("torpord.log", [log.name for log in logs])
        texts = {"answers": told, **{log.name: log.read_text() for log in logs}}
        self.assertIn('"level":"debug"', texts["torpord.log"])
        for name, text in texts.items():
            for secret in (key, key[9:], wrong, token, "hf-very-secret", prompt):
                self.assertNotIn(secret, text, name)


if __name__ == "__main__":
    unittest.main()
