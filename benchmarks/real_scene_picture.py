r"""Plot the real scene: RGB, reference, and masks that real_scene.py kept.

python benchmarks/real_scene_picture.py --cache FILE.npz --mask Ours=MASK.tif \
        --output docs/images/real_scene.png
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from torchgeo_ctm.plots import stretch

#: Trees, open land, built, water, and none of them.
NAMES = ('trees', 'open land', 'built', 'water')
COLORS = ('#397d49', '#e4c96b', '#c4281b', '#419bdf', '#ffffff')
#: Index of each of the five classes, and of each code of the reference.
MERGED = {0: 0, 1: 1, 2: 1, 3: 2, 4: 3}
CODES = {1: 3, 2: 0, 3: 1, 5: 1, 7: 2}


def merged(values: NDArray[np.generic], of: dict[int, int]) -> NDArray[np.uint8]:
    """Return classes merged to four, 4 where there is none of them."""
    result = np.full(values.shape, len(NAMES), np.uint8)
    for value, index in of.items():
        result[values == value] = index
    return result


def picture(
    rgb: NDArray[np.float32], panels: Sequence[tuple[str, NDArray[np.uint8]]]
) -> Figure:
    """Return RGB (H, W, 3) above the masks (H, W), with one legend."""
    rows = 1 + len(panels)
    figure = Figure(figsize=(11, 2.95 * rows), layout='constrained')
    axes = figure.subplots(rows, 1)
    axes[0].imshow(rgb)
    axes[0].set_title('Sentinel-2, true color (coast of Virginia)')
    for axis, (title, values) in zip(axes[1:], panels, strict=True):
        axis.imshow(
            values, ListedColormap(COLORS), vmin=0, vmax=4, interpolation='none'
        )
        axis.set_title(title)
    for axis in axes:
        axis.axis('off')
    keys = [Patch(color=c, label=n) for n, c in zip(NAMES, COLORS, strict=False)]
    figure.legend(handles=keys, loc='outside lower center', ncols=len(keys))
    return figure


def main() -> None:
    """Plot and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--cache', type=Path, required=True)
    parser.add_argument('--mask', action='append', required=True, help='TITLE=FILE.tif')
    parser.add_argument('--rows', default='487:973')
    parser.add_argument('--output', type=Path, required=True)
    options = parser.parse_args()
    first, last = map(int, options.rows.split(':'))
    with np.load(options.cache) as cache:
        bands = cache['bands'][[3, 2, 1], first:last].astype(np.float32)
        reference = cache['reference'][0, first:last]
    panels = [('Reference (Dynamic World, a model)', merged(reference, CODES))]
    for given in options.mask:
        title, path = given.split('=', 1)
        with rasterio.open(path) as raster:
            panels.append((title, merged(raster.read(1), MERGED)))
    picture(stretch(bands), panels).savefig(options.output, dpi=80)


if __name__ == '__main__':
    main()
