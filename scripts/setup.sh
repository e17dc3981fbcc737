#!/usr/bin/env bash
# Make a virtual environment from the lock, with the edged command in it: setup.sh VENV PYTHON
# On Debian the missing system packages are installed, and named; elsewhere they are only named.
set -euo pipefail

venv=$1
python=$2

say() { echo "setup: $*" >&2; }
die() { say "$@"; exit 1; }

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

choose_python() {
    local candidate
    for candidate in "$python" python3.13 python3.12 python3.11 /usr/bin/python3; do
        if new_enough "$candidate"; then
            python=$candidate
            return 0
        fi
    done
    return 1
}

missing_packages() {
    choose_python || echo python3
    # Debian keeps ensurepip, without which venv makes an environment without pip, in a package of its own.
    { choose_python && "$python" -c 'import ensurepip, venv' 2>/dev/null; } || echo python3-venv
    PATH=$PATH:/usr/sbin command -v mosquitto >/dev/null || echo mosquitto
}

mapfile -t missing < <(missing_packages)
[ ${#missing[@]} = 0 ] || scripts/packages.sh "${missing[@]}" || true # what follows names what it cannot do without
choose_python || die "no Python >= 3.11 found (tried $python, python3.13, python3.12, python3.11); PYTHON=/path/to/python3 names one"
"$python" -c 'import ensurepip, venv' 2>/dev/null || die "$python cannot make virtual environments; its venv package is missing"

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    say "making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
fi
pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet install --no-input)
say "installing $(grep -c '==' requirements/lock.txt) pinned Python packages (requirements/lock.txt) into $venv"
"${pip[@]}" --require-hashes -r requirements/build.txt
"${pip[@]}" --require-hashes --no-build-isolation --use-pep517 -r requirements/lock.txt
"${pip[@]}" --no-deps --no-build-isolation -e .
say "ready: $venv/bin/edged"
