"""No green without labelled data; the calibration trap is caught; the document can be signed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edged.workbench import quantizing, report_verify
from edged.workbench.documents import to_bytes
from edged.workbench.gate import Thresholds
from edged.workbench.hardware import Target, find_target
from edged.workbench.optimizing import Optimized
from edged.workbench.refusal import Unfit
from edged.workbench.verifying import Verified, document, verify
from tests.unit.infer import models
from tests.unit.workbench.conftest import Bench, classifier, cluster_samples

ANY = find_target(None)


def check(model: Path, bench: Bench, **options: Any) -> Verified:
    chosen: dict[str, Any] = {"metric": "accuracy", "thresholds": Thresholds(), "target": ANY, **options}
    data = chosen.pop("data", bench.labelled)
    reference = chosen.pop("reference", bench.model)
    return verify(model, reference, data, **chosen)


def refused(model: Path, bench: Bench, **options: Any) -> str:
    with pytest.raises(Unfit) as error:
        check(model, bench, **options)
    return error.value.code


def failures(found: Verified) -> list[str]:
    return [failed.code for failed in found.failures]


def saved(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def test_a_good_model_passes_and_the_document_names_every_digest(for_cpu: Optimized, bench: Bench) -> None:
    found = check(for_cpu.result.path, bench)
    facts = document(found)
    assert found.passed
    assert facts["passed"] is True
    assert facts["model"]["sha256"] == for_cpu.result.sha256
    assert facts["reference"]["sha256"] == for_cpu.source.sha256
    assert facts["data"] == {"file": "labelled.npz", "sha256": found.data.sha256, "samples": 400}
    assert {entry["code"] for entry in facts["checks"]} >= {"static", "interface_differs", "sqnr_low", "metric_drop"}


def test_the_same_files_give_the_same_bytes_to_sign(for_cpu: Optimized, bench: Bench) -> None:
    first, second = (to_bytes(document(check(for_cpu.result.path, bench))) for _ in range(2))
    assert first == second
    assert json.loads(first)["v"] == "edged.verification/1"


def test_a_model_calibrated_with_one_image_of_zeros_is_caught(bench: Bench, tmp_path: Path) -> None:
    """It loads, it answers, the quantiser says nothing, and it is wrong nearly everywhere."""
    trapped = tmp_path / "trapped.onnx"
    cleaned = quantizing.clean(onnx.load(str(bench.model)), tmp_path)
    quantizing.to_int8(cleaned, {"x": np.zeros((1, 16), np.float32)}, trapped, form="portable", batch=1)

    found = check(trapped, bench)

    assert not found.passed
    assert set(failures(found)) == {"sqnr_low", "metric_drop"}
    assert found.scored.model < 0.5
    assert document(found)["passed"] is False


def test_a_model_calibrated_in_the_wrong_unit_is_caught_by_the_task(bench: Bench, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.onnx"
    cleaned = quantizing.clean(onnx.load(str(bench.model)), tmp_path)
    quantizing.to_int8(cleaned, {"x": cluster_samples(60, 8)[0] * 40}, wrong, form="portable", batch=1)
    quantizing.stamp(wrong, {"edged.input_range.x": "-0.1 0.1", "edged.source_sha256": "0" * 64})

    found = check(wrong, bench)

    assert "metric_drop" in failures(found)
    assert any(note.startswith("outside_calibration") for note in found.notes)
    assert any(note.startswith("other_reference") for note in found.notes)


def test_without_labelled_data_there_is_no_verdict(for_cpu: Optimized, bench: Bench, tmp_path: Path) -> None:
    model = for_cpu.result.path
    assert refused(model, bench, data=None) == "no_labelled_data"
    assert refused(model, bench, data=bench.calibration) == "no_labels"
    few = saved(tmp_path / "few.npz", x=bench.samples[:99], labels=bench.labels[:99])
    assert refused(model, bench, data=few) == "too_few_labelled"
    short = saved(tmp_path / "short.npz", x=bench.samples, labels=bench.labels[:399])
    assert refused(model, bench, data=short) == "labels_shape"


def test_labels_of_another_order_give_no_verdict(for_cpu: Optimized, bench: Bench, tmp_path: Path) -> None:
    mixed = saved(tmp_path / "mixed.npz", x=bench.samples, labels=np.roll(bench.labels, 7))
    assert refused(for_cpu.result.path, bench, data=mixed) == "labels_do_not_fit"


def test_samples_that_are_no_numbers_give_no_verdict(for_cpu: Optimized, bench: Bench, tmp_path: Path) -> None:
    broken = bench.samples.copy()
    broken[0, 0] = np.nan
    data = saved(tmp_path / "nan.npz", x=broken, labels=bench.labels)
    assert refused(for_cpu.result.path, bench, data=data) == "data_not_finite"


def test_a_model_is_not_its_own_reference_unless_a_floor_is_named(bench: Bench) -> None:
    assert refused(bench.model, bench) == "reference_is_model"
    assert check(bench.model, bench, thresholds=Thresholds(min_metric=0.9)).passed
    assert failures(check(bench.model, bench, thresholds=Thresholds(min_metric=0.9999))) == ["metric_insufficient"]


def test_the_class_limits_the_size(for_cpu: Optimized, bench: Bench) -> None:
    small = Target("tiny", ("onnxruntime:cpu",), 100, 1.0)
    assert failures(check(for_cpu.result.path, bench, target=small)) == ["too_large"]


def test_thresholds_are_the_operators(for_cpu: Optimized, bench: Bench) -> None:
    assert failures(check(for_cpu.result.path, bench, thresholds=Thresholds(min_sqnr_db=90))) == ["sqnr_low"]


def test_other_metrics_gate_too(for_cpu: Optimized, bench: Bench, tmp_path: Path) -> None:
    data = saved(tmp_path / "rows.npz", x=bench.samples, labels=np.eye(8)[bench.labels])
    found = check(for_cpu.result.path, bench, data=data, metric="rmse", thresholds=Thresholds(max_drop=0.05))
    assert (found.passed, found.scored.higher_is_better) == (True, False)


def test_a_model_of_another_shape_cannot_take_the_place(bench: Bench, tmp_path: Path) -> None:
    other = models.unary(tmp_path / "other.onnx", "Relu")
    with pytest.raises(Unfit, match=r"invalid_input|interface_differs"):
        check(other, bench)


def test_a_model_that_answers_nan_fails_by_that_name(bench: Bench, tmp_path: Path) -> None:
    log = models.unary(tmp_path / "log.onnx", "Log")
    relu = models.unary(tmp_path / "relu.onnx", "Relu")
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 200)
    data = saved(tmp_path / "d.npz", x=(np.eye(4)[labels] - 0.1).astype(np.float32), labels=labels)
    found = check(log, bench, reference=relu, data=data)
    assert "not_finite" in failures(found)
    assert to_bytes(document(found))
    assert refused(relu, bench, reference=log, data=data) == "reference_not_finite"


def test_a_fixed_batch_is_no_difference_to_a_pipeline(bench: Bench, tmp_path: Path) -> None:
    fixed = classifier(tmp_path / "fixed.onnx", batch=4)
    assert check(fixed, bench).passed


def test_the_output_must_be_named_where_there_are_several(bench: Bench, tmp_path: Path) -> None:
    proto = onnx.load(str(bench.model))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, ["n", 96]))
    two = tmp_path / "two.onnx"
    two.write_bytes(proto.SerializeToString())
    floor = Thresholds(min_metric=0.5)
    assert refused(two, bench, reference=two, thresholds=floor) == "which_output"
    assert refused(two, bench, reference=two, thresholds=floor, output="z") == "which_output"
    assert check(two, bench, reference=two, thresholds=floor, output="y").output == "y"


def test_the_only_input_and_output_may_be_called_differently_but_that_is_no_replacement(
    bench: Bench, tmp_path: Path
) -> None:
    proto = onnx.load(str(bench.model))
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "features"
    proto.graph.output[0].name = proto.graph.node[-1].output[0] = "scores"
    renamed = tmp_path / "renamed.onnx"
    renamed.write_bytes(proto.SerializeToString())
    found = check(renamed, bench)
    assert found.scored.drop == 0
    assert failures(found) == ["interface_differs"]


def test_what_flatters_a_model_is_named(bench: Bench, tmp_path: Path) -> None:
    proto = onnx.load(str(bench.model))
    digest = check(bench.model, bench, thresholds=Thresholds(min_metric=0.5)).data.sha256
    onnx.helper.set_model_props(proto, {"edged.calibration_sha256": digest, "edged.input_range.x": "broken"})
    same = tmp_path / "same.onnx"
    same.write_bytes(proto.SerializeToString())
    assert [note.partition(":")[0] for note in check(same, bench).notes] == ["same_data"]


def test_samples_that_changed_their_class_are_listed_for_people(bench: Bench, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.onnx"
    cleaned = quantizing.clean(onnx.load(str(bench.model)), tmp_path)
    quantizing.to_int8(cleaned, {"x": np.zeros((1, 16), np.float32)}, wrong, form="portable", batch=1)
    text = report_verify.render(check(wrong, bench))
    assert "samples changed their class; the first 20:" in text
    assert "Refused: " in text
