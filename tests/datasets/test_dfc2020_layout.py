from pathlib import Path

import pytest
import torch

from tests.fakes.dfc2020 import write_contest, write_dfc2020
from torchgeo_ctm.datasets import DFC2020
from torchgeo_ctm.datasets.dfc2020_layout import (
    PROTOCOLS,
    Layout,
    find_layout,
    tile_names,
)
from torchgeo_ctm.errors import DataError, SettingError
from torchgeo_ctm.scaling import SENTINEL2_BANDS

SPLITS = ('train', 'val', 'test')


def empty_contest(root: Path, validation: int = 986, test: int = 5128) -> Layout:
    """The contest's tiles in full number, as empty files: protocols read names only."""
    for group, count in (('validation', validation), ('test', test)):
        for scene in range(2):
            folder = root / f'ROIs0000_{group}' / f'dfc_{scene}'
            folder.mkdir(parents=True)
            for patch in range(scene, count, 2):
                name = f'ROIs0000_{group}_dfc_{scene}_p{patch}.tif'
                (folder / name).touch()
    layout = find_layout(root, 'dfc2020_s1s2')
    assert layout is not None
    return layout


@pytest.mark.parametrize('protocol', ['B', 'C'])
def test_the_contest_gives_each_protocol_its_tiles(
    tmp_path: Path, protocol: str
) -> None:
    layout = empty_contest(tmp_path)
    names = {split: tile_names(layout, protocol, split) for split in SPLITS}
    counts = {split: len(names[split]) for split in SPLITS}
    assert counts == PROTOCOLS[protocol]
    groups = {split: {name.split('_')[1] for name in names[split]} for split in SPLITS}
    if protocol == 'B':
        assert groups == {
            'train': {'validation'}, 'val': {'validation'}, 'test': {'test'},
        }  # fmt: skip
        assert not set(names['train']) & set(names['val'])
        # every region is in both: of any five tiles in a row, one is held out
        together = layout.names('validation')
        assert [name in names['val'] for name in together[:10]] == 2 * [
            *4 * [False],
            True,
        ]
    else:
        assert groups == {
            'train': {'test'}, 'val': {'validation'}, 'test': {'validation'},
        }  # fmt: skip
        assert names['val'] == names['test']


def test_tiles_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = empty_contest(tmp_path, validation=24, test=1).names('validation')
    numbers = [tuple(int(part.strip('p.tif')) for part in name.split('_')[3:])
               for name in names]  # fmt: skip
    assert numbers == sorted(numbers)
    assert len(numbers) == 24


@pytest.mark.parametrize('by_group', [False, True])
def test_a_tile_is_read_from_its_own_three_files(
    tmp_path: Path, by_group: bool
) -> None:
    write_contest(tmp_path, by_group=by_group)
    bands = ('B01', 'VV')
    dataset = DFC2020(tmp_path, 'train', bands=bands, protocol='B')
    assert len(dataset) == 9
    assert len(DFC2020(tmp_path, 'val', protocol='B')) == 2
    assert len(DFC2020(tmp_path, 'test', protocol='B')) == 4
    for index in range(9):
        parts = {
            sensor: dataset.layout.path(str(dataset.files[index]), sensor).stem
            for sensor in ('s1', 's2', 'dfc')
        }
        plain = {name.replace(f'_{s}_', '_') for s, name in parts.items()}
        assert len(plain) == 1
        assert dataset[index]['image'].shape == (2, 32, 32)
    # no two tiles are one
    assert len({float(dataset[i]['image'][1, 0, 0]) for i in range(9)}) == 9


def test_both_layouts_of_the_same_tiles_agree(tmp_path: Path) -> None:
    write_contest(tmp_path / 'contest')
    contest = DFC2020(tmp_path / 'contest', 'test', protocol='C')
    bench = tmp_path / 'bench' / 'dfc2020_s1s2'
    for sensor in ('s1', 's2', 'dfc'):
        (bench / sensor).mkdir(parents=True)
        for name in map(str, contest.files):
            source = contest.layout.path(name, sensor)
            (bench / sensor / source.name).write_bytes(source.read_bytes())
    for split in SPLITS:
        (bench / f'dfc-{split}-new.csv').write_text('\n'.join(map(str, contest.files)))
    every = (*SENTINEL2_BANDS, 'VV', 'VH')
    ours = DFC2020(bench.parent, 'test', bands=every, protocol='C')
    contest = DFC2020(tmp_path / 'contest', 'test', bands=every, protocol='C')
    listed = DFC2020(bench.parent, 'train', bands=every)
    assert list(ours.files) == list(contest.files) == list(listed.files)
    for index in range(len(ours)):
        for other in (contest, listed):
            for key, value in ours[index].items():
                assert torch.equal(value, other[index][key])


def test_the_contest_with_the_lists_beside_it(tmp_path: Path) -> None:
    write_contest(tmp_path)
    listed = ['ROIs0000_test_dfc_2_p0.tif', 'ROIs0000_validation_dfc_0_p10.tif']
    (tmp_path / 'dfc-val-new.csv').write_text('\n'.join(listed) + '\n\n')
    dataset = DFC2020(tmp_path, 'val')
    assert list(dataset.files) == listed
    assert dataset[1]['mask'].shape == (32, 32)


def test_what_a_copy_does_not_have(tmp_path: Path) -> None:
    write_contest(tmp_path / 'contest')
    with pytest.raises(DataError, match=r"protocol A needs the lists .* 'B' or 'C'"):
        DFC2020(tmp_path / 'contest')
    write_dfc2020(tmp_path / 'bench')
    with pytest.raises(DataError, match=r"no label raster ROIs0000_test.*protocol 'A'"):
        DFC2020(tmp_path / 'bench', protocol='C')
    write_contest(tmp_path / 'few', validation=4)
    with pytest.raises(DataError, match='has 0 tiles in split val of protocol B'):
        DFC2020(tmp_path / 'few', 'val', protocol='B')


def test_an_unknown_protocol_or_split(tmp_path: Path) -> None:
    write_contest(tmp_path)
    with pytest.raises(SettingError, match="protocol='D'; needed: one of A, B, C"):
        DFC2020(tmp_path, protocol='D')  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r"split='vall'.*nearest: val"):
        DFC2020(tmp_path, 'vall', protocol='C')  # type: ignore[arg-type]
