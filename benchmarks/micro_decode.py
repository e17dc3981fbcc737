"""CPU µs per event of everything between a payload and an answer, without broker, store and model.

    python -m benchmarks.micro_decode [--json]

Thread CPU time, the best of several rounds: what the code costs, not what else the machine was doing.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

from edged.ingest.decode_json import JsonSource
from edged.ingest.routes import Routes
from edged.ingest.sequence import SequenceTracker
from edged.ingest.spec import SequenceSpec, SourceSpec
from edged.messages import TensorSpec
from edged.pipeline.alarm import AlarmBank
from edged.pipeline.assemble import Assembler
from edged.pipeline.postprocess import Postprocessor
from edged.pipeline.spec import AlarmRule, CalibratedThreshold, InputSpec, OutputSpec, Scaling
from edged.pipeline.windows import WindowBank

TOPIC = "plant/lyon/pump/7"
FIELDS = ("accel_rms", "current_a", "temp_c")
BATCH = 32
ROUNDS = 7
EVENT = {
    "ts": "2026-03-01T12:00:00.123Z", "seq": 123_456, "boot": "5f1c2a90", "accel_rms": 1.2345, "current_a": 12.75,
    "temp_c": 61.125, "site": "lyon", "line": 3, "unit": {"rms": "mm/s", "current": "A", "temp": "degC"},
}  # fmt: skip
PAYLOAD = json.dumps(EVENT).encode()
ROW = (1.2345, 12.75, 61.125)


def cost_us(act: Callable[[], object], repeats: int, events: int = 1) -> float:
    """Best CPU time of one event over the rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        begun = time.thread_time_ns()
        for _ in range(repeats):
            act()
        best = min(best, time.thread_time_ns() - begun)
    return best / repeats / events / 1000


def cases() -> Iterator[tuple[str, Callable[[], object], int, int]]:
    """(name, act, repeats, events per act)"""
    yield from ingest_cases()
    yield from window_cases()
    yield from answer_cases()


def ingest_cases() -> Iterator[tuple[str, Callable[[], object], int, int]]:
    spec = {"fields": FIELDS, "device": "{topic[1]}-{topic[3]}", "constraints": {"accel_rms": (0.0, 50.0)}}
    parse = JsonSource(SourceSpec(**spec)).parse  # type: ignore[arg-type]
    yield "parse one object, ISO ts", lambda: parse(TOPIC, PAYLOAD), 20_000, 1
    number = json.dumps(EVENT | {"ts": 1_772_366_400_123}).encode()
    yield "parse one object, ms ts", lambda: parse(TOPIC, number), 20_000, 1
    array = json.dumps([EVENT] * BATCH).encode()
    yield f"parse an array of {BATCH}", lambda: parse(TOPIC, array), 500, BATCH
    yield "refuse a truncated payload", lambda: parse(TOPIC, PAYLOAD[:-1]), 5_000, 1
    wave = JsonSource(SourceSpec(("x",), width=2048, device="d"))
    samples = json.dumps({"x": np.random.default_rng(1).normal(size=2048).round(4).tolist()}).encode()
    yield "parse a waveform of 2048", lambda: wave.parse("t", samples), 200, 1

    routes = Routes([("plant/+/pump/+", "pump"), ("plant/#", "all")])
    yield "find the sources of a topic", lambda: routes.sources(TOPIC), 50_000, 1

    tracker = SequenceTracker(SequenceSpec())
    numbers = iter(range(10**9))

    def admit() -> None:
        seq = next(numbers)
        tracker.admit("lyon-7", "b", seq, seq, 0)

    yield "judge a number in order", admit, 50_000, 1
    yield "judge a duplicate", lambda: tracker.admit("lyon-7", "b", 5, 5, 0), 10_000, 1
    times = iter(range(10**9))
    yield (
        "judge an event without number",
        lambda: tracker.admit_unnumbered("lyon-7", TOPIC, next(times), PAYLOAD),
        20_000,
        1,
    )


