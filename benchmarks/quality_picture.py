"""A picture of methods side by side: tiles, their truth, and what each method makes."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from torchgeo_ctm.datasets import DFC2020
from torchgeo_ctm.plots import add_legend, draw_mask, stretch
from torchgeo_ctm.scaling import SENTINEL2_BANDS, rgb_indices

#: Test tiles that are drawn, the first ones.
PICTURED = 5
#: Rows that are drawn beside the truth, in order.
PICTURED_ROWS = ('paper', 'ours', 'ours + segmentation stage', 'supervised U-Net')


def side_by_side(batch: Mapping[str, Tensor], kept: Mapping[str, Path]) -> Figure:
    """Draw a row a tile: RGB, truth, and the masks that were kept of each method.

    Args:
        batch: ``image`` (B, 13, H, W) and ``mask`` (B, H, W) of the test tiles.
        kept: Arrays (tiles, H, W) by title; those that do not exist are left out.
    """
    masks = {title: np.load(path) for title, path in kept.items() if path.exists()}
    masks = {'truth': batch['mask'].numpy().astype(np.uint8)[:PICTURED]} | masks
    columns = 1 + len(masks)
    rgb = batch['image'][:PICTURED, rgb_indices(SENTINEL2_BANDS)].numpy()
    size = (2.1 * columns, 2.1 * len(rgb) + 0.7)
    figure = Figure(figsize=size, layout='constrained')
    axes = figure.subplots(len(rgb), columns, squeeze=False)
    for row, image in enumerate(rgb):
        axes[row, 0].imshow(stretch(image))
        axes[row, 0].axis('off')
        for axis, values in zip(axes[row, 1:], masks.values(), strict=True):
            draw_mask(axis, values[row], DFC2020.classes, DFC2020.class_colors)
    for axis, title in zip(axes[0], ['RGB', *masks], strict=True):
        axis.set_title(title, fontsize=10)
    drawn = np.concatenate(list(masks.values()))
    add_legend(figure, drawn, DFC2020.classes, DFC2020.class_colors)
    return figure
