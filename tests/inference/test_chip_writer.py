from pathlib import Path

import numpy as np
import pytest

from torchgeo_ctm.errors import DataError, OutputError
from torchgeo_ctm.inference.chip_writer import ArrayRows


@pytest.mark.parametrize('lengths', [[1], [3, 2, 1], [7] * 20])
@pytest.mark.parametrize('dtype', ['u1', 'f4'])
def test_what_was_appended_is_read(
    tmp_path: Path, lengths: list[int], dtype: str
) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 255, (n, 2, 5)).astype(dtype) for n in lengths]
    rows = ArrayRows(tmp_path / 'a.npy')
    for part in parts:
        rows.append(part)
        assert not (tmp_path / 'a.npy').exists()
    rows.finish()
    read = np.load(tmp_path / 'a.npy', mmap_mode='r')
    assert read.dtype == dtype
    assert np.array_equal(read, np.concatenate(parts))
    assert [path.name for path in tmp_path.iterdir()] == ['a.npy']


def test_abandoned_rows_leave_nothing(tmp_path: Path) -> None:
    rows = ArrayRows(tmp_path / 'a.npy')
    rows.append(np.zeros((2, 3)))
    rows.abandon()
    assert not list(tmp_path.iterdir())


def test_rows_of_another_shape_are_refused(tmp_path: Path) -> None:
    rows = ArrayRows(tmp_path / 'a.npy')
    rows.append(np.zeros((2, 3)))
    with pytest.raises(
        DataError, match=r'Cannot add a \(4,\) chip to a.npy, which holds \(3,\)'
    ):
        rows.append(np.zeros((2, 4)))
    rows.abandon()


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match='Cannot write'):
        ArrayRows(tmp_path / 'none' / 'a.npy')


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='no full disk here')
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    rows = ArrayRows(tmp_path / 'a.npy')
    rows._file.close()
    with Path('/dev/full').open('wb') as rows._file:
        with pytest.raises(OutputError, match='No space left'):
            rows.append(np.zeros((1, 100_000)))
        rows.abandon()
    assert not list(tmp_path.iterdir())
