"""The T2+Q detector on SKAB, the reference that the daemon's answers are held against.

Written anew after the protocol in the data set's manifest; it reproduces the published figures. Per run: StandardScaler
and PCA (85 % of the variance) fitted on the first 400 rows; Hotelling's T2 in the space of the components, Q (squared
residual) outside of it, each the median of the last 5 rows; an alarm when either is above its control limit at
p = 0.999. The first 4 rows after the training have no median and so no alarm.

The model file holds all of it, from raw sensor values to `score` = max(T2 / limit, Q / limit) for a window of 5
events; `score` > 1 is an alarm. It computes in double precision inside, so that nothing but the rounding of inputs
and score to float32 lies between it and `statistics`.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import scipy.stats  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

Floats = NDArray[np.float64]

TRAINING_ROWS = 400
WINDOW = 5
THRESHOLD = 1.0
_EXPLAINED_VARIANCE = 0.85
_P_VALUE = 0.999
_SENSORS = 8
_GRID = np.linspace(0, 15, 10_000)  # on which the authors look their quantiles up; coarser than the exact ones


class Run(NamedTuple):
    """One experiment. fields: as the sensors are named. times: ISO 8601 without offset. anomaly: the labels."""

    name: str
    fields: tuple[str, ...]
    times: list[str]
    values: Floats
    anomaly: list[bool]


class Detector(NamedTuple):
    """What was learnt from the first rows of a run."""

    mean: Floats
    scale: Floats
    centre: Floats
    components: Floats  # (sensors, kept)
    inverse_covariance: Floats
    residual: Floats  # projection out of the components
    t2_limit: float
    q_limit: float


class Figures(NamedTuple):
    """Pooled over all test rows; FAR and MAR in percent."""

    rows: int
    f1: float
    far: float
    mar: float


def run_files(shared_data: Path) -> list[Path]:
    """The labelled runs that are here."""
    return sorted(
        path for path in (shared_data / "skab" / "data").glob("*/*.csv") if path.parent.name != "anomaly-free"
    )


def read_run(path: Path) -> Run:
    with path.open(newline="") as file:
        header, *rows = csv.reader(file, delimiter=";")
    values = np.array([[float(cell) for cell in row[1 : 1 + _SENSORS]] for row in rows])
    anomaly = [float(row[1 + _SENSORS]) == 1 for row in rows]
    return Run(
        f"{path.parent.name}/{path.stem}", tuple(header[1 : 1 + _SENSORS]), [row[0] for row in rows], values, anomaly
    )


def fit(values: Floats) -> Detector:
    """Learn from training rows."""
    scaler = StandardScaler().fit(values)
    scaled = scaler.transform(values)
    pca = PCA(n_components=_EXPLAINED_VARIANCE).fit(scaled)
    components = pca.components_.T
    kept, rows = pca.n_components_, len(values)
    return Detector(
        scaler.mean_,
        scaler.scale_,
        pca.mean_,
        components,
        np.linalg.inv(np.atleast_2d(np.cov(pca.transform(scaled).T))),
        np.eye(_SENSORS) - components @ components.T,
        _t2_limit(rows, kept),
        _q_limit(scaled, kept),
    )


def _t2_limit(rows: int, kept: int) -> float:
    quantile = _GRID[scipy.stats.f.cdf(_GRID, kept, rows - kept) < _P_VALUE][-1]
    return float(kept * (rows - 1) * (rows + 1) / (rows * (rows - kept)) * quantile)


def _q_limit(scaled: Floats, kept: int) -> float:
    """Jackson and Mudholkar's limit as the authors compute it.

    They differ from the textbook in two ways that decide the figures: the eigenvalues are not sorted before the first
    `kept` are left out, and their powers are powers of the sum instead of sums of powers.
    """
    eigenvalues = np.linalg.eig(np.cov(scaled.T))[0].real  # of a symmetric matrix; numpy 2.5 gives complex numbers
    theta1 = float(eigenvalues[kept:].sum())
    theta2, theta3 = theta1**2, theta1**3
    h0 = 1 - 2 * theta1 * theta3 / (3 * theta2**2)
    quantile = float(_GRID[scipy.stats.norm.cdf(_GRID) < _P_VALUE][-1])
    inner = 1 + quantile * h0 * math.sqrt(2 * theta2) / theta1 + theta2 * h0 * (h0 - 1) / theta1**2
    return float(theta1 * inner ** (1 / h0))


def statistics(detector: Detector, values: Floats) -> tuple[Floats, Floats]:
    """T2 and Q of each row, each divided by its limit."""
    scaled = (values - detector.mean) / detector.scale
    parts = (scaled - detector.centre) @ detector.components
    t2 = ((parts @ detector.inverse_covariance) * parts).sum(axis=1)
    q = ((scaled @ detector.residual) * scaled).sum(axis=1)
    return t2 / detector.t2_limit, q / detector.q_limit


def expected_scores(detector: Detector, values: Floats) -> list[float | None]:
    """The score of each row, None for the first rows, which have no median. In double precision throughout."""
    medians = [
        np.median(np.lib.stride_tricks.sliding_window_view(s, WINDOW), axis=1) for s in statistics(detector, values)
    ]
    return [None] * (WINDOW - 1) + [float(score) for score in np.maximum(*medians)]


def to_onnx(detector: Detector) -> bytes:
    """The detector as a model: `window` float32 (batch, 5, 8) → `score` float32 (batch, 1)."""
    constants = {
        "mean": detector.mean,
        "scale": detector.scale,
        "centre": detector.centre,
        "components": detector.components,
        "inverse_covariance": detector.inverse_covariance,
        "residual": detector.residual,
        "limits": np.array([detector.t2_limit, detector.q_limit]),
        "last_axis": np.array([-1]),
        "middle": np.array([WINDOW // 2 + 1]),
        "median_place": np.array(WINDOW // 2),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["window"], ["raw"], to=TensorProto.DOUBLE),
        node("Sub", ["raw", "mean"], ["shifted"]),
        node("Div", ["shifted", "scale"], ["scaled"]),
        node("Sub", ["scaled", "centre"], ["centred"]),
        node("MatMul", ["centred", "components"], ["parts"]),
        node("MatMul", ["parts", "inverse_covariance"], ["weighted"]),
        node("Mul", ["weighted", "parts"], ["t2_terms"]),
        node("ReduceSum", ["t2_terms", "last_axis"], ["t2"]),
        node("MatMul", ["scaled", "residual"], ["outside"]),
        node("Mul", ["outside", "scaled"], ["q_terms"]),
        node("ReduceSum", ["q_terms", "last_axis"], ["q"]),
        node("Concat", ["t2", "q"], ["both"], axis=-1),
        node("Div", ["both", "limits"], ["ratios"]),
        node("TopK", ["ratios", "middle"], ["smallest", "places"], axis=1, largest=0, sorted=1),
        node("Gather", ["smallest", "median_place"], ["medians"], axis=1),
        node("ReduceMax", ["medians"], ["largest"], axes=[1], keepdims=1),
        node("Cast", ["largest"], ["score"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "t2q",
        [helper.make_tensor_value_info("window", TensorProto.FLOAT, ["batch", WINDOW, _SENSORS])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def model_scores(model: bytes, values: Floats) -> list[float | None]:
    """The offline answer for each row as the model itself gives it, None for the first rows."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    windows = np.lib.stride_tricks.sliding_window_view(values.astype(np.float32), WINDOW, axis=0).transpose(0, 2, 1)
    (scores,) = session.run(["score"], {"window": np.ascontiguousarray(windows)})
    return [None] * (WINDOW - 1) + [float(score) for score in np.asarray(scores)[:, 0]]


def alarms(scores: Iterable[float | None]) -> list[bool]:
    """A row without an answer raises no alarm."""
    return [score is not None and score > THRESHOLD for score in scores]


def pooled(runs: Iterable[tuple[Sequence[bool], Sequence[bool]]]) -> Figures:
    """F1, FAR and MAR over all rows of all runs: pairs of labels and alarms. No point adjustment."""
    hits = false_alarms = missed = quiet = 0
    for labels, raised in runs:
        for label, alarm in zip(labels, raised, strict=True):
            hits += label and alarm
            false_alarms += alarm and not label
            missed += label and not alarm
            quiet += not label and not alarm
    return Figures(
        hits + false_alarms + missed + quiet,
        hits / (hits + (false_alarms + missed) / 2),
        100 * false_alarms / (false_alarms + quiet),
        100 * missed / (missed + hits),
    )
