"""What answers when no model can: declared rules over the newest event, or the last good answer of the device.

Rules compare what the sensor said, not what the model would have seen: no scaling, no features.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edged.infer.rules import INPUT, OUTPUT_RULE, Rule, RulesModel
from edged.messages import QUALITY_BAD, QUALITY_GOOD, QUALITY_UNCERTAIN, ModelInfo
from edged.pipeline.postprocess import NORMAL, Answers

if TYPE_CHECKING:
    from edged.pipeline.postprocess import Values
    from edged.pipeline.windows import Block

LAST_GOOD = "last_good"
RULES_SERVING = "rules_serving"

_Kept = tuple[int, "str | None", "float | None", "Values | None"]  # monotonic ns, label, score, values


class StandInSpec(NamedTuple):
    """What a pipeline declares. chosen: rules are all that is configured, so that they take nothing from the quality.

    last_good_s: how old a repeated answer may be; 0: none is repeated. fields: numbers of one event.
    """

    rules: tuple[Rule, ...] = ()
    last_good_s: float = 0.0
    fields: int = 1
    chosen: bool = False
    max_devices: int = 10_000


class StandIn:
    """Belongs to the loop. `info` goes into the results that it answered."""

    def __init__(self, spec: StandInSpec, pipeline: str) -> None:
        self._spec = spec
        self._rules = RulesModel(spec.rules, pipeline) if spec.rules else None
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self.info = self._rules.info if self._rules is not None else ModelInfo(pipeline, "", "", LAST_GOOD, (), ())
        self.remembers = self._rules is None and spec.last_good_s > 0

    def remember(self, devices: Sequence[str], answers: Answers, now_ns: int) -> None:
        """Keep the newest good answer of each device; the device that was silent longest makes room."""
        kept = self._kept
        rows = zip(devices, answers.label, answers.score, answers.values, answers.quality, strict=True)
        for device, label, score, values, quality in rows:
            if quality == QUALITY_GOOD:
                kept[device] = (now_ns, label, score, values)
                kept.move_to_end(device)
        while len(kept) > self._spec.max_devices:
            kept.popitem(last=False)

    def answer(self, devices: Sequence[str], blocks: Sequence[Block], code: str, now_ns: int) -> Answers:
        """One answer a row; a row that nothing can answer is bad, with the reason `code`."""
        answers = Answers(
            [None] * len(devices), [None] * len(devices), [None] * len(devices), [QUALITY_BAD] * len(devices),
            [(code,)] * len(devices),
        )  # fmt: skip
        if self._rules is not None:
            self._by_rules(self._rules, blocks, answers)
        else:
            self._by_memory(devices, now_ns, answers)
        return answers

    def _by_rules(self, model: RulesModel, blocks: Sequence[Block], answers: Answers) -> None:
        fields, chosen = self._spec.fields, self._spec.chosen
        newest = [_newest(block, fields) for block in blocks]
        at = [row for row, values in enumerate(newest) if len(values) == fields]  # a waveform has no one newest value
        if not at:
            return
        batch = np.array([newest[row] for row in at], np.float64)
        held = model.infer({INPUT: batch}, deadline_s=1.0)[OUTPUT_RULE].tolist()
        for row, rule in zip(at, held, strict=True):
            answers.label[row] = model.rules[rule].label if rule >= 0 else NORMAL
            answers.score[row] = 1.0
            answers.quality[row] = QUALITY_GOOD if chosen else QUALITY_UNCERTAIN
            answers.reasons[row] = () if chosen else (RULES_SERVING,)

    def _by_memory(self, devices: Sequence[str], now_ns: int, answers: Answers) -> None:
        oldest_ns = now_ns - int(self._spec.last_good_s * 1e9)
        for row, device in enumerate(devices):
            kept = self._kept.get(device)
            if kept is not None and kept[0] >= oldest_ns:
                _, answers.label[row], answers.score[row], answers.values[row] = kept
                answers.quality[row] = QUALITY_UNCERTAIN
                answers.reasons[row] = (LAST_GOOD,)


def _newest(block: Block, fields: int) -> Sequence[float]:
    """The values of the newest event of a window."""
    if isinstance(block, bytes):
        samples: list[float] = np.frombuffer(block, np.float64)[-fields:].tolist()
        return samples
    return block
