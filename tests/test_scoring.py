from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.transform import array_bounds
from rasterio.warp import calculate_default_transform, reproject

from tests.commands import Run, refused
from torchgeo_ctm.errors import GridError, LabelWarning, Note, SceneError
from torchgeo_ctm.legends import DFC2020, renamed
from torchgeo_ctm.scoring import (
    cohens_kappa,
    confusion_matrix,
    evaluate,
    iou_from_confusion,
    reference_classes,
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
    assert scores['users_accuracy'] == {'a': 1, 'b': 4 / 5, 'c': None}
    assert scores['producers_accuracy'] == {'a': 3 / 4, 'b': 1, 'c': None}
    assert scores['f1'] == {'a': 6 / 7, 'b': 8 / 9, 'c': None}
    assert scores['macro_f1'] == pytest.approx((6 / 7 + 8 / 9) / 2)
    assert scores['weighted_f1'] == pytest.approx((6 / 7 + 8 / 9) / 2)
    # agreement by chance: (4 · 3 + 4 · 5) / 64 = 1/2
    assert cohens_kappa(confusion) == pytest.approx((7 / 8 - 1 / 2) / (1 / 2))
    assert cohens_kappa(np.array([[5, 0], [0, 0]])) == 1


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


LAND = np.array([[0, 0, 1, 1], [0, 1, 1, 1]], np.uint8)
NAMED = '["water", "land"]'


def test_numbers_in_another_order_are_said_and_names_repair_them(
    tmp_path: Path,
) -> None:
    mask = write(tmp_path / 'm.tif', LAND, CLASS_NAMES=NAMED)
    truth = write(tmp_path / 't.tif', 1 - LAND)
    with pytest.warns(LabelWarning, match='another order fits better .100% instead'):
        assert evaluate(mask, truth)['miou'] == 0
    assert evaluate(mask, truth, ['land', 'Water'])['miou'] == 1
    assert evaluate(mask, truth, class_map=['0=land', '1=water'])['miou'] == 1
    with pytest.warns(LabelWarning, match='compared by name, but another order'):
        evaluate(mask, truth, ['water', 'land'])


def test_values_without_names_are_told(tmp_path: Path) -> None:
    mask = write(tmp_path / 'm.tif', LAND, CLASS_NAMES=NAMED)
    truth = write(tmp_path / 't.tif', LAND)
    with pytest.warns(
        Note, match=r'compared with those of .*: 0 as water, 1 as land\.'
    ):
        assert evaluate(mask, truth)['miou'] == 1


def test_a_reference_is_read_as_classes_of_the_mask(tmp_path: Path) -> None:
    mask = write(tmp_path / 'm.tif', LAND, CLASS_NAMES=NAMED)
    values = np.array([[2, 1, 0, 0], [2, 0, 9, 255]], np.uint8)
    expected = [[0, -1, 1, 1], [0, 1, -1, -1]]
    tagged = write(
        tmp_path / 't.tif', values, CLASS_NAMES='["Land", "marsh", "Water"]', nodata=9
    )
    assert reference_classes(mask, tagged).tolist() == expected
    plain = write(tmp_path / 'p.tif', values, nodata=9)
    names = ['land', 'marsh', 'water']
    assert reference_classes(mask, plain, names).tolist() == expected
    # without names, numbers count, as in evaluate
    assert reference_classes(mask, plain).tolist()[0] == [-1, 1, 0, 0]


def test_names_of_categories_beside_a_file_count(tmp_path: Path) -> None:
    mask = write(tmp_path / 'm.tif', LAND, CLASS_NAMES=NAMED)
    truth = write(tmp_path / 't.tif', np.where(LAND, 3, 7).astype(np.uint8))
    names = [''] * 3 + ['land'] + [''] * 3 + ['water']
    categories = ''.join(f'<Category>{name}</Category>' for name in names)
    (tmp_path / 't.tif.aux.xml').write_text(
        f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{categories}'
        '</CategoryNames></PAMRasterBand></PAMDataset>'
    )
    assert evaluate(mask, truth)['iou'] == {'water': 1, 'land': 1}


def test_legends_and_pairs(tmp_path: Path) -> None:
    mask = write(tmp_path / 'm.tif', LAND, CLASS_NAMES='["water", "wood"]')
    values = np.array([[80, 80, 10, 20], [80, 90, 10, 10]], np.uint8)
    truth = write(tmp_path / 't.tif', values)
    pairs = ['worldcover', 'permanent water bodies=water', '10=wood', 'Shrubland=Wood']
    with pytest.warns(LabelWarning, match='no class .Herbaceous wetland.* their 12%'):
        scores = evaluate(mask, truth, class_map=pairs)
    iou = scores['iou']
    assert (iou['water'], iou['wood'], iou['Herbaceous wetland']) == (1, 0.8, 0)
    assert iou['Mangroves'] is None
    scores = evaluate(mask, truth, class_map=[*pairs, '90='])
    assert scores['pixel_accuracy'] == 1
    assert scores['pixels'] == 7
    # a comma in a name has split the pair
    names = renamed(['wet', 'green=Marsh', '9='], {1: 'wet, green', 9: 'sea'})
    assert names == {1: 'Marsh', 9: None}


def test_dfc2020_is_numbered_as_its_masks() -> None:
    assert renamed(['dfc2020'], None) == DFC2020
    assert list(DFC2020) == list(range(1, 11))
    assert (DFC2020[1], DFC2020[10]) == ('Forest', 'Water')


@pytest.mark.parametrize('dtype', ['uint8', 'int16'])
@pytest.mark.parametrize('nodata', [None, 9])
@pytest.mark.parametrize('crs', ['EPSG:32630', 'EPSG:4326'])
def test_a_reference_is_brought_to_the_grid(
    tmp_path: Path, nodata: int | None, crs: str, dtype: str
) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 2, (12, 12)).astype(np.uint8)
    values = np.kron(coarse, np.ones((10, 10), np.uint8))
    mask = write(tmp_path / 'm.tif', values, CLASS_NAMES=NAMED)
    # the left half, five times finer
    fine: NDArray[Any] = np.kron(values[:, :60], np.ones((5, 5), np.uint8))
    transform = TRANSFORM @ Affine.scale(0.2)
    if crs != 'EPSG:32630':
        transform, _, _ = calculate_default_transform(
            'EPSG:32630', crs, 300, 600, *array_bounds(600, 300, transform)
        )
        warped = np.full((600, 600), 255 if nodata is None else nodata, np.uint8)
        reproject(
            fine, warped, src_transform=TRANSFORM @ Affine.scale(0.2), dst_crs=crs,
            src_crs='EPSG:32630', dst_transform=transform, init_dest_nodata=False,
        )  # fmt: skip
        fine = warped
    truth = write(tmp_path / 't.tif', fine.astype(dtype), crs, transform, nodata)
    with pytest.raises(GridError, match='align=True'):
        evaluate(mask, truth)
    scores = evaluate(mask, truth, ['water', 'land'], align=True)
    assert scores['pixel_accuracy'] > (0.97 if crs == 'EPSG:4326' else 0.9999)
    assert scores['pixels'] == pytest.approx(120 * 60, rel=0.02)


