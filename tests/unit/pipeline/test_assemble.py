"""Ready windows become the arrays a model takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edged.errors import ConfigError, ModelError
from edged.messages import TensorSpec
from edged.pipeline.assemble import DTYPES, Assembler
from edged.pipeline.layout import parse_layout
from edged.pipeline.spec import InputSpec, Scaling


def tensor(*shape: int, dtype: str = "float32", name: str = "x") -> TensorSpec:
    return TensorSpec(name, dtype, (-1, *shape))


def assembler(*inputs: TensorSpec, **spec: Any) -> Assembler:
    return Assembler(InputSpec(**({"fields": ("a", "b")} | spec)), inputs)


def block(*rows: tuple[float, ...]) -> bytes:
    return np.array(rows, np.float64).tobytes()


def test_single_events_become_batch_by_fields() -> None:
    batch = assembler(tensor(2)).assemble([(1.0, 2.0), (3.0, 4.0), (5.0, 6.0)])
    assert batch.inputs["x"].dtype == np.float32
    assert batch.inputs["x"].tolist() == [[1, 2], [3, 4], [5, 6]]
    assert batch.unusable == []


def test_windows_become_batch_by_window_by_fields() -> None:
    batch = assembler(tensor(2, 2), window=2).assemble([block((1, 2), (3, 4)), block((5, 6), (7, 8))])
    assert batch.inputs["x"].tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]


@pytest.mark.parametrize(
    ("layout", "shape", "expected"),
    [
        ("auto", (2, 2), [[1, 2], [3, 4]]),
        ("batch,window,fields", (2, 2), [[1, 2], [3, 4]]),
        ("batch, fields, window", (2, 2), [[1, 3], [2, 4]]),
        ("batch,1,fields,window", (1, 2, 2), [[[1, 3], [2, 4]]]),
        ("batch,4", (4,), [1, 2, 3, 4]),
        ("batch,1,4,1", (1, 4, 1), [[[1], [2], [3], [4]]]),
    ],
)
def test_a_layout_arranges_the_axes(layout: str, shape: tuple[int, ...], expected: list[Any]) -> None:
    made = assembler(tensor(*shape), window=2, layout=layout).assemble([block((1, 2), (3, 4))])
    assert made.inputs["x"].tolist() == [expected]
    assert made.inputs["x"].flags.c_contiguous


def test_a_single_event_may_stand_in_a_window_axis() -> None:
    assert assembler(tensor(1, 2), layout="batch,window,fields").assemble([(1.0, 2.0)]).inputs["x"].shape == (1, 1, 2)
    assert assembler(tensor(2, 1), layout="batch,fields,1").assemble([(1.0, 2.0)]).inputs["x"].shape == (1, 2, 1)


def test_waveforms_are_flat_unless_the_layout_names_their_axes() -> None:
    row = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)  # a: 1 2 3, b: 4 5 6
    flat = assembler(tensor(6), width=6).assemble([row]).inputs["x"]
    assert flat.tolist() == [list(row)]
    axes = assembler(tensor(2, 3), width=6, layout="batch,fields,window").assemble([row]).inputs["x"]
    assert axes.tolist() == [[[1, 2, 3], [4, 5, 6]]]
    time_first = assembler(tensor(3, 2), width=6, layout="batch,window,fields").assemble([row]).inputs["x"]
    assert time_first.tolist() == [[[1, 4], [2, 5], [3, 6]]]
    image = assembler(tensor(1, 2, 3), width=6, layout="batch,1,2,3").assemble([row]).inputs["x"]
    assert image.tolist() == [[[[1, 2, 3], [4, 5, 6]]]]


def test_several_inputs_get_their_fields_by_name() -> None:
    made = assembler(
        tensor(2, name="left"),
        tensor(1, name="right", dtype="float64"),
        fields=("a", "b", "c"),
        inputs={"right": ("b",), "left": ("c", "a")},
    ).assemble([(1.0, 2.0, 3.0)])
    assert made.inputs["left"].tolist() == [[3, 1]]
    assert made.inputs["right"].tolist() == [[2]]
    assert made.inputs["right"].dtype == np.float64


def test_scaling_is_applied_to_each_field_before_anything_else() -> None:
    lines = Scaling(scale=(2.0,), offset=(1.0, 0.0), mean=(3.0, 4.0), std=(1.0, 2.0))
    assert assembler(tensor(2), scaling=lines).assemble([(5.0, 6.0)]).inputs["x"].tolist() == [[8.0, 4.0]]


def test_features_replace_the_samples() -> None:
    made = assembler(tensor(4), window=2, features=("mean", "peak"))
    assert made.columns == ("a.mean", "a.peak", "b.mean", "b.peak")
    assert made.assemble([block((1, 2), (3, 6))]).inputs["x"].tolist() == [[2, 3, 4, 6]]


def test_features_of_waveforms_are_features_of_each_waveform() -> None:
    made = assembler(tensor(2), width=6, features=("mean",)).assemble([(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)])
    assert made.inputs["x"].tolist() == [[2, 5]]


def test_several_inputs_may_get_the_features_of_their_fields() -> None:
    inputs = {"l": ("b",), "r": ("a", "b")}
    made = assembler(tensor(2, name="l"), tensor(4, name="r"), window=2, features=("mean", "peak"), inputs=inputs)
    batch = made.assemble([block((1, 2), (3, 6))])
    assert batch.inputs["l"].tolist() == [[4, 6]]
    assert batch.inputs["r"].tolist() == [[2, 3, 4, 6]]


def test_waveforms_of_any_length_become_features_and_a_short_one_spoils_its_row_only() -> None:
    made = assembler(
        tensor(6), width=0, features=("mean", "fft"), fft_bins=2, sample_rate_hz=100.0, scaling=Scaling(scale=(2.0,))
    )
    assert made.columns == ("a.mean", "a.fft_0_25_hz", "a.fft_25_50_hz", "b.mean", "b.fft_0_25_hz", "b.fft_25_50_hz")
    batch = made.assemble([(1.0, 3.0, 5.0, 7.0), (1.0,) * 6 + (4.0,) * 6, (1.0, 2.0), (2.0,) * 12])
    assert batch.unusable == [2]
    assert batch.inputs["x"][[0, 1, 3]][:, [0, 3]].tolist() == [[4, 12], [2, 8], [4, 4]]
    assert batch.inputs["x"][2].tolist() == [0] * 6


def test_features_of_any_length_are_those_of_the_fixed_length() -> None:
    row = tuple(float(value) for value in np.random.default_rng(3).normal(size=64))
    options: dict[str, Any] = {"features": ("rms", "kurtosis", "fft"), "fft_bins": 4}
    fixed = assembler(tensor(12), width=64, **options).assemble([row])
    free = assembler(tensor(12), width=0, **options).assemble([row])
    np.testing.assert_array_equal(free.inputs["x"], fixed.inputs["x"])


def test_only_so_many_lengths_are_prepared() -> None:
    made = assembler(tensor(2), width=0, features=("rms",))
    for samples in range(2, 60):
        assert made.assemble([(1.0,) * 2 * samples]).inputs["x"].tolist() == [[1, 1]]
    assert made._any_length is not None
    assert len(made._any_length._extractors) <= 16


# --- types ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_come_in_the_type_the_model_declares(dtype: str) -> None:
    made = assembler(tensor(2, dtype=dtype)).assemble([(1.0, 2.0)])
    assert made.inputs["x"].dtype == np.dtype(dtype)
    assert made.inputs["x"].tolist() == [[1, 2]]


def test_whole_numbers_are_rounded_not_cut() -> None:
    assert assembler(tensor(2, dtype="int8")).assemble([(-1.6, 1.6)]).inputs["x"].tolist() == [[-2, 2]]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("uint8", 256.0),
        ("uint8", -1.0),
        ("int8", 128.0),
        ("int64", 1e19),
        ("int64", 2.0**63),
        ("float16", 1e6),
        ("float32", 1e39),
    ],
)
def test_a_value_that_the_type_cannot_hold_spoils_its_row_only(dtype: str, value: float) -> None:
    batch = assembler(tensor(2, dtype=dtype)).assemble([(1.0, 2.0), (1.0, value), (3.0, 4.0)])
    assert batch.unusable == [1]
    assert batch.inputs["x"].tolist() == [[1, 2], [1, 0], [3, 4]]


def test_scaling_beyond_the_type_spoils_the_row() -> None:
    assert assembler(tensor(2), scaling=Scaling(scale=(1e30,))).assemble([(1e20, 0.0)]).unusable == [0]


# --- what does not fit is found at load ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "spec", "complaint"),
    [
        ([tensor(3)], {}, "takes"),
        ([tensor(2, 2)], {}, "takes"),
        ([tensor(1, 28, 28)], {"fields": ("image",), "width": 784}, "batch,1,28,28"),
        ([tensor(2, dtype="string")], {}, "string"),
        ([tensor(2, name="l"), tensor(2, name="r")], {}, "maps"),
        ([tensor(2, name="l")], {"inputs": {"other": ("a",)}}, "maps"),
    ],
)
def test_a_model_that_takes_something_else_is_refused_at_load(
    inputs: list[TensorSpec], spec: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ModelError, match=complaint) as refused:
        assembler(*inputs, **spec)
    assert refused.value.code == "incompatible"


def test_a_free_axis_of_the_model_fits_any_size() -> None:
    for free in (tensor(-1, 2), tensor(-1, -1)):
        made = assembler(free, window=9).assemble([block(*[(1.0, 2.0)] * 9)])
        assert made.inputs["x"].shape == (1, 9, 2)


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ({"fields": ()}, "whole number"),
        ({"width": 3}, "whole number"),
        ({"width": 4, "window": 2}, "window = 1"),
        ({"width": 0, "window": 2, "features": ("rms",)}, "window = 1"),
        ({"width": 0}, "declare features"),
        ({"layout": "fields"}, "not known"),
        ({"layout": "batch"}, "not known"),
        ({"layout": "batch,time"}, "not known"),
        ({"layout": "batch,fields,fields"}, "not known"),
        ({"layout": "batch,3"}, "holds 3"),
        ({"layout": "batch,window,fields", "width": 2, "window": 1, "inputs": {"x": ("a", "q")}}, "possible are"),
        ({"inputs": {"x": ()}}, "possible are"),
        ({"scaling": Scaling(mean=(1.0, 2.0, 3.0))}, "mean has 3"),
        ({"scaling": Scaling(std=(1.0, 0.0))}, "above 0"),
        ({"scaling": Scaling(offset=(float("nan"),))}, "not finite"),
    ],
)
def test_a_contradiction_in_the_spec_is_found_at_once(spec: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        assembler(tensor(2), **spec)


def test_a_size_may_not_stand_in_for_a_named_axis() -> None:
    with pytest.raises(ConfigError, match="mixes"):
        parse_layout("batch,fields,4", 4, 2, waveform=False)
