import numpy as np
import pytest

from torchgeo_ctm import value_counts
from torchgeo_ctm.value_counts import ValueCounts

PER_CENT = (0, 1, 2, 37.5, 50, 98, 99, 100)


def counted(*parts: np.ndarray, most: int = 2**17) -> ValueCounts:
    counts = ValueCounts(most)
    for part in parts:
        counts.add(part.astype(np.float32))
    return counts


def percentiles(counts: ValueCounts) -> list[float]:
    return [counts.percentile(each) for each in PER_CENT]


@pytest.mark.parametrize(
    'values',
    [
        np.arange(65_536),
        np.arange(65_536) / 255,
        np.arange(-20_000, 20_000) / 7,
        np.array([-0.0, 0.0, 0.0, 1e-40, -1e-40, 3e38, -3e38]),
        np.array([5]),
    ],
    ids=['16 bits', 'scaled', 'negative', 'extremes', 'one'],
)
def test_it_is_numpys_percentile(values: np.ndarray) -> None:
    drawn = np.random.default_rng(0).choice(values, 5000).astype(np.float32)
    counts = counted(drawn)
    assert counts.relative_error == 0
    wanted = np.percentile(drawn.astype(np.float64), PER_CENT)
    assert percentiles(counts) == pytest.approx(wanted.tolist(), rel=1e-12)


def test_bins_are_no_further_off_than_said() -> None:
    values = np.random.default_rng(1).normal(0, 1000, 50_000).astype(np.float32)
    counts = counted(values, most=2000)
    assert counts.different <= 2000
    assert 0 < counts.relative_error < 0.01
    wanted = np.percentile(values, PER_CENT, method='inverted_cdf').tolist()
    ranks = (np.sort(values)).tolist()
    for each, exact in zip(PER_CENT, wanted, strict=True):
        found = counts.percentile(each)
        # between the neighbours of a rank, each off by no more than the bin is wide
        near = [ranks[min(ranks.index(exact) + 1, len(ranks) - 1)], exact]
        low, high = min(near), max(near)
        slack = counts.relative_error * abs(exact)
        assert low - 2 * slack <= found <= high + 2 * slack


@pytest.mark.parametrize('most', [2**17, 1000, 3])
def test_order_and_parts_do_not_matter(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(0, 1000, 9000).astype(np.float32)
    whole = counted(values, most=most)
    monkeypatch.setattr(value_counts, 'WAITING', 100)
    shuffled = counted(*np.array_split(rng.permutation(values), 37), most=most)
    halves = counted(values[:10], most=most)
    halves.merge(counted(values[10:], most=most))
    for other in (shuffled, halves):
        assert percentiles(other) == percentiles(whole)
        assert other.different == whole.different
        assert other.relative_error == whole.relative_error


def test_nothing_has_no_percentile() -> None:
    assert np.isnan(ValueCounts().percentile(50))
