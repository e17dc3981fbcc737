"""Frames are handed on as they are."""

from __future__ import annotations

from edged.messages import TensorSpec
from edged.pipeline.frames import FrameAssembler


def test_a_frame_keeps_the_zeros_at_its_end() -> None:
    inputs, unusable = FrameAssembler((TensorSpec("frame", "object", (-1,)),)).assemble([b"a\0\0", b"longer"])
    assert inputs["frame"].tolist() == [b"a\0\0", b"longer"]
    assert unusable == []