def test_evaluate_draws_the_confusion_matrix(run: Run, tmp_path: Path) -> None:
    mask = write(tmp_path / 'm.tif', LAND, CLASS_NAMES=NAMED)
    bands = write(tmp_path / 't.tif', LAND)
    with rasterio.open(bands) as raster:
        profile = raster.profile | {'count': 2}
    with rasterio.open(bands, 'w', **profile) as raster:
        raster.write(np.stack([LAND * 50, LAND]))
    plot = tmp_path / 'c.png'
    refused(run('evaluate', mask, bands, '--plot', plot), '2 bands', '--band')
    assert not plot.exists()
    status, printed, _ = run(
        'evaluate', mask, bands, '--band', 2, '--plot', plot, '--kappa',
        '--classes', 'water,land',
    )  # fmt: skip
    assert status == 0
    assert 'kappa                 1.000' in printed
    assert plot.stat().st_size > 5000
    named = ('evaluate', mask, bands, '--band', 2, '--class_map')
    refused(run(*named, 'worldcovr'), "Did you mean 'worldcover'?")
    refused(run(*named, '0=sea,se=x'), "Unknown class 'se'", "Did you mean 'sea'?")
    refused(run('evaluate', mask, bands, '--band', 3), 'band 3')


@pytest.mark.parametrize('how', ['mask', 'alpha', 'nodata', 'negative'])
def test_masks_of_a_reference_are_brought_over_too(tmp_path: Path, how: str) -> None:
    values = np.zeros((20, 20), np.uint8)
    values[:, 10:] = 1
    mask = write(tmp_path / 'm.tif', values, CLASS_NAMES=NAMED)
    fine = np.kron(values, np.ones((2, 2), np.uint8)).astype(np.int16)
    valid = np.ones(fine.shape, bool)
    valid[:20] = False
    hidden = {'nodata': 9, 'negative': -1}.get(how)
    fine[:20] = 1 - fine[:20] if hidden is None else hidden
    with rasterio.open(
        tmp_path / 't.tif', 'w', driver='GTiff', dtype='int16', height=40, width=40,
        count=1 + (how == 'alpha'), crs='EPSG:32630',
        transform=TRANSFORM @ Affine.scale(0.5), nodata=9 if how == 'nodata' else None,
        **({'alpha': 'yes'} if how == 'alpha' else {}),
    ) as raster:  # fmt: skip
        raster.write(fine, 1)
        if how == 'alpha':
            raster.write(np.where(valid, 32767, 0).astype(np.int16), 2)
        elif how == 'mask':
            raster.write_mask(valid)
    scores = evaluate(mask, tmp_path / 't.tif', ['water', 'land'], align=True)
    assert (scores['miou'], scores['pixels']) == (1, 200)


