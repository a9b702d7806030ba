"""The estimators against published figures, and against what they promise."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from tests.fakes.olofsson import COUNTS, PIXELS
from torchgeo_ctm.accuracy import Z95, Design, allocate, estimate, sample_size


def test_table_8_of_olofsson_2014() -> None:
    found = estimate(COUNTS, PIXELS)
    assert found.overall.value[0] == pytest.approx(0.947, abs=5e-4)
    assert found.overall.half_width[0] == pytest.approx(0.018, abs=5e-4)
    pixels = PIXELS.sum() * found.area.value
    assert pixels[0] == pytest.approx(235_086, abs=1)
    # the paper rounds 1.96
    assert PIXELS.sum() * found.area.error[0] * 1.96 == pytest.approx(68_418, abs=1)
    assert pixels[0] * 0.09 == pytest.approx(21_158, abs=1)
    assert PIXELS.sum() * found.area.half_width[0] * 0.09 == pytest.approx(6158, abs=1)
    np.testing.assert_allclose(found.users.value, [0.88, 0.73, 0.93, 0.96], atol=6e-3)
    np.testing.assert_allclose(
        found.users.half_width, [0.07, 0.10, 0.04, 0.02], atol=6e-3
    )
    np.testing.assert_allclose(
        found.producers.value, [0.75, 0.85, 0.93, 0.96], atol=6e-3
    )


def test_variance_of_producers_accuracy_is_equation_7() -> None:
    found = estimate(COUNTS, PIXELS)
    samples = COUNTS.sum(axis=1)
    for j in range(4):
        p, u = found.producers.value[j], found.users.value[j]
        share = COUNTS[:, j] / samples
        terms = PIXELS.astype(float) ** 2 * share * (1 - share) / (samples - 1)
        own = PIXELS[j] ** 2.0 * (1 - p) ** 2 * u * (1 - u) / (samples[j] - 1)
        whole = (PIXELS * share).sum()
        variance = (own + p**2 * (terms.sum() - terms[j])) / whole**2
        assert found.producers.error[j] == pytest.approx(np.sqrt(variance))


@pytest.mark.parametrize('design', ['stratified', 'simple'])
def test_95_percent_of_the_intervals_hold_the_truth(design: Design) -> None:
    truth = np.array([[0.2, 0.03, 0.01], [0.02, 0.3, 0.04], [0.05, 0.02, 0.33]])
    sizes = truth.sum(axis=1)
    rng = np.random.default_rng(0)
    tries = 1500
    if design == 'simple':
        tables = rng.multinomial(600, truth.ravel(), tries).reshape(tries, 3, 3)
    else:
        rows = [
            rng.multinomial(200, row / size, tries)
            for row, size in zip(truth, sizes, strict=True)
        ]
        tables = np.stack(rows, axis=1)
    hits = np.diag(truth)
    wanted = {
        'overall': [hits.sum()],
        'users': hits / sizes,
        'producers': hits / truth.sum(axis=0),
        'f1': 2 * hits / (sizes + truth.sum(axis=0)),
        'area': truth.sum(axis=0),
    }
    found = [estimate(table, sizes, design) for table in tables]
    for name, true in wanted.items():
        values = np.array([getattr(each, name).value for each in found])
        errors = np.array([getattr(each, name).error for each in found])
        covered = (np.abs(values - true) <= Z95 * errors).mean(axis=0)
        assert ((covered > 0.93) & (covered < 0.97)).all(), (name, covered)
        np.testing.assert_allclose(values.std(axis=0), errors.mean(axis=0), rtol=0.07)
        np.testing.assert_allclose(values.mean(axis=0), true, atol=0.004)


def test_proportional_numbers_of_samples_are_a_simple_sample() -> None:
    """With n_i = W_i n both variances agree but for the term of order 1 / n²."""
    counts = np.array([[180, 20], [30, 270]])
    one, other = (
        estimate(counts, np.array([400, 600]), d) for d in ('stratified', 'simple')
    )
    assert one.overall.error == pytest.approx(other.overall.error, rel=0.002)
    assert other.overall.error[0] > one.overall.error[0]


def test_classes_without_and_with_one_sample() -> None:
    found = estimate(
        np.array([[9, 1, 0], [0, 0, 0], [0, 0, 1]]), np.array([50, 30, 20])
    )
    assert found.overall.value[0] == pytest.approx((0.9 * 50 + 20) / 70)
    assert np.isnan(found.users.value[1])
    assert found.producers.value[1] == 0
    assert found.shares.sum() == pytest.approx(1)
    # one sample: as if half of the class were wrong
    assert found.overall.error[0] > 20 / 70 * 0.5


def test_sample_size_of_olofsson_2014() -> None:
    """Section 5.1.1: n = 641 for a standard error of 0.01."""
    users = np.array([0.7, 0.6, 0.9, 0.95])
    assert sample_size(PIXELS.astype(float), users, 0.01) == 641


def test_rare_classes_get_the_floor_and_others_share_the_rest() -> None:
    assert allocate(PIXELS, 640, 75).tolist() == [75, 75, 162, 328]
    assert allocate(PIXELS, 640, 0).tolist() == [13, 9, 205, 413]
    assert allocate(np.array([5, 0, 1000]), 100, 20).tolist() == [5, 0, 95]
    # more than there is
    assert allocate(np.array([5, 7]), 100, 20).tolist() == [5, 7]
    # floors that ask for more than the size
    assert allocate(np.array([500, 700]), 10, 20).tolist() == [20, 20]
    assert allocate(PIXELS, 640, 0, np.full(4, 0.8)).sum() == 640


def test_no_other_allocation_has_a_smaller_error_than_neymans() -> None:
    users = np.array([0.95, 0.6])
    pixels = np.array([8000, 2000])
    found = allocate(pixels, 200, 0, users)
    weights = pixels / pixels.sum()
    variances = [
        (weights**2 * users * (1 - users) / np.array([n, 200 - n])).sum()
        for n in range(1, 200)
    ]
    assert abs(found[0] - 1 - int(np.argmin(variances))) <= 1


def blocks_of_a_map(side: int = 600, block: int = 50) -> NDArray[np.int64]:
    """Map class × 3 + true class of the pixels of each block, (blocks, pixels)."""
    rng = np.random.default_rng(0)

    def field(scale: float) -> NDArray[np.float64]:
        smooth = gaussian_filter(rng.normal(size=(side, side)), scale)
        return np.asarray((smooth - smooth.mean()) / smooth.std())

    truth = np.digitize(field(20), [-0.6, 0.7])
    # errors lie together, in patches of some 20 px
    wrong = field(5) > 0.9
    mapped = np.where(wrong, (truth + 1 + (field(10) > 0)) % 3, truth)
    count = side // block
    pairs = (mapped * 3 + truth).reshape(count, block, count, block)
    return pairs.swapaxes(1, 2).reshape(count**2, -1)


def test_95_percent_of_the_intervals_of_clusters_hold_the_truth() -> None:
    blocks, rng, tries = blocks_of_a_map(), np.random.default_rng(1), 1500
    truth = np.bincount(blocks.ravel(), minlength=9).reshape(3, 3) / blocks.size
    sizes, hits = truth.sum(axis=1), np.diag(truth)
    wanted: dict[str, NDArray[np.float64]] = {
        'overall': hits.sum(keepdims=True),
        'users': hits / sizes,
        'producers': hits / truth.sum(axis=0),
        'f1': 2 * hits / (sizes + truth.sum(axis=0)),
        'area': truth.sum(axis=0),
    }
    held = {name: np.zeros((2, len(true))) for name, true in wanted.items()}
    for _ in range(tries):
        which = rng.integers(len(blocks), size=60)
        pairs = blocks[which[:, None], rng.integers(blocks.shape[1], size=(60, 10))]
        table = np.zeros((60, 9))
        np.add.at(table, (np.arange(60)[:, None], pairs), 1)
        clusters = table.reshape(60, 3, 3)
        counts = clusters.sum(axis=0)
        found = (
            estimate(counts, sizes, 'cluster', clusters),
            estimate(counts, sizes, 'simple'),
        )
        for name, true in wanted.items():
            for number, accuracy in enumerate(found):
                each = getattr(accuracy, name)
                held[name][number] += np.abs(each.value - true) <= each.half_width
    for name, (cluster, simple) in held.items():
        assert ((cluster / tries > 0.93) & (cluster / tries < 0.97)).all(), name
        # as if they were drawn apart
        assert (simple / tries < 0.9).all(), name


def test_a_cluster_of_equal_samples_is_one_sample() -> None:
    """Ten times the same pixel tell as much as one."""
    right, wrong = np.diag([1, 0]), np.array([[0, 1], [0, 0]])
    clusters = np.array([right] * 30 + [wrong] * 10)
    one = estimate(clusters.sum(axis=0), np.array([1, 0]), 'cluster', clusters)
    ten = estimate(
        10 * clusters.sum(axis=0), np.array([1, 0]), 'cluster', 10 * clusters
    )
    assert ten.overall.error == pytest.approx(one.overall.error)
    # of 40 samples, 0.75 of them right, with n - 1
    assert one.overall.error == pytest.approx(np.sqrt(0.75 * 0.25 / 39))
    assert one.overall.half_width > 2.02 * one.overall.error
