#!/usr/bin/env bash
# Resolve pyproject.toml into hashed locks for every supported Python at once: lock.sh
# The resolver lives in a folder of its own: nothing else needs it.
set -euo pipefail

tool=.cache/lock
[ -x "$tool/bin/uv" ] || { .venv/bin/python -m venv "$tool" && "$tool/bin/pip" install --quiet 'uv>=0.9,<1'; }

compile() {
    "$tool/bin/uv" pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' "$@"
}
compile requirements/build.in --output-file requirements/build.txt
# Not all extras: `cuda` overwrites `cpu`, and what installs TensorRT fetches the rest from elsewhere. `dev` names those that are tested.
compile pyproject.toml --extra dev --constraint requirements/build.txt --output-file requirements/lock.txt
compile pyproject.toml --extra cpu --extra tools --extra stick --constraint requirements/lock.txt --output-file requirements/gateway.txt
compile pyproject.toml --extra hub --constraint requirements/lock.txt --output-file requirements/hub.txt
compile pyproject.toml --extra cuda --extra tools --extra stick --constraint requirements/lock.txt --output-file requirements/gateway-cuda.txt
grep -c '==' requirements/lock.txt | xargs printf 'lock: %s packages in requirements/lock.txt\n'
