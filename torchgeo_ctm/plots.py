"""Figures: class maps of a chip, and the quick look of a scene."""

from collections import Counter
from collections.abc import Sequence
from textwrap import fill, shorten
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

# figures of masks and scores need no PyTorch
if TYPE_CHECKING:
    from torch import Tensor

#: Width and height of the quick look in inches, with up to two rows of legend.
QUICK_LOOK = (12.0, 6.4)
#: Font size of a legend in points, letters in a line of it, and most columns.
LEGEND_FONT, LEGEND_LINE, LEGEND_COLUMNS = 10, 40, 8
#: Height of a line of a legend, and width of a key with its margins, in inches.
LEGEND_ROW, LEGEND_KEY = 0.22, 0.75
#: Chips in a row of a figure of labels; classes named below a chip; letters of a name.
CHIPS_IN_ROW, NAMED, LETTERS = 5, 5, 26


#: Text that is legible on a picture.
OUTLINED: dict[str, Any] = {
    'color': 'white',
    'fontsize': 10,
    'path_effects': [withStroke(linewidth=2.5, foreground='black')],
}
#: Where the scale bar of a quick look is, as a share of its height from below; and the
#: largest share of its width.
BAR_HEIGHT, BAR_WIDTH = 0.05, 0.3


class Ground(NamedTuple):
    """What a quick look says of the ground.

    Attributes:
        across: Width of a pixel in meters.
        down: Height of a pixel in meters.
        north: Direction of north in pixels, columns and rows.
        hectares: Area of each class.
    """

    across: float
    down: float
    north: tuple[float, float]
    hectares: Sequence[float]


