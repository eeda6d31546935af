"""Runs the unit tests of every build folder given, and the end-to-end tests of the first; adds them up."""
import os
import pathlib
import re
import subprocess
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
COUNTS = re.compile(r"test cases:\s*(\d+)\s*\|\s*(\d+) passed\s*\|\s*(\d+) failed\s*\|\s*(\d+) skipped")
UNIT_SECONDS_MAX = 300


def run_unit(folder):
    environment = dict(os.environ, UBSAN_OPTIONS="halt_on_error=1", TSAN_OPTIONS="halt_on_error=1")
    print(f"unit tests of {folder.name}", flush=True)
    done = subprocess.run([folder / "tests/unit/unit"], env=environment, timeout=UNIT_SECONDS_MAX, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    found = COUNTS.search(done.stdout)
    if found is None or done.returncode != 0:
        print(done.stdout[-6000:])
    if found is None:
        return 0, 1, 0
    _, passed, failed, skipped = map(int, found.groups())
    return passed, failed if failed or done.returncode == 0 else 1, skipped


def run_end_to_end(folder):
    os.environ["TORPOR_BUILD"] = str(folder)
    print(f"end-to-end tests of {folder.name}", flush=True)
    suite = unittest.defaultTestLoader.discover(str(HERE / "e2e"), pattern="test_*.py", top_level_dir=str(HERE / "e2e"))
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(suite)
    failed = len(result.failures) + len(result.errors)
    for test, reason in result.skipped:
        print(f"skipped: {test}: {reason}")
    return result.testsRun - failed - len(result.skipped), failed, len(result.skipped)


def main():
    folders = [pathlib.Path(name).resolve() for name in sys.argv[1:]]
    sums = [run_unit(folder) for folder in folders]
    if any((HERE / "e2e").glob("test_*.py")):
        sums.append(run_end_to_end(folders[0]))
    passed, failed, skipped = map(sum, zip(*sums))
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
