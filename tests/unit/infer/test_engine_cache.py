"""Engines on disk: whole or not at all, only for what they were built for, and bounded."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from edged.errors import ModelError
from edged.infer.engine_cache import EngineCache, key_of

PARTS = {"onnx": "aa", "driver": "560.35", "gpu": "Test GPU"}
PLAN = b"an engine" * 100


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "engines"


@pytest.fixture
def cache(folder: Path) -> EngineCache:
    return EngineCache(folder)


def refusal(cache: EngineCache) -> ModelError:
    with pytest.raises(ModelError) as caught:
        cache.read(PARTS)
    return caught.value


def test_an_engine_comes_back_whole_and_says_what_it_was_built_for(cache: EngineCache, folder: Path) -> None:
    assert not cache.holds(PARTS)
    cache.write(PARTS, PLAN)
    assert cache.holds(PARTS)
    assert cache.read(PARTS) == PLAN
    manifest = json.loads((folder / f"{key_of(PARTS)}.json").read_text())
    assert (manifest["v"], manifest["parts"], manifest["bytes"]) == ("edged.engine/1", PARTS, len(PLAN))


def test_only_the_service_may_write_its_engines(cache: EngineCache, folder: Path) -> None:
    cache.write(PARTS, PLAN)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.glob("*.[jp]*")} == {0o640}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    (folder / f"{key_of(PARTS)}.plan").chmod(0o666)
    assert refusal(cache).code == "engine_stale"


@pytest.mark.parametrize("part", ["onnx", "driver", "gpu"])
def test_whatever_it_depends_on_has_changed_it_is_another_engine(cache: EngineCache, part: str) -> None:
    cache.write(PARTS, PLAN)
    assert not cache.holds({**PARTS, part: "another"})
    assert cache.holds(dict(reversed(PARTS.items())))


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def grown(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0" * 200_000)


@pytest.mark.parametrize("suffix", ["plan", "json"])
@pytest.mark.parametrize("damage", [truncated, flipped, emptied, grown, Path.unlink, lambda path: path.chmod(0o662)])
def test_what_is_damaged_is_never_tried_and_makes_room_for_a_new_one(
    cache: EngineCache, folder: Path, suffix: str, damage: Callable[[Path], object]
) -> None:
    cache.write(PARTS, PLAN)
    damage(folder / f"{key_of(PARTS)}.{suffix}")
    assert refusal(cache).code == "engine_stale"
    assert not cache.holds(PARTS)
    cache.write(PARTS, PLAN)
    assert cache.read(PARTS) == PLAN


def test_an_engine_under_the_name_of_another_is_refused(cache: EngineCache, folder: Path) -> None:
    other = {**PARTS, "onnx": "bb"}
    cache.write(other, PLAN)
    for suffix in ("plan", "json"):
        (folder / f"{key_of(other)}.{suffix}").rename(folder / f"{key_of(PARTS)}.{suffix}")
    assert refusal(cache).code == "engine_stale"
    assert not list(folder.glob("*.plan"))


def test_a_link_is_not_followed_but_removed(cache: EngineCache, folder: Path, tmp_path: Path) -> None:
    cache.write(PARTS, PLAN)
    path = folder / f"{key_of(PARTS)}.plan"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert refusal(cache).code == "engine_stale"
    assert not path.is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == PLAN


def test_a_device_in_the_place_of_an_engine_is_refused(cache: EngineCache, folder: Path) -> None:
    cache.write(PARTS, PLAN)
    path = folder / f"{key_of(PARTS)}.plan"
    path.unlink()
    os.mkfifo(path, 0o600)
    assert refusal(cache).code == "engine_stale"
    assert not path.exists()


def test_as_many_engines_stay_as_are_allowed_and_the_oldest_go(folder: Path) -> None:
    cache = EngineCache(folder, max_engines=2)
    all_parts = [{**PARTS, "onnx": str(number)} for number in range(4)]
    for number, parts in enumerate(all_parts):
        cache.write(parts, PLAN)
        os.utime(folder / f"{key_of(parts)}.plan", (number, number))
    assert [cache.holds(parts) for parts in all_parts] == [False, False, True, True]
    assert len(list(folder.glob("*.json"))) == 2


def test_as_many_bytes_stay_as_are_allowed(folder: Path) -> None:
    cache = EngineCache(folder, max_bytes=2 * len(PLAN) + 1)
    for number in range(3):
        parts = {**PARTS, "onnx": str(number)}
        cache.write(parts, PLAN)
        os.utime(folder / f"{key_of(parts)}.plan", (number, number))
    assert sum(path.stat().st_size for path in folder.glob("*.plan")) == 2 * len(PLAN)
    with pytest.raises(ModelError) as caught:
        cache.write(PARTS, PLAN * 3)
    assert caught.value.code == "prepare_failed"


def test_what_a_crash_left_behind_is_removed_by_the_next_one(cache: EngineCache, folder: Path) -> None:
    cache.write(PARTS, PLAN)
    (folder / "torn.plan.new").write_bytes(PLAN)
    cache.write({**PARTS, "onnx": "bb"}, PLAN)
    assert not list(folder.glob("*.new"))
    assert cache.holds(PARTS)


def test_where_nothing_can_be_written_nothing_is_lost_and_the_cure_is_said(tmp_path: Path) -> None:
    (tmp_path / "engines").write_text("a file, not a folder")
    with pytest.raises(ModelError) as caught:
        EngineCache(tmp_path / "engines").write(PARTS, PLAN)
    assert (caught.value.code, caught.value.retryable) == ("prepare_failed", True)
    assert refusal(EngineCache(tmp_path / "engines")).code == "io"
    EngineCache(tmp_path / "engines").remove(PARTS)


def test_what_a_build_has_learned_is_kept_for_the_next_one_of_the_same_version(
    cache: EngineCache, folder: Path
) -> None:
    assert cache.read_timing(PARTS) == b""
    cache.write_timing(PARTS, b"fast")
    assert cache.read_timing(PARTS) == b"fast"
    other = {**PARTS, "driver": "570"}
    assert cache.read_timing(other) == b""
    cache.write_timing(other, b"faster")
    assert [path.stem for path in folder.glob("*.timing")] == [key_of(other)]
