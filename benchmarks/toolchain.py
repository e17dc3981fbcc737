"""How much faster INT8 is: a MobileNetV2, float, as both forms of INT8 and as FP16, by processor time in the same run.

python -m benchmarks.toolchain [--rounds 5] [--rung onnxruntime:cpu ...] [--output FILE]

The network has the shape of MobileNetV2 1.0 at 224 × 224 and random weights whose activations keep their variance, so
that ranges are those of a real network; nothing is said about accuracy. Each round calls both models in turns.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edged.workbench import rungs
from edged.workbench.benchmarking import describe_machine
from edged.workbench.hardware import find_target
from edged.workbench.optimizing import Precision, optimize
from edged.workbench.refusal import Unfit

MUST, AIM = 1.8, 2.2
ROUND_NS = 2_000_000_000
SAMPLES, SIDE = 32, 224
# expansion, channels, repetitions, first stride: table 2 of the MobileNetV2 paper
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
VARIANTS: tuple[tuple[str, Precision, str | None], ...] = (
    ("int8 for processors (--class cpu)", "int8", "cpu"),
    ("int8 for every runtime", "int8", None),
    ("fp16", "fp16", None),
)


class Network:
    """Convolutions as they come, with weights that keep the variance of what flows through."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights = [self.constant(0, "low"), self.constant(6, "high")]
        self._random = np.random.default_rng(seed)

    def constant(self, value: float, name: str) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(value, np.float32), name)

    def weight(self, shape: tuple[int, ...], variance: float) -> str:
        name = f"w{len(self.weights)}"
        values = (self._random.standard_normal(shape) * variance**0.5).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def convolve(self, source: str, into: int, out: int, kernel: int, *, stride: int = 1, relu: bool = True) -> str:
        """Convolution, depthwise for a kernel of 3 behind the first; with ReLU6 where wanted."""
        name, groups = f"t{len(self.nodes)}", into if kernel == 3 and into == out else 1
        shape = (out, into // groups, kernel, kernel)
        inputs = [source, self.weight(shape, (2 if relu else 1) / (shape[1] * kernel**2)), self.weight((out,), 0.01)]
        self.nodes.append(
            helper.make_node(
                "Conv",
                inputs,
                [name],
                kernel_shape=[kernel] * 2,
                strides=[stride] * 2,
                pads=[kernel // 2] * 4,
                group=groups,
            )
        )
        if not relu:
            return name
        self.nodes.append(helper.make_node("Clip", [name, "low", "high"], [f"{name}r"]))
        return f"{name}r"


def mobilenet_v2(seed: int = 1, classes: int = 1000) -> onnx.ModelProto:
    net = Network(seed)
    at, channels = net.convolve("image", 3, 32, 3, stride=2), 32
    for expansion, out, repetitions, first_stride in STAGES:
        for repetition in range(repetitions):
            stride, wide = first_stride if repetition == 0 else 1, channels * expansion
            inner = net.convolve(at, channels, wide, 1) if expansion > 1 else at
            inner = net.convolve(inner, wide, wide, 3, stride=stride)
            inner = net.convolve(inner, wide, out, 1, relu=False)
            if stride == 1 and channels == out:
                net.nodes.append(helper.make_node("Add", [at, inner], [f"{inner}a"]))
                inner = f"{inner}a"
            at, channels = inner, out
    at = net.convolve(at, channels, 1280, 1)
    net.nodes += [
        helper.make_node("GlobalAveragePool", [at], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node(
            "Gemm", ["flat", net.weight((1280, classes), 9 / 1280), net.weight((classes,), 0.01)], ["scores"]
        ),
    ]
    graph = helper.make_graph(
        net.nodes,
        "mobilenet_v2",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", classes])],
        net.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def images(count: int) -> np.ndarray:
    """Soft blotches of colour with a little noise: neighbours are alike, as in pictures."""
    random = np.random.default_rng(0)
    coarse = random.standard_normal((count, 3, SIDE // 16, SIDE // 16))
    fine = np.repeat(np.repeat(coarse, 16, axis=2), 16, axis=3)
    return np.asarray(fine + 0.2 * random.standard_normal(fine.shape), np.float32)


def ratio(original: Path, smaller: Path, rung: str, rounds: int) -> list[tuple[float, float]]:
    """(ms before, ms after) of each round, least processor time of a call."""
    one = {"image": images(1)}
    first, second = (rungs.load(rung, rungs.open_file(path)) for path in (original, smaller))
    try:
        return [rungs.cpu_ms(first, second, one, ROUND_NS, time.process_time_ns) for _ in range(rounds)]
    finally:
        first.close()
        second.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rung", action="append", help="runtime:device, several times; default onnxruntime:cpu")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    figures: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx.save(mobilenet_v2(), str(folder / "float.onnx"))
        np.savez(folder / "calibration.npz", image=images(SAMPLES))
        for label, precision, class_name in VARIANTS:
            figures += measure(
                folder, label, precision, class_name, options.rung or [rungs.DEFAULT_RUNG], options.rounds
            )
    facts = {"machine": describe_machine(), "must": MUST, "aim": AIM, "figures": figures}
    if options.output is not None:
        options.output.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    machine = describe_machine()
    best = max((float(str(found["ratio"])) for found in figures), default=0.0)
    verdict = "holds" if best >= MUST else "**missed**" if machine["int8_instructions"] else "no INT8 instructions here"
    print(f"{machine['cpu']}, {machine['architecture']}: best {best:.2f}, must {MUST}, aim {AIM}: {verdict}")
    return 0 if best >= MUST or not machine["int8_instructions"] else 1


def measure(
    folder: Path, label: str, precision: Precision, class_name: str | None, chain: list[str], rounds: int
) -> list[dict[str, object]]:
    """One variant on every rung."""
    started, to = time.perf_counter(), folder / f"{label.split(maxsplit=1)[0]}-{class_name}.onnx"
    made = optimize(
        folder / "float.onnx", folder / "calibration.npz", to, precision=precision, target=find_target(class_name)
    )
    took_s, found = time.perf_counter() - started, []
    for rung in chain:
        try:
            pairs = ratio(folder / "float.onnx", to, rung, rounds)
        except Unfit as refusal:
            print(f"{label:36} {rung:18} not measured: {refusal.code}")
            continue
        before, after = (min(times) for times in zip(*pairs, strict=True))
        spread = sorted(first / second for first, second in pairs)
        print(
            f"{label:36} {rung:18} {before:6.2f} ms to {after:6.2f} ms, {before / after:4.2f} times as fast"
            f" ({spread[0]:.2f} to {spread[-1]:.2f} by round); {made.parity[0].sqnr_db:.1f} dB;"
            f" {made.source.size_bytes / 1e6:.1f} MB to {made.result.size_bytes / 1e6:.1f} MB; made in {took_s:.1f} s"
        )
        found.append(
            {"variant": label, "rung": rung, "before_ms": before, "after_ms": after, "ratio": before / after,
             "ratios": spread, "sqnr_db": made.parity[0].sqnr_db, "bytes": made.result.size_bytes, "made_s": took_s}
        )  # fmt: skip
    return found


if __name__ == "__main__":
    raise SystemExit(main())
