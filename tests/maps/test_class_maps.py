from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_cdt

from torchgeo_ctm.errors import SettingError
from torchgeo_ctm.maps.class_maps import (
    argmax,
    class_maps,
    paint,
    posterior,
    present_classes,
    resize,
)


def test_attention_maps_have_mean_one() -> None:
    maps = class_maps(torch.rand(2, 3, 4, 5, 6), None, 'attention')
    torch.testing.assert_close(maps.mean((-2, -1)), torch.ones(2, 4))


def test_last_blocks_leave_the_others_out() -> None:
    attention = torch.rand(1, 3, 2, 4, 4)
    changed = attention.clone()
    changed[:, 0] = 7
    for source in (attention, changed):
        torch.testing.assert_close(
            class_maps(source, None, 'attention', last_blocks=2),
            class_maps(attention[:, 1:], None, 'attention'),
        )


def test_fused_is_the_product() -> None:
    attention, patches = torch.rand(2, 3, 4, 5, 6), torch.randn(2, 4, 5, 6)
    fused = class_maps(attention, patches, 'fused')
    expected = class_maps(attention, None, 'attention') * patches.sigmoid()
    torch.testing.assert_close(fused, expected)


def test_sources_that_cannot_be_are_refused() -> None:
    with pytest.raises(SettingError, match='requires a patch head'):
        class_maps(torch.rand(1, 1, 2, 3, 3), None, 'fused')
    with pytest.raises(SettingError, match='Unknown source'):
        class_maps(torch.rand(1, 1, 2, 3, 3), None, 'cam')  # type: ignore[arg-type]


def test_presence() -> None:
    probs = torch.tensor([[0.5, 0.6, 0.1], [0.2, 0.1, 0.3]])
    assert present_classes(probs).tolist() == [
        [False, True, False],  # exactly 0.5 is absent
        [False, False, True],  # nothing above: the most probable
    ]


def test_posterior_sums_to_one_over_present_classes() -> None:
    present = torch.tensor([[True, False, True]])
    shares = posterior(torch.rand(1, 3, 4, 4), present)
    torch.testing.assert_close(shares.sum(1), torch.ones(1, 4, 4))
    assert (shares[:, 1] == 0).all()
    zero = posterior(torch.zeros(1, 3, 4, 4), present)
    assert zero[0, :, 0, 0].tolist() == pytest.approx([0.5, 0, 0.5])


def test_resize_keeps_sums_over_classes_and_constants() -> None:
    shares = torch.rand(1, 3, 4, 4).softmax(dim=1)
    large = resize(shares, (29, 32))
    torch.testing.assert_close(large.sum(1), torch.ones(1, 29, 32))


def test_argmax_uses_present_classes_only() -> None:
    maps = torch.stack([torch.full((2, 2), v) for v in (1.0, 9.0, 2.0)])
    mask = argmax(maps, torch.tensor([0.9, 0.1, 0.8]), (8, 8))
    assert mask.shape == (8, 8)
    assert (mask == 2).all()


def test_the_most_probable_class_is_painted_last() -> None:
    maps = torch.zeros(2, 2, 2)
    maps[:, 0] = 1
    assert paint(maps, torch.tensor([0.9, 0.6]), (2, 2))[0].tolist() == [0, 0]
    assert paint(maps, torch.tensor([0.6, 0.9]), (2, 2))[0].tolist() == [1, 1]


def test_a_flat_map_claims_nothing() -> None:
    maps = torch.ones(2, 2, 2)
    maps[1, 0, 0] = 5
    mask = paint(maps, torch.tensor([0.9, 0.6]), (2, 2))
    assert (mask == 1).all()
    maps[0] = 0  # the reference's exception
    assert (paint(maps, torch.tensor([0.9, 0.6]), (2, 2)) == 0).all()
    both_flat = paint(torch.ones(2, 2, 2), torch.tensor([0.9, 0.6]), (3, 3))
    assert (both_flat == 0).all()


def test_unpainted_pixels_take_a_nearest_class() -> None:
    maps = torch.zeros(2, 1, 8)
    maps[0, 0, 0] = 1
    maps[1, 0, 7] = 1
    mask = paint(maps, torch.tensor([0.9, 0.6]), (1, 8))
    assert mask[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize('name', ['unpruned', 'pruned'])
@pytest.mark.parametrize('source', ['attention', 'fused'])
def test_paint_is_the_reference(
    name: str, source: str, golden: Callable[[str], dict[str, Any]]
) -> None:
    archive = golden(name)
    maps, probs = (torch.from_numpy(archive[key]) for key in (source, 'probs'))
    expected = archive[f'pseudo_from_{source}']
    for map_, prob, want in zip(maps, probs, expected, strict=True):
        got = paint(map_, prob, (96, 96)).numpy()
        present = (prob > 0.5).numpy()
        upsampled = resize(map_[None], (96, 96))[0]
        claims = (upsampled >= upsampled.mean((-2, -1), keepdim=True)).numpy()
        painted = (claims & present[:, None, None]).any(axis=0)
        np.testing.assert_array_equal(got[painted], want[painted])
        # a filled pixel carries a class that is painted at the smallest distance
        distances = np.stack(
            [
                distance_transform_cdt(~(painted & (want == c)), metric='taxicab')
                if (painted & (want == c)).any()
                else np.full(want.shape, 999)
                for c in range(len(prob))
            ]
        )
        nearest = distances.min(axis=0)
        rows, cols = np.nonzero(~painted)
        np.testing.assert_array_equal(
            distances[got[rows, cols], rows, cols], nearest[rows, cols]
        )
