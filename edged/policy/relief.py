"""What a level of the governor means for one pipeline: which share of its windows is answered. Pure.

A window that is left out was declared to be: by the pipeline (it may be slowed) or by the ladder (it raises no alarm).
Its events are stored as ever; the window is counted by reason in the books, and has no result.
"""

from __future__ import annotations

from typing import NamedTuple

from edged.policy.governor import Measures

SLOWED = "slowed"
"""Windows left out because the pipeline declares that it may be slowed."""

NOT_ESSENTIAL = "not_essential"
"""Windows left out because only pipelines that raise alarms are inferred."""

NOTHING_ASKED = Measures(1.0, False, False, False)


class Declared(NamedTuple):
    """What a pipeline lets be taken from it."""

    may_slow: bool = False
    raises_alarms: bool = False


def share_of(measures: Measures, declared: Declared) -> float:
    """The share of the pipeline's windows that is answered, 0 to 1."""
    if measures.alarms_only and not declared.raises_alarms:
        return 0.0
    return measures.rate_factor if declared.may_slow else 1.0


class Thinning:
    """Chooses which windows are answered: evenly, and of each device on its own, so that none falls silent."""

    def __init__(self) -> None:
        self.share = 1.0
        self._credit: dict[str, float] = {}

    @property
    def active(self) -> bool:
        return self.share < 1.0

    @property
    def reason(self) -> str:
        """Under which windows are left out at this share."""
        return SLOWED if self.share > 0 else NOT_ESSENTIAL

    def set(self, share: float) -> None:
        """From now on this share is answered. Equal to the former one: nothing changes."""
        if share != self.share:
            self.share = share
            self._credit.clear()

    def takes(self, device: str) -> bool:
        """Whether the next window of `device` is answered; the first one after a change is, unless none is."""
        credit = self._credit.get(device, 1.0 - self.share) + self.share
        taken = self.share > 0 and credit >= 1.0
        self._credit[device] = credit - 1.0 if taken else credit
        return taken
