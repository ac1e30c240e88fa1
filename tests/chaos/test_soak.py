"""What a soak calls flat, and what it does not."""

from random import Random

from tests.chaos.soak import Trend, trend

MINUTES = 25
PER_MINUTE = 12
SIZE_KIB = 100_000


def fitted(grows_by: float, *, steps_kib: int = 0, seed: int = 1) -> Trend:
    """Of a process that grows by so many KiB a minute, and in whose size neighbours resemble each other."""
    chance, drift, samples = Random(seed), 0.0, []
    for number in range(MINUTES * PER_MINUTE):
        drift = 0.95 * drift + chance.gauss(0, 30)
        step = steps_kib * (number // 60 % 2)  # up and down every five minutes
        rss = round(SIZE_KIB + grows_by * number / PER_MINUTE + drift + step)
        samples.append((number / PER_MINUTE, float(rss)))
    return trend(0, "in use", samples)


def test_a_leak_of_100_kib_a_minute_is_seen_through_the_noise() -> None:
    found = [fitted(100.0, seed=seed) for seed in range(100)]
    assert not any(one.flat for one in found)
    assert sum(one.low < 100 < one.high for one in found) >= 88


def test_noise_and_steps_without_a_slope_are_flat() -> None:
    assert sum(fitted(0.0, seed=seed).flat for seed in range(100)) >= 92
    assert fitted(0.0, steps_kib=500).flat


def test_a_process_that_shrinks_is_flat() -> None:
    assert fitted(-50.0).flat


def test_quarters_show_where_it_began_and_where_it_ended() -> None:
    found = fitted(100.0)
    assert found.last_quarter - found.first_quarter > 1_000
