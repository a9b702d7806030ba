"""From scores on the patch grid to scores of every pixel, guided by all bands."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import SettingError, did_you_mean
from .class_maps import resize

Refinement = Literal['soft_assignment']

#: Leading components of the bands that are looked at: Sentinel-2 has no more bands.
COMPONENTS = 13
#: Part of the bands' variance below which a component is noise, not a color.
NOISE = 1e-3
#: A band that varies less than this, relative to its largest value, is flat.
FLAT = 1e-5
#: Least log-prior: a class that the network all but rules out can still come back.
FLOOR = 1e-6
#: Covariances of classes with fewer pixels than this are mostly the whole image's.
FEW = 20.0
#: How far every covariance is drawn towards that of unit noise.
SHRINKAGE = 0.1
#: Pixels that describe the classes along the shorter side of an image, at least: of a
#: larger one every second pixel is looked at, or every third, and so on.
SAMPLES = 64
#: Side in pixels of the mean filter over neighbors, which is applied twice; and the same
#: where only some pixels are looked at, in those.
NEIGHBOURHOOD = 5
NEIGHBOURHOOD_OF_SAMPLES = 3
#: Rounds, the last ones, in which neighbors count: earlier, errors would spread.
ASKING = 2


class RefinementOptions(TypedDict, total=False):
    """What a configuration may say about refinement; see :func:`soft_assignment`."""

    rounds: int
    likelihood: float
    neighbours: float
    trust: float


class _Pixels(NamedTuple):
    """Whitened bands (B, D, N), their products (B, P, N), which count (B, 1, N)."""

    values: Tensor
    products: Tensor
    valid: Tensor


class _Looks(NamedTuple):
    """What classes look like: terms of their log-likelihoods, (B, C, …)."""

    slope: Tensor
    bend: Tensor
    constant: Tensor


def soft_assignment(
    scores: Tensor,
    image: Tensor,
    valid: Tensor | None = None,
    *,
    rounds: int = 3,
    likelihood: float = 0.7,
    neighbours: float = 5.0,
    trust: float = 0.6,
) -> Tensor:
    """Refine scores by what the classes look like in this very image.

    Each round describes every present class by mean and covariance of the bands, over
    pixels weighted by their scores, and assigns the pixels anew: prior x likelihood,
    the prior being the given scores. It is expectation maximization of a Gaussian
    mixture whose prior varies in space. In an image of 128 px or more, a regular sample
    of the pixels describes the classes; the last round assigns every pixel. Images do
    not affect each other; the order of the bands, their units and offsets do not
    matter; where an image is flat, its scores stay what they were, and so do those of
    invalid pixels.

    Args:
        scores: Share of each present class (B, C, h, w), 0 for absent ones, on any
            grid; see :func:`~torchgeo_ctm.maps.class_maps.posterior`.
        image: Images (B, bands, H, W), in any units.
        valid: Pixels that hold data (B, H, W) bool; None: all.
        rounds: How often classes are described and pixels assigned.
        likelihood: Exponent of the likelihood; 0 leaves the scores as they are.
        neighbours: How much a pixel follows what the surrounding 9 px have learned.
        trust: Share 0…1 of the assignment in the result, the rest is the prior.
            Assignments are far surer than they are right: 1 would spoil confidences.

    Returns:
        Shares (B, C, H, W), float32, which sum to 1 over the present classes and are
        exactly 0 for the others; comparable between windows as the given ones are.
    """
    size = (image.shape[-2], image.shape[-1])
    prior = resize(scores.float(), size)
    prior = prior / prior.sum(dim=1, keepdim=True).clamp(min=FLOOR)
    if not rounds:
        return prior
    present = (scores > 0).any(dim=-1).any(dim=-1)[:, :, None, None]
    log_prior = prior.clamp(min=FLOOR).log_().masked_fill_(~present, -torch.inf)
    step = max(1, min(size) // SAMPLES)
    values, counts = _whitened(image.float(), valid, step)
    some_prior, some_values, some_counts, some_log_prior = (
        part[..., ::step, ::step] for part in (prior, values, counts, log_prior)
    )
    some = _pixels(some_values, some_counts)
    shares = some_prior
    for number in range(rounds - 1):
        fit = _fit(_looks(shares, some), some.values)
        evidence = likelihood * fit.view_as(shares)
        if neighbours and number >= rounds - ASKING:
            evidence = evidence + neighbours * _around(shares - some_prior, step)
        # what is said of an invalid pixel is left out
        shares = (some_log_prior + evidence * some_counts).softmax(dim=1)
    fit = _fit(_looks(shares, some), values.flatten(2)).view_as(prior)
    told = neighbours * _around(shares - some_prior, step)
    evidence = torch.add(resize(told, size), fit, alpha=likelihood)
    shares = evidence.mul_(counts).add_(log_prior).softmax(dim=1)
    return prior.lerp(shares, trust)


def geometric_blend(scores: Tensor, refined: Tensor, weight: float = 0.5) -> Tensor:
    """Blend scores with their refinement by a weighted geometric mean.

    The refinement alone overstates what it sees: small classes lose ground to those
    that look like them. In the geometric mean a class needs the support of both.

    Args:
        scores: Share of each class (B, C, h, w), on any grid.
        refined: The same after refinement, (B, C, H, W).
        weight: Exponent of *refined*, 0 to 1; 1 is the refinement alone.

    Returns:
        Shares (B, C, H, W), float32, that sum to 1 over the classes.
    """
    prior = resize(scores.float(), (refined.shape[-2], refined.shape[-1]))
    blended = prior.clamp(min=0) ** (1 - weight) * refined.float() ** weight
    total = blended.sum(dim=1, keepdim=True)
    # where both exclude each other the scores decide
    return torch.where(total > 0, blended / total.clamp(min=1e-30), prior)


def _around(change: Tensor, step: int) -> Tensor:
    """Return the weighted mean of what surrounds each pixel, (B, C, h, w).

    Args:
        change: Change of the shares at the pixels that are looked at.
        step: Distance between these pixels.
    """
    side = NEIGHBOURHOOD if step == 1 else NEIGHBOURHOOD_OF_SAMPLES
    for _ in range(2):
        change = F.avg_pool2d(change, side, 1, side // 2, count_include_pad=False)
    return change


def _whitened(image: Tensor, valid: Tensor | None, step: int) -> tuple[Tensor, Tensor]:
    """Standardize and whiten the bands of each image by its valid pixels.

    Args:
        image: Images (B, bands, H, W).
        valid: Valid pixels (B, H, W); None: all.
        step: Distance of the pixels that are looked at.

    Returns:
        Components (B, D, H, W), and which pixels count (B, 1, H, W).
    """
    counts = torch.ones_like(image[:, :1])
    if valid is not None:
        keep = valid.reshape(counts.shape).to(image.device, torch.bool)
        counts = keep.to(image.dtype)
        # not a product: invalid pixels may hold anything, also NaN
        image = image.masked_fill(~keep, 0)
    some = image[..., ::step, ::step].flatten(2)
    matrix, mean = _whitening(some, counts[..., ::step, ::step].flatten(2))
    values = torch.baddbmm(-matrix @ mean, matrix, image.flatten(2))
    values = values.view(*values.shape[:2], *image.shape[-2:])
    if valid is not None:
        values *= counts
    return values, counts


def _pixels(values: Tensor, counts: Tensor) -> _Pixels:
    """Return components (B, D, h, w) with their products, pixels in one row."""
    values = values.flatten(2)
    products = [row for _, row in _products(values)]
    return _Pixels(values, torch.cat(products, dim=1), counts.flatten(2))


def _products(values: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Return products of components (B, D, N) as they lie in an upper triangle.

    Yields:
        Where the products of one component with itself and the later ones lie, and
        these, (B, number, N).
    """
    start = 0
    for index in range(values.shape[1]):
        row = values[:, index : index + 1] * values[:, index:]
        yield slice(start, start + row.shape[1]), row
        start += row.shape[1]


