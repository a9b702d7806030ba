"""The table at the end of a test: classes in their order, three digits."""

import re
from pathlib import Path

import pytest

from tests.conftest import tiny_task
from tests.fakes.chips import loader, trainer


@pytest.mark.parametrize('bar', [False, True])
@pytest.mark.parametrize('split', ['test', 'validate'])
def test_scores_are_in_order_with_three_digits(
    split: str, bar: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = tiny_task(class_names=['Water', 'Forest', 'Croplands'])
    run = trainer(tmp_path, enable_progress_bar=bar)
    prefix = 'val' if split == 'validate' else 'test'
    returned = getattr(run, split)(task, loader('image', 'mask', 'label'))
    lines = capsys.readouterr().out.splitlines()
    scores = [line.split() for line in lines if line.startswith(f'{prefix}_')]
    names = [name for name, _ in scores]
    assert all(re.fullmatch(r'\d+\.\d{3}', value) for _, value in scores)
    classes = [name for name in names if f'{prefix}_iou_' in name]
    assert classes == [f'{prefix}_iou_{name}' for name in ('Water', 'Forest')]
    assert set(names) == set(returned[0])
    # Lightning's table has a frame; its progress bar may be a line of ━
    assert not [line for line in lines if set(line) & set('│─┃')]


def test_nothing_is_printed_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, task = trainer(tmp_path), tiny_task(schedule='cosine')
    run.test(task, loader('image', 'label'), verbose=False)
    run.fit(task, loader('image', 'label'), loader('image', 'label'))
    assert capsys.readouterr().out == ''
