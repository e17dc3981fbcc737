"""How long the room lasts: a rate over the last day, and never a guess from a moment."""

from __future__ import annotations

from edged.store.forecast import NS_PER_DAY, SAMPLES_MAX, Sample, Samples, forecast

S = 1_000_000_000


def test_the_room_lasts_as_long_as_it_takes_to_fill_it_at_the_present_rate() -> None:
    outlook = forecast([Sample(0, 0), Sample(NS_PER_DAY // 2, 50_000_000)], room_bytes=300_000_000)
    assert outlook.bytes_per_day == 100_000_000
    assert outlook.days_of_room == 3.0


def test_no_room_is_no_days() -> None:
    assert forecast([Sample(0, 0), Sample(60 * S, 1000)], room_bytes=-5).days_of_room == 0.0


def test_a_moment_is_no_rate() -> None:
    assert forecast([Sample(0, 0), Sample(9 * S, 1000)], 10**9).days_of_room is None
    assert forecast([Sample(0, 0)], 10**9).days_of_room is None
    assert forecast([], 10**9).bytes_per_day == 0.0


def test_where_nothing_comes_the_room_lasts_for_ever() -> None:
    assert forecast([Sample(0, 7), Sample(60 * S, 7)], 10**9).days_of_room is None


def test_samples_are_few_and_cover_a_day() -> None:
    samples = Samples()
    for second in range(0, 3 * 86_400, 5):
        samples.add(second * S, second * 100)
    now = 3 * 86_400 * S
    kept = samples.until(now, 3 * 86_400 * 100)
    assert len(kept) <= SAMPLES_MAX + 1
    assert 0.9 * NS_PER_DAY < now - kept[0].mono_ns <= 1.05 * NS_PER_DAY
    assert round(forecast(kept, 0).bytes_per_day) == 8_640_000


def test_samples_close_together_are_one() -> None:
    samples = Samples()
    for i in range(100):
        samples.add(i * 1000, i)
    assert len(samples.until(2 * S, 100)) == 2
