"""What holds for all tests: no setting of the developer's own leaks in, and no test fails for being slow once."""

import os
import signal

import pytest
from hypothesis import Phase, settings

for name in [name for name in os.environ if name.startswith("RAMPART_") and not name.startswith("RAMPART_TEST_")]:
    del os.environ[name]

# Machines that run tests are busy; a law is not broken by taking long.
settings.register_profile("rampart", deadline=None)
settings.load_profile("rampart")

# For mutation testing (docs/mutation.md): few examples and the same ones for every mutant; none is made smaller.
settings.register_profile(
    "mutation",
    deadline=None,
    max_examples=10,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
)

# A job that a shell put into the background ignores interrupts, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For a mutant (docs/mutation.md) the tests of its own module first: they are the likeliest to notice it."""
    *_, module, _ = ("", "", *os.environ.get("MUTANT_UNDER_TEST", "").rsplit(".", 2))
    if module:
        items.sort(key=lambda item: module not in item.path.stem)
