from io import BytesIO

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

from torchgeo_ctm.datasets import DFC2020
from torchgeo_ctm.plots import (
    Ground,
    LabeledChip,
    label_figure,
    map_figure,
    mask_figure,
    quick_look,
    stretch,
)


def test_of_many_classes_those_that_cover_most_are_drawn() -> None:
    """A panel for each of 151 classes takes longer than the epoch that it shows."""
    mask = torch.full((8, 8), 7)
    mask[0, :3] = 150
    truth = torch.full((8, 8), 255)
    truth[1, 0] = 42
    names = [f'class {index}' for index in range(151)]
    figure = map_figure(
        torch.rand(3, 8, 8),
        torch.rand(151, 2, 2),
        mask,
        truth,
        names,
        ['#102030'] * 151,
        ['R', 'G', 'B'],
    )
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles[:3] == ['RGB', 'truth', 'mask']
    assert len(titles) == 16
    assert {'class 7', 'class 42', 'class 150'} < set(titles)


LONG = 'Land principally occupied by agriculture, with significant natural vegetation'
NAMES = {
    'two': ['Land', 'Water'],
    'eight': list(DFC2020.classes),
    '40 long': [f'{LONG} {number}' for number in range(40)],
    '40 wide': [f'{number} WWWWWWWWWWWWWWWWWWWWWWWWWW' for number in range(40)],
    'one word': ['W' * 90, 'i'],
}


def figures(names: list[str], size: int) -> list[Figure]:
    """Return every figure with a legend, of masks that show all classes."""
    colors = ['#102030'] * len(names)
    mask = np.resize(np.arange(len(names), dtype=np.uint8), (size, size))
    image = np.zeros((3, size, size), np.float32)
    chips = [LabeledChip('chip', image, None, None, mask.astype(np.int64))] * 6
    return [
        mask_figure(mask, names, colors),
        quick_look(image, mask, names, colors),
        label_figure(chips, names, colors, ['R', 'G', 'B']),
    ]


@pytest.mark.parametrize('names', NAMES.values(), ids=NAMES)
def test_every_legend_entry_lies_inside_the_figure(names: list[str]) -> None:
    for figure in figures(names, 32):
        figure.savefig(BytesIO())
        # 'tight' cuts nothing, but may not stretch the picture either
        assert figure.bbox.width >= figure.get_tightbbox().width * figure.dpi - 1
        [legend] = figure.legends
        texts = legend.get_texts()
        assert [''.join(text.get_text().split()) for text in texts] == [
            ''.join(name.split()) for name in names
        ]
        boxes = [text.get_window_extent() for text in texts]
        boxes += [patch.get_window_extent() for patch in legend.get_patches()]
        for box in boxes:
            assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
            assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
        around = [axis.get_tightbbox() for axis in figure.axes]
        lowest = min(box.y0 for box in around if box is not None)
        assert max(box.y1 for box in boxes) <= lowest
        # the picture stays larger than its legend's margin
        assert figure.axes[0].get_window_extent().height > 1.2 * figure.dpi
        assert not any(
            first.overlaps(second)
            for number, first in enumerate(boxes[: len(texts)])
            for second in boxes[number + 1 : len(texts)]
        )


def test_a_mask_without_data_has_no_legend() -> None:
    mask = np.full((8, 8), 255, np.uint8)
    figure = mask_figure(mask, ['Land'], ['#102030'])
    assert not figure.legends


def test_a_wide_quick_look_has_no_wide_margins() -> None:
    for rows, most in ((64, 6.4), (16, 2.6)):
        image = np.random.default_rng(0).random((3, rows, 64), np.float32)
        mask = np.zeros((rows, 64), np.uint8)
        figure = quick_look(image, mask, ['Land'], ['#102030'])
        assert figure.get_figheight() <= most
        figure.draw_without_rendering()
        axis = figure.axes[0]
        axis.apply_aspect()
        share = axis.get_position().height * figure.get_figheight()
        assert share > figure.get_figheight() - 1.3


def test_scale_bar_north_and_hectares_of_a_quick_look() -> None:
    image = np.zeros((3, 100, 400), np.float32)
    mask = np.resize(np.arange(2, dtype=np.uint8), (100, 400))
    # 60 m wide, 30 m high, north to the left
    ground = Ground(60.0, 30.0, (-1.0, 0.0), [1234.4, 0.123])
    figure = quick_look(image, mask, ['Land', 'Water'], ['#102030'] * 2, ground)
    figure.savefig(BytesIO())
    [legend] = figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    assert words == ['Land, 1,234 ha', 'Water, 0.123 ha']
    left, right = figure.axes[:2]
    bar, north = left.texts
    assert bar.get_text() == '5 km'
    ends = np.asarray(left.lines[0].get_xdata(), float)
    assert (ends[1] - ends[0]) * 400 * 60 == pytest.approx(5000)
    assert north.get_rotation() == pytest.approx(90)
    for axis in (left, right):
        box = axis.get_window_extent()
        assert box.height / box.width == pytest.approx(100 * 30 / (400 * 60))
    for text in left.texts:
        inside = text.get_window_extent()
        box = left.get_window_extent()
        assert box.x0 < inside.x0 and inside.x1 < box.x1


@pytest.mark.parametrize(('unknown', 'said'), [(1, '1 class'), (2, '2 classes')])
def test_unknown_classes_are_counted_in_words(unknown: int, said: str) -> None:
    label, known = np.ones(3, np.float32), np.arange(3) >= unknown
    image = np.zeros((3, 8, 8), np.float32)
    chip = LabeledChip('chip', image, label, known, None)
    figure = label_figure([chip], list('abc'), ['#102030'] * 3, ['R', 'G', 'B'])
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert any(text.endswith(f'\n{said} unknown') for text in texts)


def test_haze_of_a_band_does_not_color_the_picture() -> None:
    gray = np.linspace(200, 3000, 10_000, dtype=np.float32).reshape(100, 100)
    hazy = np.stack([gray, gray + 100, gray + 700])
    hazy[:, :10] = np.nan
    shown = stretch(hazy)
    assert shown.shape == (100, 100, 3)
    assert np.ptp(shown, axis=2).max() < 0.01
    assert float(shown.min()) == 0
    assert float(shown.max()) == 1
    assert (stretch(np.full((3, 4, 4), np.nan, np.float32)) == 0).all()
