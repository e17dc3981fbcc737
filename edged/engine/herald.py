"""What a newcomer on the broker finds: whether the gateway is there, its pipelines, their models, the schemas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from edged import __version__
from edged.timestamps import rfc3339_ms

if TYPE_CHECKING:
    from edged.config.pipeline import Pipeline
    from edged.config.settings import Config
    from edged.engine.runner import Runner
    from edged.publish.board import Board

SCHEMAS = (
    "edged.result/1",
    "edged.state/1",
    "edged.mode/1",
    "edged.health/1",
    "edged.device/1",
    "edged.alarm/1",
    "edged.gap/1",
    "edged.dlq/1",
)


class Herald:
    """Puts `R/state` and `R/meta/...` on the board.

    Args:
        instance: names this process: two of them with one identity can be told apart.
    """

    def __init__(self, board: Board, root: str, instance: str, since_ms: int) -> None:
        self.instance = instance
        self._board = board
        self._root = root
        self._since = rfc3339_ms(since_ms)

    def state_payload(self, state: str, mode: str) -> bytes:
        """The `R/state` document, also used as Will and farewell."""
        body = {"v": "edged.state/1", "state": state, "instance": self.instance, "since": self._since, "mode": mode}
        return msgspec.json.encode(body)

    def state(self, state: str, mode: str) -> None:
        self._board.put(f"{self._root}/state", self.state_payload(state, mode))

    def introduce(self, config: Config, runners: Sequence[Runner], epoch: str) -> None:
        """The gateway and its pipelines, in the order of the configuration."""
        gateway = {
            "v": "edged.meta.gateway/1",
            "version": __version__,
            "epoch": epoch,
            "hardware_class": config.gateway.hardware_class,
            "schemas": SCHEMAS,
        }
        self._board.put(f"{self._root}/meta/gateway", msgspec.json.encode(gateway))
        for pipeline, runner in zip(config.pipelines, runners, strict=True):
            payload = msgspec.json.encode(_pipeline(pipeline, runner))
            self._board.put(f"{self._root}/meta/pipeline/{pipeline.name}", payload)


def _pipeline(pipeline: Pipeline, runner: Runner) -> dict[str, object]:
    info = runner.parts.info
    return {
        "v": "edged.meta.pipeline/1",
        "pipeline": pipeline.name,
        "topics": pipeline.topics,
        "fields": pipeline.input.fields,
        "window": pipeline.input.window,
        "stride": pipeline.input.stride,
        "kind": pipeline.output.kind,
        "labels": pipeline.output.labels,
        "model": info.model,
        "model_version": info.version,
        "model_sha256": info.sha256,
        "runtime": info.runtime,
    }
