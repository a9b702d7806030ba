from typing import Any

import pytest
import torch

from torchgeo_ctm.errors import SettingError
from torchgeo_ctm.maps.decoder import MapDecoder, MapOptions


def test_the_ensemble_turns_maps_back() -> None:
    image = torch.rand(2, 3, 8, 8)
    decoder = MapDecoder(MapOptions(ensemble='dihedral'))
    found = decoder.average(image, lambda x: {'maps': x, 'probs': x.mean((-2, -1))})
    torch.testing.assert_close(found['maps'], image)
    torch.testing.assert_close(found['probs'], image.mean((-2, -1)))


def test_other_options_are_another_decoder() -> None:
    first = MapDecoder(MapOptions(threshold=0.3))
    changes = {'refinement': None, 'presence': 'threshold', 'rule': 'paint'}
    second = first.with_options(**changes)
    assert first.refines and not second.refines
    assert second.options == MapOptions(threshold=0.3, **changes)  # type: ignore[arg-type]


def test_painted_scores_are_one_hot() -> None:
    maps, probs = torch.rand(2, 3, 4, 4), torch.tensor([[0.9, 0.6, 0.1]] * 2)
    paint = MapOptions(rule='paint', presence='threshold', refinement=None)
    scores = MapDecoder(paint).scores(maps, probs, (8, 8))
    assert scores.shape == (2, 3, 8, 8)
    assert (scores.sum(1) == 1).all() and (scores[:, 2] == 0).all()
    shares = MapDecoder(MapOptions()).scores(maps, probs, (8, 8))
    assert shares.shape == maps.shape
    torch.testing.assert_close(shares.sum(1), torch.ones(2, 4, 4))


def test_tags_say_what_scores_depend_on() -> None:
    options = MapOptions(refinement_options={'trust': 0.5, 'rounds': 2})
    tags = {
        'MAP_SOURCE': 'patches',
        'MAP_RULE': 'argmax',
        'MAP_LABELS': 'predicted',
        'REFINEMENT': 'soft_assignment rounds=2 trust=0.5 weight=0.5',
        'ENSEMBLE': 'None',
        'PRESENCE': 'all',
        'PRESENCE_THRESHOLD': '0.5',
    }
    decoder = MapDecoder(options)
    assert decoder.tags() == tags
    alone = decoder.with_options(source='fused', refinement_weight=1)
    changed = {
        'MAP_SOURCE': 'fused',
        'REFINEMENT': 'soft_assignment rounds=2 trust=0.5',
    }
    assert alone.tags() == tags | changed


def test_every_class_may_be_in_a_mask_but_those_that_a_true_label_excludes() -> None:
    maps, probs = torch.rand(2, 3, 4, 4), torch.tensor([[0.9, 0.1, 0.0]] * 2)
    decoder = MapDecoder(MapOptions())
    found = decoder.shares(maps, probs)
    torch.testing.assert_close(found, maps / maps.sum(1, keepdim=True))
    found = decoder.with_options(labels='true').shares(maps, probs)
    # 0.1 stands for an unknown label
    assert (found[:, :2] > 0).all() and (found[:, 2] == 0).all()


def test_one_threshold_decides_presence_in_maps_and_in_warnings() -> None:
    """With ``presence='probability'`` a class of 30 % is drawn, so it is present."""
    probs = torch.tensor([[0.3, 0.001]])
    cases: tuple[tuple[Any, list[bool]], ...] = (
        ('threshold', [False, False]),
        ('probability', [True, False]),
        ('all', [True, True]),
    )
    for presence, expected in cases:
        decoder = MapDecoder(MapOptions(source='patches', presence=presence))
        assert (probs > decoder.threshold).tolist() == [expected]
        shares = decoder.shares(torch.full((1, 2, 1, 1), 0.5), probs)
        drawn = shares.flatten() > 0
        # the most probable class is drawn if none is present
        assert drawn.tolist() == ([True, False] if not any(expected) else expected)


@pytest.mark.parametrize(
    ('options', 'says'),
    [
        ({'source': 'x'}, r"Unknown maps\.source 'x'"),
        ({'threshold': -1.0}, r'maps\.threshold must be above 0'),
        ({'rule': 'paint'}, r"maps\.presence='all' requires maps\.rule='argmax'"),
    ],
)
def test_options_are_checked(options: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingError, match=says):
        MapDecoder(MapOptions(**options))
    with pytest.raises(SettingError, match=says):
        MapDecoder(MapOptions()).with_options(**options)
