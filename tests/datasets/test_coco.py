import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.features import rasterize
from scipy.ndimage import binary_dilation, binary_erosion
from torchgeo.datasets import DatasetNotFoundError

from tests.fakes.image_folders import every, write_coco
from tests.fakes.serve import pack, served
from torchgeo_ctm.datasets import COCO, coco
from torchgeo_ctm.datasets.coco import Annotated, Instance, paint_instances
from torchgeo_ctm.errors import DataError, SettingError

#: Positions, after background, of the categories that the fake annotations use.
SMALL, LARGE, PARTS, CROWD = 2, 1, 80, 9


def test_polygons_and_runs_become_a_mask(tmp_path: Path) -> None:
    write_coco(tmp_path)
    images = COCO(tmp_path)
    assert len(images.classes) == 81
    assert images.classes[LARGE] == 'object 1'
    assert images.classes[PARTS] == 'object 89'
    mask = images[0]['mask'].numpy()
    wanted = np.zeros((30, 40), int)
    wanted[26:, :10] = CROWD
    wanted[2:18, 2:18] = LARGE
    wanted[4:8, 4:8] = SMALL
    wanted[2:6, 20:28] = wanted[8:12, 20:28] = PARTS
    assert np.array_equal(mask, wanted)


def test_labels_are_what_the_annotations_name(tmp_path: Path) -> None:
    write_coco(tmp_path)
    images = COCO(tmp_path)
    present = [np.flatnonzero(sample['label']).tolist() for sample in every(images)]
    assert present == [[0, LARGE, SMALL, CROWD, PARTS]] * 3 + [[0]]
    # and, on these, what the masks hold
    assert [np.unique(sample['mask']).tolist() for sample in every(images)] == present


def test_without_background_there_are_80_classes(tmp_path: Path) -> None:
    write_coco(tmp_path)
    images = COCO(tmp_path, background=False)
    assert len(images.classes) == 80
    assert set(np.unique(images[0]['mask'])) == {0, 1, 8, 79, 255}
    assert np.flatnonzero(images[0]['label']).tolist() == [0, 1, 8, 79]
    assert (images[3]['mask'] == 255).all()


@pytest.mark.parametrize('year', [2014, 2017])
def test_zips_are_unpacked(tmp_path: Path, year: Any) -> None:
    made, root = tmp_path / 'made', tmp_path / 'root'
    write_coco(made, year)
    pack(root / f'annotations_trainval{year}.zip', made, 'annotations')
    pack(root / f'val{year}.zip', made, f'val{year}')
    # the test split needs no training images
    assert len(COCO(root, 'test', year)) == 2
    with pytest.raises(DatasetNotFoundError):
        COCO(root, 'train', year)


def test_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, site = tmp_path / 'made', tmp_path / 'site'
    write_coco(made)
    pack(site / 'annotations' / 'annotations_trainval2017.zip', made, 'annotations')
    pack(site / 'zips' / 'train2017.zip', made, 'train2017')
    with served(site) as address:
        monkeypatch.setattr(coco, 'ADDRESS', address)
        assert len(COCO(tmp_path / 'root', download=True)) == 4


def change(root: Path, do: Callable[[dict[str, Any]], object]) -> None:
    path = root / 'annotations' / 'instances_train2017.json'
    content = json.loads(path.read_text())
    do(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ('do', 'message'),
    [
        (lambda c: c.pop('categories'), r'JSON of COCO: it has no categories'),
        (
            lambda c: c['annotations'][0].pop('segmentation'),
            r'entry 0 of annotations has no segmentation',
        ),
        (lambda c: c['annotations'][0].update(category_id=9), r'category 9 is not in'),
        (lambda c: c['annotations'][0].update(image_id=99), r'its image 99 or'),
        (
            lambda c: c['annotations'][1].update(segmentation=[[1, 1, 2, 2]]),
            r'annotation 11: a polygon has fewer than three corners',
        ),
        (
            lambda c: c['annotations'][3]['segmentation'].update(counts='WUb0'),
            r'annotation 13: .* neither polygons nor uncompressed runs',
        ),
        (
            lambda c: c['annotations'][3]['segmentation'].update(counts=[5, 5]),
            r'its runs cover 10 px, image 0+1\.jpg has 30 × 40',
        ),
        (
            lambda c: c['images'].append(dict(c['images'][0], id=7, file_name='7.jpg')),
            r'lists 5 images, 1 of them are missing: 7',
        ),
    ],
)
def test_annotations_that_cannot_be_used(
    tmp_path: Path, do: Callable[[dict[str, Any]], object], message: str
) -> None:
    write_coco(tmp_path)
    change(tmp_path, do)
    with pytest.raises(DataError, match=message):
        COCO(tmp_path)


def test_another_size_than_the_json_says(tmp_path: Path) -> None:
    write_coco(tmp_path)
    # the last image has no annotation that the size could contradict
    change(tmp_path, lambda content: content['images'][3].update(width=41))
    with pytest.raises(DataError, match='has 30 × 41 px, its image 30 × 40 px'):
        COCO(tmp_path)[3]


def test_an_unknown_year(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match='Unknown year 2015, expected 2014 or 2017'):
        COCO(tmp_path, year=2015)  # type: ignore[arg-type]


def test_a_truncated_json(tmp_path: Path) -> None:
    write_coco(tmp_path)
    path = tmp_path / 'annotations' / 'instances_train2017.json'
    path.write_text(path.read_text()[:200])
    with pytest.raises(DataError, match=r'Cannot read .*train2017\.json as JSON'):
        COCO(tmp_path)


def painted(outline: Any, size: tuple[int, int]) -> Any:
    """Return where an object with this outline is painted."""
    image = Annotated('a.jpg', *size, [Instance(0, False, 1.0, outline)])
    return paint_instances(image, 1, 0) == 1


@pytest.mark.parametrize('seed', range(5))
def test_polygons_agree_with_gdal_to_a_pixel(seed: int) -> None:
    """GDAL fills pixels by their centers, pycocotools by its own finer grid."""
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
    radius = rng.uniform(12, 25, 12)
    corners = np.stack([40 + radius * np.cos(angles), 30 + radius * np.sin(angles)], 1)
    ours = painted([corners.astype(np.float32).ravel()], (60, 80))
    ring = [*corners.tolist(), corners[0].tolist()]
    theirs = rasterize([{'type': 'Polygon', 'coordinates': [ring]}], (60, 80)) == 1
    around = np.ones((3, 3), bool)
    assert ours.sum() > 400
    assert (ours <= binary_dilation(theirs, around)).all()
    assert (binary_erosion(theirs, around) <= ours).all()


def test_runs_are_exact() -> None:
    rng = np.random.default_rng(0)
    inside = rng.random((20, 30)) < 0.4
    inside[0, 0] = False
    flat = inside.ravel(order='F')
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges.tolist(), flat.size])
    assert np.array_equal(painted(runs, (20, 30)), inside)


def test_without_pycocotools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_coco(tmp_path)
    monkeypatch.setitem(sys.modules, 'pycocotools', None)
    with pytest.raises(SettingError, match=r'pip install "torchgeo-ctm\[coco\]"'):
        COCO(tmp_path)
