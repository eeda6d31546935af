"""Runs every test of the build folders given, side by side, and adds them up.

For each folder: its unit tests, its fuzz targets for a short fixed time, and the end-to-end tests with its binaries.
For the first one also the tidy test. `run.py FOLDER... --only WORD` runs only what has WORD in its name.
"""
import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
DOCTEST = re.compile(r"test cases:\s*(\d+)\s*\|\s*(\d+) passed\s*\|\s*(\d+) failed\s*\|\s*(\d+) skipped")
COUNTS = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", re.M)
SECONDS_MAX = 900       # of one job
FUZZ_SECONDS = 8        # of one target


def environment(folder):
    return dict(os.environ, TORPOR_BUILD=str(folder), PYTHONPATH=str(HERE / "e2e"),
                ASAN_OPTIONS="detect_leaks=1", LSAN_OPTIONS=f"suppressions={HERE}/lsan.supp:print_suppressions=0",
                UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1",
                TSAN_OPTIONS=f"halt_on_error=1:second_deadlock_stack=1:suppressions={HERE}/tsan.supp")


def run(command, folder):
    """Output and status. clang 14's ThreadSanitizer cannot live with the address space layout of newer kernels."""
    if folder.name.endswith("tsan"):
        command = ["setarch", "-R", *command]
    try:
        done = subprocess.run([str(word) for word in command], env=environment(folder), timeout=SECONDS_MAX, text=True,
                              errors="replace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return done.stdout, done.returncode
    except subprocess.TimeoutExpired as late:
        return f"{late.stdout or ''}\nnot done after {SECONDS_MAX} s", -1


def unit(folder):
    output, status = run([folder / "tests/unit/unit"], folder)
    found = DOCTEST.search(output)
    passed, failed, skipped = map(int, found.groups()[1:]) if found else (0, 0, 0)
    return output, passed, failed if failed or status == 0 and found else failed + 1, skipped


def fuzz(folder, target):
    grown = folder / "tests/fuzz/grown" / target.name
    grown.mkdir(parents=True, exist_ok=True)
    seeds = HERE / "fuzz/seeds" / target.name.removeprefix("fuzz-")
    output, status = run([target, f"-max_total_time={FUZZ_SECONDS}", "-rss_limit_mb=1024", "-timeout=10", "-print_final_stats=1",
                          f"-artifact_prefix={grown}/../", grown, seeds], folder)
    return output, int(status == 0), int(status != 0), 0


def module(folder, file):
    output, status = run([sys.executable, __file__, "--module", file], folder)
    found = COUNTS.search(output)
    return (output, *map(int, found.groups())) if found else (output, 0, 1, 0)


def run_module(file):
    """In a process of its own: one file of tests."""
    path = pathlib.Path(file)
    suite = unittest.defaultTestLoader.discover(str(path.parent), pattern=path.name, top_level_dir=str(path.parent))
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(suite)
    failed = len(result.failures) + len(result.errors)
    for test, reason in result.skipped:
        print(f"skipped: {test}: {reason}")
    print(f"{result.testsRun - failed - len(result.skipped)} passed, {failed} failed, {len(result.skipped)} skipped")
    return 0


def jobs_of(folders):
    """The longest first, so that the end is not a wait for one."""
    jobs = []
    for folder in folders:
        for file in sorted((HERE / "e2e").glob("test_*.py"), key=lambda path: -path.stat().st_size):
            jobs.append((f"{folder.name}/e2e/{file.stem}", module, (folder, file)))
    for folder in folders:
        jobs.append((f"{folder.name}/unit", unit, (folder,)))
        for target in sorted((folder / "tests/fuzz").glob("fuzz-*")):
            if target.is_file() and os.access(target, os.X_OK):
                jobs.append((f"{folder.name}/{target.name}", fuzz, (folder, target)))
    jobs.append(("tidy", module, (folders[0], HERE / "tidy/test_tidy.py")))
    return jobs


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs="*", default=["build"])
    parser.add_argument("--only", default="")
    parser.add_argument("--module")
    arguments = parser.parse_args()
    if arguments.module:
        return run_module(arguments.module)
    jobs = [job for job in jobs_of([pathlib.Path(name).resolve() for name in arguments.folders]) if arguments.only in job[0]]
    passed = failed = skipped = 0
    with concurrent.futures.ThreadPoolExecutor(max(2, (os.cpu_count() or 2))) as threads:
        def timed(job):
            began = time.monotonic()
            return job[0], job[1](*job[2]), time.monotonic() - began
        for done in concurrent.futures.as_completed([threads.submit(timed, job) for job in jobs]):
            name, (output, good, bad, left), seconds = done.result()
            passed, failed, skipped = passed + good, failed + bad, skipped + left
            print(f"{name}: {good} passed, {bad} failed, {left} skipped ({seconds:.1f} s)", flush=True)
            if bad:
                report = re.search(r"(?:WARNING: ThreadSanitizer|ERROR: \w+Sanitizer|runtime error:).*", output, re.DOTALL)
                if report and report.start() < len(output) - 12000:  # what came of it may be long
                    print(report[0][:8000], "…", sep="\n")
                print(output[-12000:], flush=True)
            else:
                print("".join(f"  {line}\n" for line in output.splitlines() if line.startswith(("skipped:", "size:", "measured:"))), end="")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
