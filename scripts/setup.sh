#!/usr/bin/env bash
# Make a virtual environment from the lock, with the edged command in it: setup.sh VENV PYTHON
# On Debian the missing system packages are installed, and named; elsewhere they are only named.
set -euo pipefail
shopt -s nullglob

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
    local faketime=(/usr/lib/*/faketime/libfaketime.so.1 /usr/local/lib/faketime*/libfaketime.so.1)
    [ ${#faketime[@]} -gt 0 ] || echo libfaketime
}

# Installing mosquitto must not leave a broker running: the tests and the demo start their own on free ports.
install_packages() {
    local as_root=() policy=/usr/sbin/policy-rc.d
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    [ "$(id -u)" = 0 ] || [ -t 0 ] || as_root=(sudo -n)
    [ ${#as_root[@]} = 0 ] || "${as_root[@]}" true 2>/dev/null || return 1

    say "installing Debian packages: $*"
    if [ ! -e $policy ]; then
        trap '"${as_root[@]}" rm -f '"$policy" EXIT
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" install -m 755 /dev/stdin $policy
    fi
    "${as_root[@]}" apt-get -qq -o DPkg::Lock::Timeout=300 update </dev/null &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 \
            -o Dpkg::Use-Pty=0 install --no-install-recommends "$@" </dev/null >/dev/null || return 1
    if [[ " $* " == *" mosquitto "* ]] && command -v systemctl >/dev/null; then
        "${as_root[@]}" systemctl --quiet disable mosquitto.service
    fi
}

mapfile -t missing < <(missing_packages)
if [ ${#missing[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null || ! install_packages "${missing[@]}"; then
        say "cannot install these here, please do: ${missing[*]}"
    fi
fi
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