def stretch(rgb: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stretch an image (3, H, W) to (H, W, 3) in 0…1.

    From each band its first percentile is subtracted, which is haze. Then the three
    bands share one factor, which keeps hues: percentile 98 of all becomes 1.
    """
    if np.isnan(rgb).all(axis=(1, 2)).any():
        return np.zeros((*rgb.shape[1:], 3), np.float32)
    clear = rgb - np.nanpercentile(rgb, 1, axis=(1, 2), keepdims=True)
    scaled = clear / max(float(np.nanpercentile(clear, 98)), 1e-6)
    clipped: NDArray[np.float32] = np.clip(np.nan_to_num(scaled), 0, 1)
    return clipped.transpose(1, 2, 0).astype(np.float32)


def map_figure(
    image: 'Tensor',
    maps: 'Tensor',
    mask: 'Tensor',
    truth: 'Tensor | None',
    class_names: Sequence[str],
    class_colors: Sequence[str],
    bands: Sequence[str],
) -> Figure:
    """Plot RGB, truth, mask and the attention maps of at most 13 classes.

    If there are more, plot those that cover most of mask and truth.

    Args:
        image: Image (bands, H, W) in the units of the data set.
        maps: Class maps (C, h, w).
        mask: Pseudo-mask (H, W).
        truth: True mask (H, W), 255 ignored, or None.
        class_names: Name of each class.
        class_colors: Color of each class.
        bands: Names of the bands.
    """
    import torch

    from .scaling import rgb_indices

    size = (image.shape[-2], image.shape[-1])
    maps = torch.nn.functional.interpolate(
        maps[None].float(), size=size, mode='bilinear', align_corners=False
    )[0]
    columns = 4
    shown_classes = _most_common(mask, truth, len(class_names))
    panels = 3 + len(shown_classes)
    rows = -(-panels // columns)
    figure = Figure(figsize=(2.6 * columns, 2.8 * rows), layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis('off')
    rgb = image[rgb_indices(bands)].float().cpu().numpy()
    axes[0].imshow(stretch(rgb))
    axes[0].set_title('RGB')
    palette = ListedColormap(list(class_colors))
    for axis, title, classes in ((axes[1], 'truth', truth), (axes[2], 'mask', mask)):
        if classes is None:
            continue
        values = classes.reshape(size).cpu().numpy()
        shown = np.ma.masked_where(values >= len(class_names), values)
        limits = {'vmin': -0.5, 'vmax': len(class_names) - 0.5}
        axis.imshow(shown, cmap=palette, interpolation='nearest', **limits)
        axis.set_title(title)
    for axis, index in zip(axes[3:], shown_classes, strict=False):
        axis.imshow(maps[index].cpu().numpy(), cmap='magma')
        axis.set_title(shorten(class_names[index], LETTERS, placeholder=' …'))
    return figure


def _most_common(mask: 'Tensor', truth: 'Tensor | None', count: int) -> list[int]:
    """Return the up to 13 of *count* classes that cover most, in class order."""
    import torch

    drawn = mask if truth is None else torch.cat([mask.flatten(), truth.flatten()])
    covered = torch.bincount(drawn[(drawn >= 0) & (drawn < count)], minlength=count)
    return sorted(covered.argsort(descending=True, stable=True)[:13].tolist())


def attention_figure(
    image: 'Tensor',
    attention: 'Tensor',
    class_names: Sequence[str],
    columns: Sequence[str],
    bands: Sequence[str],
) -> Figure:
    """Plot attention over the RGB, with a row per class and a column per block or head.

    Each map is stretched from its minimum to its maximum, so that weak blocks are
    legible. Where attention is low, the RGB shows through.

    Args:
        image: Image (bands, H, W) in the units of the data set.
        attention: Maps (K, C, h, w) of K blocks or heads.
        class_names: Name of each class.
        columns: Title of each of the K columns.
        bands: Names of the bands.
    """
    import torch

    from .scaling import rgb_indices

    size = (image.shape[-2], image.shape[-1])
    maps = torch.nn.functional.interpolate(
        attention.float(), size=size, mode='bilinear', align_corners=False
    )
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    maps = ((maps - low) / (high - low).clamp(min=1e-12)).cpu()
    rgb = stretch(image[rgb_indices(bands)].float().cpu().numpy())
    rows = len(class_names)
    figure = Figure(
        figsize=(1.7 * (len(columns) + 1) + 0.6, 1.75 * rows + 0.3),
        layout='constrained',
    )
    axes = figure.subplots(rows, len(columns) + 1, squeeze=False)
    for row, name in enumerate(class_names):
        for axis in axes[row]:
            axis.set(xticks=[], yticks=[])
            axis.imshow(rgb)
        axes[row, 0].set_ylabel(fill(name, LETTERS - 6))
        for column, axis in enumerate(axes[row, 1:]):
            strength = maps[column, row].numpy()
            axis.imshow(strength, cmap='magma', alpha=0.15 + 0.7 * strength)
    for axis, title in zip(axes[0], ['RGB', *columns], strict=True):
        axis.set_title(title)
    return figure


def quick_look(
    rgb: NDArray[np.float32],
    mask: NDArray[np.uint8],
    class_names: Sequence[str],
    class_colors: Sequence[str],
    ground: Ground | None = None,
) -> Figure:
    """Plot a scene beside its mask, with a legend of the classes that occur.

    Args:
        rgb: Red, green and blue (3, H, W), NaN where invalid.
        mask: Classes (h, w) 0…C−1, 255 where invalid.
        class_names: Name of each class.
        class_colors: Color of each class.
        ground: Adds a scale bar, an arrow to the north, and hectares to the legend.
    """
    if ground is not None:
        class_names = [
            f'{name}, {_rounded(hectares)} ha'
            for name, hectares in zip(class_names, ground.hectares, strict=True)
        ]
    stretched = 1.0 if ground is None else ground.down / ground.across
    panel = 0.48 * QUICK_LOOK[0] * stretched * rgb.shape[1] / rgb.shape[2]
    width, height = QUICK_LOOK
    # a wide scene needs less height: one inch for titles and legend, and two at least
    figure = Figure(figsize=(width, min(height, max(2.0, panel + 1.0))))
    # positions are known: a layout engine would draw everything twice, and this
    # overrides the user's settings
    figure.set_layout_engine('none')
    height = add_legend(figure, mask, class_names, class_colors)
    legend = height / figure.get_figheight() + 0.02
    left = figure.add_axes((0.01, legend, 0.48, 0.94 - legend))
    right = figure.add_axes((0.51, legend, 0.48, 0.94 - legend))
    scene = np.dstack([stretch(rgb), ~np.isnan(rgb).any(axis=0)])
    left.imshow(np.rint(255 * scene).astype(np.uint8))
    left.set_title('Scene', y=1)
    left.axis('off')
    draw_mask(right, mask, class_names, class_colors)
    right.set_title('Pseudo-mask', y=1)
    if ground is not None:
        for axis in (left, right):
            axis.set_aspect(ground.down / ground.across)
        _draw_scale(left, ground, rgb.shape[2])
        _draw_north(left, ground)
    return figure


def _rounded(hectares: float) -> str:
    """Return hectares with three digits or more."""
    return f'{hectares:,.0f}' if hectares >= 100 else f'{hectares:.3g}'


def _draw_scale(axis: Any, ground: Ground, width: int) -> None:
    """Draw a bar of a round length below at the left."""
    longest = BAR_WIDTH * width * ground.across
    power = 10 ** np.floor(np.log10(longest))
    length = power * max(digit for digit in (1, 2, 5) if digit * power <= longest)
    ends = (0.03, 0.03 + length / (width * ground.across))
    place = {'transform': axis.transAxes, 'solid_capstyle': 'butt'}
    for color, thick in (('black', 5), ('white', 2.5)):
        axis.plot(ends, (BAR_HEIGHT, BAR_HEIGHT), color=color, linewidth=thick, **place)
    text = f'{length / 1000:g} km' if length >= 1000 else f'{length:g} m'
    axis.text(ends[0], BAR_HEIGHT + 0.02, text, transform=axis.transAxes, **OUTLINED)


def _draw_north(axis: Any, ground: Ground) -> None:
    """Draw an arrow to the north below at the right."""
    across, down = ground.north
    # as it is drawn: rows go down, and are as high as on the ground
    x, y = across * ground.across, -down * ground.down
    axis.text(
        0.95,
        0.09,
        'N\n↑',
        rotation=np.degrees(np.arctan2(-x, y)),
        ha='center',
        va='center',
        linespacing=0.8,
        transform=axis.transAxes,
        **OUTLINED | {'fontsize': 13},
    )


def mask_figure(
    mask: NDArray[np.uint8], class_names: Sequence[str], class_colors: Sequence[str]
) -> Figure:
    """Plot a mask (h, w), with a legend of the classes that occur.

    Args:
        mask: Classes 0…C−1, 255 where invalid.
        class_names: Name of each class.
        class_colors: Color of each class.
    """
    height, width = mask.shape
    figure = Figure(
        figsize=(7, 0.4 + 6.6 * min(1.5, max(0.2, height / width))),
        layout='constrained',
    )
    axis = figure.subplots()
    draw_mask(axis, mask, class_names, class_colors)
    add_legend(figure, mask, class_names, class_colors)
    return figure


def draw_mask(
    axis: Any,
    mask: NDArray[np.uint8],
    class_names: Sequence[str],
    class_colors: Sequence[str],
) -> None:
    """Draw a mask (h, w), nodata transparent."""
    palette = np.zeros((256, 4), np.uint8)
    palette[: len(class_names)] = np.rint(255 * to_rgba_array(list(class_colors)))
    axis.imshow(palette[mask], interpolation='nearest')
    axis.axis('off')


def add_legend(
    figure: Figure,
    mask: NDArray[np.uint8],
    class_names: Sequence[str],
    class_colors: Sequence[str],
) -> float:
    """Add a legend of the classes that occur, below everything else.

    It has as many columns as the width allows. From the third row on, the figure grows.

    Returns:
        Height of the legend in inches.
    """
    occurring = [c for c in np.unique(mask).tolist() if c < len(class_names)]
    if not occurring:
        return 0.0
    labels = [fill(class_names[c], LEGEND_LINE) for c in occurring]
    lines = [label.count('\n') + 1 for label in labels]
    column = LEGEND_KEY + max(map(_text_width, labels))
    fitting = int(figure.get_figwidth() / column)
    columns = max(1, min(LEGEND_COLUMNS, len(labels), fitting))
    rows = max(sum(part.tolist()) for part in np.array_split(lines, columns))
    if rows > 2:
        figure.set_figheight(figure.get_figheight() + (rows - 2) * LEGEND_ROW)
    figure.legend(
        handles=[
            Patch(color=class_colors[c], label=label)
            for c, label in zip(occurring, labels, strict=True)
        ],
        loc='outside lower center',
        ncols=columns,
        frameon=False,
        fontsize=LEGEND_FONT,
    )
    return float(rows * LEGEND_ROW)


def _text_width(text: str) -> float:
    """Return the width of a text's longest line in inches."""
    font = get_font(findfont(FontProperties()))
    font.set_size(LEGEND_FONT, 72)
    widths = [0.0]
    for line in text.splitlines():
        font.set_text(line)
        # in 64ths of a point
        widths.append(font.get_width_height()[0] / 64)
    return float(max(widths)) / 72


def confusion_figure(
    counts: NDArray[Any], names: Sequence[str], rows: str, columns: str
) -> Figure:
    """Plot a confusion matrix: shares of each row as colors, counts as numbers.

    Args:
        counts: Counts or areas (C, C).
        names: Name of each class.
        rows: What the rows are.
        columns: What the columns are.
    """
    sums = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, sums, out=np.zeros(counts.shape), where=sums > 0)
    labels = [shorten(name, LETTERS, placeholder=' …') for name in names]
    side = 2.5 + 0.75 * len(names)
    figure = Figure(figsize=(side + 0.8, side), layout='constrained')
    axis = figure.subplots()
    picture = axis.imshow(shares, cmap='Blues', vmin=0, vmax=1)
    axis.set_xticks(range(len(names)), labels, rotation=45, ha='right')
    axis.set_yticks(range(len(names)), labels)
    axis.set(xlabel=columns, ylabel=rows)
    for row, column in np.ndindex(*counts.shape):
        if counts[row, column]:
            share = shares[row, column]
            axis.text(
                column,
                row,
                f'{counts[row, column]:,.0f}\n{share:.0%}',
                ha='center',
                va='center',
                fontsize='small',
                color='white' if share > 0.6 else 'black',
            )
    figure.colorbar(picture, label='share of the row', shrink=0.8)
    return figure


