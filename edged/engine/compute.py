"""What the chains of runtimes do, told: as reasons of the mode, in the log, in the metrics, in `edged status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edged.policy.chain import MEANINGS, ChainState
from edged.policy.compute import SERVICE_CODES, rung_causes, service_cause

if TYPE_CHECKING:
    from edged.engine.mode_keeper import ModeKeeper
    from edged.engine.runner import Runner
    from edged.infer.chain import Chain
    from edged.messages import ModelInfo
    from edged.ops.logs import Log
    from edged.ops.meters import Metrics

NOBODY = "none"
WELCOME = frozenset({"loaded", "returned"})


class Compute:
    """Belongs to the loop. `computed` is called before a result is written, `attend` with every tick."""

    def __init__(self, modes: ModeKeeper, metrics: Metrics, log: Log) -> None:
        self._modes = modes
        self._log = log
        self.switches = metrics.counter(
            "edged_runtime_switches", "From one runtime of a chain to another", "pipeline", "from", "to", "reason"
        )
        self._told: dict[str, dict[tuple[str, str], str]] = {}
        """By pipeline: (code, subject) -> detail of the causes that are raised."""

    def computed(self, runner: Runner, info: ModelInfo) -> None:
        """Another rung than before has computed: the mode says so before the first such result is written."""
        chain = runner.parts.chain
        if chain is not None:
            self._serves(runner, chain, chain.index(info), stand_in=info is runner.stand_in_info)

    def attend(self, runner: Runner) -> None:
        """What the keeper's thread has done meanwhile."""
        chain = runner.parts.chain
        if chain is None:
            return
        larger = runner.parts.larger
        for switch in (*chain.take_switches(), *(larger.take_switches() if larger is not None else ())):
            self.switches.at(runner.name, switch.before or NOBODY, switch.after or NOBODY, switch.code).value += 1
            tell = self._log.info if switch.code in WELCOME else self._log.warning
            tell(
                "runtime_switched", pipeline=runner.name, before=switch.before or NOBODY,
                after=switch.after or NOBODY, code=switch.code, detail=switch.detail,
            )  # fmt: skip
        runner.refit()
        live = chain.serving
        if not runner.computing:
            self._serves(runner, chain, None if live is None else live.at, stand_in=runner.stand_in_info is not None)
        wanted = {(code, subject): detail for code, subject, detail in rung_causes(runner.name, chain.state)}
        if larger is not None and larger.serving is None:
            wanted["larger_model_away", runner.name] = larger.troubles()
        self._tell(runner.name, wanted, of_service=False)

    def _serves(self, runner: Runner, chain: Chain, at: int | None, *, stand_in: bool) -> None:
        nobody = chain.refusal().code if chain.names or chain.spec.require_accelerator else None
        code = service_cause(at, stand_in=stand_in, nobody=nobody)
        detail = "; ".join(filter(None, (chain.troubles() or chain.last_error,)))
        self._tell(runner.name, {} if code is None else {(code, runner.name): detail}, of_service=True)

    def _tell(self, pipeline: str, wanted: dict[tuple[str, str], str], *, of_service: bool) -> None:
        """Raise what is new or has a new detail, clear what is over."""
        told = self._told.setdefault(pipeline, {})
        for code, subject in [key for key in told if (key[0] in SERVICE_CODES) == of_service and key not in wanted]:
            del told[code, subject]
            self._modes.set(code, False, subject=subject)
        for (code, subject), detail in wanted.items():
            if told.get((code, subject)) != detail:
                told[code, subject] = detail
                self._modes.set(code, True, subject=subject, detail=detail)


def chain_report(state: ChainState) -> list[dict[str, object]]:
    """Every rung of a chain, best first, for `edged status`."""
    return [
        {
            "rung": rung.name,
            "state": "serving" if at == state.serving else rung.state,
            "meaning": "it answers" if at == state.serving else MEANINGS[rung.state],
            "code": rung.code,
            "detail": rung.detail,
            "failures": rung.failures,
        }
        for at, rung in enumerate(state.rungs)
    ]
