"""What benchmarks/quality.py measures, and that it goes on where it stopped."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba_array

from benchmarks.quality import (
    Counts,
    Run,
    Setting,
    masks_path,
    run_rows,
    table,
    tiles,
    truth,
)
from benchmarks.quality_picture import side_by_side
from torchgeo_ctm.datasets import DFC2020

TINY = Setting(32, (4, 1, 3), 1, 2)
CHEAP = ['constant guess', 'label oracle', 'patch-8 grid oracle']


def halves(border: int) -> torch.Tensor:
    return (torch.arange(32) >= border).long().expand(1, 32, 32)


def test_the_truth_is_perfect() -> None:
    counts = Counts()
    counts.add(truth(halves(16)), halves(16))
    scores = counts.scores()
    assert (scores['miou'], scores['boundary_f'], scores['ece']) == (1, 1, 0)


@pytest.mark.parametrize(('border', 'found'), [(18, 1.0), (22, 0.0)])
def test_a_border_is_found_within_its_tolerance(border: int, found: float) -> None:
    counts = Counts()
    counts.add(truth(halves(border)), halves(16))
    assert counts.scores()['boundary_f'] == pytest.approx(found, abs=0.01)
    wrong = (border - 16) / 32
    assert counts.scores()['ece'] == pytest.approx(wrong)
    iou = (0.5 / (0.5 + wrong), (0.5 - wrong) / 0.5)
    assert counts.scores()['miou'] == pytest.approx(sum(iou) / 2)


def test_rows_that_are_there_are_not_made_again(tmp_path: Path) -> None:
    target = tmp_path / 'rows.jsonl'
    run_rows(tmp_path, TINY, CHEAP[:1], [0, 1], target)
    first = target.read_text()
    assert first.count('\n') == 1  # no seed changes it
    target.write_text(first + '{"row": "label or')
    results = run_rows(tmp_path, TINY, CHEAP, [0], target)
    assert target.read_text().startswith(first)
    assert [result['row'] for result in results] == CHEAP
    assert table(results).count('\n') == 5
    scores = {result['row']: result['predicted']['miou'] for result in results}
    assert scores['constant guess'] < scores['patch-8 grid oracle'] < 1


def test_ours_is_trained_once_for_both_rows(tmp_path: Path) -> None:
    rows, target = ['ours', 'ours without refinement'], tmp_path / 'rows.jsonl'
    results = run_rows(tmp_path, TINY, rows, [0], target)
    assert len(list(tmp_path.glob('*.ckpt'))) == 1
    assert results[0]['true'] != results[1]['true']


def test_a_picture_shows_the_rows_that_were_made(tmp_path: Path) -> None:
    run_rows(tmp_path, TINY, CHEAP[:1], [0], tmp_path / 'rows.jsonl')
    kept = masks_path(tmp_path, TINY, CHEAP[0], 0)
    batch = next(Run(tiles(tmp_path, TINY), TINY, 0, tmp_path).batches('test'))
    figure = side_by_side(batch, {'kept': kept, 'missing': tmp_path / 'missing.npy'})
    titles = [axis.get_title() for axis in figure.axes[:3]]
    assert titles == ['RGB', 'truth', 'kept']
    drawn = np.asarray(figure.axes[2].images[0].get_array())
    palette = to_rgba_array(list(DFC2020.class_colors))
    first = (255 * palette[np.load(kept)[0]]).round()
    assert np.array_equal(drawn, first)
