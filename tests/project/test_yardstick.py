"""What the package promised before it was rearranged, and still does.

Whoever changes one of these on purpose writes it anew and says so in CHANGES.md:
``python -m tests.project.test_yardstick --write paths flags keys products
batches``.
The checkpoints are of version 0.1 and stay as they are.
"""

import json
import re
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.project import (
    batches,
    checkpoints,
    interface,
    product_facts,
    public_paths,
    small_scene,
)
from tests.project.small_scene import CHECKPOINT, FOLDER, NAMES, RUNS, SEGMENTATION
from torchgeo_ctm.errors import CTMWarning, DateNote
from torchgeo_ctm.trainers import (
    ClassTokenMaskingTask,
    SegmentationPredictor,
    load_predictor,
)

#: Bytes; a checkpoint in the repository is small.
LARGEST = 300_000
TASK = 'torchgeo_ctm.trainers.ClassTokenMaskingTask'
#: What keeps the default task from being a large network.
SMALL = {'model_options': {'embed_dim': 16, 'depth': 2, 'num_heads': 2}}
#: By how much numbers of a product may differ between processors and fonts: levels of
#: a color, percent; all others, coordinates and hectares, by a millionth.
TOLERANCE = {r'/mask\.png/rgb/.*': 12.0, r'/mask\.gpkg/\d+/confidence': 1.0}


def stored(name: str) -> Any:
    return json.loads((FOLDER / f'{name}.json').read_text('utf-8'))


def differences(found: Any, wanted: Any, where: str = '') -> list[str]:
    """Return where two JSON documents differ by more than processors do."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        lines = [f'{where}/{key}: one of two' for key in found.keys() ^ wanted.keys()]
        for key in found.keys() & wanted.keys():
            lines += differences(found[key], wanted[key], f'{where}/{key}')
        return sorted(lines)
    if isinstance(wanted, list) and isinstance(found, list):
        if len(found) != len(wanted):
            return [f'{where}: {len(found)} entries, not {len(wanted)}']
        pairs = zip(found, wanted, strict=True)
        return [
            line
            for index, (one, other) in enumerate(pairs)
            for line in differences(one, other, f'{where}/{index}')
        ]
    numbers = (int, float)
    if isinstance(found, numbers) and isinstance(wanted, numbers):
        allowed = [1e-6 * abs(wanted)]
        allowed += [v for k, v in TOLERANCE.items() if re.fullmatch(k, where)]
        if abs(found - wanted) <= max(allowed):
            return []
    return [] if found == wanted else [f'{where}: {found!r}, not {wanted!r}']


class TestPaths:
    @pytest.mark.parametrize('group', ['named', 'shown'])
    def test_paths_that_users_know_are_there(self, group: str) -> None:
        """Shown are what autodoc shows of modules without ``__all__``."""
        kept = {p for p in stored('paths')[group] if not public_paths.may_change(p)}
        assert kept
        assert public_paths.unresolved(kept) == []

    def test_what_is_named_today_is_there(self) -> None:
        assert public_paths.unresolved(public_paths.named_paths()) == []


def test_every_command_has_its_flags() -> None:
    assert differences(interface.flags(), stored('flags')) == []


class TestKeys:
    @pytest.mark.parametrize('path', interface.CALLED)
    def test_keys_keep_their_defaults(self, path: str) -> None:
        """A key of the task may have moved; then it still works in YAML, see below."""
        wanted, found = stored('keys')[path], interface.defaults(path)
        if path == TASK:
            wanted = {key: value for key, value in wanted.items() if key in found}
        assert {key: found.get(key, 'gone') for key in wanted} == wanted

    @pytest.mark.parametrize('path', interface.CONFIGURED)
    def test_a_configuration_may_give_every_key(
        self, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        keys = stored('keys')[path]
        given = keys | SMALL if path == TASK else keys
        moved = given.keys() - interface.defaults(path).keys()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            made = interface.configured(path, given)
        assert isinstance(made, public_paths.resolve(path))
        told = ' '.join(str(warning.message) for warning in caught)
        assert [key for key in sorted(moved) if key not in told] == []


@pytest.fixture(scope='module')
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small scene, with nodata at its edges."""
    return small_scene.write_small_scene(tmp_path_factory.mktemp('scene'))


