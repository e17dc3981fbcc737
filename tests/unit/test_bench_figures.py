"""The benchmark's table: ratios within a round, medians over rounds, and a gate that never passes on nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.explain import explain, needs_profile
from benchmarks.figures import (
    EXTRAS,
    FEATURES_KEY,
    FSYNC_KEY,
    ROWS,
    Figure,
    figures,
    given_figure,
    passes,
    undelivered,
)
from benchmarks.machine import file_system
from benchmarks.report import limit_text, number
from benchmarks.rounds import Round, Sample

SAMPLE = Sample(
    rate_per_s=1000.0,
    p50_us=500.0,
    p99_us=2000.0,
    cpu_us=20.0,
    written_bytes=500.0,
    resident_mb=80.0,
    sent=1000,
    lost=0,
    duplicates=0,
    broker_cpu_us=40.0,
    loadgen_cpu_us=5.0,
    realtime=True,
    load_average=0.5,
)
ISSUE_ROWS = 9


def round_of(edged_rate: float, c_raw_rate: float, node_red_rate: float = 2000.0) -> Round:
    return {
        ("edged", "saturated"): replace(SAMPLE, rate_per_s=edged_rate),
        ("edged", "steady_1000"): SAMPLE,
        ("edged_linger", "steady_5000"): SAMPLE,
        ("c_raw", "saturated"): replace(SAMPLE, rate_per_s=c_raw_rate),
        ("c_raw", "steady_1000"): replace(SAMPLE, p50_us=100.0),
        ("node_red", "saturated"): replace(SAMPLE, rate_per_s=node_red_rate),
    }


def by_key(table: list[Figure]) -> dict[str, Figure]:
    return {each.row.key: each for each in table}


def test_a_ratio_is_taken_within_a_round_before_the_median_over_rounds() -> None:
    rounds = [round_of(9000, 10000), round_of(2000, 20000), round_of(10000, 20000)]
    found = by_key(figures(ROWS, rounds))["rate_vs_c_raw"]
    assert found.rounds == (0.9, 0.1, 0.5)
    assert found.value == 0.5
    assert found.holds is True
    assert found.reaches_aim is False


def test_a_round_without_a_contestant_is_left_out_and_the_others_count() -> None:
    without = {key: sample for key, sample in round_of(9000, 10000).items() if key[0] != "c_raw"}
    assert by_key(figures(ROWS, [without, round_of(8000, 10000)]))["rate_vs_c_raw"].rounds == (0.8,)


def test_a_contestant_that_answered_nothing_gives_no_ratio() -> None:
    assert by_key(figures(ROWS, [round_of(9000, 0)]))["rate_vs_c_raw"].value is None


def test_what_was_not_measured_has_no_verdict() -> None:
    missing = by_key(figures(ROWS, [round_of(9000, 10000)]))["rate_vs_libmosquitto"]
    assert (missing.value, missing.holds, missing.reaches_aim) == (None, None, None)


def test_there_is_one_key_per_row_of_the_table_and_none_twice() -> None:
    keys = [row.key for row in (*ROWS, *EXTRAS)]
    assert len(ROWS) == ISSUE_ROWS
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("p99_us", "holds", "aim"), [(1900.0, True, True), (3000.0, True, False), (3001.0, False, False)]
)
def test_where_less_is_better_the_limit_itself_still_holds(p99_us: float, holds: bool, aim: bool) -> None:
    samples = {("edged", "steady_1000"): replace(SAMPLE, p99_us=p99_us)}
    found = by_key(figures(ROWS, [samples]))["p99_ms_at_1000"]
    assert (found.holds, found.reaches_aim) == (holds, aim)


def test_a_figure_from_elsewhere_takes_its_row_and_keeps_its_note() -> None:
    table = figures(ROWS, [], [given_figure(FEATURES_KEY, [0.0], "not shown: metrics")])
    assert len(table) == ISSUE_ROWS
    features = by_key(table)[FEATURES_KEY]
    assert features.holds is False
    assert features.as_json()["note"] == "not shown: metrics"


def test_a_run_that_measured_nothing_does_not_pass() -> None:
    assert not passes(figures(ROWS, []), lost=0)


def test_one_missed_must_fails_the_run_and_missing_rows_do_not() -> None:
    assert passes(figures(ROWS, [round_of(11000, 10000)]), lost=0)
    assert not passes(figures(ROWS, [round_of(4000, 10000, node_red_rate=500)]), lost=0)


def test_a_lost_result_fails_the_run_however_fast_it_was() -> None:
    assert not passes(figures(ROWS, [round_of(11000, 10000)]), lost=1)


def test_extras_explain_but_never_gate() -> None:
    extras = figures(EXTRAS, [round_of(1, 100000)])
    assert all(each.holds is None for each in extras)


def test_losses_of_the_daemon_are_added_up_over_its_variants_and_those_of_others_are_not() -> None:
    rounds: list[Round] = [
        {
            ("edged", "saturated"): replace(SAMPLE, lost=1),
            ("edged_linger", "steady_5000"): replace(SAMPLE, lost=2, duplicates=3),
            ("naive_python", "saturated"): replace(SAMPLE, lost=100),
        }
    ]
    assert undelivered(rounds, "edged") == (3, 3)


def test_nothing_is_explained_when_everything_holds() -> None:
    rounds = [round_of(11000, 10000)]
    rows = figures(ROWS, rounds)
    assert explain(rows, figures(EXTRAS, rounds), rounds, cores=2) == []
    assert not needs_profile(rows)


def test_a_missed_rate_is_set_against_what_the_broker_can_do() -> None:
    rounds = [round_of(4000, 10000, node_red_rate=5000)]
    rows = figures(ROWS, rounds)
    (fact,) = explain(rows, figures(EXTRAS, rounds), rounds, cores=2)
    assert "25,000 msg/s, 5.0 × Node-RED" in fact
    assert needs_profile(rows)


def test_a_missed_latency_is_set_against_the_disk_and_a_busy_machine_is_named() -> None:
    rounds: list[Round] = [{("edged", "steady_1000"): replace(SAMPLE, p99_us=9000.0, load_average=5.5)}]
    rows = figures(ROWS, rounds)
    disk, machine = explain(rows, [given_figure(FSYNC_KEY, [4.0])], rounds, cores=2)
    assert "4 ms" in disk
    assert "5.5 on 2 cores" in machine
    assert not needs_profile(rows)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(None, "ms", "–"), (0.12345, "×", "0.123 ×"), (1234.5, "B", "1,234 B"), (1.0, "yes", "yes"), (0.0, "yes", "no")],
)
def test_numbers_are_short_enough_to_read(value: float | None, unit: str, text: str) -> None:
    assert number(value, unit) == text


def test_a_limit_says_in_which_direction_it_holds() -> None:
    texts = {row.key: limit_text(row, row.must) for row in ROWS}
    assert texts["rate_vs_c_raw"] == "≥ 0.5 ×"
    assert texts["cpu_us_saturated"] == "≤ 25 µs"
    assert texts[FEATURES_KEY] == "yes"


def test_the_file_system_is_that_of_the_nearest_mount_above() -> None:
    mounts = "/dev/a / ext4 rw 0 0\ntmpfs /srv tmpfs rw 0 0\n/dev/b /srv/data xfs rw 0 0\n"
    assert file_system(Path("/srv/data/run"), mounts) == "xfs"
    assert file_system(Path("/srv/other"), mounts) == "tmpfs"
    assert file_system(Path("/etc"), mounts) == "ext4"
    assert file_system(Path("/etc"), "") == "unknown"
