"""What people and editors read about the configuration is made from the keys themselves."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import cast

import jsonschema
import pytest

from edged.config.keys import Key, keys_of, toml_text, unit_of, walk
from edged.config.pipeline import Alarm, Scaling
from edged.config.problems import Finding
from edged.config.reference import main, reference
from edged.config.schema import config_schema
from edged.config.settings import Broker, Config
from edged.config.validate import validate

REPOSITORY = Path(__file__).resolve().parents[3]
PAGE = REPOSITORY / "docs" / "reference" / "configuration.md"


def test_the_reference_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), f"write it anew: python -m edged.config.reference {PAGE}"


def test_the_page_can_be_written_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tmp_path / "page.md")])
    main([])
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == capsys.readouterr().out == reference()


def test_every_key_is_explained_and_every_bound_has_a_reason() -> None:
    for name, info in walk(Config):
        assert info.key.doc.endswith("."), name
        key = info.key
        bounds = (key.ge, key.gt, key.le, key.pattern or None, key.max_chars, key.min_items, key.max_items)
        assert bool(key.why) or all(bound is None for bound in bounds), name


def test_every_number_with_a_unit_says_it_in_its_name_or_beside_it() -> None:
    pure = {
        "output.threshold",
        "scale",
        "offset",
        "mean",
        "std",
        "min",
        "max",
        "quantile",
        "factor",
        "min_score",
        "fft_bins",
    }
    for name, info in walk(Config):
        if info.type_text in {"integer", "number"} and info.name not in pure:
            assert info.unit, name


def test_units_are_read_from_names() -> None:
    assert [unit_of(name) for name in ("deadline_ms", "rate_kbit_s", "x_us", "x_per_s", "label")] == [
        "ms",
        "kbit/s",
        "µs",
        "per s",
        "",
    ]


def test_values_are_written_as_toml() -> None:
    assert [toml_text(value) for value in (None, (), "a", True, 5, 1_000_000, 0.5, ("a", 1))] == [
        "",
        "",
        '"a"',
        "true",
        "5",
        "1_000_000",
        "0.5",
        '["a", 1]',
    ]


def test_a_table_that_is_none_is_reported_and_not_raised() -> None:
    (finding,) = cast("list[Finding]", validate(Broker, 3))
    assert (finding.path, finding.message) == ((), "has the wrong type")


def test_a_key_without_bounds_leaves_the_schema_alone() -> None:
    schema = {"type": "model"}
    assert Key("Anything.").__get_pydantic_core_schema__(None, lambda _: schema) == {"type": "model"}


def test_the_schema_is_valid_and_accepts_the_examples() -> None:
    schema = config_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for file in sorted((REPOSITORY / "configs").glob("*.toml")):
        jsonschema.validate(tomllib.loads(file.read_text(encoding="utf-8")), schema)


def test_the_schema_refuses_what_the_types_refuse() -> None:
    table = tomllib.loads((REPOSITORY / "configs" / "pump.toml").read_text(encoding="utf-8"))
    table["pipeline"][0]["input"]["window"] = 0
    table["pipeline"][0]["strid"] = 8
    errors = list(jsonschema.Draft202012Validator(config_schema()).iter_errors(table))
    assert len(errors) == 2


def test_the_schema_describes_every_key() -> None:
    described = json.dumps(config_schema())
    for _, info in walk(Config):
        assert json.dumps(info.key.doc) in described


def test_both_forms_of_scaling_are_the_same_line() -> None:
    linear = Scaling(scale=2.0, offset=1.0)
    assert (linear.factor, linear.shift, linear.standardised) == (2.0, 1.0, False)
    standard = Scaling(mean=3.0, std=2.0)
    assert (standard.factor, standard.shift, standard.standardised) == (0.5, -1.5, True)
    assert (Scaling(offset=1.0).factor, Scaling(mean=1.0).factor, Scaling(std=4.0).shift) == (1.0, 1.0, 0.0)
    assert Scaling(scale=2.0).shift == 0.0


def test_an_alarm_has_a_code_even_when_none_is_given() -> None:
    assert [Alarm(code="c", label="l").effective_code, Alarm(label="l").effective_code, Alarm().effective_code] == [
        "c",
        "l",
        "anomaly",
    ]


def test_reading_values_needs_no_validation_library() -> None:
    code = "import sys, edged.config, edged.config.isolated; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_table_has_its_own_keys() -> None:
    assert list(keys_of(Config))[:2] == ["gateway", "broker"]
    names = [name for name, _ in walk(Config)]
    assert len(names) == len(set(names))
