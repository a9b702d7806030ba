"""Draw samples in clusters: blocks of a map, and pixels in each."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from ..errors import SettingError
from .strata import Strata, class_bands, read_strata

Integers = NDArray[np.int64]


class Drawn(NamedTuple):
    """Samples in clusters."""

    #: Row and column of each sample, (n, 2).
    pixels: Integers
    #: Cluster of each sample, from 1, (n,).
    cluster: Integers
    #: Value of the map at each sample, (n,).
    values: Integers
    strata: Strata


def draw_clusters(
    raster: DatasetReader,
    clusters: int,
    block: int,
    size: int,
    rng: np.random.Generator,
) -> Drawn:
    """Draw blocks, and as many pixels in each.

    A block is drawn with a probability in proportion to its valid pixels, and with
    replacement, so that every valid pixel is drawn as often as any other, and the
    clusters are independent.

    Args:
        raster: The map.
        clusters: Number of blocks.
        block: Side of a block in pixels.
        size: Samples in all, rounded up to as many in each block.
        rng: Source of random numbers.

    Raises:
        SceneError: If the map is damaged, or no pixel has a class.
        SettingError: If a block has fewer pixels than samples.
    """
    columns = np.arange(0, raster.width, block)
    counts = np.zeros((-(-raster.height // block), len(columns)), np.int64)

    def count(row: int, values: NDArray[np.int32]) -> None:
        sums = np.add.reduceat(values >= 0, columns, axis=1, dtype=np.int64)
        np.add.at(counts, (row + np.arange(len(values))) // block, sums)

    strata = read_strata(raster, count)
    valid = counts.ravel()
    chosen = rng.choice(len(valid), clusters, p=valid / valid.sum())
    each = -(-size // clusters)
    if each > block**2:
        raise SettingError(
            f'block={block} px has {block**2} pixels, expected at least the {each} '
            'samples of a block. Use larger blocks, more clusters or fewer samples.'
        )
    # a block with fewer valid pixels is drawn from with replacement
    ranks = [
        np.sort(rng.choice(valid[index], each, replace=bool(valid[index] < each)))
        for index in chosen
    ]
    corners = np.stack(np.divmod(chosen, len(columns)), axis=1) * block
    seen, found = np.zeros(clusters, np.int64), []
    for row, values in class_bands(raster):
        for number, (top, left) in enumerate(corners.tolist()):
            first = max(top, row)
            part = values[first - row : max(top + block - row, 0), left : left + block]
            inside = np.flatnonzero(part >= 0)
            low, high = np.searchsorted(
                ranks[number], [seen[number], seen[number] + len(inside)]
            )
            place = inside[ranks[number][low:high] - seen[number]]
            seen[number] += len(inside)
            if len(place):
                down, across = np.divmod(place, part.shape[1])
                where = (first + down, left + across, np.full(len(place), number + 1))
                found.append(np.stack([*where, part[down, across]], axis=1))
    rows = np.concatenate(found)
    rows = rows[np.argsort(rows[:, 2], kind='stable')]
    return Drawn(rows[:, :2], rows[:, 2], rows[:, 3], strata)
