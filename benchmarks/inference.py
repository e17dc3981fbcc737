"""What the way through the daemon costs a model, and what INT8 and batches gain: figures against bare loops in one run.

    python -m benchmarks.inference [end_to_end|int8|batching ...] [--rounds 5] [--seconds 8]

end_to_end: results a second of the daemon with events waiting at the broker, over calls a second of a loop around the
bare onnxruntime session; a network of MobileNetV2's size behind sixteen numbers per event, one thread, one call per
event. int8: the same network as INT8 through the chain of the class `cpu`, over the float one in a bare session; by
processor time. batching: one call for 32 waiting windows over 32 calls, tiny model, through the chain.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from benchmarks.toolchain import SIDE, images, mobilenet_v2
from edged.infer.loading import open_model
from edged.infer.registry import find_runtime
from edged.infer.rung import load_rung
from edged.infer.runtime import LoadOptions
from edged.workbench.hardware import find_target
from edged.workbench.optimizing import optimize
from tests.doubles.broker import Mosquitto
from tests.doubles.daemon import Daemon
from tests.doubles.sensors import Sensors, devices
from tests.doubles.waiting import until
from tests.unit.infer.models import sum_model

FIELDS = 2
WAITING = 32
PIPELINE = """
[[pipeline]]
name = "camera"
topics = ["in/+"]
device = "{{topic[1]}}"
input = {{ fields = ["a", "b"], window = 1 }}
model = {{ path = {model}, chain = ["onnxruntime:cpu"], max_batch = 1, deadline_ms = 60000 }}
output = {{ kind = "tensor" }}
"""


def behind_numbers(classes: int = 10) -> onnx.ModelProto:
    """The network of `toolchain`, its picture made of a few numbers: an event stays small, the model does not."""
    model = mobilenet_v2(classes=classes)
    random = np.random.default_rng(7)
    weights = {
        "mix": random.standard_normal((3, FIELDS, 1, 1)).astype(np.float32),
        "picture": images(1),
        "axes": np.array([2, 3], np.int64),
    }
    before = [
        helper.make_node("Unsqueeze", ["x", "axes"], ["x4"]),
        helper.make_node("Conv", ["x4", "mix"], ["tint"], kernel_shape=[1, 1]),
        helper.make_node("Add", ["tint", "picture"], ["image"]),
    ]
    graph = helper.make_graph(
        [*before, *model.graph.node],
        "behind_numbers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FIELDS])],
        list(model.graph.output),
        [*model.graph.initializer, *(numpy_helper.from_array(array, name) for name, array in weights.items())],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def bare_session(path: Path) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def calls_per_s(call: Callable[[], object], seconds: float) -> float:
    call()
    begun = time.perf_counter()
    count = 0
    while time.perf_counter() - begun < seconds:
        call()
        count += 1
    return count / (time.perf_counter() - begun)


def end_to_end(rounds: int, seconds: float, folder: Path) -> dict[str, object]:
    path = folder / "numbers.onnx"
    onnx.save(behind_numbers(), str(path))
    session, one = bare_session(path), {"x": np.ones((1, FIELDS), np.float32)}
    broker = Mosquitto(folder, "max_queued_messages 0")
    broker.start()
    try:
        table = PIPELINE.format(model=json.dumps(str(path)))
        with Daemon(folder, broker.port, table) as daemon, Sensors(broker.port, devices(1)) as sensors:
            daemon.start().connected()
            ratios, bare, served = [], [], []
            for _ in range(rounds):
                bare.append(calls_per_s(lambda: session.run(None, one), seconds))
                served.append(_served(daemon, sensors, bare[-1], seconds))
                ratios.append(served[-1] / bare[-1])
    finally:
        broker.stop()
    more = {"bare_per_s": round(statistics.median(bare), 1), "served_per_s": round(statistics.median(served), 1)}
    return figure("end-to-end inferences/s ÷ bare runtime loop", ratios, 0.90, 0.97, **more)


def _served(daemon: Daemon, sensors: Sensors, bare_per_s: float, seconds: float) -> float:
    """Results a second while more events wait than can be answered."""
    before = made(daemon)
    sensors.round(int(2 * bare_per_s * (seconds + 2)))
    until(lambda: made(daemon) > before + bare_per_s / 2, "the first results are made", 60)
    first, begun = made(daemon), time.perf_counter()
    time.sleep(seconds)
    rate = (made(daemon) - first) / (time.perf_counter() - begun)
    everything = before + int(2 * bare_per_s * (seconds + 2))
    assert made(daemon) < everything, "nothing waited at the end: this shows nothing"
    until(lambda: made(daemon) >= everything, "every event is answered", 120)
    return rate


def made(daemon: Daemon) -> int:
    return int(daemon.status()["next_result"]) - 1


def int8(rounds: int, seconds: float, folder: Path) -> dict[str, object]:
    path = folder / "float.onnx"
    onnx.save(mobilenet_v2(), str(path))
    np.savez(folder / "calibration.npz", image=images(32))
    optimize(path, folder / "calibration.npz", folder / "int8.onnx", precision="int8", target=find_target("cpu"))
    file = open_model(folder / "int8.onnx", allow_unsigned=True)
    model = load_rung("onnxruntime:cpu", file, LoadOptions(1), find_runtime)
    session, one = bare_session(path), {"image": images(1)}
    try:
        ratios = []
        for _ in range(rounds):
            bare = least_cpu_ms(lambda: session.run(None, one), seconds / 2)
            ratios.append(bare / least_cpu_ms(lambda: model.infer(one, deadline_s=60), seconds / 2))
    finally:
        model.close()
    return figure("INT8 through the default chain ÷ fp32 onnxruntime", ratios, 1.8, 2.2, side=SIDE)


def least_cpu_ms(call: Callable[[], object], seconds: float) -> float:
    call()
    least, until_s = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until_s:
        begun = time.process_time_ns()
        call()
        least = min(least, (time.process_time_ns() - begun) / 1e6)
    return least


def batching(rounds: int, seconds: float, folder: Path) -> dict[str, object]:
    file = open_model(sum_model(folder / "tiny.onnx"), allow_unsigned=True)
    model = load_rung("onnxruntime:cpu", file, LoadOptions(1), find_runtime)
    many = np.random.default_rng(1).standard_normal((WAITING, 4)).astype(np.float32)
    ones = [many[at : at + 1] for at in range(WAITING)]

    def alone() -> None:
        for one in ones:
            model.infer({"x": one}, deadline_s=1)

    ratios = []
    for _ in range(rounds):
        single = calls_per_s(alone, seconds / 4)
        ratios.append(calls_per_s(lambda: model.infer({"x": many}, deadline_s=1), seconds / 4) / single)
    model.close()
    return figure(f"micro-batching gain, tiny model, {WAITING} waiting", ratios, 10, 20)


def figure(name: str, ratios: list[float], must: float, aim: float, **more: object) -> dict[str, object]:
    """The median of the rounds; printed for people."""
    value = statistics.median(ratios)
    word = "holds" if value >= must else "MISSED"
    print(
        f"{name}: {value:.3g} (rounds {', '.join(f'{ratio:.3g}' for ratio in ratios)}), must {must:g}: {word}; ", end=""
    )
    print(f"aim {aim:g}: {'reached' if value >= aim else 'not reached'} {more or ''}", flush=True)
    return {"figure": name, "value": round(value, 4), "must": must, "aim": aim, "holds": value >= must, **more}


FIGURES = {"end_to_end": end_to_end, "int8": int8, "batching": batching}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", default=list(FIGURES), metavar="FIGURE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8)
    options = parser.parse_args()
    holds = True
    for name in options.figures:
        with tempfile.TemporaryDirectory(prefix="edged-bench-") as folder:
            found = FIGURES[name](options.rounds, options.seconds, Path(folder))
        print(json.dumps(found), flush=True)
        holds &= bool(found["holds"])
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
