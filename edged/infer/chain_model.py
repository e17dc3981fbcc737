"""A model made of models: asks the rung that serves and, when that fails, the next one with the same batch.

It looks like any loaded model. One thread calls it at a time; a call that is left behind keeps its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edged.errors import InferenceError
from edged.policy.faults import fault_of

if TYPE_CHECKING:
    from edged.infer.proof import Live
    from edged.messages import ModelInfo

    Batch = Mapping[str, np.ndarray]


class Rungs(Protocol):
    """What a chain tells the model made of it."""

    @property
    def order(self) -> tuple[Live, ...]:
        """Who may be asked, the serving one first. Replaced as a whole, between two calls."""

    @property
    def nobody(self) -> ModelInfo:
        """Stands in results that no rung has computed."""

    def fell(self, live: Live, error: InferenceError) -> None:
        """A call has shown that this rung does not work. Does not block."""

    def now_ns(self) -> int:
        """Monotonic time."""

    def refusal(self) -> InferenceError:
        """What to answer when there is nobody to ask."""


class ChainModel:
    """Implements `edged.ports.Model`. `info`: of the rung that computed the last call.

    calling: the rung that is computing now; it must not be closed. began_ns: when the piece of a batch that it computes
    was begun; 0 before the first.
    """

    def __init__(self, rungs: Rungs) -> None:
        self._rungs = rungs
        self.calling: Live | None = None
        self.began_ns = 0
        order = rungs.order
        self.info = order[0].info if order else rungs.nobody

    def infer(self, batch: Batch, *, deadline_s: float) -> Batch:
        """The first rung that answers. Each rung has `deadline_s` of its own.

        Raises:
            InferenceError: the input's fault, then `info` says who was asked last; or there is no rung left.
        """
        order = self._rungs.order
        # The way of every call while all is well: no lock, no copy.
        if order and not order[0].fallen and not order[0].slow:
            live = self.calling = order[0]
            try:
                answer = live.model.infer(batch, deadline_s=deadline_s)
            except InferenceError as error:
                failed: InferenceError | None = error
            # A plug-in may raise what its contract forbids; the next rung may do better.
            except Exception as error:  # noqa: BLE001
                failed = _unexpected(error)
            else:
                self.info = live.info
                return answer
            finally:
                self.calling = None
        else:
            failed = None
        return self._ask_on(order, batch, deadline_s, failed)

    def close(self) -> None:
        """Nothing: the chain owns the rungs."""

    def _ask_on(self, order: tuple[Live, ...], batch: Batch, deadline_s: float, failed: InferenceError | None) -> Batch:
        """`failed`: what the first rung has said to this batch already."""
        doubted: list[tuple[Live, InferenceError]] = []
        last: InferenceError | None = None
        for at, live in enumerate(order):
            if at == 0 and failed is not None:
                outcome: Batch | InferenceError = failed
            elif live.fallen:
                continue
            else:
                outcome = self._ask(live, batch, deadline_s)
            if isinstance(outcome, InferenceError) and fault_of(outcome.code).action == "retry":
                outcome = self._ask(live, batch, deadline_s)
            self.info = live.info
            if not isinstance(outcome, InferenceError):
                # This one can: so it was not the input's fault that others could not.
                for each, error in doubted:
                    self._rungs.fell(each, error)
                return outcome
            fault = fault_of(outcome.code)
            if fault.action == "refuse":
                raise outcome
            last = outcome
            if fault.scope != "request":
                self._rungs.fell(live, outcome)
            elif fault.action == "retry":
                doubted.append((live, outcome))
        if all(live.fallen for live in order):
            self.info = self._rungs.nobody  # so that the mode changes with this result, not after it
        raise last or self._rungs.refusal()

    def _ask(self, live: Live, batch: Batch, deadline_s: float) -> Batch | InferenceError:
        if not live.probing.acquire(blocking=False) and not live.probing.acquire(timeout=deadline_s):
            return InferenceError("device_busy", f"{live.rung}: still being probed after {deadline_s} s")
        self.calling = live
        try:
            return self._in_pieces(live, batch, deadline_s)
        except InferenceError as error:
            return error
        # As above.
        except Exception as error:  # noqa: BLE001
            return _unexpected(error)
        finally:
            self.calling = None
            live.probing.release()

    def _in_pieces(self, live: Live, batch: Batch, deadline_s: float) -> Batch:
        """The batch may have been made for a faster rung: no piece takes so long that it looks hung."""
        self.began_ns = self._rungs.now_ns()
        rows = len(next(iter(batch.values())))
        if rows <= live.most:
            return live.model.infer(batch, deadline_s=deadline_s)
        answers: list[Batch] = []
        for first in range(0, rows, live.most):
            self.began_ns = self._rungs.now_ns()
            piece = {name: array[first : first + live.most] for name, array in batch.items()}
            answers.append(live.model.infer(piece, deadline_s=deadline_s))
        return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


def _unexpected(error: Exception) -> InferenceError:
    return InferenceError("infer_failed", f"unexpected {type(error).__name__}: {error}")
