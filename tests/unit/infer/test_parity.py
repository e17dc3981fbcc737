"""Two runtimes that compute the same model agree; one that computes something else is found out before it answers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from edged.errors import InferenceError, ModelError
from edged.infer.parity import check_parity, disagreement, parity_inputs, probe_answers, sqnr_db
from edged.infer.renamed import like
from edged.messages import ModelInfo, TensorSpec
from tests.doubles.runtime import StandInModel, rows_summed

CHANCE = np.random.default_rng(1)
RIGHT = {"y": CHANCE.normal(size=(4, 10))}


def test_the_same_answers_agree_and_so_do_those_of_honest_number_formats() -> None:
    as_fp16 = {"y": RIGHT["y"].astype(np.float16)}
    step = np.ptp(RIGHT["y"]) / 255
    as_int8 = {"y": np.rint(RIGHT["y"] / step) * step}
    assert [disagreement(each, RIGHT) for each in (RIGHT, as_fp16, as_int8)] == ["", "", ""]


@pytest.mark.parametrize(
    "wrong",
    [
        RIGHT["y"][::-1],
        RIGHT["y"] * 1.2,
        RIGHT["y"] + 0.5,
        np.zeros((4, 10)),
        np.full((4, 10), np.nan),
        np.where(RIGHT["y"] > 0, np.inf, RIGHT["y"]),
    ],
    ids=["rows swapped", "scaled", "shifted", "silent", "nan", "infinite"],
)
def test_wrong_answers_do_not_agree(wrong: np.ndarray) -> None:
    assert "dB" in disagreement({"y": wrong}, RIGHT)


def test_missing_outputs_and_other_shapes_do_not_agree() -> None:
    assert "None" in disagreement({}, RIGHT)
    assert "(2, 10)" in disagreement({"y": RIGHT["y"][:2]}, RIGHT)


def test_a_disagreement_names_both_and_the_cure() -> None:
    with pytest.raises(ModelError) as caught:
        check_parity({"y": -RIGHT["y"]}, RIGHT, "tensorrt:gpu", "onnxruntime:cpu")
    assert caught.value.code == "parity_failed"
    assert all(part in str(caught.value) for part in ("tensorrt:gpu", "onnxruntime:cpu", "golden vectors"))


def test_the_level_of_an_exact_copy_is_high_and_that_of_silence_is_zero() -> None:
    assert sqnr_db(RIGHT["y"], RIGHT["y"]) > 200
    assert sqnr_db(RIGHT["y"], np.zeros((4, 10))) == pytest.approx(0)


def test_parity_inputs_are_four_different_rows_in_ranges_that_every_type_holds() -> None:
    specs = (
        TensorSpec("x", "float32", (-1, 3, -1)),
        TensorSpec("q", "int8", (-1, 40)),
        TensorSpec("u", "uint8", (-1, 40)),
        TensorSpec("n", "int64", (-1, 5)),
    )
    made, again = parity_inputs(specs), parity_inputs(specs)
    assert {name: (array.shape, str(array.dtype)) for name, array in made.items()} == {
        "x": ((4, 3, 8), "float32"), "q": ((4, 40), "int8"), "u": ((4, 40), "uint8"), "n": ((4, 5), "int64"),
    }  # fmt: skip
    assert all((made[name] == again[name]).all() for name in made)
    assert len({made["x"][row].tobytes() for row in range(4)}) == 4
    assert np.abs(made["x"]).max() <= 1
    assert np.ptp(made["q"].astype(int)) > 200
    assert not made["n"].any()


def test_a_model_that_answers_a_batch_otherwise_than_its_items_is_refused() -> None:
    def only_the_first(batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return {"y": np.repeat(rows_summed(batch)["y"][:1], len(batch["x"]))}

    with pytest.raises(ModelError) as caught:
        probe_answers(StandInModel(script=[only_the_first]))
    assert caught.value.code == "parity_failed"


def test_an_output_that_belongs_to_the_whole_batch_is_not_compared_with_those_of_items() -> None:
    def counting(batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return {**rows_summed(batch), "count": np.array([len(batch["x"])])}

    assert probe_answers(StandInModel(script=[counting] * 5))["count"].tolist() == [4]


def test_a_model_that_does_not_answer_the_probe_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        probe_answers(StandInModel(script=[InferenceError("infer_failed", "scripted")]))
    assert caught.value.code == "warmup_failed"


# --- names ---

WANTED = ModelInfo("m", "1", "", "a", (TensorSpec("x", "float32", (-1, 4)),), (TensorSpec("y", "float32", (-1,)),))
TWO = (TensorSpec("a", "float32", (-1, 4)), TensorSpec("b", "float32", (-1, 2)))


def test_a_form_with_the_same_names_is_taken_as_it_is() -> None:
    model = StandInModel()
    assert like(model, WANTED) is model


def test_other_names_are_matched_by_position_and_runtime_and_digest_stay_its_own() -> None:
    model = StandInModel()
    renamed = like(model, WANTED._replace(inputs=(TensorSpec("input_1", "float32", (-1, 4)),),
                                          outputs=(TensorSpec("Identity", "float32", (-1,)),)))  # fmt: skip
    assert renamed.infer({"input_1": np.ones((2, 4), np.float32)}, deadline_s=1)["Identity"].tolist() == [4, 4]
    assert [spec.name for spec in (*renamed.info.inputs, *renamed.info.outputs)] == ["input_1", "Identity"]
    assert (renamed.info.runtime, renamed.info.sha256) == (model.info.runtime, model.info.sha256)
    renamed.close()
    assert model.closed.is_set()


def test_names_that_are_the_same_in_another_order_keep_their_meaning() -> None:
    model = StandInModel(inputs=TWO[::-1])
    renamed = like(model, WANTED._replace(inputs=TWO))
    assert renamed is model


@pytest.mark.parametrize(
    "inputs",
    [TWO, (TensorSpec("z", "float64", (-1, 4)),), (TensorSpec("z", "float32", (-1, 5)),),
     (TensorSpec("z", "float32", (-1, 4, 1)),)],
    ids=["number", "type", "size", "axes"],
)  # fmt: skip
def test_what_is_not_the_same_model_is_incompatible(inputs: tuple[TensorSpec, ...]) -> None:
    with pytest.raises(ModelError) as caught:
        like(StandInModel(inputs=inputs), WANTED)
    assert caught.value.code == "incompatible"


def test_a_free_axis_fits_a_fixed_one() -> None:
    model = StandInModel(inputs=(TensorSpec("x", "float32", (-1, -1)),))
    assert like(model, WANTED) is model