def _whitening(x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return what makes leading components of at most unit variance from bands.

    Args:
        x: Bands (B, bands, N), 0 where they do not count.
        counts: Which pixels count (B, 1, N).

    Returns:
        Matrix (B, D, bands) for bands without their mean, and that mean (B, bands, 1).
    """
    number = counts.sum(dim=-1, keepdim=True).clamp(min=1)
    largest = x.abs().amax(dim=-1, keepdim=True)
    mean = x.sum(dim=-1, keepdim=True) / number
    x = (x - mean) * counts
    covariance = x @ x.transpose(1, 2) / number
    deviation = covariance.diagonal(dim1=-2, dim2=-1)[..., None].clamp(min=0).sqrt()
    varies = deviation > FLAT * largest
    scale = torch.where(varies, 1 / deviation.where(varies, 1), 0)
    correlation = covariance * scale * scale.transpose(1, 2)
    variance, direction = torch.linalg.eigh(correlation)
    variance = variance.flip(-1)[:, :COMPONENTS].clamp(min=NOISE * x.shape[1])
    direction = direction.flip(-1)[..., :COMPONENTS] * variance.rsqrt()[:, None]
    matrix: Tensor = direction.transpose(1, 2) * scale.transpose(1, 2)
    return matrix, mean


def _looks(shares: Tensor, pixels: _Pixels) -> _Looks:
    """Describe classes by mean and covariance of weighted pixels.

    Args:
        shares: Weights (B, C, h, w).
        pixels: What was seen of them.
    """
    weights = shares.flatten(2) * pixels.valid
    tiny = torch.finfo(torch.float32).tiny
    mass = weights.sum(dim=-1, keepdim=True).clamp(min=tiny)
    mean = weights @ pixels.values.transpose(1, 2) / mass
    spread = weights @ pixels.products.transpose(1, 2) / mass
    size = mean.shape[-1]
    first, second = torch.triu_indices(size, size, device=mean.device)
    own = _symmetric(spread, size) - mean[..., None] * mean[..., None, :]
    total = pixels.products.sum(dim=-1) / pixels.valid.sum(-1).clamp(min=1)
    known = (mass / (mass + FEW))[..., None]
    covariance = known * own + (1 - known) * _symmetric(total, size)[:, None]
    noise = torch.eye(size, device=mean.device)
    factor = torch.linalg.cholesky(covariance.lerp(noise, SHRINKAGE))
    inverse = torch.cholesky_inverse(factor)
    slope = (inverse @ mean[..., None])[..., 0]
    volume = factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
    constant = (mean * slope).sum(dim=-1) / 2 + volume
    # a product of two different bands stands for two entries of the matrix
    bend = inverse[..., first, second] * torch.where(first == second, 0.5, 1.0)
    return _Looks(slope, bend, constant)


def _fit(looks: _Looks, values: Tensor) -> Tensor:
    """Return how well pixels (B, D, N) fit each class.

    Returns:
        Log-likelihoods (B, C, N), up to one constant per image.
    """
    fit = torch.baddbmm(-looks.constant[..., None], looks.slope, values)
    # row by row: all products at once would leave the processor's cache
    for place, products in _products(values):
        fit = torch.baddbmm(fit, looks.bend[..., place], products, alpha=-1)
    return fit


def _symmetric(upper: Tensor, size: int) -> Tensor:
    """Return matrices (..., size, size) from their upper triangles (..., P)."""
    first, second = torch.triu_indices(size, size, device=upper.device)
    matrix: Tensor = upper.new_zeros(*upper.shape[:-1], size, size)
    matrix[..., first, second] = upper
    matrix[..., second, first] = upper
    return matrix


#: Refinements by name.
REFINEMENTS = {'soft_assignment': soft_assignment}


def refinement_tag(name: str | None, options: Mapping[str, Any] | None) -> str:
    """Return a refinement and its options for the tags of a product."""
    settings = [f'{key}={value:g}' for key, value in sorted((options or {}).items())]
    return ' '.join([str(name), *settings])


def check_refinement(name: str | None, options: Mapping[str, Any] | None) -> None:
    """Check the name and the options of a refinement.

    Raises:
        SettingError: If the refinement or an option is unknown, an option is outside its
            range, or there are options without a refinement.
    """
    if name is not None and name not in REFINEMENTS:
        raise SettingError(
            f'Unknown refinement {name!r}, expected one of: {", ".join(REFINEMENTS)}.'
            + did_you_mean(name, REFINEMENTS)
        )
    if name is None and options:
        raise SettingError(
            f'refinement_options={dict(options)} requires a refinement. Set '
            f'refinement={next(iter(REFINEMENTS))!r}.'
        )
    known = RefinementOptions.__annotations__
    check_numbers('refinement_options', options, known, share='trust')


def check_numbers(
    name: str, options: Mapping[str, Any] | None, known: Collection[str], share: str
) -> None:
    """Check the names and ranges of options that are numbers from 0.

    Args:
        name: Name of the mapping, for errors.
        options: The mapping.
        known: Names of the supported options.
        share: Name of the option that is at most 1.

    Raises:
        SettingError: If an option is unknown or outside its range.
    """
    for key, value in (options or {}).items():
        if key not in known:
            raise SettingError(
                f'Unknown option {key!r} of {name}, expected one of: '
                f'{", ".join(known)}.{did_you_mean(key, known)}'
            )
        highest = 1 if key == share else float('inf')
        if not 0 <= value <= highest:
            wanted = '0 to 1' if key == share else '0 or more'
            raise SettingError(f'{name}.{key} must be {wanted}, got {value}.')
