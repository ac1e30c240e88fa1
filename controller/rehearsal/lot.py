"""Chance, drawn the same way each time: how many requests came, and how many of them failed or were slow."""

import math
from random import Random

EXACT_BELOW = 30.0
"""Under this expectation counts are drawn one by one, above it from the normal curve they come close to."""


class Lot:
    """One sequence of draws; `seed` and `name` decide all of it."""

    def __init__(self, seed: int, name: str, spread: float) -> None:
        self._random = Random(f"{seed}/{name}")  # noqa: S311 - reproducible on purpose, and nothing secret
        self._spread = spread
        self._minute: float | None = None
        self._wander = 1.0

    def wander(self, moment: float) -> float:
        """A factor around 1 that is another one each minute."""
        minute = moment // 60
        if minute != self._minute:
            self._minute = minute
            self._wander = 1 + self._spread * (2 * self._random.random() - 1)
        return self._wander

    def arrivals(self, expected: float) -> float:
        """How many came, when so many were expected (Poisson)."""
        if expected < EXACT_BELOW:
            return self._few(expected)
        return max(round(self._random.gauss(expected, math.sqrt(expected))), 0)

    def among(self, count: float, share: float) -> float:
        """How many of `count` it hits, when it hits each with this probability (binomial)."""
        share = min(max(share, 0.0), 1.0)
        expected = count * share
        if expected < EXACT_BELOW:
            return min(self._few(expected), count)
        if count - expected < EXACT_BELOW:
            return count - min(self._few(count - expected), count)
        drawn = round(self._random.gauss(expected, math.sqrt(expected * (1 - share))))
        return min(max(drawn, 0), count)

    def _few(self, expected: float) -> float:
        """Counts the draws until their product falls below e to the minus expectation."""
        limit, product, count = math.exp(-expected), self._random.random(), 0
        while product > limit:
            product *= self._random.random()
            count += 1
        return float(count)
