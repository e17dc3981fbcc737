"""The daemon as a gateway runs it: constraints, deduplication, outbound window, dead letters and metrics all on."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.broker import Broker
from benchmarks.contestants.contestant import Contestant, Results
from benchmarks.features import shown_features
from benchmarks.native import NotMeasured
from benchmarks.plan import SATURATED, STEADY_1000, STEADY_5000

PROGRAM = Path(sys.executable).parent / "edged"
ROOT = "edged/v1/bench/gw"
CLIENT_ID = "edged-bench-gw"  # as the daemon makes it from site and gateway

CONFIG = """\
[gateway]
site = "bench"
id = "gw"
state_dir = "{state}"

[broker]
url = "mqtt://127.0.0.1:{port}"

[store]
budget_bytes = 4_000_000_000
commit_linger_ms = {linger_ms}

[[pipeline]]
name = "mlp"
topics = ["in/+"]
codec = "json"
device = "{{topic[1]}}"
[pipeline.input]
fields = ["values"]
window = 1
[pipeline.model]
path = "{model}"
chain = ["onnxruntime:cpu"]
[pipeline.output]
kind = "classification"
labels = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"]

[security]
allow_unsigned = true
"""


class EdgedDaemon(Contestant):
    """linger_ms: how long a commit may wait for company; 0 is the default of the configuration."""

    durable = True
    results = Results(topic_filter=f"{ROOT}/result/+/+", device_level=5, marker='"input":{')

    def __init__(self, model_folder: Path, *, linger_ms: int = 0) -> None:
        self._model_folder = model_folder
        self._linger_ms = linger_ms
        self._broker: Broker | None = None
        self.name = "edged_linger" if linger_ms else "edged"
        self.title = f"edged, linger {linger_ms} ms" if linger_ms else "edged"
        self.loads = (SATURATED, STEADY_5000) if linger_ms else (SATURATED, STEADY_1000)

    def prepare(self) -> None:
        if not PROGRAM.exists():
            raise NotMeasured(f"no {PROGRAM.name} beside {Path(sys.executable).name}: make setup")

    def start(self, broker: Broker, workdir: Path) -> None:
        self._broker = broker
        super().start(broker, workdir)

    def stop(self) -> None:
        """The state directory goes with each run, so the session that belongs to it must go, too."""
        super().stop()
        if self._broker is not None:
            self._broker.forget(CLIENT_ID)

    def verify(self, broker: Broker, workdir: Path) -> Mapping[str, bool]:
        return shown_features(broker.port, ROOT, workdir / "state" / "edged.sock")

    def command(self, port: int, workdir: Path) -> list[str]:
        config, state = workdir / "edged.toml", workdir / "state"
        state.mkdir()
        model = self._model_folder / "mlp.onnx"
        config.write_text(CONFIG.format(state=state, port=port, linger_ms=self._linger_ms, model=model))
        return [str(PROGRAM), "run", "--config", str(config)]