@pytest.mark.parametrize('run', RUNS)
def test_products_of_the_small_scene(run: str, scene: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('error', CTMWarning)
        # the small scene has none
        warnings.simplefilter('ignore', DateNote)
        found = small_scene.products(scene, tmp_path, run)
    facts = json.loads(json.dumps(product_facts.facts(found)))
    assert differences(facts, stored(f'products_{run}')) == []
    pixels = product_facts.rasters(found)
    with np.load(FOLDER / f'products_{run}.npz') as archive:
        assert sorted(archive.files) == sorted(pixels)
        mask = archive['mask.tif']
        np.testing.assert_array_equal(pixels['mask.tif'], mask)
        for name, values in pixels.items():
            wanted = archive[name].astype(int)
            assert np.array_equal(values == 255, wanted == 255), name
            assert np.abs(values - wanted).max() <= 1, name


@pytest.mark.filterwarnings('ignore')
def test_batches_hold_what_they_did(scene: Path, tmp_path: Path) -> None:
    """More may have come."""
    mask = small_scene.products(scene, tmp_path, 'paint')['mask.tif']
    found = batches.batches(scene, mask, tmp_path / 'tiles')
    for name, kinds in stored('batches').items():
        for kind, wanted in kinds.items():
            assert {k: found[name][kind].get(k, 'gone') for k in wanted} == wanted


class TestCheckpoints:
    """Two that version 0.1 was saved in, by Lightning, after training."""

    @pytest.mark.parametrize('path', [CHECKPOINT, SEGMENTATION])
    def test_they_hold_numbers_only_and_are_small(self, path: Path) -> None:
        assert path.stat().st_size < LARGEST
        content = torch.load(path, weights_only=True)
        assert {'state_dict', 'hyper_parameters', 'optimizer_states'} <= content.keys()

    @pytest.mark.parametrize(
        ('path', 'kind'),
        [(CHECKPOINT, ClassTokenMaskingTask), (SEGMENTATION, SegmentationPredictor)],
    )
    def test_they_map_a_window_as_they_did(self, path: Path, kind: type) -> None:
        task = load_predictor(path)
        assert isinstance(task, kind)
        assert not task.training
        assert list(task.class_names) == list(NAMES)
        assert tuple(task.bands) == small_scene.BANDS
        np.testing.assert_array_equal(small_scene.classes(task), window_of(path))

    def test_torchgeo_rebuilds_the_task(self) -> None:
        content = torch.load(CHECKPOINT, weights_only=True)
        task = interface.from_hyperparameters(content['hyper_parameters'])
        task.load_state_dict(content['state_dict'])
        found = small_scene.classes(task.eval())
        np.testing.assert_array_equal(found, window_of(CHECKPOINT))


def window_of(checkpoint: Path) -> Any:
    """Return the classes of the small window that a checkpoint gave at version 0.1."""
    return np.array(stored('windows')[checkpoint.name])


def write_checkpoints() -> None:
    checkpoints.write_class_token_checkpoint()
    with tempfile.TemporaryDirectory() as folder:
        scene = small_scene.write_small_scene(Path(folder))
        mask = small_scene.products(scene, Path(folder), 'recommended')['mask.tif']
        checkpoints.write_segmentation_checkpoint(scene, mask)
    windows = {
        path.name: small_scene.classes(load_predictor(path)).tolist()
        for path in (CHECKPOINT, SEGMENTATION)
    }
    (FOLDER / 'windows.json').write_text(json.dumps(windows) + '\n', 'utf-8')


def write_products() -> None:
    with tempfile.TemporaryDirectory() as folder:
        scene = small_scene.write_small_scene(Path(folder))
        for run in RUNS:
            found = small_scene.products(scene, Path(folder), run)
            write(f'products_{run}', product_facts.facts(found))
            pixels: Any = product_facts.rasters(found)
            np.savez_compressed(FOLDER / f'products_{run}.npz', **pixels)


def write_batches() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = small_scene.write_small_scene(folder)
        mask = small_scene.products(scene, folder, 'paint')['mask.tif']
        write('batches', batches.batches(scene, mask, folder / 'tiles'))


def write(name: str, content: Any) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False)
    (FOLDER / f'{name}.json').write_text(text + '\n', 'utf-8')


def write_paths() -> None:
    before = stored('paths') if (FOLDER / 'paths.json').exists() else {}
    write('paths', public_paths.as_json(before))


WRITERS: dict[str, Callable[[], None]] = {
    'paths': write_paths,
    'flags': lambda: write('flags', interface.flags()),
    'keys': lambda: write('keys', interface.keys()),
    'products': write_products,
    'batches': write_batches,
    'checkpoints': write_checkpoints,
}

if __name__ == '__main__':
    if sys.argv[1:2] != ['--write'] or not WRITERS.keys() >= set(sys.argv[2:]):
        raise SystemExit(f'needed: --write and some of {", ".join(WRITERS)}')
    for name in sys.argv[2:]:
        WRITERS[name]()