class LabeledChip(NamedTuple):
    """A chip to plot with its image-level label."""

    title: str
    #: (bands, H, W), NaN where invalid.
    image: NDArray[np.float32]
    #: (C,), 1 where the class is present; None: no label.
    label: NDArray[Any] | None
    #: Where presence or absence is known, (C,); None: everywhere.
    known: NDArray[np.bool_] | None
    #: Classes (H, W), 255 ignored; None: no mask.
    mask: NDArray[np.int64] | None


def label_figure(
    chips: Sequence[LabeledChip],
    class_names: Sequence[str],
    class_colors: Sequence[str],
    bands: Sequence[str],
) -> Figure:
    """Plot chips, five in a row, with their classes below, and masks if there are any.

    Args:
        chips: The chips.
        class_names: One name per class.
        class_colors: One color per class.
        bands: Names of the bands; see :func:`rgb_indices`.
    """
    from .scaling import rgb_indices

    masks = [chip.mask for chip in chips if chip.mask is not None]
    each = 2 if masks else 1
    rows = -(-len(chips) // CHIPS_IN_ROW) * each
    figure = Figure(figsize=(2.6 * CHIPS_IN_ROW, 3.2 * rows), layout='constrained')
    axes = figure.subplots(rows, CHIPS_IN_ROW, squeeze=False)
    for axis in axes.ravel():
        axis.set(xticks=[], yticks=[])
        axis.set_frame_on(False)
    for number, chip in enumerate(chips):
        row, column = number // CHIPS_IN_ROW * each, number % CHIPS_IN_ROW
        axis = axes[row, column]
        rgb = chip.image[rgb_indices(bands)]
        seen = np.isfinite(rgb).all(axis=0)
        axis.imshow(np.dstack([stretch(rgb), seen]).astype(np.float32))
        axis.set_title(chip.title)
        axis.set_xlabel(_words(chip, class_names), fontsize='small')
        if chip.mask is not None:
            shown = chip.mask.astype(np.uint8)
            draw_mask(axes[row + 1, column], shown, class_names, class_colors)
    if masks:
        drawn = np.concatenate([mask.ravel() for mask in masks]).astype(np.uint8)
        add_legend(figure, drawn, class_names, class_colors)
    return figure


def _words(chip: LabeledChip, class_names: Sequence[str]) -> str:
    """Return the names of a chip's classes, one in a line."""
    if chip.label is None:
        return 'no label'
    known = np.ones(len(class_names), bool) if chip.known is None else chip.known
    names = [
        shorten(name, LETTERS, placeholder=' …')
        for name, present in zip(class_names, (chip.label > 0) & known, strict=True)
        if present
    ]
    more = [f'and {len(names) - NAMED} more'] if len(names) > NAMED else []
    unknown = int((~known).sum())
    if unknown:
        more.append(f'{unknown} class{"es" * (unknown > 1)} unknown')
    return '\n'.join([*names[:NAMED], *more]) or 'no class'


def footprint_figure(
    footprints: Sequence[tuple[NDArray[np.float64], str, float | None]],
    box: NDArray[np.float64],
) -> Figure:
    """Plot where scenes lie, the clearest above.

    Args:
        footprints: Corners (n, 2) in degrees, tile and cloud cover in percent of each
            scene, None if unknown.
        box: Corners (n, 2) of the box that was searched.
    """
    figure = Figure(figsize=(7, 6.4), layout='constrained')
    axes = figure.subplots()
    colors = ScalarMappable(Normalize(0, 100), 'Blues_r')
    dates = Counter(tile for _, tile, _ in footprints)
    cloudy_first = sorted(footprints, key=lambda x: -101 if x[2] is None else -x[2])
    for corners, _, cloud in cloudy_first:
        color = colors.cmap(cloud / 100) if cloud is not None else 'none'
        axes.fill(*corners.T, facecolor=color, edgecolor='0.3', linewidth=0.8)
    for tile, number in dates.items():
        corners = next(c for c, name, _ in footprints if name == tile)
        x, y = ((corners.min(axis=0) + corners.max(axis=0)) / 2).tolist()
        text = f'{tile}\n{number} {"date" if number == 1 else "dates"}'
        white = {'facecolor': 'white', 'edgecolor': 'none', 'alpha': 0.8}
        axes.text(x, y, text, ha='center', va='center', fontsize=9, bbox=white)
    axes.fill(*box.T, facecolor='none', edgecolor='tab:red', linewidth=2)
    axes.set_xlabel('longitude, degrees (red: the box)')
    axes.set_ylabel('latitude, degrees')
    # a degree of longitude is shorter
    shortening = np.cos(np.radians(box[:, 1].mean()))
    axes.set_aspect(1 / max(float(shortening), 0.1))
    if any(cloud is not None for *_, cloud in footprints):
        figure.colorbar(colors, ax=axes, label='cloud cover, %', shrink=0.7)
    return figure
