"""Accuracy and area from a random sample of a map: estimators and sample sizes.

Numbers in brackets are equations of Olofsson et al. (2014), Remote Sensing of
Environment 148, 42-57, https://doi.org/10.1016/j.rse.2014.02.015. The strata are the
classes of the map: class i covers the share W_i of it, and n_ij of its n_i samples have
reference class j.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

Floats = NDArray[np.float64]
#: How samples were drawn: at random in each class of the map, in the whole map, or in
#: blocks that were drawn in the whole map.
Design = Literal['stratified', 'simple', 'cluster']
#: Half-width of a 95 % confidence interval in standard errors (12).
Z95 = 1.959964


class Estimate(NamedTuple):
    """Estimates and their standard errors; NaN where a class has no estimate."""

    value: Floats
    error: Floats
    #: Half-width of a 95 % confidence interval in standard errors.
    quantile: float = Z95

    @property
    def half_width(self) -> Floats:
        """Half of the 95 % confidence interval (12)."""
        return self.quantile * self.error


class Accuracy(NamedTuple):
    """What a sample says of a map with C classes."""

    #: Estimated share of the map by map class and reference class (C, C) (4).
    shares: Floats
    #: Share of the map that is right, (1,) (1).
    overall: Estimate
    #: Share of the pixels of a map class that are right, (C,) (2).
    users: Estimate
    #: Share of the pixels of a reference class that the map finds, (C,) (3).
    producers: Estimate
    #: Harmonic mean of both, (C,).
    f1: Estimate
    #: Share of the map that each reference class covers, (C,) (9).
    area: Estimate


def estimate(
    counts: NDArray[Any],
    sizes: NDArray[Any],
    design: Design = 'stratified',
    clusters: NDArray[Any] | None = None,
) -> Accuracy:
    """Return accuracy and area shares with their standard errors.

    Every estimate is a mean over the map, or a ratio of two, of a number a_ij that each
    sample has by its classes. The variance of a mean is

        stratified: Σ_i W_i² S_i² / n_i,
        simple:     Σ_i W_i S_i² / n + Σ_i (1 − W_i) S_i² / n²,

    where S_i² is the sample variance of a_ij in class i. The second is that of
    poststratification (Cochran, 1977, 5A.42). For a ratio R = Y / X it is that of
    (y_ij − R x_ij) / X. With a_ij of 0 and 1 these are (5), (6), (7) and (10). In
    clusters samples resemble each other: see ``_jackknife``.

    Args:
        counts: Samples by map class (rows) and reference class (columns), (C, C).
        sizes: Size of each map class, (C,), in pixels or hectares. A class without
            samples is left out of the map.
        design: How the samples were drawn.
        clusters: Samples of each of K clusters, (K, C, C), which add up to *counts*,
            for the design 'cluster'.
    """
    counts, sizes = np.asarray(counts, float), np.asarray(sizes, float)
    samples = counts.sum(axis=1)
    sizes = np.where(samples > 0, sizes, 0)
    weights = sizes / sizes.sum()
    found = counts / np.maximum(samples, 1)[:, None]
    shares = weights[:, None] * found
    classes = len(sizes)

    def error(scores: Floats) -> float:
        """Return the standard error of the mean of numbers a_ij (C, C)."""
        mean = (scores * found).sum(axis=1)
        variance = (scores**2 * found).sum(axis=1) - mean**2
        variance *= samples / np.maximum(samples - 1, 1)
        # nothing is known of the variance from one sample: the largest possible
        variance[samples == 1] = np.ptp(scores, axis=1)[samples == 1] ** 2 / 4
        variance = variance.clip(0)
        total = samples.sum()
        if design == 'simple':
            terms = weights * variance / total + (1 - weights) * variance / total**2
        else:
            terms = weights**2 * variance / np.maximum(samples, 1)
        return float(np.sqrt(terms.sum()))

    def ratio(one: list[Floats], other: list[Floats]) -> Estimate:
        """Return the ratios of means of y_ij to those of x_ij, for each class."""
        values, errors = np.full((2, classes), np.nan)
        for index, (y, x) in enumerate(zip(one, other, strict=True)):
            whole = (x * shares).sum()
            if whole > 0:
                values[index] = (y * shares).sum() / whole
                errors[index] = error(y - values[index] * x) / whole
        return Estimate(values, errors)

    each = np.eye(classes)
    hits = [np.outer(row, row) for row in each]
    mapped = [np.outer(row, np.ones(classes)) for row in each]
    truly = [found.T for found in mapped]
    users = ratio(hits, mapped)
    if design == 'simple':
        # the number of samples in a class is given, as in a stratified sample
        users = estimate(counts, sizes).users
    right = Estimate(np.array([np.trace(shares)]), np.array([error(each)]))
    area = Estimate(shares.sum(axis=0), np.array([error(column) for column in truly]))
    double = [2 * hit for hit in hits]
    either = [a + b for a, b in zip(mapped, truly, strict=True)]
    f1 = ratio(double, either)
    results = [right, users, ratio(hits, truly), f1, area]
    if clusters is not None:
        results = _jackknife(results, clusters, sizes)
    return Accuracy(shares, *results)


def _jackknife(
    estimates: list[Estimate], clusters: NDArray[Any], sizes: Floats
) -> list[Estimate]:
    """Return estimates with the standard errors of a sample in clusters.

    The variance of an estimate θ from K clusters that were drawn with replacement is

        (K − 1) / K Σ_k (θ_k − θ)²,

    where θ_k is the estimate without cluster k (Wolter, 2007, 4.2.7), NaN where there is
    none. Intervals are those of Student's t with K − 1 degrees of freedom.

    Args:
        estimates: Overall, user's and producer's accuracy, F1, area.
        clusters: Samples of each cluster, (K, C, C).
        sizes: Size of each map class, (C,).
    """
    count = len(clusters)
    left = clusters.sum(axis=0) - clusters
    samples = left.sum(axis=2)
    weights = np.where(samples > 0, sizes, 0)
    weights = weights / weights.sum(axis=1, keepdims=True)
    shares = (weights / np.maximum(samples, 1))[:, :, None] * left
    hits = np.diagonal(shares, axis1=1, axis2=2)
    rows, columns = shares.sum(axis=2), shares.sum(axis=1)
    with np.errstate(divide='ignore', invalid='ignore'):
        without = (
            hits.sum(axis=1, keepdims=True),
            hits / rows,
            hits / columns,
            2 * hits / (rows + columns),
            columns,
        )
    quantile = float(t.ppf(0.975, count - 1))
    results = []
    for (value, *_), other in zip(estimates, without, strict=True):
        # a class that occurs in one cluster alone has no estimate without it
        squares = ((other - value) ** 2).sum(axis=0) * (count - 1) / count
        error = np.sqrt(squares)
        results.append(Estimate(value, error, quantile))
    return results


def sample_size(sizes: Floats, users: Floats, standard_error: float) -> int:
    """Return the samples required for a standard error of overall accuracy (13).

    Args:
        sizes: Size of each map class, (C,).
        users: Expected user's accuracy of each, (C,).
        standard_error: Standard error of overall accuracy, 0…1.
    """
    deviation = (sizes / sizes.sum()) @ np.sqrt(users * (1 - users))
    return int(np.ceil((deviation / standard_error) ** 2))


def allocate(
    pixels: NDArray[np.int64], size: int, floor: int, users: Floats | None = None
) -> NDArray[np.int64]:
    """Return how many samples each class gets.

    Samples go to classes by their pixels, or by pixels times the deviation that the
    expected user's accuracy implies, which gives the smallest standard error of overall
    accuracy (Neyman's). Rare classes get *floor* samples, the others share the rest.

    Args:
        pixels: Pixels of each class, (C,); a class without gets no samples.
        size: Samples in all; more only where the floors ask for more.
        floor: Fewest samples of a class, if it has as many pixels.
        users: Expected user's accuracy of each class, (C,); None: by pixels alone.
    """
    weights = np.asarray(pixels, float)
    if users is not None:
        weights = weights * np.sqrt(users * (1 - users))
    least = np.minimum(floor, pixels)
    most = np.asarray(pixels)
    fixed = np.zeros(len(most), bool)
    found = np.zeros(len(most), np.int64)
    while not fixed.all():
        rest, free = max(size - int(found[fixed].sum()), 0), ~fixed
        total = weights[free].sum()
        share = weights * (rest / total) if total else np.zeros(len(most))
        low, high = free & (share <= least), free & (share >= most)
        if not (low | high).any():
            found[free] = _rounded(share[free], rest)
            break
        # floors first: they take from what the others share
        now = low if low.any() else high
        found[now] = np.where(low, least, most)[now]
        fixed |= now
    return found


def _rounded(shares: Floats, total: int) -> NDArray[np.int64]:
    """Return integers that add up to a total, by the largest remainders."""
    whole = np.floor(shares).astype(np.int64)
    left = total - int(whole.sum())
    whole[np.argsort(whole - shares, kind='stable')[:left]] += 1
    return whole
