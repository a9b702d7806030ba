"""Bad input of every kind: the right result, or one line. ``make fuzz`` tries more."""

from pathlib import Path

import pytest

from tests.fakes.bad_inputs import KINDS, attempt


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize('kind', KINDS)
def test_one_line_or_the_right_result(kind: str, seed: int, tmp_path: Path) -> None:
    assert attempt(kind, seed, tmp_path) is None
