"""Make the demo's two models from simulated pumps: `python -m edged.demo.train` writes edged/demo/models/*.onnx.

The condition model tells from a window of samples what is wrong with a pump; the anomaly model says of a single
sample how far it is from a healthy pump's. Both are a few kilobytes, learnt with numpy alone, the same every time;
only this script needs the `onnx` package, the demo does not.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edged.demo.fleet import FAULT_KINDS, Plant, random_plant
from edged.demo.plant import FIELDS, Array

if TYPE_CHECKING:
    from onnx import GraphProto

LABELS = ("ok", "cavitation", "bearing", "valve_stuck")
WINDOW = 32
STRIDE = 8
WORN = 0.5  # wear from which a bearing should be replaced
STICKING = 0.15  # error between command and position that the process notices
CAVITATING = 0.25  # mean over the window
MODELS = Path(__file__).parent / "models"

TRAINING_PUMPS = 200
TRAINING_SEED = 1
SAMPLES = 400  # per pump
HIDDEN = 16
EPOCHS = 300
ANOMALY_QUANTILE = 0.999  # of healthy samples lie below the threshold
_COMMAND, _POSITION = FIELDS.index("valve_cmd"), FIELDS.index("valve_pos")


class Recording(NamedTuple):
    """values: (samples, pumps, fields). truth: index into LABELS per (sample, pump), of the window that ends there."""

    values: Array
    truth: np.ndarray


class Network(NamedTuple):
    """A perceptron with one hidden layer over window features; `shift` and `scale` standardise them."""

    shift: Array
    scale: Array
    hidden: Array
    hidden_bias: Array
    out: Array
    out_bias: Array


class Detector(NamedTuple):
    """Distance from healthy: |(x - mean) @ whitening| / limit; above 1 lies what healthy pumps hardly ever show."""

    mean: Array
    whitening: Array


def record(plant: Plant, samples: int) -> Recording:
    """Let the plant run and keep what was measured together with what is really wrong."""
    values, cavitation, wear, stiction = [], [], [], []
    for _ in range(samples):
        measured, now = plant.advance()
        values.append(measured)
        cavitation.append(now.cavitation)
        wear.append(plant.state.wear)
        stiction.append(plant.state.stiction)
    mean_cavitation = _running_mean(np.array(cavitation), WINDOW)
    conditions = [mean_cavitation > CAVITATING, np.array(wear) > WORN, np.array(stiction) > STICKING]
    return Recording(np.array(values), np.select(conditions, [1, 2, 3], default=0))


def _running_mean(values: Array, width: int) -> Array:
    """Mean of the last `width` rows up to each row; of fewer at the beginning."""
    total = np.cumsum(values, axis=0)
    total[width:] -= total[:-width].copy()
    return total / np.minimum(np.arange(1, len(values) + 1), width)[:, None]


def windows(recording: Recording) -> tuple[Array, np.ndarray]:
    """Every complete window as the daemon forms it: (windows, WINDOW, fields), and the truth at its newest sample."""
    ends = range(WINDOW, len(recording.values) + 1, STRIDE)
    cut = [recording.values[end - WINDOW : end].transpose(1, 0, 2) for end in ends]
    return np.concatenate(cut), np.concatenate([recording.truth[end - 1] for end in ends])


def features(batch: Array) -> Array:
    """(windows, WINDOW, fields) -> (windows, 2 fields + 1): mean and scatter of each field, and the valve's error."""
    error = np.abs(batch[:, :, _COMMAND] - batch[:, :, _POSITION]).mean(axis=1, keepdims=True)
    return np.concatenate((batch.mean(axis=1), batch.std(axis=1), error), axis=1)


def fit_network(inputs: Array, truth: np.ndarray, seed: int) -> Network:
    """Softmax regression with one hidden layer, by Adam on the whole set (a few thousand windows)."""
    rng = np.random.default_rng(seed)
    shift, scale = inputs.mean(axis=0), 1.0 / (inputs.std(axis=0) + 1e-6)
    x = (inputs - shift) * scale
    target = np.eye(len(LABELS))[truth]
    weights = [
        rng.normal(0, np.sqrt(2 / x.shape[1]), (x.shape[1], HIDDEN)),
        np.zeros(HIDDEN),
        rng.normal(0, np.sqrt(2 / HIDDEN), (HIDDEN, len(LABELS))),
        np.zeros(len(LABELS)),
    ]
    first, second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    for epoch in range(1, EPOCHS + 1):
        hidden = np.maximum(x @ weights[0] + weights[1], 0)
        error = (_softmax(hidden @ weights[2] + weights[3]) - target) / len(x)
        back = error @ weights[2].T * (hidden > 0)
        gradients = [x.T @ back, back.sum(axis=0), hidden.T @ error, error.sum(axis=0)]
        for n, gradient in enumerate(gradients):
            first[n] = 0.9 * first[n] + 0.1 * gradient
            second[n] = 0.999 * second[n] + 0.001 * gradient**2
            momentum, spread = first[n] / (1 - 0.9**epoch), second[n] / (1 - 0.999**epoch)
            weights[n] -= 0.03 * momentum / (np.sqrt(spread) + 1e-8)
    return Network(shift, scale, *weights)


