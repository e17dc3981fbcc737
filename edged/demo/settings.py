"""The configuration the demo runs the daemon with: nothing in it that a real gateway could not have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edged.demo.accounting import Owing
from edged.demo.plant import FIELDS
from edged.demo.train import LABELS, MODELS, STRIDE, WINDOW

SITE = "demo"
GATEWAY = "gw-01"
ROOT = f"edged/v1/{SITE}/{GATEWAY}"
ANOMALY = Owing("anomaly", window=1, stride=1)
CONDITION = Owing("condition", window=WINDOW, stride=STRIDE)
PIPELINES = (ANOMALY, CONDITION)

_TEMPLATE = """\
[gateway]
site = "{site}"
id = "{gateway}"
state_dir = "{state_dir}"

[broker]
url = "mqtt://127.0.0.1:{port}"
keep_alive_s = 5

{upstream}[security]
allow_unsigned = true      # the demo's models are made by edged/demo/train.py and signed by nobody

# Every event on its own: how far is this sample from those of a healthy pump?
[[pipeline]]
name = "{anomaly}"
topics = ["plant/+/pump/+"]
codec = "json"
device = "{{topic[1]}}-{{topic[3]}}"
[pipeline.input]
fields = [{fields}]
window = 1
[pipeline.model]
path = "{models}/anomaly.onnx"
chain = [{chain}]
[pipeline.output]
kind = "anomaly"
threshold = 1.0

# The last {window} events, every {stride} events: what is wrong with the pump?
[[pipeline]]
name = "{condition}"
topics = ["plant/+/pump/+"]
codec = "json"
device = "{{topic[1]}}-{{topic[3]}}"
[pipeline.input]
fields = [{fields}]
window = {window}
stride = {stride}
[pipeline.model]
path = "{models}/condition.onnx"
chain = [{chain}]
[pipeline.output]
kind = "classification"
labels = [{labels}]
alarm = [
    {{ label = "cavitation", min_score = 0.8, severity = "medium" }},
    {{ label = "bearing", min_score = 0.8, severity = "high" }},
    {{ label = "valve_stuck", min_score = 0.8, severity = "medium" }},
]
"""


_UPSTREAM = """\
[upstream]                 # the line to the centre, which the demo cuts
url = "mqtt://127.0.0.1:{port}"
rate_limit_kbit_s = 2000
live_interval_ms = 500
reconnect_spread_s = 0     # one gateway needs not wait for others
health_interval_s = 10

"""


def config_toml(
    *,
    port: int,
    state_dir: Path,
    models: Path = MODELS,
    upstream_port: int | None = None,
    chain: Sequence[str] = ("onnxruntime:cpu",),
) -> str:
    """edged.toml for a broker at `port` of this machine; rows go home by `upstream_port`, or not at all."""
    return _TEMPLATE.format(
        upstream=_UPSTREAM.format(port=upstream_port) if upstream_port is not None else "",
        site=SITE,
        gateway=GATEWAY,
        state_dir=state_dir,
        port=port,
        models=models,
        anomaly=ANOMALY.name,
        condition=CONDITION.name,
        fields=", ".join(f'"{name}"' for name in FIELDS),
        labels=", ".join(f'"{name}"' for name in LABELS),
        chain=", ".join(f'"{rung}"' for rung in chain),
        window=WINDOW,
        stride=STRIDE,
    )
