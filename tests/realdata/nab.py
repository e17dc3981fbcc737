"""The machine temperature of NAB with a plain detector: how far the newest value lies from the mean of 5 hours.

Not a competitor for NAB's scoreboard: its job is a real series with a real flaw (an hour that the clock went back).
The threshold is learnt from the first scores, which lie in NAB's probationary part of the file.
"""

from __future__ import annotations

import csv
import json
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edged.pipeline.spec import CalibratedThreshold

WINDOW = 60
PROBATION_ROWS = 3404  # 15 % of the file
THRESHOLD = CalibratedThreshold(calibrate_events=3300, quantile=0.999)
_NAME = "realKnownCause/machine_temperature_system_failure.csv"
_SMALLEST_STD = 1e-3  # a constant hour must not divide by zero


class Series(NamedTuple):
    """times: ISO 8601 without offset. labelled: NAB's windows, as pairs of times."""

    times: list[str]
    values: list[float]
    labelled: list[tuple[datetime, datetime]]


def read_series(shared_data: Path) -> Series:
    with (shared_data / "nab" / "data" / _NAME).open(newline="") as file:
        _, *rows = csv.reader(file)
    windows = json.loads((shared_data / "nab" / "labels" / "combined_windows.json").read_text())[_NAME]
    labelled = [(datetime.fromisoformat(first), datetime.fromisoformat(last)) for first, last in windows]
    return Series([row[0] for row in rows], [float(row[1]) for row in rows], labelled)


def in_order(times: list[str]) -> list[int]:
    """Indices of the rows that are not behind the newest before them."""
    kept: list[int] = []
    for index, time in enumerate(times):
        if not kept or time >= times[kept[-1]]:
            kept.append(index)
    return kept


def expected_scores(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The score of each full window, in double precision."""
    windows = np.lib.stride_tricks.sliding_window_view(values, WINDOW)
    spread = np.maximum(windows.std(axis=1), _SMALLEST_STD)
    scores: NDArray[np.float64] = np.abs(windows[:, -1] - windows.mean(axis=1)) / spread
    return scores


def to_onnx() -> bytes:
    """`window` float64 (batch, 60, 1) → `score` float64 (batch, 1)."""
    node = helper.make_node
    nodes = [
        node("ReduceMean", ["window"], ["mean"], axes=[1], keepdims=1),
        node("Sub", ["window", "mean"], ["centred"]),
        node("Mul", ["centred", "centred"], ["squares"]),
        node("ReduceMean", ["squares"], ["variance"], axes=[1], keepdims=0),
        node("Sqrt", ["variance"], ["std"]),
        node("Max", ["std", "smallest"], ["spread"]),
        node("Gather", ["centred", "last"], ["newest"], axis=1),
        node("Abs", ["newest"], ["distance"]),
        node("Div", ["distance", "spread"], ["score"]),
    ]
    constants = {"smallest": np.array([_SMALLEST_STD]), "last": np.array(WINDOW - 1)}
    graph = helper.make_graph(
        nodes,
        "z_score",
        [helper.make_tensor_value_info("window", TensorProto.DOUBLE, ["batch", WINDOW, 1])],
        [helper.make_tensor_value_info("score", TensorProto.DOUBLE, ["batch", 1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())
