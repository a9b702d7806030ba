from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray

from torchgeo_ctm.errors import GridError, SceneError
from torchgeo_ctm.scoring import (
    confusion_matrix,
    evaluate,
    iou_from_confusion,
    summarise,
    summarize,
)

TRANSFORM = Affine(10, 0, 500_000, 0, -10, 4_200_000)


def write(
    path: Path,
    values: NDArray[np.generic],
    crs: str = 'EPSG:32630',
    transform: Affine = TRANSFORM,
    nodata: float | None = None,
    **tags: str,
) -> Path:
    with rasterio.open(
        path,
        'w',
        driver='GTiff',
        dtype=values.dtype,
        count=1,
        height=values.shape[0],
        width=values.shape[1],
        crs=crs,
        transform=transform,
        nodata=nodata,
    ) as raster:
        raster.write(values, 1)
        raster.update_tags(**tags)
    return path


def test_scores_by_hand() -> None:
    # class 0: 3 of 4 found; class 1: 4 pixels, all found, one too many; class 2: none
    confusion = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    scores = summarize(confusion, ['a', 'b', 'c'])
    with pytest.warns(DeprecationWarning, match='summarize'):
        assert summarise(confusion, ['a', 'b', 'c']) == scores
    assert scores['iou'] == {'a': 3 / 4, 'b': 4 / 5, 'c': None}
    assert scores['miou'] == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert scores['pixel_accuracy'] == 7 / 8
    assert scores['average_accuracy'] == pytest.approx((3 / 4 + 1) / 2)
    assert scores['pixels'] == 8


def test_a_class_claimed_but_not_there_counts_as_zero() -> None:
    assert iou_from_confusion(np.array([[3, 1], [0, 0]])) == [3 / 4, 0.0]


def test_confusion_agrees_with_torchmetrics() -> None:
    torch = pytest.importorskip('torch')
    from torchmetrics.classification import MulticlassConfusionMatrix

    rng = np.random.default_rng(0)
    truth, mask = rng.integers(0, 4, (2, 50, 50))
    truth[:5] = 255
    metric = MulticlassConfusionMatrix(4, ignore_index=255)
    expected = metric(torch.tensor(mask), torch.tensor(truth)).numpy()
    np.testing.assert_array_equal(confusion_matrix(truth, mask, 4), expected)


def test_evaluate_ignores_what_has_no_label(tmp_path: Path) -> None:
    mask = np.array([[0, 1, 1, 255]], np.uint8)
    truth = np.array([[0, 1, -1, 1]], np.int16)
    scores = evaluate(
        write(tmp_path / 'm.tif', mask, nodata=255, CLASS_NAMES='["land", "water"]'),
        write(tmp_path / 't.tif', truth),
    )
    assert scores['iou'] == {'land': 1.0, 'water': 1.0}
    assert scores['pixels'] == 2
    assert scores['pixels_without_mask'] == 1


def test_evaluate_does_not_depend_on_blocks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mask, truth = rng.integers(0, 3, (2, 300, 17)).astype(np.uint8)
    scores = evaluate(write(tmp_path / 'm.tif', mask), write(tmp_path / 't.tif', truth))
    expected = confusion_matrix(truth.astype(int), mask.astype(int), 3)
    assert scores['confusion'] == expected.tolist()
    assert list(scores['iou']) == ['0', '1', '2']


@pytest.mark.parametrize(
    ('change', 'what'),
    [
        ({'values': np.zeros((5, 4), np.uint8)}, 'size'),
        ({'crs': 'EPSG:32631'}, 'CRS'),
        ({'transform': Affine(10, 0, 500_010, 0, -10, 4_200_000)}, 'transform'),
    ],
)
def test_another_grid_is_refused(
    tmp_path: Path, change: dict[str, object], what: str
) -> None:
    arguments = {'values': np.zeros((4, 4), np.uint8)} | change
    mask = write(tmp_path / 'm.tif', np.zeros((4, 4), np.uint8))
    other = write(tmp_path / 't.tif', **arguments)  # type: ignore[arg-type]
    with pytest.raises(GridError, match=f'different grids: {what}'):
        evaluate(mask, other)


def test_rounding_of_a_transform_is_no_other_grid(tmp_path: Path) -> None:
    values = np.zeros((4, 4), np.uint8)
    moved = Affine(10, 0, 500_000 + 1e-6, 0, -10, 4_200_000)
    mask = write(tmp_path / 'm.tif', values)
    assert (
        evaluate(mask, write(tmp_path / 't.tif', values, transform=moved))['miou'] == 1
    )


@pytest.mark.parametrize(
    ('truth', 'message'),
    [
        (np.full((4, 4), 7, np.uint8), 'holds class 7'),
        (np.full((4, 4), 255, np.uint8), 'no labeled pixel'),
        (np.zeros((4, 4), np.float32), 'integer classes'),
    ],
)
def test_unusable_references_are_refused(
    tmp_path: Path, truth: NDArray[np.generic], message: str
) -> None:
    mask = np.zeros((4, 4), np.uint8)
    mask[0] = 1
    with pytest.raises(SceneError, match=message):
        evaluate(write(tmp_path / 'm.tif', mask), write(tmp_path / 't.tif', truth))


def test_fewer_names_than_classes_are_refused(tmp_path: Path) -> None:
    mask = write(tmp_path / 'm.tif', np.arange(3, dtype=np.uint8)[None])
    with pytest.raises(SceneError, match='holds class 2, but there are names of 2'):
        evaluate(mask, mask, ['a', 'b'])
