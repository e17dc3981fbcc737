"""Whatever stands in a file, the answer is a configuration or problems, never an exception."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edged.config.keys import walk
from edged.config.loading import Report, examine
from edged.config.settings import Config
from tests.unit.config.conftest import VALID

NAMES = sorted({info.name for _, info in walk(Config)})
LINES = [line for line in VALID.splitlines() if "=" in line]

# No surrogates and no line ends inside TOML's one-line forms; JSON text is TOML text for what is left.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = st.one_of(
    st.booleans().map(lambda value: str(value).lower()),
    st.integers(-(10**30), 10**30).map(str),
    st.integers(0, 600).map(lambda digits: "1" + "0" * digits),
    st.floats().map(repr),
    TEXT.map(json.dumps).map(lambda text: text.replace("\x7f", "")),
    st.sampled_from(
        ["1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", '"mqtt://[::1"', '"{topic[9999]}"', '"$share/a"', '""']
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: "[" + ", ".join(items) + "]"),
        st.dictionaries(st.sampled_from(NAMES), inner, max_size=4).map(
            lambda table: "{" + ", ".join(f"{name} = {value}" for name, value in table.items()) + "}"
        ),
    ),
    max_leaves=8,
)
hostile = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


def survive(folder: Path, content: bytes) -> Report:
    """Examine the content; the answer must be usable for people and machines."""
    file = folder / "edged.toml"
    file.write_bytes(content)
    report = examine([file], environ={}, need_models=True)
    assert (report.config is None) == bool(report.problems)
    for problem in (*report.problems, *report.notes):
        assert problem.file
        assert problem.message
        assert len(str(problem).encode()) < 10_000
        json.dumps(problem.as_dict())
    return report


@given(st.binary(max_size=200))
@hostile
def test_random_bytes_are_refused_with_a_problem(folder: Path, content: bytes) -> None:
    survive(folder, content)


@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6))
@hostile
def test_random_tables_of_known_keys_are_refused_with_problems(folder: Path, table: dict[str, str]) -> None:
    survive(folder, "".join(f"{name} = {value}\n" for name, value in table.items()).encode())


@given(st.data())
@hostile
def test_a_right_configuration_with_random_values_loads_or_is_refused(folder: Path, data: st.DataObject) -> None:
    text = VALID
    for line in data.draw(st.lists(st.sampled_from(LINES), min_size=1, max_size=3, unique=True)):
        text = text.replace(line, f"{line.split('=')[0]}= {data.draw(VALUES)}")
    survive(folder, text.encode())


@given(st.data())
@hostile
def test_a_right_configuration_with_random_additions_loads_or_is_refused(folder: Path, data: st.DataObject) -> None:
    lines = VALID.splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(NAMES))
        lines.insert(data.draw(st.integers(0, len(lines))), f"{name} = {data.draw(VALUES)}")
    survive(folder, "\n".join(lines).encode())


def _json_files(data: Path) -> Iterator[Path]:
    yield from sorted((data / "hostile").rglob("*blns*.json"))


@pytest.mark.realdata
def test_naughty_strings_as_names_paths_and_addresses_are_refused_or_taken(shared_data: Path, folder: Path) -> None:
    files = list(_json_files(shared_data))
    if not files:
        pytest.skip("no list of naughty strings in the data")
    strings: list[Any] = json.loads(files[0].read_text(encoding="utf-8"))
    usable = [text for text in strings if isinstance(text, str) and not any(0xD800 <= ord(c) < 0xE000 for c in text)]
    assert len(usable) > 300
    for text in usable:
        quoted = json.dumps(text).replace("\x7f", "\\u007f")
        spoilt = VALID.replace('"lyon"', quoted).replace('"mqtt://127.0.0.1:1883"', quoted)
        survive(folder, spoilt.replace('"pump.onnx"', quoted).replace('"{topic[1]}-{topic[3]}"', quoted).encode())