def test_a_class_that_the_reference_lacks_is_said(tmp_path: Path) -> None:
    mask = write(
        tmp_path / 'm.tif',
        np.array([[0, 0, 1, 2]], np.uint8),
        CLASS_NAMES='["a", "b", "c", "d"]',
    )
    truth = write(tmp_path / 't.tif', np.array([[0, 0, 1, 1]], np.uint8))
    with pytest.warns(LabelWarning, match=r"has no 'c': they count as 0 .* 0\.750"):
        assert evaluate(mask, truth)['miou'] == pytest.approx((1 + 0.5 + 0) / 3)


def test_messages_have_the_words_of_the_command_line(run: Run, tmp_path: Path) -> None:
    mask = write(tmp_path / 'm.tif', LAND, CLASS_NAMES=NAMED)
    truth = write(tmp_path / 't.tif', (LAND * 30 + 10).astype(np.uint8))
    said = 'Names in --classes are for 0, 1, 2, …: name other values in --class_map.'
    refused(run('evaluate', mask, truth, '--classes', 'water,land'), 'class 40', said)
    refused(run('evaluate', mask, truth), 'Name its classes with --classes or')
    with pytest.raises(SceneError, match='with classes= or class_map=\\.'):
        evaluate(mask, truth)
    (tmp_path / 'v.gpkg').write_bytes(b'')
    refused(run('evaluate', mask, tmp_path / 'v.gpkg'), 'a vector file', 'assess')


def test_fewer_names_than_classes_are_refused(tmp_path: Path) -> None:
    mask = write(tmp_path / 'm.tif', np.arange(3, dtype=np.uint8)[None])
    with pytest.raises(SceneError, match='holds class 2, but there are names of 2'):
        evaluate(mask, mask, ['a', 'b'])
