"""Pictures, detections and cascades: each mistake at its key, and nothing else said."""

from __future__ import annotations

import pytest

from edged.config.host import check_extras
from tests.unit.config.conftest import VALID, Examine, only

_INPUT = 'fields = ["accel_rms", "motor.temp_c"]\nwindow = 32\nstride = 8'
_ALARM = 'alarm = { label = "bearing", min_score = 0.8, severity = "high" }'
_OUTPUT = f'kind = "classification"\nlabels = ["ok", "bearing"]\n{_ALARM}'
SEES = VALID.replace('name = "pump"', 'name = "pump"\ncodec = "image"').replace(_INPUT, 'policy = "latest"')
DETECTS = SEES.replace(_OUTPUT, 'kind = "detection"\nlabels = ["cat"]')
CASCADE = '\n[pipeline.model.cascade]\npath = "big.onnx"\n'
ASKS = VALID.replace('chain = ["onnxruntime:cpu"]', 'chain = ["onnxruntime:cpu"]' + CASCADE)
FILES = {"big.onnx": b"x"}


def frame(text: str) -> tuple[str, str]:
    return 'policy = "latest"', f'policy = "latest"\nframe = {{ {text} }}'


def changed(text: str, change: tuple[str, str]) -> str:
    assert change[0] in text
    return text.replace(*change)


@pytest.mark.parametrize("text", [SEES, DETECTS, ASKS, changed(SEES, frame("raw = { width = 4, height = 4 }"))])
def test_a_pattern_that_is_right_is_taken(look: Examine, text: str) -> None:
    report = look(text, files=FILES)
    assert (report.problems, report.config is not None) == ((), True)


MISTAKES: dict[str, tuple[str, tuple[str, str], str, str]] = {
    "no fields": (VALID, ('fields = ["accel_rms", "motor.temp_c"]\n', ""), "input.fields", "missing"),
    "frame of numbers": (VALID, ("window = 32", "window = 32\nframe = { pad = 0 }"), "input.frame", "pictures"),
    "detection of numbers": (
        VALID.replace(_OUTPUT, 'kind = "detection"'),
        ('kind = "detection"', 'kind = "detection"\ndetection = { limit = 3 }'),
        "output.detection",
        "pictures",
    ),
    "fields of a picture": (
        SEES,
        ('policy = "latest"', 'policy = "latest"\nfields = ["a"]'),
        "input.fields",
        "no mean",
    ),
    "scaling of a picture": (
        SEES,
        ('policy = "latest"', 'policy = "latest"\nfeatures = ["rms"]'),
        "input.features",
        "no mean",
    ),
    "window of pictures": (SEES, ('policy = "latest"', "window = 2"), "input.window", "no mean"),
    "device in a picture": (SEES, ('"{topic[1]}-{topic[3]}"', '"{payload.id}"'), "device", "looks into"),
    "picture together": (
        SEES,
        ('path = "pump.onnx"', 'path = "pump.onnx"\ncommit = "together"'),
        "model.commit",
        "not pos",
    ),
    "mean of two": (SEES, frame("mean = [1, 2]"), "input.frame.mean", "length"),
    "std of a gray one": (SEES, frame('colour = "gray", std = [1, 2, 3]'), "input.frame.std", "length"),
    "width alone": (SEES, frame("width = 8"), "input.frame.height", "missing"),
    "height alone": (SEES, frame("height = 8"), "input.frame.width", "missing"),
    "scale 0": (SEES, frame("scale = 0"), "input.frame.scale", "equal"),
    "raw too large": (SEES, frame("raw = { width = 9, height = 9 }, max_pixels = 80"), "input.frame.raw", "max_pixels"),
    "time twice": (
        SEES,
        ('policy = "latest"', 'policy = "latest"\nts_source = "arrival"\nframe = { ts_level = 2 }'),
        "input.frame.ts_level",
        "no effect",
    ),
    "detection of classes": (
        SEES,
        ('kind = "classification"', 'kind = "classification"\ndetection = { limit = 3 }'),
        "output.detection",
        "no mean",
    ),
    "no larger model": (ASKS, ('path = "big.onnx"\n', "low = 0.1\n"), "model.cascade", "names no larger"),
    "two larger models": (
        ASKS,
        ('path = "big.onnx"\n', 'path = "big.onnx"\nslot = "b"\n'),
        "model.cascade.path",
        "contra",
    ),
    "digest here": (
        ASKS,
        ('path = "big.onnx"\n', f'path = "big.onnx"\nsha256 = "{"a" * 64}"\n'),
        "model.cascade.sha256",
        "upstream",
    ),
    "empty band": (ASKS, ('path = "big.onnx"\n', 'path = "big.onnx"\nlow = 0.8\n'), "model.cascade.low", "nothing"),
    "rules as larger": (
        ASKS,
        ('path = "big.onnx"\n', 'path = "big.onnx"\nchain = ["rules"]\n'),
        "model.cascade.chain",
        "rules",
    ),
    "cascade of values": (ASKS, (_OUTPUT, 'kind = "regression"'), "model.cascade", "score"),
    "cascade together": (
        ASKS,
        ('path = "pump.onnx"', 'path = "pump.onnx"\ncommit = "together"'),
        "model.commit",
        "cascade",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_reported_once_at_its_key(look: Examine, mistake: str) -> None:
    text, change, key, message = MISTAKES[mistake]
    problem = only(look(changed(text, change), files=FILES, need_models=False))
    assert problem.key == f"pipeline[pump].{key}"
    assert message in problem.message


def test_rules_cannot_see(look: Examine) -> None:
    report = look(
        SEES.replace('chain = ["onnxruntime:cpu"]', 'chain = ["onnxruntime:cpu", "rules"]'), need_models=False
    )
    assert "pipeline[pump].model.chain" in {problem.key for problem in report.problems}


def test_a_larger_model_without_signature_needs_permission_and_a_file(look: Examine) -> None:
    absent = look(ASKS)
    assert [problem.key for problem in absent.problems] == ["pipeline[pump].model.cascade.path"]
    unsigned = look(ASKS.replace("allow_unsigned = true", "allow_unsigned = false"), files=FILES)
    assert "pipeline[pump].model.cascade.path" in {problem.key for problem in unsigned.problems}


def test_a_model_of_the_upstream_is_named_by_its_digest_and_by_nothing_else(look: Examine) -> None:
    upstream = '[upstream]\nurl = "mqtt://hub:1883"\n[security]'
    asks = ASKS.replace("[security]", upstream)
    named = asks.replace('path = "big.onnx"\n', f'where = "upstream"\nsha256 = "{"a" * 64}"\n')
    assert look(named).problems == ()
    problem = only(look(asks.replace('path = "big.onnx"\n', 'where = "upstream"\n')))
    assert (problem.key, "does not name" in problem.message) == ("pipeline[pump].model.cascade", True)


def test_a_missing_extra_is_told_and_a_configuration_of_numbers_needs_none(look: Examine) -> None:
    sees, numbers = look(SEES).config, look(VALID).config
    assert sees is not None
    assert numbers is not None
    (finding,) = check_extras(sees, lambda _name: None)
    assert (finding.path, finding.note) == (("pipeline", 0, "codec"), True)
    assert list(check_extras(sees)) == []
    assert list(check_extras(numbers, lambda _name: None)) == []