def window_cases() -> Iterator[tuple[str, Callable[[], object], int, int]]:
    times = iter(range(10**9))
    single = WindowBank(InputSpec(FIELDS))
    yield "hand a single event through", lambda: single.push("d", 1, ROW, 1), 50_000, 1
    bank = WindowBank(InputSpec(FIELDS, window=32, stride=8, max_gap_ms=60_000))
    yield "window of 32, stride 8", lambda: bank.push("d", next(times), ROW, 1), 20_000, 1
    patient = WindowBank(InputSpec(FIELDS, window=32, stride=8, lateness_ms=1000))
    yield "the same with lateness", lambda: patient.push("d", next(times), ROW, 1), 20_000, 1


def answer_cases() -> Iterator[tuple[str, Callable[[], object], int, int]]:
    rng = np.random.default_rng(1)
    rows = [ROW] * BATCH
    blocks = [rng.normal(size=(32, 3)).tobytes() for _ in range(BATCH)]
    plain = Assembler(InputSpec(FIELDS), [TensorSpec("x", "float32", (-1, 3))])
    scaled = Assembler(InputSpec(FIELDS, scaling=Scaling(std=(2.0,))), [TensorSpec("x", "float32", (-1, 3))])
    windows = Assembler(InputSpec(FIELDS, window=32), [TensorSpec("x", "float32", (-1, 32, 3))])
    features = Assembler(
        InputSpec(FIELDS, window=32, features=("rms", "crest", "kurtosis", "fft"), fft_bins=8),
        [TensorSpec("x", "float32", (-1, 33))],
    )
    yield f"assemble {BATCH} single events", lambda: plain.assemble(rows), 2_000, BATCH
    yield "assemble 1 single event", lambda: plain.assemble(rows[:1]), 5_000, 1
    yield f"assemble {BATCH}, scaled", lambda: scaled.assemble(rows), 2_000, BATCH
    yield f"assemble {BATCH} windows of 32", lambda: windows.assemble(blocks), 1_000, BATCH
    yield f"features of {BATCH} windows of 32", lambda: features.assemble(blocks), 300, BATCH

    devices = [f"d{number}" for number in range(BATCH)]
    outputs = {"y": rng.random((BATCH, 3)).astype(np.float32)}
    classes = Postprocessor(
        OutputSpec("classification", ("a", "b", "c"), softmax=True), [TensorSpec("y", "float32", (-1, 3))]
    )
    yield f"answer {BATCH} classifications", lambda: classes(outputs, devices), 2_000, BATCH
    yield "answer 1 classification", lambda: classes({"y": outputs["y"][:1]}, devices[:1]), 5_000, 1
    scores = {"y": outputs["y"][:, :1]}
    anomaly = Postprocessor(OutputSpec("anomaly", threshold=0.5), [TensorSpec("y", "float32", (-1, 1))])
    yield f"answer {BATCH} anomaly scores", lambda: anomaly(scores, devices), 2_000, BATCH
    learnt = OutputSpec("anomaly", threshold=CalibratedThreshold(10))
    calibrated = Postprocessor(learnt, [TensorSpec("y", "float32", (-1, 1))])
    yield f"answer {BATCH}, calibrated", lambda: calibrated(scores, devices), 2_000, BATCH
    values = Postprocessor(OutputSpec("regression", names=("a", "b", "c")), [TensorSpec("y", "float32", (-1, 3))])
    yield f"answer {BATCH} regressions", lambda: values(outputs, devices), 2_000, BATCH
    alarms = AlarmBank([AlarmRule("bearing", label="bearing", min_score=0.8)])
    yield "no alarm", lambda: alarms.step("d", 1, "ok", 0.9), 50_000, 1


def main(arguments: list[str]) -> None:
    costs = {name: cost_us(act, repeats, events) for name, act, repeats, events in cases()}
    if "--json" in arguments:
        print(json.dumps({name: round(cost, 3) for name, cost in costs.items()}))
        return
    print(f"{len(PAYLOAD)} bytes per event, {len(FIELDS)} fields")
    for name, cost in costs.items():
        print(f"{cost:9.3f} µs  {name}")


if __name__ == "__main__":
    main(sys.argv[1:])
