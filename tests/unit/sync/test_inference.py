"""`edged-infer/1`: what was packed comes back, what was tampered with does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.sync import inference
from edged.sync.envelope import Refusal
from edged.sync.inference import Answer, Packed, Question, TensorHeader
from edged.sync.tensors import Range, dequantise, quantise, range_of, to_array, to_arrays, to_packed

MODEL = "a" * 64
ID = "0123456789abcdef" * 2


def question(*tensors: Packed, **changes: Any) -> Question:
    body = inference.body_of(tensors)
    made = Question(
        v=inference.VERSION,
        site="lyon",
        gateway="gw-01",
        id=ID,
        model=MODEL,
        answer_to="edged/v1/lyon/gw-01/infer/answer/x",
        within_ms=500,
        sha256=inference.digest_of(body),
        tensors=tuple(tensor.header for tensor in tensors),
    )
    return msgspec.structs.replace(made, **changes)


def message(*tensors: Packed, **changes: Any) -> bytes:
    return inference.encode(question(*tensors, **changes), inference.body_of(tensors))


@pytest.mark.parametrize("dtype", inference.ITEM_BYTES)
def test_a_tensor_of_any_type_comes_back_to_the_bit(dtype: str) -> None:
    array = (np.arange(24).reshape(2, 3, 4) % 2).astype(dtype)

    asked, tensors = inference.decode_question(message(to_packed("x", array)))

    assert (asked.site, asked.model) == ("lyon", MODEL)
    back = to_arrays(tensors)["x"]
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert np.array_equal(back, array)


def test_noise_travels_as_it_is_and_zeros_travel_deflated() -> None:
    noise = np.random.default_rng(1).integers(0, 255, 1000, np.uint8)

    assert to_packed("x", noise).header.packing == "none"
    zeros = to_packed("x", np.zeros(1000, np.float32))
    assert (zeros.header.packing, zeros.header.bytes < 100) == ("zlib", True)
    assert np.array_equal(to_array(zeros), np.zeros(1000, np.float32))


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50),
    st.sampled_from(["float16", "float32", "float64"]),
)
def test_a_quantised_number_is_off_by_half_a_step_at_most(values: list[float], dtype: str) -> None:
    array = np.clip(np.array(values), -60000, 60000).astype(dtype)

    coded, found = quantise(array)
    back = dequantise(coded, found, dtype)

    slack = found.scale * 0.5001 + 1e-2 * found.scale + float(np.abs(array).max()) * 2e-3 * (dtype == "float16")
    assert back.dtype == array.dtype
    assert np.abs(back.astype(np.float64) - array.astype(np.float64)).max() <= slack + 1e-30


def test_zero_stays_zero_and_nothing_but_zeros_has_a_range() -> None:
    array = np.array([-3.0, 0.0, 9.7], np.float32)
    coded, found = quantise(array)

    assert dequantise(coded, found, "float32")[1] == 0.0
    assert range_of(0.0, 0.0) == Range(1.0, 0)
    assert range_of(0.0, float("inf")) == Range(1.0, 0)
    assert quantise(np.zeros(0, np.float32))[1] == Range(1.0, 0)


def test_a_known_range_is_used_where_it_holds_every_value_and_widened_where_it_does_not() -> None:
    known = range_of(0.0, 6.0)

    assert quantise(np.array([0.0, 5.9], np.float32), known)[1] == known
    coded, wider = quantise(np.array([0.0, 60.0], np.float32), known)
    assert wider.high == pytest.approx(60.0)
    assert dequantise(coded, wider, "float32")[1] == pytest.approx(60.0)
    assert known.low == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_not_quantised(bad: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        quantise(np.array([1.0, bad], np.float32))


def test_text_and_complex_numbers_do_not_travel() -> None:
    with pytest.raises(ValueError, match="complex64 does not travel"):
        to_packed("x", np.zeros(2, np.complex64))


def test_floats_travel_as_one_byte_each_when_asked_to() -> None:
    array = np.array([[0.0, 1.0, 2.55]], np.float32)

    packed = to_packed("x", array, u8=True, known=range_of(0.0, 2.55))

    assert (packed.header.coding, packed.header.bytes) == ("u8", 3)
    assert np.allclose(to_array(packed), array)


def test_integers_are_never_quantised_again() -> None:
    packed = to_packed("x", np.array([1, 200], np.uint8), u8=True)

    assert packed.header.coding == "plain"


def test_an_answer_comes_back_and_a_refusal_says_why() -> None:
    tensors = (to_packed("y", np.array([[0.25, 0.75]], np.float32)),)
    body = inference.body_of(tensors)
    header = Answer(inference.VERSION, ID, MODEL, "ok", inference.digest_of(body), (tensors[0].header,), infer_ms=1.5)

    answer, found = inference.decode_answer(inference.encode(header, body))

    assert (answer.status, answer.infer_ms) == ("ok", 1.5)
    assert to_arrays(found)["y"].tolist() == [[0.25, 0.75]]
    no = inference.refusal(ID, MODEL, "busy", "x" * 1000)
    said, nothing = inference.decode_answer(inference.encode(no, b""))
    assert (said.reason, len(said.detail), nothing) == ("busy", inference.DETAIL_MAX_CHARS, ())


def test_more_than_a_message_may_hold_is_not_written_and_not_read() -> None:
    noise = np.random.default_rng(1).integers(0, 255, inference.MESSAGE_MAX_BYTES, np.uint8)

    with pytest.raises(Refusal, match="too_large"):
        message(to_packed("x", noise))
    with pytest.raises(Refusal, match="too_large"):
        inference.decode_question(b"{}\n" + noise.tobytes())


SOUND = to_packed("x", np.zeros((1, 4), np.float32))


def lied(**changes: Any) -> bytes:
    """A message whose tensor header lies about a sound tensor."""
    header = msgspec.structs.replace(SOUND.header, **changes)
    return message(SOUND, tensors=(header,))


HOSTILE: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "no second part": lambda: b"{}",
    "an endless first line": lambda: b"x" * 20_000 + b"\n",
    "no JSON": lambda: b"\xff\n",
    "nested without end": lambda: b"[" * 10_000 + b"\n",
    "another version": lambda: message(SOUND, v="edged-infer/9"),
    "an id that is none": lambda: message(SOUND, id="../../etc"),
    "a model that is no digest": lambda: message(SOUND, model="../tail.onnx"),
    "a flipped bit": lambda: message(SOUND)[:-1] + bytes((message(SOUND)[-1] ^ 1,)),
    "no site": lambda: message(SOUND, site=""),
    "an endless topic": lambda: message(SOUND, answer_to="x" * 600),
    "no time": lambda: message(SOUND, within_ms=0),
    "a tensor twice": lambda: message(SOUND, tensors=(SOUND.header, SOUND.header)),
    "too many tensors": lambda: message(SOUND, tensors=(SOUND.header,) * 17),
    "bytes left over": lambda: message(SOUND, tensors=()),
    "bytes missing": lambda: lied(bytes=SOUND.header.bytes + 1),
    "a negative number of bytes": lambda: lied(bytes=-1),
    "no name": lambda: lied(name=""),
    "an unknown type": lambda: lied(dtype="object"),
    "too many axes": lambda: lied(shape=(1,) * 9),
    "an axis of nothing": lambda: lied(shape=(0, 4)),
    "a negative axis": lambda: lied(shape=(-1, 4)),
    "integers as u8": lambda: lied(coding="u8", dtype="int32"),
    "no scale": lambda: lied(coding="u8", scale=0.0),
    "a zero point that is no byte": lambda: lied(coding="u8", zero_point=256),
    "a bomb": lambda: lied(shape=(16_777_216, 16_777_216)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_message_is_refused_before_anything_is_unpacked(kind: str) -> None:
    with pytest.raises(Refusal) as refused:
        inference.decode_question(HOSTILE[kind]())

    assert refused.value.code == ("too_large" if kind == "a bomb" else "bad_message")


@pytest.mark.parametrize(
    "tensor",
    [
        Packed(TensorHeader("x", "float32", (2,), 4), b"1234"),
        Packed(TensorHeader("x", "float32", (1,), 4, packing="zlib"), b"1234"),
        Packed(msgspec.structs.replace(SOUND.header, shape=(1, 3)), SOUND.data),
        Packed(msgspec.structs.replace(SOUND.header, shape=(1, 5)), SOUND.data),
        Packed(SOUND.header, SOUND.data + b"more"),
        Packed(TensorHeader("x", "bool", (1,), 1), b"\x02"),
    ],
)
def test_bytes_that_do_not_fit_their_header_are_refused(tensor: Packed) -> None:
    with pytest.raises(Refusal, match="bad_message"):
        to_array(tensor)


@given(st.binary(max_size=300))
def test_garbage_is_refused_and_never_raises_anything_else(garbage: bytes) -> None:
    for decode in (inference.decode_question, inference.decode_answer):
        with pytest.raises(Refusal):
            decode(garbage)
