"""`edged check` and `edged schema`, as an operator and as a script see them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edged.errors import ExitCode
from tests.unit.cli.conftest import Edged
from tests.unit.config.conftest import VALID


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "pump.onnx").write_bytes(b"model")
    file = tmp_path / "edged.toml"
    file.write_text(VALID, encoding="utf-8")
    return file


def test_a_right_configuration_is_ok(edged: Edged, file: Path) -> None:
    assert edged("check", "--config", file) == (ExitCode.OK, "ok\n", "")


def test_every_problem_is_a_block_and_the_exit_code_says_configuration(edged: Edged, file: Path) -> None:
    file.write_text(VALID.replace("window = 32", "window = 0").replace("stride", "strid"), encoding="utf-8")
    ran = edged("check", "-c", file)
    assert ran.code == ExitCode.CONFIG
    assert f"{file}: pipeline[pump].input.window: is not allowed\n    got      0\n    allowed  integer" in ran.out
    assert "    nearest  stride\n" in ran.out
    assert ran.out.endswith(f"2 problems in {file}\n")


def test_notes_are_shown_and_do_no_harm(edged: Edged, file: Path) -> None:
    file.write_text(VALID + '\n[upstream]\nurl = "mqtts://hub.example"\nstreams = ["result"]\n', encoding="utf-8")
    ran = edged("check", "-c", file)
    assert ran.code == ExitCode.OK
    assert ran.out.startswith(f"note: {file}: upstream.streams:")


def test_json_carries_the_same_for_machines(edged: Edged, file: Path) -> None:
    right = json.loads(edged("check", "-c", file, "--json").out)
    assert right == {"ok": True, "files": [str(file)], "problems": [], "notes": []}
    file.write_text(VALID.replace("window = 32", "window = 0"), encoding="utf-8")
    ran = edged("check", "-c", file, "--json")
    assert ran.code == ExitCode.CONFIG
    (problem,) = json.loads(ran.out)["problems"]
    assert problem["file"] == str(file)
    assert (problem["key"], problem["got"], problem["unit"]) == ("pipeline[pump].input.window", "0", "events")


def test_a_syntax_error_shows_line_and_column_and_no_traceback(edged: Edged, file: Path) -> None:
    file.write_text("[gateway]\nsite = lyon\n", encoding="utf-8")
    ran = edged("check", "-c", file)
    assert ran.code == ExitCode.CONFIG
    assert "at line 2, column 8" in ran.out
    assert "Traceback" not in ran.out + ran.err


def test_run_refuses_a_wrong_configuration_with_every_problem(edged: Edged, file: Path) -> None:
    file.write_text(VALID.replace("window = 32", "window = 0").replace("lyon", "l y"), encoding="utf-8")
    ran = edged("run", "--config", file)
    assert ran.code == ExitCode.CONFIG
    assert "gateway.site" in ran.err
    assert "input.window" in ran.err
    assert "Traceback" not in ran.err


def test_the_schema_is_printed_as_json(edged: Edged) -> None:
    ran = edged("schema")
    assert ran.code == ExitCode.OK
    assert json.loads(ran.out)["$schema"] == "https://json-schema.org/draft/2020-12/schema"