def _softmax(logits: Array) -> Array:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def fit_detector(healthy: Array) -> Detector:
    """Whitening by the healthy samples' covariance, scaled so that ANOMALY_QUANTILE of them stay below 1."""
    mean = healthy.mean(axis=0)
    power, axes = np.linalg.eigh(np.cov(healthy.T))
    whitening = axes / np.sqrt(power)
    limit = np.quantile(np.linalg.norm((healthy - mean) @ whitening, axis=1), ANOMALY_QUANTILE)
    return Detector(mean, whitening / limit)


def fit() -> tuple[Network, Detector]:
    """Learn both from the training pumps."""
    recording = record(random_plant(TRAINING_PUMPS, TRAINING_SEED), SAMPLES)
    batch, truth = windows(recording)
    healthy = recording.values[:, ::FAULT_KINDS].reshape(-1, len(FIELDS))
    return fit_network(features(batch), truth, TRAINING_SEED), fit_detector(healthy)


def condition_onnx(network: Network) -> bytes:
    """(batch, window, fields) -> scores (batch, labels), sum 1. The standardisation lies in the first matrix."""
    from onnx import TensorProto, helper, numpy_helper

    hidden = network.scale[:, None] * network.hidden
    constants = {
        "hidden": hidden,
        "hidden_bias": network.hidden_bias - network.shift @ hidden,
        "out": network.out,
        "out_bias": network.out_bias,
    }
    initializers = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    initializers += [
        numpy_helper.from_array(np.array(column), name)
        for name, column in (("command_column", _COMMAND), ("position_column", _POSITION))
    ]
    make = helper.make_node
    nodes = [
        make("ReduceMean", ["window"], ["mean"], axes=[1], keepdims=1),
        make("Sub", ["window", "mean"], ["centred"]),
        make("Mul", ["centred", "centred"], ["squared"]),
        make("ReduceMean", ["squared"], ["variance"], axes=[1], keepdims=0),
        make("Sqrt", ["variance"], ["scatter"]),
        make("ReduceMean", ["window"], ["level"], axes=[1], keepdims=0),
        make("Gather", ["window", "command_column"], ["command"], axis=2),
        make("Gather", ["window", "position_column"], ["position"], axis=2),
        make("Sub", ["command", "position"], ["error"]),
        make("Abs", ["error"], ["distance"]),
        make("ReduceMean", ["distance"], ["valve_error"], axes=[1], keepdims=1),
        make("Concat", ["level", "scatter", "valve_error"], ["features"], axis=1),
        make("Gemm", ["features", "hidden", "hidden_bias"], ["hidden_in"]),
        make("Relu", ["hidden_in"], ["hidden_out"]),
        make("Gemm", ["hidden_out", "out", "out_bias"], ["logits"]),
        make("Softmax", ["logits"], ["scores"], axis=1),
    ]
    inputs = [helper.make_tensor_value_info("window", TensorProto.FLOAT, ["batch", WINDOW, len(FIELDS)])]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", len(LABELS)])]
    return _model_bytes(helper.make_graph(nodes, "condition", inputs, outputs, initializers))


def anomaly_onnx(detector: Detector) -> bytes:
    """(batch, fields) -> score (batch, 1): 1 is the threshold."""
    from onnx import TensorProto, helper, numpy_helper

    initializers = [
        numpy_helper.from_array(value.astype(np.float32), name)
        for name, value in {"mean": detector.mean, "whitening": detector.whitening}.items()
    ]
    nodes = [
        helper.make_node("Sub", ["sample", "mean"], ["centred"]),
        helper.make_node("MatMul", ["centred", "whitening"], ["white"]),
        helper.make_node("ReduceL2", ["white"], ["score"], axes=[1], keepdims=1),
    ]
    inputs = [helper.make_tensor_value_info("sample", TensorProto.FLOAT, ["batch", len(FIELDS)])]
    outputs = [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch", 1])]
    return _model_bytes(helper.make_graph(nodes, "anomaly", inputs, outputs, initializers))


def _model_bytes(graph: GraphProto) -> bytes:
    """Opset 17 and IR 8: old enough for every runtime that reads ONNX today."""
    from onnx import checker, helper

    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="edged.demo.train"
    )
    checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def main(folder: Path = MODELS) -> None:
    """Learn and write the files; tests/unit/demo/test_train.py measures them on pumps that were not learnt from."""
    network, detector = fit()
    folder.mkdir(exist_ok=True)
    for name, content in (("condition", condition_onnx(network)), ("anomaly", anomaly_onnx(detector))):
        path = folder / f"{name}.onnx"
        path.write_bytes(content)
        sys.stdout.write(f"{path}: {len(content)} bytes\n")


if __name__ == "__main__":
    main()
