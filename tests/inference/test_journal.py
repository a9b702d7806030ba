"""What a run leaves on disk, and what the next one makes of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from torchgeo_ctm.errors import OutputError
from torchgeo_ctm.inference.journal import ScoreJournal

SETTINGS = {'STRIDE': '16', 'size': [70, 90]}


def started(folder: Path, **changes: str) -> tuple[ScoreJournal, str | None]:
    journal = ScoreJournal(folder / '.m.tif.part', SETTINGS | changes, 7)
    reason = journal.start()
    journal.reload()
    return journal, reason


@pytest.mark.parametrize(
    ('shape', 'dtype'), [((3, 4, 4), np.float32), ((3, 9, 9), np.uint8)]
)
def test_records_survive(tmp_path: Path, shape: tuple[int, ...], dtype: type) -> None:
    rng = np.random.default_rng(0)
    scores: NDArray[Any] = (100 * rng.random((3, *shape))).astype(dtype)
    valid = rng.random((3, 9, 9)) > 0.5
    numbers = np.array([5, 0, 2])
    journal, reason = started(tmp_path)
    assert reason is None
    journal.write(numbers, scores, valid, np.array([False, True, False]))
    again, reason = started(tmp_path)
    assert reason is None
    assert again.finished.tolist() == [2, 0, 1, 0, 0, 1, 0]
    found, known = again.read(numbers, 9)
    np.testing.assert_array_equal(found, scores)
    assert found.dtype == dtype
    np.testing.assert_array_equal(known, valid)


def test_a_run_with_other_settings_starts_over(tmp_path: Path) -> None:
    journal, _ = started(tmp_path)
    one = np.ones((1, 3), np.float32), np.ones((1, 8, 8), bool), np.zeros(1, bool)
    journal.write(np.array([1]), *one)
    again, reason = started(tmp_path, STRIDE='8')
    assert reason == 'STRIDE changed'
    assert not again.finished.any()


def test_a_journal_of_an_older_version_starts_over(tmp_path: Path) -> None:
    folder = tmp_path / '.m.tif.part'
    folder.mkdir()
    (folder / 'settings.json').write_text('{"STRIDE": "16", "size": [70, 90]}')
    for name in ('finished', 'records', 'layout.json'):
        (folder / name).write_bytes(bytes(7))
    journal, reason = started(tmp_path)
    assert reason == 'its files are damaged or have an older layout'
    assert not journal.finished.any()
    assert sorted(p.name for p in folder.iterdir()) == ['settings.json']


def test_two_runs_do_not_share_an_output(tmp_path: Path) -> None:
    journal, _ = started(tmp_path)
    journal.lock()
    other = ScoreJournal(journal.folder, SETTINGS, 7)
    with pytest.raises(OutputError, match=r'Another run is writing .*m\.tif'):
        other.lock()
    journal.close()
    other.lock()
    other.close()
