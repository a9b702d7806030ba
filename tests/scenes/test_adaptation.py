"""Scenes that are moved towards the training data, and warnings where they differ."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from tests.conftest import WriteScene, decisive, save_task, scene_pixels, tiny_task
from torchgeo_ctm.errors import (
    AtmosphereWarning,
    BandWarning,
    NodataWarning,
    PresenceWarning,
    ReflectanceWarning,
    SettingError,
)
from torchgeo_ctm.prediction import predict_scene
from torchgeo_ctm.scaling import SENTINEL2_BANDS, BandScaling
from torchgeo_ctm.scenes import pixel_sample
from torchgeo_ctm.scenes.adaptation import DOSE, atmosphere_complaint, dark_adaptation
from torchgeo_ctm.scenes.pixel_sample import sample_pixels
from torchgeo_ctm.scenes.scene import SceneWindows

BANDS = ('B02', 'B12', 'VV')
QUIET: dict[str, Any] = {'progress': False, 'accelerator': 'cpu'}


def scaling(bands: tuple[str, ...] = BANDS, **more: Any) -> BandScaling:
    count = len(bands)
    given: dict[str, Any] = {'mean': [1000.0] * count, 'std': [300.0] * count}
    given |= {'low': [400.0] * count, 'high': [1800.0] * count}
    return BandScaling(bands, **(given | more))


def pixels(bands: int = 3, level: float = 1500) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    return rng.normal(level, 200, (bands, 5000)).astype(np.float32)


def scaled_options(**more: Any) -> dict[str, Any]:
    """Return the scaling of a model that was trained on a darker, clearer scene."""
    values = scene_pixels(70, 90).reshape(13, -1) - 200.0
    low, high = np.percentile(values, [1, 99], axis=1)
    numbers = {'mean': values.mean(axis=1), 'std': values.std(axis=1)}
    numbers |= {'low': low, 'high': high}
    return {key: value.tolist() for key, value in numbers.items()} | more


def test_dark_objects_and_a_quarter_of_the_scene_are_moved() -> None:
    found = pixels()
    change = dark_adaptation(found, scaling())
    changed = change.gain[:, None] * found + change.shift[:, None]
    lowest = np.percentile(found, 1, axis=1)
    # haze adds 0.8 of its most to B02, and almost nothing to B12
    own = found.mean(axis=1) - np.array([0.8, 0.01, 0]) * (lowest - 400)
    std = DOSE * found.std(axis=1) + (1 - DOSE) * 300
    expected = 1000 + 300 * (own - DOSE * own - (1 - DOSE) * 1000) / std
    np.testing.assert_allclose(changed.mean(axis=1)[:2], expected[:2], rtol=1e-4)
    np.testing.assert_allclose(change.undone(changed), found, rtol=1e-5)
    assert (change.gain[2], change.shift[2]) == (1, 0)  # decibels of radar


def test_training_data_stay_as_they_are() -> None:
    found = pixels(2)
    low, high = np.percentile(found, [1, 99], axis=1).tolist()
    numbers = {'mean': found.mean(axis=1).tolist(), 'std': found.std(axis=1).tolist()}
    known = scaling(BANDS[:2], low=low, high=high, **numbers)
    change = dark_adaptation(found, known)
    np.testing.assert_allclose(change.gain, 1, rtol=1e-3)
    np.testing.assert_allclose(change.shift, 0, atol=1)


def test_an_offset_of_the_model_changes_nothing() -> None:
    """The model adds it after the adaptation, so that the sum is the same."""
    found = pixels(2)
    plain = dark_adaptation(found, scaling(BANDS[:2]))
    shifted = dark_adaptation(found + 1000, scaling(BANDS[:2], offset=-1000))
    np.testing.assert_allclose(
        shifted.gain[:, None] * (found + 1000) + shifted.shift[:, None] - 1000,
        plain.gain[:, None] * found + plain.shift[:, None],
        rtol=1e-4,
    )


@pytest.mark.parametrize('overviews', [False, True])
def test_a_sample_comes_from_all_parts_of_a_scene(
    write_scene: WriteScene, monkeypatch: pytest.MonkeyPatch, overviews: bool
) -> None:
    values = np.ones((2, 200, 300), np.uint16)
    values += np.arange(300, dtype=np.uint16)
    values[:, :100, :150] = 0
    path = write_scene(pixels=values, descriptions=('B02', 'B03'), nodata=0)
    if overviews:
        with rasterio.open(path, 'r+') as raster:
            raster.build_overviews([2])
    monkeypatch.setattr(pixel_sample, 'SIDE', 8)
    scene = SceneWindows(path, ('B03', 'B02'), 32, 16, offset=-50)
    found = sample_pixels(scene)
    assert found.shape[0] == 2
    assert found.min() >= 1 - 50  # nodata does not count
    assert found.max() >= 290 - 50
    assert np.array_equal(found, sample_pixels(scene))
    assert found.shape[1] <= (200 * 300 if overviews else 64 * 8 * 8)


def test_only_atmosphere_bands_outside_their_range_are_reported() -> None:
    bands = ('B02', 'B09', 'B10')
    far = pixels(level=5000)
    said = atmosphere_complaint(far, scaling(bands))
    assert said is not None
    assert 'B09 is outside its training range of 400 to 1800 in 100 %' in said
    assert 'B02 is' not in said
    assert 'train without B01, B09, B10' in said
    assert atmosphere_complaint(pixels(level=1000), scaling(bands)) is None
    assert atmosphere_complaint(far, scaling()) is None
    assert atmosphere_complaint(far, scaling(bands, low=None, high=None)) is None


@pytest.mark.filterwarnings('ignore::torchgeo_ctm.errors.PresenceWarning')
class TestPrediction:
    def test_the_model_reads_what_the_adaptation_makes(
        self, write_scene: WriteScene, tmp_path: Path
    ) -> None:
        scene = write_scene()
        task = decisive(tiny_task(scaling=scaled_options(adapt='dark')))
        checkpoint = save_task(task, tmp_path / 'tiny.ckpt')
        masks = {}
        for name, adapt in (('own', None), ('dark', 'dark'), ('none', 'none')):
            path = tmp_path / f'{name}.tif'
            predict_scene(scene, checkpoint, path, adapt=adapt, **QUIET)  # type: ignore[arg-type]
            with rasterio.open(path) as raster:
                masks[name] = raster.read(1), raster.tags().get('ADAPT')
        # the checkpoint says how, and an argument overrides it
        assert masks['own'][1] == masks['dark'][1] == 'dark'
        assert masks['none'][1] is None
        assert np.array_equal(masks['own'][0], masks['dark'][0])
        windows = SceneWindows(scene, SENTINEL2_BANDS, 32, 16)
        before = windows[0]['image'].clone()
        change = dark_adaptation(sample_pixels(windows), task.scaling)  # type: ignore[arg-type]
        windows.adaptation = change
        after = windows[0]['image']
        expected = before.numpy().copy()
        change.apply(expected)
        np.testing.assert_allclose(after.numpy(), expected)
        assert abs(float(after.mean() - before.mean())) > 10

    def test_another_adaptation_starts_an_interrupted_run_over(
        self, write_scene: WriteScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scene, output = write_scene(), tmp_path / 'out.tif'
        task = decisive(tiny_task(scaling=scaled_options()))
        checkpoint = save_task(task, tmp_path / 'tiny.ckpt')

        def stop(*arguments: Any) -> None:
            raise RuntimeError('stopped')

        with monkeypatch.context() as patch:
            patch.setattr('torchgeo_ctm.inference.scene_run.SceneRun.finish', stop)
            # a mistake of the program would drop the journal, an interruption keeps it
            with pytest.raises(RuntimeError, match='stopped'):
                predict_scene(scene, checkpoint, output, adapt='dark', **QUIET)
        settings = json.loads(
            (tmp_path / '.out.tif.part' / 'settings.json').read_text()
        )
        assert settings['ADAPT'] == 'dark'
        with pytest.warns(UserWarning, match='because ADAPT changed'):
            predict_scene(scene, checkpoint, output, **QUIET)

    def test_wrong_units_are_still_reported(
        self, write_scene: WriteScene, tmp_path: Path
    ) -> None:
        scene = write_scene(pixels=scene_pixels(70, 90).astype(np.float32) / 10_000)
        options = scaled_options(adapt='dark')
        checkpoint = save_task(tiny_task(scaling=options), tmp_path / 'tiny.ckpt')
        with pytest.warns(ReflectanceWarning, match='multiply the scene by 10,000'):
            predict_scene(scene, checkpoint, tmp_path / 'out.tif', **QUIET)

    @pytest.mark.parametrize('dtype', ['int8', 'uint8'])
    def test_eight_bits_hold_no_reflectances(
        self, write_scene: WriteScene, tmp_path: Path, dtype: str
    ) -> None:
        scene = write_scene(pixels=(scene_pixels(70, 90) // 100).astype(dtype))
        checkpoint = save_task(tiny_task(), tmp_path / 'tiny.ckpt')
        with pytest.warns(ReflectanceWarning, match='stored in 8 bits'):
            predict_scene(scene, checkpoint, tmp_path / 'out.tif', **QUIET)

    def test_a_scene_without_valid_pixels(
        self, write_scene: WriteScene, tmp_path: Path
    ) -> None:
        scene = write_scene(pixels=np.zeros((13, 40, 40), np.uint16), nodata=0)
        options = scaled_options(adapt='dark')
        checkpoint = save_task(tiny_task(scaling=options), tmp_path / 'tiny.ckpt')
        with pytest.warns(NodataWarning):
            predict_scene(scene, checkpoint, tmp_path / 'out.tif', **QUIET)

    def test_a_foreign_atmosphere_is_a_warning(
        self, write_scene: WriteScene, tmp_path: Path
    ) -> None:
        values = scene_pixels(70, 90) - 200
        checkpoint = save_task(
            tiny_task(scaling=scaled_options()), tmp_path / 'tiny.ckpt'
        )
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            warnings.simplefilter('ignore', PresenceWarning)
            # of noise, in every band alike
            warnings.simplefilter('ignore', BandWarning)
            warnings.filterwarnings('ignore', module='(?!torchgeo_ctm)')
            path = write_scene('same.tif', pixels=values)
            predict_scene(path, checkpoint, tmp_path / 'same_mask.tif', **QUIET)
        values[10] += 1500
        path = write_scene('other.tif', pixels=values)
        with pytest.warns(AtmosphereWarning, match=r'other\.tif: B10 is outside'):
            predict_scene(path, checkpoint, tmp_path / 'other_mask.tif', **QUIET)

    @pytest.mark.parametrize(
        ('options', 'adapt', 'said'),
        [
            ({'method': 'standard'}, 'dark', 'requires the low and high values'),
            ({'method': 'standard'}, 'drak', "Unknown adapt 'drak'.*mean 'dark'"),
            (None, 'dark', 'requires the low and high values'),
        ],
    )
    def test_what_cannot_be_adapted_is_refused(
        self,
        write_scene: WriteScene,
        tmp_path: Path,
        options: Any,
        adapt: Any,
        said: str,
    ) -> None:
        checkpoint = save_task(tiny_task(scaling=options), tmp_path / 'tiny.ckpt')
        output = tmp_path / 'out.tif'
        with pytest.raises(SettingError, match=said):
            predict_scene(write_scene(), checkpoint, output, adapt=adapt, **QUIET)
        assert not list(tmp_path.glob('*out*'))
