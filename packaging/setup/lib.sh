# shellcheck shell=bash disable=SC2034
# Shared by the set-up scripts: `source lib.sh` with `set -euo pipefail` on.
# Everything that is written goes into the checkout or into Torpor's data folder, apt packages aside.

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
data=${TORPOR_DATA:-${XDG_DATA_HOME:-$HOME/.local/share}/torpor}
suite=${TORPOR_SUITE:-forky}   # the newer Debian suite that some parts come from
program=$(basename "$0")

# One line of progress on standard error.
say() { printf '%s: %s\n' "$program" "$*" >&2; }

die() { say "$*"; exit 1; }

# need COMMAND PACKAGE: ends with a plain message where a command is missing.
need() {
    command -v "$1" >/dev/null 2>&1 ||
        die "the command $1 is missing; it comes with the package $2 (packaging/setup/install-packages installs it)"
}

# version_at_least HAVE WANT: true where HAVE is WANT or newer; numbers and dots only.
version_at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

# as_root COMMAND...: runs it as root; with sudo where that asks nothing, else it says what to run by hand.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; return; fi
    sudo -n true 2>/dev/null || die "this needs root; run it yourself, then start again: sudo $*"
    sudo -n "$@"
}

# only_one NAME: waits until no other run of the same script is busy; held until this script ends.
# The descriptor must not leak into what outlives the script.
only_one() {
    mkdir -p "$data"
    exec 9>"$data/.setup-$1.lock"
    flock -n 9 || { say "another run is busy, waiting for it"; flock 9; }
}

# scratch_folder NAME: makes $data/build/NAME.PID, names it in $scratch, removes it when the script ends.
# Folders of the same name whose script is dead (killed, power lost) are removed first.
scratch_folder() {
    local left pid
    for left in "$data/build/$1".*; do
        pid=${left##*.}
        if [ -d "$left" ] && ! kill -0 "$pid" 2>/dev/null; then rm -rf "$left"; fi
    done
    scratch=$data/build/$1.$$
    mkdir -p "$scratch"
    trap 'rm -rf "$scratch"; rmdir "$data/build" 2>/dev/null || true' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

# suite_sources SUITE: the machine's own apt sources for its main suite with SUITE put in its place, as one
# deb822 file or one-line file each under $apt_root/sources.list.d. Binary and source packages both.
suite_sources() {
    local own codename
    own=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    rm -rf "$apt_root/sources.list.d" && mkdir -p "$apt_root/sources.list.d"
    for codename in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -f "$codename" ] || continue
        awk -v own="$own" -v suite="$1" '
            $1 == "deb" {
                line = $0; at = 0
                for (i = 2; i <= NF; i++) if ($i == own || $i == "stable") at = i
                if (!at || line ~ /security/) next
                $at = suite; print; $1 = "deb-src"; print
            }' "$codename" >"$apt_root/sources.list.d/$(basename "$codename" .list).list"
    done
    for codename in /etc/apt/sources.list.d/*.sources; do
        [ -f "$codename" ] || continue
        awk -v own="$own" -v suite="$1" '
            BEGIN { RS = ""; FS = "\n" }
            {
                mine = 0; text = ""
                for (i = 1; i <= NF; i++) {
                    line = $i
                    if (line ~ /^#/) continue
                    if (tolower(line) ~ /^types:/) line = "Types: deb deb-src"
                    if (tolower(line) ~ /^suites:/) {
                        if ((" " line " ") ~ ("[ \t](" own "|stable)[ \t]")) mine = 1
                        line = "Suites: " suite
                    }
                    text = text line "\n"
                }
                if (mine) print text
            }' "$codename" >"$apt_root/sources.list.d/$(basename "$codename")"
    done
    find "$apt_root/sources.list.d" -size 0 -delete
    ls "$apt_root/sources.list.d/"* >/dev/null 2>&1 ||
        die "no apt source for this system's own suite ($own) was found, so $1 cannot be derived from it"
}

# private_apt: a private apt root for $suite under $data/apt, its index at most a day old. Afterwards
# "${apt[@]}" are the options for apt-get and apt-cache. Nothing of the system's apt state is changed;
# signatures are checked with the system's keys, proxies and credentials stay those of the machine.
private_apt() {
    need apt-get apt
    apt_root=$data/apt/$suite
    mkdir -p "$apt_root/none" "$apt_root/lists/partial" "$apt_root/cache/archives/partial"
    exec 8>"$apt_root/lock"
    flock -n 8 || { say "another script reads the index of $suite, waiting for it"; flock 8; }
    apt=(-o "Dir::Etc::SourceList=/dev/null" -o "Dir::Etc::SourceParts=$apt_root/sources.list.d"
         -o "Dir::Etc::Preferences=/dev/null" -o "Dir::Etc::PreferencesParts=$apt_root/none"
         -o "Dir::State::Lists=$apt_root/lists" -o "Dir::Cache=$apt_root/cache"
         -o "APT::Sandbox::User=$(id -un)" -o "Acquire::Languages=none" -o "Acquire::Retries=3"
         -o "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false"
         -o "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false")
    if [ ! -f "$apt_root/fresh" ] || [ -n "$(find "$apt_root/fresh" -mmin +1440)" ]; then
        say "reading the package index of $suite (about 20 MB, into $apt_root; apt itself is left alone)"
        suite_sources "$suite"
        apt-get "${apt[@]}" -qq update >&2 || die "the index of $suite could not be read; is the network there?"
        touch "$apt_root/fresh"
    fi
    exec 8>&-
}

# source_package NAME: downloads NAME's newest source from $suite and unpacks it, Debian's patches applied,
# into $scratch/NAME-src. apt checks each file against the signed index, so the .dsc needs no keyring.
source_package() {
    need dpkg-source dpkg-dev
    private_apt
    (cd "$scratch" && apt-get "${apt[@]}" -qq source --download-only "$1" >&2) ||
        die "the source package of $1 could not be fetched from $suite"
    (cd "$scratch" && dpkg-source --no-check --no-copy -x "$1"_*.dsc "$1-src" >/dev/null)
}

# source_tar NAME: downloads only upstream's part of NAME's newest source from $suite, and unpacks it into
# $scratch/NAME-src. For packages whose Debian part cannot be had from every mirror.
source_tar() {
    local tar expected
    private_apt
    (cd "$scratch" && apt-get "${apt[@]}" -qq source --download-only --tar-only "$1" >&2) ||
        die "the source of $1 could not be fetched from $suite"
    tar=$(cd "$scratch" && find . -name "$1_*.orig.tar.*" ! -name '*.asc' -printf '%f\n' | head -n 1)
    [ -n "$tar" ] || die "apt fetched no source of $1 from $suite"
    expected=$(apt-cache "${apt[@]}" showsrc "$1" | awk -v tar="$tar" 'length($1) == 64 && $3 == tar { print $1; exit }')
    (cd "$scratch" && echo "$expected  $tar" | sha256sum --check --quiet >&2) ||
        die "$tar does not have the checksum that the signed index of $suite gives"
    mkdir "$scratch/$1-src"
    tar xf "$scratch/$tar" -C "$scratch/$1-src" --strip-components=1
}
