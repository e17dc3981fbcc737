"""The ordered chain of runtimes of one pipeline: the first that loads and passes its warm-up serves.

A bad model is an answer here, not an exception: the caller learns which rung serves, if any, and why others do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edged.errors import ModelError
from edged.infer.fixed_batch import free_batch
from edged.infer.loading import DEFAULT_MAX_BYTES, ModelFile, open_model
from edged.infer.registry import find_runtime
from edged.infer.runtime import LoadOptions, Runtime
from edged.infer.runtimes.rules import RUNTIME as RULES
from edged.infer.runtimes.rules import Rule, RulesModel
from edged.infer.warmup import warm_up
from edged.policy.batching import Cost

if TYPE_CHECKING:
    from edged.ports import Clock, Model


class ChainSpec(NamedTuple):
    """What the configuration says about a pipeline's model. chain: `runtime:device` from best to worst, or `rules`."""

    pipeline: str
    location: Path
    chain: tuple[str, ...]
    version: str = ""
    allow_unsigned: bool = False
    max_bytes: int = DEFAULT_MAX_BYTES
    options: LoadOptions = LoadOptions()
    rules: tuple[Rule, ...] = ()


class Skipped(NamedTuple):
    """A rung that does not serve. `code` is that of the `ModelError`."""

    rung: str
    code: str
    detail: str


class Serving(NamedTuple):
    """What came of a chain. `model` None: nothing can answer, results carry the reason `model_unusable`.

    reason: the mode reason to raise (`fallback_runtime`, `rules_serving`, `model_unusable`), None: as configured.
    reload: makes the same model anew (for a lane); None when no model serves.
    """

    model: Model | None
    rung: str
    skipped: tuple[Skipped, ...]
    cost: Cost
    reason: str | None
    reload: Callable[[], Model] | None

    @property
    def detail(self) -> str:
        """The skipped rungs in one line, for people."""
        return "; ".join(f"{skipped.rung}: {skipped.code}: {skipped.detail}" for skipped in self.skipped)


def load_chain(spec: ChainSpec, clock: Clock, *, find: Callable[[str], Runtime] = find_runtime) -> Serving:
    """Walk the chain of `spec`. Blocks while loading; never raises for a bad model, bundle or runtime."""
    skipped: list[Skipped] = []
    opened: ModelFile | ModelError
    try:
        opened = open_model(
            spec.location, allow_unsigned=spec.allow_unsigned, max_bytes=spec.max_bytes, version=spec.version
        )
    except ModelError as error:
        opened = error
    for rung in spec.chain:
        try:
            if rung == RULES:
                return _serve_rules(spec, skipped)
            if isinstance(opened, ModelError):
                raise opened
            reload = partial(load_rung, rung, opened, spec.options, find)
            model = reload()
            cost = _warmed(model, opened, clock)
        except ModelError as error:
            skipped.append(Skipped(rung, error.code, error.message))
        else:
            return Serving(model, rung, tuple(skipped), cost, "fallback_runtime" if skipped else None, reload)
    return Serving(None, "", tuple(skipped), Cost(0.0, 0.0), "model_unusable", None)


def load_rung(rung: str, file: ModelFile, options: LoadOptions, find: Callable[[str], Runtime]) -> Model:
    """Load `file` on one `runtime:device`, its batch axis freed. Raises `ModelError`."""
    name, _, device = rung.partition(":")
    runtime = find(name)
    device = device or "cpu"
    try:
        model = runtime.load(file.form_for(runtime.abilities(device).formats), device, options)
    except ModelError:
        raise
    # A plug-in may raise what its contract forbids; one bad rung must not keep the next from serving.
    except Exception as error:
        raise ModelError("load_failed", f"{rung}: unexpected {type(error).__name__}: {error}") from error
    try:
        return free_batch(model)
    except ModelError:
        model.close()
        raise


def _warmed(model: Model, file: ModelFile, clock: Clock) -> Cost:
    """The cost of a model that passed its warm-up; one that did not is closed."""
    try:
        return warm_up(model, clock, file.golden)
    except ModelError:
        model.close()
        raise


def _serve_rules(spec: ChainSpec, skipped: Sequence[Skipped]) -> Serving:
    if not spec.rules:
        raise ModelError("no_rules", f"pipeline {spec.pipeline!r} declares no rules")

    def make() -> Model:
        return RulesModel(spec.rules, spec.pipeline)

    return Serving(make(), RULES, tuple(skipped), Cost(0.0, 0.0), "rules_serving" if skipped else None, make)
