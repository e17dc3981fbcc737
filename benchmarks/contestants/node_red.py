"""Node-RED, headless: mqtt in, the same MLP in a function node, mqtt out. Stores nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.broker import free_port
from benchmarks.contestants.contestant import Contestant
from benchmarks.native import NotMeasured
from benchmarks.plan import CACHE, HERE

SOURCES = HERE / "node_red"
INSTALLED = CACHE / "node_red"
PROGRAM = INSTALLED / "node_modules" / "node-red" / "red.js"
INSTALL_TIMEOUT_S = 600


class NodeRed(Contestant):
    name = "node_red"
    title = "Node-RED (not durable)"

    def __init__(self, model_folder: Path) -> None:
        self._model_folder = model_folder

    def prepare(self) -> None:
        npm, node = shutil.which("npm"), shutil.which("node")
        if npm is None or node is None:
            raise NotMeasured("no npm or no node found: apt-get install npm")
        package = (SOURCES / "package.json").read_text()
        wanted = json.loads(package)["dependencies"]["node-red"]
        if node_red_version() == wanted:
            return
        INSTALLED.mkdir(parents=True, exist_ok=True)
        (INSTALLED / "package.json").write_text(package)
        install = [npm, "install", "--no-audit", "--no-fund", "--no-package-lock", "--omit=dev"]
        try:
            subprocess.run(install, cwd=INSTALLED, check=True, capture_output=True, timeout=INSTALL_TIMEOUT_S)
        except subprocess.SubprocessError as failed:
            raise NotMeasured(f"npm install of node-red {wanted} failed: {failed}") from failed

    def command(self, port: int, workdir: Path) -> list[str]:
        flow = json.loads((SOURCES / "flow.json").read_text())
        for node in flow:
            if node["type"] == "mqtt-broker":
                node["port"] = str(port)
            if node["type"] == "function":
                node["func"] = (SOURCES / "infer.js").read_text()
        (workdir / "flows.json").write_text(json.dumps(flow))
        shutil.copy(SOURCES / "settings.js", workdir)
        shutil.copy(self._model_folder / "weights.json", workdir)
        return ["node", str(PROGRAM), "--userDir", str(workdir), "--settings", str(workdir / "settings.js")]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "BENCH_UI_PORT": str(free_port())}


def node_red_version() -> str | None:
    """Version in the cache, or None."""
    try:
        return str(json.loads((PROGRAM.parent / "package.json").read_text())["version"])
    except OSError:
        return None
