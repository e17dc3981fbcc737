"""Payloads through decoder, windows, model and answers in one call: the daemon's decisions without the daemon."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import onnxruntime

from edged.errors import Refused
from edged.ingest.decode_json import JsonSource
from edged.ingest.sequence import SequenceTracker
from edged.ingest.spec import SequenceSpec, SourceSpec
from edged.messages import TensorSpec
from edged.pipeline.assemble import Assembler
from edged.pipeline.postprocess import Postprocessor
from edged.pipeline.spec import InputSpec, OutputSpec
from edged.pipeline.windows import Ready, WindowBank

_DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64"}


class Answer(NamedTuple):
    """event: index of the payload that is the newest of the window."""

    event: int
    label: str | None
    score: float | None
    quality: int


class Chain(NamedTuple):
    answers: list[Answer]
    refused: list[str]
    late: int


def run_chain(
    model: bytes,
    payloads: Iterable[bytes],
    source: SourceSpec,
    inputs: InputSpec,
    output: OutputSpec,
    *,
    batch: int = 32,
) -> Chain:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    decoder, tracker, bank = JsonSource(source), SequenceTracker(SequenceSpec()), WindowBank(inputs)
    assembler = Assembler(inputs, [_spec(node) for node in session.get_inputs()])
    answer = Postprocessor(output, [_spec(node) for node in session.get_outputs()])
    names = [node.name for node in session.get_outputs()]
    chain = Chain([], [], 0)
    waiting: list[tuple[str, Ready]] = []

    def flush() -> None:
        made = assembler.assemble([ready[2] for _, ready in waiting])
        outputs = dict(zip(names, map(np.asarray, session.run(names, made.inputs)), strict=True))
        answers = answer(outputs, [device for device, _ in waiting], made.unusable)
        for (_, ready), label, score, quality in zip(
            waiting, answers.label, answers.score, answers.quality, strict=True
        ):
            chain.answers.append(Answer(ready[1], label, score, quality))
        waiting.clear()

    for index, payload in enumerate(payloads):
        for item in decoder.parse("plant/machine", payload):
            if isinstance(item, Refused):
                chain.refused.append(item.reason)
                continue
            device, ts, seq, boot, row, raw = item
            assert ts is not None
            if seq is not None:
                verdict = tracker.admit(device, boot, seq, ts, 0)
            else:
                verdict = tracker.admit_unnumbered(device, "plant/machine", ts, raw)
            if verdict is not None:
                chain.refused.append(verdict)
                continue
            ready = bank.push(device, ts, row, index)
            if ready is not None:
                waiting.append((device, ready))
        if len(waiting) >= batch:
            flush()
    if waiting:
        flush()
    return chain._replace(late=bank.late_count)


def _spec(node: onnxruntime.NodeArg) -> TensorSpec:
    return TensorSpec(node.name, _DTYPES[node.type], (-1, *node.shape[1:]))
