"""Pictures in the engine: the newest wins, every one is answered or counted, and a crash loses none unseen."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from edged.infer.frames import FrameModel
from edged.infer.pixels import FrameSpec
from edged.ingest.image import ImageSource, ImageSpec
from edged.messages import ModelInfo, TensorSpec
from edged.pipeline.frames import FrameAssembler
from edged.pipeline.postprocess import Postprocessor
from edged.pipeline.spec import OutputSpec
from tests.doubles.engine_rig import HandLane, Rig


class Bright:
    """Class 1 ("hot") scores the mean of a picture, class 0 ("ok") scores 100."""

    def __init__(self) -> None:
        inputs, outputs = (TensorSpec("x", "float32", (-1, 4, 4, 3)),), (TensorSpec("y", "float32", (-1, 2)),)
        self.info = ModelInfo("bright", "1", "0" * 64, "double:cpu", inputs, outputs)

    def infer(self, batch: Mapping[str, np.ndarray], *, deadline_s: float) -> Mapping[str, np.ndarray]:
        means = batch["x"].reshape(len(batch["x"]), -1).mean(axis=1)
        return {"y": np.stack([np.full_like(means, 100), means], axis=1)}

    def close(self) -> None:
        pass


class FrameRig(Rig):
    """A pipeline of pictures on a lane that the test turns. keep: every frame counts."""

    def __init__(self, *, keep: bool = False, ready_limit: int = 64, frames_bytes: int = 10**6, **more: Any) -> None:
        super().__init__(lane=True, latest_only=not keep, max_batch=2, **more)
        model: Any = FrameModel(bright := Bright(), FrameSpec(), bright.info)
        self.lane = HandLane(model)
        self.runner.parts = self.runner.parts._replace(
            assemble=FrameAssembler(model.inputs),
            interpret=Postprocessor(OutputSpec("classification", labels=("ok", "hot")), model.outputs),
            model=model,
            lane=self.lane,
            info=model.info,
            frames=True,
            ready_limit=ready_limit,
            frames_bytes=frames_bytes,
        )
        self.runner.models = (self.runner.parts,)
        self.runner._wanted = self.runner.parts
        source = ImageSource(ImageSpec(keep=keep, seq_level=2))
        self.source.parse, self.source.reread = source.parse, source.reread
        self.engine.parts.intake._routes._filters = [(("in", "+", "+"), self.source)]

    def see(self, number: int, level: int = 0, *, device: str = "d1", payload: bytes | None = None) -> int:
        return self.link.arrive(f"in/{device}/{number}", picture(level) if payload is None else payload)

    def answered(self) -> list[tuple[int, str]]:
        return [(result["input"]["seq"], result["label"]) for result in self.results()]

    async def work(self) -> None:
        while self.lane is not None and self.lane.jobs:
            self.lane.answer()
            await self.engine.settled()


def picture(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (level, level, level)).save(buffer, "PNG")
    return buffer.getvalue()


def damaged(level: int) -> bytes:
    """Whole from outside, and no picture."""
    whole = picture(level)
    place = whole.index(b"IDAT") + 4
    return whole[:place] + bytes(10) + whole[place + 10 :]


async def test_of_a_burst_in_one_turn_only_the_newest_of_each_camera_is_decoded() -> None:
    rig = FrameRig()
    await rig.start()
    for number in range(5):
        rig.see(number, 200 * (number == 4))
    rig.see(7, 200, device="d2")
    await rig.engine.settled()
    await rig.work()
    assert rig.answered() == [(4, "hot"), (7, "hot")]
    assert rig.ledger.left_out["p"] == {"superseded": 4}
    assert rig.runner.skipped == 4
    assert rig.ledger.input("p").stored == 6
    assert rig.ledger.balanced()


async def test_a_skip_is_in_the_books_when_what_came_before_it_is_answered() -> None:
    rig = FrameRig()
    await rig.start()
    for number in range(3):
        rig.see(number)
        await rig.engine.settled()
    assert rig.runner.skipped == 1
    assert rig.ledger.left_out["p"] == {}
    await rig.work()
    assert rig.answered() == [(0, "ok"), (2, "ok")]
    assert rig.ledger.left_out["p"] == {"superseded": 1}


async def test_frames_whose_pixels_went_with_the_process_are_counted_once_each() -> None:
    first = FrameRig()
    await first.start()
    for number in range(4):
        first.see(number)
        await first.engine.settled()
    await first.snapshots.save()
    second = FrameRig(journal=first.journal)
    await second.start()
    assert second.lane is not None
    assert second.lane.jobs == []
    second.see(4, 200)
    await second.engine.settled()
    await second.work()
    assert second.answered() == [(4, "hot")]
    assert second.ledger.left_out["p"] == {"restart": 4}
    assert second.ledger.input("p").stored == 5
    assert second.catch_up.unreadable == 0


async def test_where_every_frame_counts_the_store_has_their_pixels() -> None:
    first = FrameRig(keep=True)
    await first.start()
    for number in range(6):
        first.see(number, 200 * (number % 2))
    await first.engine.settled()
    assert first.lane is not None
    first.lane.answer()
    await first.engine.settled()
    await first.snapshots.save()
    second = FrameRig(keep=True, journal=first.journal, ready_limit=4)
    await second.start()
    await second.delivery.refill_once()
    for _ in range(20):
        await second.work()
        if second.runner.lagging and second.runner.has_room():
            await second.catch_up.step(second.runner)
    assert sorted(second.answered()) == [(number, ("ok", "hot")[number % 2]) for number in range(6)]
    assert second.ledger.left_out["p"] == {}


async def test_a_frame_that_cannot_be_decoded_has_a_bad_answer_and_a_letter_alone_or_in_company() -> None:
    rig = FrameRig(keep=True)
    await rig.start()
    rig.see(0, payload=damaged(0))
    await rig.engine.settled()
    await rig.work()
    rig.clock.advance_s(1)
    rig.see(1, payload=damaged(1))
    rig.see(2, 200)
    await rig.engine.settled()
    await rig.work()
    assert [r["quality_reasons"][0] for r in rig.results()] == ["bad_image", "bad_image", "ts_arrival"]
    assert [r["label"] for r in rig.results()] == [None, None, "hot"]
    assert len(rig.told("dlq/bad_image")) == 2
    assert rig.runner.failed == 2


async def test_pictures_of_many_cameras_take_a_bounded_share_of_memory() -> None:
    rig = FrameRig(frames_bytes=2 * len(picture(0)))
    await rig.start()
    for number in range(5):
        rig.see(number, device=f"d{number}")
    await rig.engine.settled()
    await rig.work()
    assert [seq for seq, _ in rig.answered()] == [3, 4]
    assert rig.ledger.left_out["p"] == {"memory": 3}
