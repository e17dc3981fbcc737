"""An Edge TPU that is a double, and a model that was compiled for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.infer.loading import ModelFile, open_model
from edged.infer.runtimes.coral import Coral
from tests.doubles.libedgetpu import TpuDouble, make_tpu
from tests.unit.infer.coral.rig import compiled


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> TpuDouble:
    made = make_tpu(tmp_path_factory.mktemp("libedgetpu"))
    if made is None:
        pytest.skip("gcc is missing: it compiles the double of libedgetpu")
    return made


@pytest.fixture
def tpu(library: TpuDouble) -> TpuDouble:
    library.become("ok")
    library.knows([])
    return library


@pytest.fixture
def coral(tpu: TpuDouble) -> Coral:
    return Coral(str(tpu.library))


@pytest.fixture
def file(tmp_path: Path) -> ModelFile:
    return open_model(compiled(tmp_path / "m_edgetpu.tflite"), allow_unsigned=True, version="7")
