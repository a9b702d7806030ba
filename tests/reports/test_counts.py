import warnings

import numpy as np
import pytest

from torchgeo_ctm.errors import LabelWarning
from torchgeo_ctm.reports.counts import LabelCounts

NAMES = ['Forest', 'Water', 'Urban']


def counts(*labels: list[float], known: list[list[bool]] | None = None) -> LabelCounts:
    counted = LabelCounts(3)
    for index, label in enumerate(labels):
        sure = np.array(known[index]) if known else None
        counted.update(np.array(label), sure)
    return counted


def test_labels_and_areas_are_counted() -> None:
    counted = counts([1, 0, 0], [1, 1, 0], [0, 0, 0])
    counted.update(mask=np.array([[0, 0, 2, 255], [-1, 3, 2, 2]]))
    assert (counted.chips, counted.labeled, counted.masked) == (4, 3, 1)
    assert counted.empty == 1
    assert counted.ignored == 3
    found = counted.content(NAMES)
    assert found['Forest']['chips'] == 2
    assert found['Forest']['chip_share'] == pytest.approx(2 / 3)
    assert found['Forest']['area_share'] == pytest.approx(2 / 5)
    assert found['Water']['area_share'] == 0
    assert any(line.split()[0] == 'Urban' for line in counted.report(NAMES))


def test_what_is_unknown_is_not_counted() -> None:
    counted = counts([1, 1, 0], [1, 0, 0], known=[[True, False, False]] * 2)
    assert counted.present.tolist() == [2, 0, 0]
    assert counted.known.tolist() == [2, 0, 0]
    assert counted.content(NAMES)['Water']['chip_share'] is None
    with pytest.warns(LabelWarning) as caught:
        counted.warn(NAMES)
    said = [str(warning.message) for warning in caught]
    assert len(said) == 2
    assert said[0].startswith('Known in none of 2 labeled chips: Water; Urban. ')
    assert said[1].startswith('Present in all of 2 labeled chips: Forest. ')


def test_classes_that_cannot_be_learned_are_named() -> None:
    with pytest.warns(LabelWarning) as caught:
        counts([1, 0, 1], [1, 0, 0]).warn(NAMES)
    said = [str(warning.message) for warning in caught]
    assert len(said) == 2
    assert 'Present in none of 2 labeled chips: Water. ' in said[0]
    assert 'Present in all of 2 labeled chips: Forest. ' in said[1]
    # Urban is there or not, so where it is not tells where Forest is
    assert 'patches: {compete: true}' in said[1]
    with pytest.warns(LabelWarning, match='Forest; Urban. They cannot be told'):
        counts([1, 0, 1], [1, 0, 1]).warn(NAMES)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        counts([1, 0, 1], [0, 1, 0]).warn(NAMES)
        LabelCounts(3).warn(NAMES)


def test_presence_alone_is_told_with_the_way_out() -> None:
    some = [[True, False, False], [False, True, False], [False, False, True]]
    alone = counts([1, 0, 0], [0, 1, 0], [0, 0, 1], known=some)
    with pytest.warns(LabelWarning) as caught:
        alone.warn(NAMES)
    said = [str(warning.message) for warning in caught]
    assert len(said) == 1
    assert said[0].startswith(
        'Present wherever known, in some of 3 labeled chips: Forest; Water; Urban. '
    )
    assert 'training requires absent classes. Set complete: true if' in said[0]
    alone.update(np.array([0, 0, 1]), np.array([True, True, True]))
    with pytest.warns(
        LabelWarning, match='known, in some of 4 .*: Urban. They can only be'
    ):
        alone.warn(NAMES)


def test_area_is_reported_of_masks_only() -> None:
    counted = counts([1, 0, 0])
    assert 'of area' not in counted.report(NAMES)[0]
    counted.update(mask=np.zeros((2, 2), np.int64))
    assert 'of area' in counted.report(NAMES)[0]
