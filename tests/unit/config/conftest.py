"""A configuration that is right, ways to spoil it, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edged.config.loading import Report, examine
from edged.config.problems import Problem

VALID = """
[gateway]
site = "lyon"
id = "gw-01"
state_dir = "state"

[broker]
url = "mqtt://127.0.0.1:1883"

[security]
allow_unsigned = true

[[pipeline]]
name = "pump"
topics = ["plant/+/pump/+"]
device = "{topic[1]}-{topic[3]}"

[pipeline.input]
fields = ["accel_rms", "motor.temp_c"]
window = 32
stride = 8

[pipeline.model]
path = "pump.onnx"
chain = ["onnxruntime:cpu"]

[pipeline.output]
kind = "classification"
labels = ["ok", "bearing"]
alarm = { label = "bearing", min_score = 0.8, severity = "high" }
"""

Examine = Callable[..., Report]


@pytest.fixture
def look(tmp_path: Path) -> Examine:
    """Examine a text as edged.toml; `also` are files of conf.d, `files` others beside it; pump.onnx exists."""

    def look(
        text: str = VALID,
        *,
        also: dict[str, str] | None = None,
        files: dict[str, bytes] | None = None,
        environ: dict[str, str] | None = None,
        need_models: bool = True,
    ) -> Report:
        (tmp_path / "conf.d").mkdir(exist_ok=True)
        (tmp_path / "edged.toml").write_text(text, encoding="utf-8")
        for name, part in (also or {}).items():
            (tmp_path / "conf.d" / name).write_text(part, encoding="utf-8")
        for name, content in ({"pump.onnx": b"model"} | (files or {})).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
        return examine([tmp_path], environ=environ or {}, need_models=need_models)

    return look


def spoil(*changes: tuple[str, str]) -> str:
    """The valid text with parts replaced; each part must be there."""
    text = VALID
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


def only(report: Report) -> Problem:
    """The only problem of a report."""
    assert report.config is None
    assert len(report.problems) == 1, [str(problem) for problem in report.problems]
    return report.problems[0]


def keys(report: Report) -> list[str]:
    """The keys that have problems, in order."""
    return [problem.key for problem in report.problems]
