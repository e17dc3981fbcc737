"""A model made of models answers with the next rung what the first one cannot, and says who did."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from edged.errors import InferenceError
from edged.infer.chain_model import ChainModel
from edged.infer.proof import Calls, Live
from edged.messages import ModelInfo
from edged.policy.batching import Cost
from tests.doubles.runtime import StandInModel, rows_summed

ONE = {"x": np.ones((1, 4), np.float32)}
Step = BaseException | Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


def broken(code: str) -> InferenceError:
    return InferenceError(code, "scripted")


class Ladder:
    """Implements `Rungs` without a keeper: what fell is written down."""

    def __init__(self, *scripts: list[Step], costs: tuple[Cost, ...] = ()) -> None:
        self.models = [StandInModel(script=script, runtime=f"r{at}:x") for at, script in enumerate(scripts)]
        self.costs = costs or (Cost(0, 0),) * len(scripts)
        self.order = tuple(
            Live(at, model.info.runtime, model, cost, {}, Calls(deadline_s=0.5, max_batch=100))
            for at, (model, cost) in enumerate(zip(self.models, self.costs, strict=True))
        )
        self.nobody = ModelInfo("m", "1", "", "none", (), ())
        self.fallen: list[tuple[int, str]] = []

    def fell(self, live: Live, error: InferenceError) -> None:
        live.fallen = True
        self.fallen.append((live.at, error.code))

    def now_ns(self) -> int:
        return 5

    def refusal(self) -> InferenceError:
        return InferenceError("model_unusable", "nobody")

    def calls(self) -> list[int]:
        return [len(model.calls) for model in self.models]


def ask(ladder: Ladder, model: ChainModel | None = None) -> str:
    """Who answered, or the code of the error."""
    model = model or ChainModel(ladder)
    try:
        assert model.infer(ONE, deadline_s=0.5)["y"].tolist() == [4.0]
    except InferenceError as error:
        return error.code
    return model.info.runtime


def test_while_all_is_well_the_first_rung_is_asked_and_nobody_else() -> None:
    ladder = Ladder([], [])
    assert (ask(ladder), ladder.calls(), ladder.fallen) == ("r0:x", [1, 0], [])


@pytest.mark.parametrize("code", ["infer_timeout", "worker_crashed", "device_lost", "worker_gone", "closed", "made_up"])
def test_what_the_first_rung_cannot_the_next_answers_with_the_same_batch(code: str) -> None:
    ladder = Ladder([broken(code)], [])
    model = ChainModel(ladder)
    assert (ask(ladder, model), ladder.fallen) == ("r1:x", [(0, code)])
    assert (ask(ladder, model), ladder.calls()) == ("r1:x", [1, 2]), "who has fallen is not asked again"


def test_a_bad_input_is_refused_and_nobody_falls() -> None:
    ladder = Ladder([broken("invalid_input")], [])
    assert (ask(ladder), ladder.calls(), ladder.fallen) == ("invalid_input", [1, 0], [])


def test_an_unclear_failure_is_tried_once_more_on_the_same_rung() -> None:
    ladder = Ladder([broken("infer_failed")], [])
    assert (ask(ladder), ladder.calls(), ladder.fallen) == ("r0:x", [2, 0], [])


def test_a_rung_that_fails_twice_where_the_next_succeeds_has_fallen() -> None:
    ladder = Ladder([broken("infer_failed"), broken("infer_failed")], [])
    assert (ask(ladder), ladder.fallen) == ("r1:x", [(0, "infer_failed")])


def test_an_input_that_no_rung_can_compute_costs_no_rung() -> None:
    failing: list[list[Step]] = [[broken("infer_failed")] * 2, [broken("infer_failed")] * 2]
    ladder = Ladder(*failing)
    model = ChainModel(ladder)
    assert (ask(ladder, model), ladder.fallen) == ("infer_failed", [])
    assert ask(ladder, model) == "r0:x", "the next input is answered as ever"


def test_a_rung_that_is_only_busy_is_passed_over_and_asked_again_next_time() -> None:
    ladder = Ladder([broken("device_busy")], [])
    model = ChainModel(ladder)
    assert [ask(ladder, model), ask(ladder, model)] == ["r1:x", "r0:x"]
    assert ladder.fallen == []


def test_a_plug_in_that_raises_what_it_must_not_is_survived() -> None:
    ladder = Ladder([ZeroDivisionError(), ValueError("twice")], [])
    assert (ask(ladder), ladder.fallen) == ("r1:x", [(0, "infer_failed")])


def test_when_the_last_rung_fails_its_error_is_told_and_then_that_nobody_is_left() -> None:
    ladder = Ladder([broken("device_lost")])
    model = ChainModel(ladder)
    assert (ask(ladder, model), model.info) == ("device_lost", ladder.nobody)
    assert (ask(ladder, model), model.info) == ("model_unusable", ladder.nobody)


def test_without_any_rung_it_says_so_from_the_start() -> None:
    ladder = Ladder()
    model = ChainModel(ladder)
    assert model.info is ladder.nobody
    assert ask(ladder, model) == "model_unusable"


def test_a_rung_that_is_being_probed_is_not_called_at_the_same_time() -> None:
    ladder = Ladder([broken("device_lost")], [])
    with ladder.order[1].probing:
        assert ask(ladder) == "device_busy"
    assert (ladder.calls(), ladder.fallen) == ([1, 0], [(0, "device_lost")])


def test_during_a_call_it_is_known_which_rung_computes_and_afterwards_none() -> None:
    ladder = Ladder([], [])
    model = ChainModel(ladder)
    seen = []

    def look(batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        seen.append(model.calling)
        return {"y": np.array([4.0], np.float32)}

    ladder.models[0]._script = [look]
    ask(ladder, model)
    assert (seen, model.calling) == ([ladder.order[0]], None)
    model.close()
    assert not ladder.models[0].closed.is_set(), "the chain owns its rungs"


SLOW = Cost(0, 100_000)  # 0.1 s an item: two of them stay well below half a second


def test_a_batch_for_a_fast_rung_is_given_to_a_slow_one_in_pieces() -> None:
    ladder = Ladder([broken("device_lost")], [], costs=(Cost(0, 0), SLOW))
    model = ChainModel(ladder)
    batch = {"x": np.arange(20, dtype=np.float32).reshape(5, 4)}
    assert model.infer(batch, deadline_s=0.5)["y"].tolist() == [6, 22, 38, 54, 70]
    assert (ladder.models[1].calls, model.began_ns) == ([2, 2, 1], 5)


def test_a_slow_rung_that_serves_gets_pieces_as_well_and_small_batches_whole() -> None:
    ladder = Ladder([], costs=(SLOW,))
    model = ChainModel(ladder)
    model.infer({"x": np.ones((3, 4), np.float32)}, deadline_s=0.5)
    model.infer({"x": np.ones((2, 4), np.float32)}, deadline_s=0.5)
    assert ladder.models[0].calls == [2, 1, 2]


def test_a_piece_that_fails_fails_the_batch_and_the_next_rung_gets_all_of_it() -> None:
    ladder = Ladder([rows_summed, broken("worker_crashed")], [], costs=(SLOW, Cost(0, 0)))
    model = ChainModel(ladder)
    assert model.infer({"x": np.ones((3, 4), np.float32)}, deadline_s=0.5)["y"].tolist() == [4, 4, 4]
    assert (ladder.models[1].calls, ladder.fallen) == ([3], [(0, "worker_crashed")])
