"""The house rules, and a size report that fails nothing."""
import pathlib
import re
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Who may include whom (docs/ARCHITECTURE.md).
ARROWS = {
    "base": {"base"},
    "store": {"store", "base"},
    "gpu": {"gpu", "base"},
    "mcp": {"mcp", "base"},
    "daemon": {"daemon", "mcp", "gpu", "store", "base"},
    "clients": {"clients", "base"},
}
BANNED = {
    r"\b(?:std::)?system\(": "system() runs a shell; use base/process.hh",
    r"(?<![\w:])v?sprintf\(": "sprintf has no limit; use fmt::format",
    r"\bstd::regex\b": "std::regex is slow and recurses; use RE2",
    r"(?<![\w.])new (?!\()[A-Za-z_:]+[({<;]": "naked new; use std::make_unique",
    r"\.detach\(\)": "a detached thread outlives what it uses; join it",
    r"\bstrcpy\(|\bstrcat\(|\bgets\(": "no limit",
    r"\busing namespace std;": "say std::",
}
# Where a banned call is right, and why.
ALLOWED = {
    ("base/event_loop.cc", "naked new"): "libuv owns a handle until its close callback",
    ("base/process.cc", "naked new"): "libuv owns a handle until its close callback",
}
LINES_MAX = 400
FUNCTION_LINES_MAX = 70


def sources():
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.cc", "*.hh"], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE)
    names = listed.stdout.split() if listed.returncode == 0 else [
        str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.suffix in (".cc", ".hh") and "subprojects" not in path.parts]
    return [name for name in sorted(names) if not name.startswith(("build", "subprojects")) and (ROOT / name).exists()]


def without_comments_and_texts(text):
    text = re.sub(r'R"\((?:.|\n)*?\)"', '""', text)
    text = re.sub(r'"(?:\\.|[^"\\\n])*"', '""', text)
    return re.sub(r"//[^\n]*", "", text)


class TidyTest(unittest.TestCase):
    def test_include_arrows(self):
        wrong = []
        for name in sources():
            folder = name.split("/")[0]
            if folder not in ARROWS:
                continue
            for included in re.findall(r'^#include "([^"]+)"', (ROOT / name).read_text(), re.M):
                if included.split("/")[0] not in ARROWS[folder]:
                    wrong.append(f"{name} includes {included}; {folder} may include {', '.join(sorted(ARROWS[folder]))}")
                elif not (ROOT / included).exists():
                    wrong.append(f"{name} includes {included}, which is not there by that path")
        self.assertEqual(wrong, [])

    def test_quickstart_builds_what_the_programs_look_for(self):
        built = (ROOT / "quickstart").read_text()
        for name in sources():
            for program, folder in re.findall(r'find_beside\("([^"]+)", "([^"]+)"\)', (ROOT / name).read_text()):
                if folder != "packaging":  # made when the build is configured
                    self.assertIn(f"{folder}/{program}", built, name)

    def test_banned_calls(self):
        wrong = []
        for name in sources():
            for number, line in enumerate(without_comments_and_texts((ROOT / name).read_text()).split("\n"), 1):
                for pattern, why in BANNED.items():
                    if re.search(pattern, line) and (name, why.split(";")[0]) not in ALLOWED:
                        wrong.append(f"{name}:{number}: {why}: {line.strip()}")
        self.assertEqual(wrong, [])

    def test_banned_calls_are_found(self):
        for line in ('std::system("ls");', "sprintf(buffer, x);", "std::regex r;", "auto* p = new Thing(1);", "thread.detach();"):
            self.assertTrue(any(re.search(pattern, line) for pattern in BANNED), line)

    def test_every_folder_has_a_readme(self):
        folders = {str(pathlib.PurePath(name).parent) for name in sources()} - {"daemon/api", "daemon/gateway", "base/http"}
        missing = [folder for folder in sorted(folders)
                   if not any((ROOT / place / "README.md").exists() for place in (folder, str(pathlib.PurePath(folder).parent)))]
        self.assertEqual(missing, [])

    def test_headers_begin_with_pragma_once(self):
        wrong = [name for name in sources() if name.endswith(".hh") and "#pragma once" not in (ROOT / name).read_text()]
        self.assertEqual(wrong, [])

    def test_size_report(self):
        lines = {name: (ROOT / name).read_text().count("\n") for name in sources()}
        print(f"size: {len(lines)} files, {sum(lines.values())} lines, median {sorted(lines.values())[len(lines) // 2]}")
        for name, count in sorted(lines.items(), key=lambda item: -item[1]):
            if count > LINES_MAX:
                print(f"size: {name} has {count} lines (rarely more than {LINES_MAX})")
        for name in lines:
            begin = None
            for number, line in enumerate((ROOT / name).read_text().split("\n"), 1):
                if re.match(r"[A-Za-z].*\) (const )?(noexcept )?\{$", line):
                    begin = number
                elif line == "}" and begin:
                    if number - begin > FUNCTION_LINES_MAX:
                        print(f"size: {name}:{begin} is a function of {number - begin} lines (rarely more than {FUNCTION_LINES_MAX})")
                    begin = None


if __name__ == "__main__":
    unittest.main()
