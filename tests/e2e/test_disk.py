"""The disk: what snapshots may take of it, what becomes of them when it is full, and whose folder they lie in."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from harness import BUILD, DATA, MODEL, Torpord, is_alive

MB = 1_000_000


def may_mount():
    with tempfile.TemporaryDirectory() as folder:
        if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True).returncode:
            return False
        return subprocess.run(["umount", folder], capture_output=True).returncode == 0


class WithDisk(unittest.TestCase):
    def make(self, pool=""):
        torpord = Torpord(more=f"[pool]\n{pool}\n" if pool else "")
        self.addCleanup(torpord.remove)
        return torpord

    def start(self, torpord):
        self.assertEqual(torpord.start(), "ready\n")

    def mount(self, place, options):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0700," + options, "tmpfs", place], check=True)
        self.addCleanup(subprocess.run, ["umount", "--lazy", place], check=True)

    def remount(self, place, options):
        subprocess.run(["mount", "-o", "remount," + options, place], check=True)

    def fill(self, folder):
        """To the last byte; what it returns is to be removed again."""
        filler = pathlib.Path(folder, "filler")
        with open(filler, "wb", buffering=0) as stream:
            try:
                while stream.write(bytes(4096)):
                    pass
            except OSError:
                return filler

    def slow_start(self, torpord):
        """A cold start takes two seconds more, so that what an image saves is not told by chance."""
        engine = shutil.which("llama-server") or DATA / "engines/llama-server/llama-server"
        program = pathlib.Path(torpord.folder, "bin/llama-server")
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\nsleep 2\nexec {engine} \"$@\"\n")
        program.chmod(0o755)
        torpord.variables["PATH"] = f"{program.parent}:{os.environ['PATH']}"

    def run_torpor(self, torpord, *words):
        return subprocess.run([BUILD / "clients/cli/torpor", *words], env=torpord.environment(), capture_output=True, text=True)

    def ask(self, torpord, model, how=None):
        status, headers, answer = torpord.chat(model)
        self.assertEqual(status, 200, answer)
        if how:
            self.assertIn("desc=" + how, headers["Server-Timing"], torpord.log()[-3000:])

    def is_json(self, text):
        try:
            json.loads(text)
            return True
        except ValueError:
            return False

    def suspend(self, torpord, model):
        answer = torpord.call("POST", f"/api/models/{model}/suspend")[2]
        return answer["tier"] or answer["state"]

    def state(self, torpord, model):
        return torpord.get("/api/models/" + model)["state"]


@unittest.skipUnless(MODEL.exists(), "the small model is not there; packaging/setup/fetch-model fetches it")
class BudgetTest(WithDisk):
    def test_the_least_valuable_images_go(self):
        torpord = self.make('disk = "60MB"')
        self.slow_start(torpord)
        self.start(torpord)
        torpord.need_freezing(self)
        for name in ("often", "seldom", "third"):
            torpord.add_model(name)
        for name in ("seldom", "often"):
            self.ask(torpord, name, "cold")
            self.assertEqual(self.suspend(torpord, name), "frozen")
        for _ in range(3):
            self.ask(torpord, "often", "thawed")
            self.suspend(torpord, "often")
        self.ask(torpord, "third", "cold")
        self.assertEqual(self.suspend(torpord, "third"), "frozen")
        self.assertEqual((self.state(torpord, "often"), self.state(torpord, "seldom")), ("asleep", "stopped"))
        self.assertRegex(torpord.log(), r"seldom: its snapshot of .* is removed: it made room on the disk for that of third; "
                                        "it was asleep, and its next start is cold")
        self.assertFalse(pathlib.Path(torpord.folder, "cache/snapshots/seldom").exists())
        listed = torpord.get("/api/snapshots")
        self.assertEqual([one["model"] for one in listed["snapshots"]], ["often", "third"])
        self.assertEqual(listed["used_bytes"], sum(one["bytes"] for one in listed["snapshots"]))
        self.assertEqual(listed["budget_bytes"], 60 * MB)
        shown = self.run_torpor(torpord, "snapshot", "ls")
        self.assertRegex(shown.stdout, r"together \d+\.\d MB of 60\.0 MB that they may take\nseldom has none: it made room")
        self.assertIn("of 60.0 MB in use", torpord.doctor()["snapshots"]["message"])

        # The first, cold again, has one made again; what goes for it is what is worth least now.
        for _ in range(3):
            self.ask(torpord, "often", "thawed")
            self.suspend(torpord, "often")
        self.ask(torpord, "seldom", "cold")
        self.assertEqual(self.suspend(torpord, "seldom"), "frozen")
        self.assertEqual([one["model"] for one in torpord.get("/api/snapshots")["snapshots"]], ["often", "seldom"])

        # A smaller budget holds at once, and after a restart, too.
        config = pathlib.Path(torpord.folder, "config.toml")
        config.write_text(config.read_text().replace("60MB", "40MB"))
        self.assertEqual(torpord.call("POST", "/api/reload")[0], 200)
        self.assertEqual(len(torpord.get("/api/snapshots")["snapshots"]), 1)
        torpord.stop()
        config.write_text(config.read_text().replace("40MB", "10MB"))
        self.start(torpord)
        self.assertEqual(torpord.get("/api/snapshots")["snapshots"], [])
        self.assertEqual(list(pathlib.Path(torpord.folder, "cache/snapshots").iterdir()), [])
        self.ask(torpord, "often", "cold")

    def test_two_that_run_do_not_take_turns(self):
        """An image whose worker lives goes, too; its worker gets none before it starts cold again."""
        torpord = self.make('disk = "40MB"')
        self.start(torpord)
        torpord.need_freezing(self)
        for name in ("one", "two"):
            torpord.add_model(name, idle="never")
            self.ask(torpord, name, "cold")
            torpord.wait_until(lambda: f"{name}: snapshot of" in torpord.log())
        for _ in range(3):
            self.ask(torpord, "one", "warm")
            self.ask(torpord, "two", "warm")
        self.assertEqual(torpord.log().count("snapshot of"), 3, torpord.log())  # two made, one removed
        self.assertEqual((self.suspend(torpord, "one"), self.suspend(torpord, "two")), ("stopped", "frozen"))

    def test_one_that_is_too_large_is_not_tried_again_before_a_reload(self):
        torpord = self.make('disk = "10MB"')
        self.start(torpord)
        torpord.need_freezing(self)
        torpord.add_model("smol", idle="never")
        self.ask(torpord, "smol", "cold")
        torpord.wait_until(lambda: "its snapshot is not kept" in torpord.log())
        why = torpord.get("/api/models/smol")["no_snapshot"]
        self.assertRegex(why, r"^it takes \d+\.\d MB, but \[pool\] disk in config.toml allows 10.0 MB for all of them; raise it")
        self.assertEqual(torpord.get("/api/snapshots")["without"], [{"model": "smol", "reason": why}])
        self.assertIn("smol has no snapshot: " + why, self.run_torpor(torpord, "ps").stdout)
        self.assertIn(why, torpord.doctor()["snapshots"]["message"])
        for _ in range(2):
            self.ask(torpord, "smol")
            self.assertEqual(self.suspend(torpord, "smol"), "stopped")
        self.assertEqual(torpord.log().count("its snapshot is not kept"), 1)
        self.assertEqual(list(pathlib.Path(torpord.folder, "cache/snapshots").iterdir()), [])
        self.ask(torpord, "smol", "cold")
        config = pathlib.Path(torpord.folder, "config.toml")
        config.write_text(config.read_text().replace("10MB", "1GB"))
        self.assertEqual(torpord.call("POST", "/api/reload")[0], 200)
        self.assertEqual(torpord.get("/api/models/smol")["no_snapshot"], "")
        self.assertEqual(self.suspend(torpord, "smol"), "frozen")

    def test_an_image_of_a_model_that_is_gone_counts_and_goes_first(self):
        torpord = self.make('disk = "60MB"')
        self.start(torpord)
        torpord.need_freezing(self)
        torpord.add_model("gone", pinned=True)
        self.ask(torpord, "gone", "cold")
        self.assertEqual(self.suspend(torpord, "gone"), "frozen")
        torpord.stop()
        pathlib.Path(torpord.folder, "models/gone.toml").unlink()
        self.start(torpord)
        listed = torpord.get("/api/snapshots")["snapshots"]
        self.assertEqual([(one["model"], one["reason"]) for one in listed], [("gone", "there is no model of this name")])
        for name in ("one", "two"):
            torpord.add_model(name)
            self.ask(torpord, name, "cold")
            self.assertEqual(self.suspend(torpord, name), "frozen")
        self.assertEqual([one["model"] for one in torpord.get("/api/snapshots")["snapshots"]], ["one", "two"])
        self.assertFalse(pathlib.Path(torpord.folder, "cache/snapshots/gone").exists())


@unittest.skipUnless(may_mount(), "needs the right to mount a file system")
@unittest.skipUnless(MODEL.exists(), "the small model is not there; packaging/setup/fetch-model fetches it")
class FullDiskTest(WithDisk):
    def set_up(self, options, pool='disk = "10GB"'):
        torpord = self.make(pool)
        folder = pathlib.Path(torpord.folder, "cache/snapshots")
        folder.parent.mkdir(mode=0o700)
        self.mount(folder, options)
        self.start(torpord)
        torpord.need_freezing(self)
        return torpord, folder

    def test_no_room_is_seen_before_the_worker_is_disturbed(self):
        torpord, folder = self.set_up("size=16m")
        torpord.add_model("smol", idle="never")
        self.ask(torpord, "smol", "cold")
        torpord.wait_until(lambda: "no snapshot can be made" in torpord.log())
        why = torpord.get("/api/models/smol")["no_snapshot"]
        self.assertRegex(why, r"^making it takes up to \d+\.\d MB of disk, but .*/cache/snapshots has 16\.8 MB free; free some space there")
        self.assertEqual(list(folder.iterdir()), [])
        doctor = torpord.doctor()["snapshots"]
        self.assertFalse(doctor["ok"])
        self.assertRegex(doctor["message"], r"the largest takes \d+\.\d MB, but only 16\.8 MB of the disk are free")
        for _ in range(3):
            self.ask(torpord, "smol", "warm")
        self.assertEqual(self.suspend(torpord, "smol"), "stopped")
        self.ask(torpord, "smol", "cold")
        self.assertEqual(self.suspend(torpord, "smol"), "stopped")
        self.assertEqual(torpord.log().count("no snapshot can be made"), 1)
        self.ask(torpord, "smol", "cold")
        self.remount(folder, "size=400m")
        self.assertEqual(self.suspend(torpord, "smol"), "frozen", torpord.log()[-2000:])
        self.assertTrue(torpord.doctor()["snapshots"]["ok"])
        self.ask(torpord, "smol", "thawed")

    def test_a_disk_that_fills_while_the_image_is_made(self):
        # Files instead of bytes run out: that is not seen before.
        torpord, folder = self.set_up("size=300m,nr_inodes=12")
        torpord.add_model("smol", idle="never")
        self.ask(torpord, "smol", "cold")
        torpord.wait_until(lambda: "no snapshot could be made" in torpord.log())
        self.assertRegex(torpord.log(), "smol: no snapshot could be made, it goes on without one: the disk under .*/cache/snapshots "
                                        r"is full: making it takes up to \d+\.\d MB, and \d+\.\d MB were free; free some space there")
        torpord.wait_until(lambda: not list(folder.iterdir()), "the removal of what was half made")
        for _ in range(3):  # more often than CRIU may fail at a model
            self.ask(torpord, "smol")
            self.assertEqual(self.suspend(torpord, "smol"), "stopped")
        self.assertEqual(torpord.log().count("no snapshot could be made"), 1)
        self.assertEqual(torpord.get("/api/models/smol")["last_error"], "")
        self.ask(torpord, "smol", "cold")
        self.remount(folder, "size=600m,nr_inodes=1000")
        self.assertEqual(self.suspend(torpord, "smol"), "frozen", torpord.log()[-2000:])
        self.ask(torpord, "smol", "thawed")

    def test_other_images_go_where_the_disk_itself_is_small(self):
        torpord, folder = self.set_up("size=225m")  # one image lies there, and 215 MB are needed while another is made
        for name in ("one", "two"):
            torpord.add_model(name)
            self.ask(torpord, name, "cold")
            self.assertEqual(self.suspend(torpord, name), "frozen", torpord.log()[-2000:])
        self.assertEqual([path.name for path in folder.iterdir()], ["two"])
        self.ask(torpord, "one", "cold")
        self.ask(torpord, "two", "thawed")

    def test_with_auto_a_part_of_the_disk_stays_free(self):
        torpord, folder = self.set_up("size=300m", 'disk = "auto"')
        self.assertLess(torpord.get("/api/snapshots")["budget_bytes"], 285 * MB)
        torpord.add_model("smol", idle="never")
        self.ask(torpord, "smol", "cold")
        self.assertEqual(self.suspend(torpord, "smol"), "frozen")
        # Others fill the disk: what lies there stays.
        filler = self.fill(folder)
        self.assertEqual(torpord.call("POST", "/api/reload")[0], 200)
        self.ask(torpord, "smol", "thawed")
        self.assertFalse(torpord.doctor()["snapshots"]["ok"])
        filler.unlink()
        self.assertTrue(torpord.doctor()["snapshots"]["ok"])

    def test_the_state_folder_is_full(self):
        torpord = self.make()
        self.mount(pathlib.Path(torpord.folder), "size=400m")
        pathlib.Path(torpord.folder, "config.toml").write_text(f'[http]\ntcp = "127.0.0.1:{torpord.port}"\n')
        self.start(torpord)
        torpord.need_freezing(self)
        torpord.add_model("smol", idle="never")
        self.ask(torpord, "smol", "cold")
        self.assertEqual(self.suspend(torpord, "smol"), "frozen")
        filler = self.fill(torpord.folder)
        for _ in range(3):  # logs, the list of requests and notes in the database: none can be written
            self.ask(torpord, "smol", "thawed")
            self.ask(torpord, "smol", "warm")
            self.assertEqual(self.suspend(torpord, "smol"), "frozen")
        status, _, answer = torpord.call("POST", "/api/keys", {"name": "laptop"})
        self.assertEqual(status, 500, answer)
        self.assertIn("the disk is full; free some space and try again", answer["error"]["message"])
        filler.unlink()
        self.assertEqual(torpord.call("POST", "/api/keys", {"name": "laptop"})[0], 201)
        self.ask(torpord, "smol", "thawed")
        torpord.wait_until(lambda: "smol: thawed" in torpord.log())
        self.assertEqual(torpord.stop(), 0)
        lines = pathlib.Path(torpord.folder, "logs/requests.jsonl").read_text().splitlines()
        self.assertTrue(all(self.is_json(line) for line in lines), lines)  # some are lost, none is cut
        filler = self.fill(torpord.folder)
        said = torpord.start()
        self.assertIn("No space left on device", said)
        filler.unlink()
        torpord.stop()
        self.start(torpord)
        self.ask(torpord, "smol", "thawed")


    def test_a_worker_that_could_not_be_written_down_is_no_orphan(self):
        torpord = self.make()
        self.mount(pathlib.Path(torpord.folder), "size=400m")
        pathlib.Path(torpord.folder, "config.toml").write_text(f'[http]\ntcp = "127.0.0.1:{torpord.port}"\n')
        self.start(torpord)
        torpord.add_model("smol", idle="never", snapshot="off")
        filler = self.fill(torpord.folder)
        self.ask(torpord, "smol", "cold")
        worker = torpord.get("/api/models/smol")["pid"]
        torpord.process.kill()
        torpord.process.wait()
        filler.unlink()
        self.assertTrue(is_alive(worker))
        self.start(torpord)
        torpord.wait_until(lambda: not is_alive(worker), "its end")
        self.assertIn("nothing is known of their start", torpord.log())
        self.ask(torpord, "smol", "cold")


@unittest.skipUnless(MODEL.exists(), "the small model is not there; packaging/setup/fetch-model fetches it")
class ForeignFolderTest(WithDisk):
    def refused(self, torpord, why):
        """The daemon runs and serves; idle workers are stopped."""
        self.start(torpord)
        criu = torpord.doctor()["criu"]
        self.assertFalse(criu["ok"])
        self.assertRegex(criu["message"], why + ".*; idle workers are stopped instead")
        torpord.add_model("smol", replace=True)
        self.ask(torpord, "smol", "cold")
        self.assertEqual(self.suspend(torpord, "smol"), "stopped")
        self.ask(torpord, "smol", "cold")
        torpord.stop()

    def freeze(self, torpord):
        self.start(torpord)
        torpord.need_freezing(self)
        torpord.add_model("smol")
        self.ask(torpord, "smol")
        self.assertEqual(self.suspend(torpord, "smol"), "frozen")
        torpord.stop()

    def test_a_symbolic_link_is_neither_trusted_nor_touched(self):
        torpord = self.make()
        self.freeze(torpord)
        folder = pathlib.Path(torpord.folder, "cache/snapshots")
        elsewhere = pathlib.Path(torpord.folder, "elsewhere")
        folder.rename(elsewhere)
        folder.symlink_to(elsewhere)
        (elsewhere / "precious").mkdir()
        self.refused(torpord, "cache/snapshots is a symbolic link")
        torpord.process = None
        self.assertTrue((elsewhere / "precious").exists() and (elsewhere / "smol/image").exists())
        # As after a crash, when what is left over is removed.
        self.start(torpord)
        torpord.process.kill()
        torpord.process.wait()
        self.start(torpord)
        self.assertEqual(torpord.call("POST", "/api/models/smol/stop")[0], 200)
        self.assertTrue((elsewhere / "precious").exists() and (elsewhere / "smol/image").exists())

    def test_a_folder_that_others_may_enter(self):
        torpord = self.make()
        self.freeze(torpord)
        folder = pathlib.Path(torpord.folder, "cache/snapshots")
        folder.chmod(0o755)
        self.refused(torpord, "cache/snapshots is open to others; look what is in it")
        folder.chmod(0o700)

    @unittest.skipUnless(os.geteuid() == 0, "only root can give a folder away")
    def test_a_folder_of_another_user(self):
        torpord = self.make()
        self.freeze(torpord)
        os.chown(pathlib.Path(torpord.folder, "cache/snapshots"), 12345, 12345)
        self.refused(torpord, r"cache/snapshots belongs to another user \(uid 12345\)")

    @unittest.skipUnless(may_mount(), "needs the right to mount a file system")
    def test_a_folder_that_cannot_be_written(self):
        torpord = self.make()
        self.mount(pathlib.Path(torpord.folder, "cache/snapshots"), "ro")
        os.chmod(pathlib.Path(torpord.folder, "cache"), 0o700)
        self.refused(torpord, "cache/snapshots cannot be written; mend that")


if __name__ == "__main__":
    unittest.main()
