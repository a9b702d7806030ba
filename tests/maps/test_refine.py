from typing import Any

import pytest
import torch
from torch import Tensor

from torchgeo_ctm.errors import SettingError
from torchgeo_ctm.maps.class_maps import posterior, resize
from torchgeo_ctm.maps.refine import check_refinement, geometric_blend, soft_assignment

SIZE = (32, 40)


def halves(noise: float = 0.3) -> tuple[Tensor, Tensor, Tensor]:
    """Two colours that meet in column 18, where no patch of 8 ends; blurred scores."""
    generator = torch.Generator().manual_seed(0)
    truth = (torch.arange(SIZE[1]) >= 18).expand(2, *SIZE).long()
    image = torch.randn(2, 5, *SIZE, generator=generator) * noise
    image += truth[:, None] * torch.tensor([1, -1, 2, 0, 0.5]).view(1, 5, 1, 1)
    share = torch.tensor([0.2, 0.2, 0.5, 0.8, 0.8]).expand(2, 1, 4, 5)
    absent = torch.zeros_like(share)
    return torch.cat([1 - share, share, absent], dim=1), image, truth


def right(scores: Tensor, truth: Tensor) -> float:
    return float((scores.argmax(dim=1) == truth).float().mean())


def test_the_border_moves_from_the_patch_grid_to_where_the_colours_meet() -> None:
    scores, image, truth = halves()
    before = right(resize(scores, SIZE), truth)
    after = right(soft_assignment(scores, image), truth)
    assert before < 0.96
    assert after > 0.99


def test_scores_sum_to_one_and_absent_classes_stay_absent() -> None:
    scores, image, _ = halves()
    refined = soft_assignment(scores, image)
    assert refined.shape == (2, 3, *SIZE)
    assert refined.dtype == torch.float32
    torch.testing.assert_close(refined.sum(dim=1), torch.ones(2, *SIZE))
    assert (refined[:, 2] == 0).all()
    assert (refined >= 0).all()


@pytest.mark.parametrize('value', [0.0, 0.3, 2500.0])
def test_a_flat_image_leaves_the_scores(value: float) -> None:
    scores, image, _ = halves()
    refined = soft_assignment(scores, torch.full_like(image, value))
    torch.testing.assert_close(refined, resize(scores, SIZE), atol=1e-5, rtol=0)


def test_no_likelihood_and_no_neighbours_leave_the_scores() -> None:
    scores, image, _ = halves()
    refined = soft_assignment(scores, image, likelihood=0.0)
    torch.testing.assert_close(refined, resize(scores, SIZE), atol=1e-5, rtol=0)


def test_order_units_and_offsets_of_bands_do_not_matter() -> None:
    scores, image, _ = halves()
    expected = soft_assignment(scores, image)
    order = [3, 0, 4, 2, 1]
    gain = torch.tensor([-3.0, 0.01, 700, 1, 20]).view(1, 5, 1, 1)
    changed = image[:, order] * gain + 50 * gain
    refined = soft_assignment(scores, changed)
    torch.testing.assert_close(refined, expected, atol=1e-3, rtol=0)


def test_every_image_is_alone() -> None:
    scores, image, _ = halves()
    image[1] = image[1].roll(7, dims=-1) * 5
    together = soft_assignment(scores, image)
    for index in range(2):
        alone = soft_assignment(scores[index, None], image[index, None])
        torch.testing.assert_close(alone[0], together[index], atol=1e-4, rtol=0)


def test_one_present_class_has_everything() -> None:
    _, image, _ = halves()
    present = torch.tensor([[False, True, False]]).expand(2, 3)
    refined = soft_assignment(posterior(torch.rand(2, 3, 4, 5), present), image)
    torch.testing.assert_close(refined[:, 1], torch.ones(2, *SIZE))


@pytest.mark.parametrize('bands', [1, 5, 20])
def test_flat_and_repeated_bands_are_harmless(bands: int) -> None:
    scores, image, truth = halves()
    repeated = image[:, :1].repeat(1, bands, 1, 1)
    flat = torch.full((2, 2, *SIZE), 1e4)
    refined = soft_assignment(scores, torch.cat([repeated, flat], dim=1))
    assert refined.isfinite().all()
    assert right(refined, truth) > 0.95
    single = soft_assignment(scores, image[:, :1])
    if bands == 1:
        torch.testing.assert_close(refined, single, atol=0.02, rtol=0)


@pytest.mark.parametrize('filling', [0.0, 1e6, float('nan')])
def test_invalid_pixels_do_not_count(filling: float) -> None:
    scores, image, _ = halves()
    valid = torch.ones(2, *SIZE, dtype=torch.bool)
    valid[0, 5:20, 10:30] = False
    valid[1] = False
    first = soft_assignment(scores, image, valid)
    other = image.masked_fill(~valid[:, None], filling)
    second = soft_assignment(scores, other, valid)
    torch.testing.assert_close(first, second, atol=0, rtol=0)
    assert not torch.equal(first[0], soft_assignment(scores, image)[0])
    expected = resize(scores, SIZE)
    torch.testing.assert_close(first[1], expected[1], atol=1e-5, rtol=0)
    hole = ~valid[0]
    torch.testing.assert_close(
        first[0][:, hole], expected[0][:, hole], atol=1e-5, rtol=0
    )


def test_offsets_do_not_matter_beside_invalid_pixels() -> None:
    scores, image, _ = halves()
    valid = torch.ones(2, *SIZE, dtype=torch.bool)
    valid[:, 4:] = False
    expected = soft_assignment(scores, image, valid)
    refined = soft_assignment(scores, image + 500, valid)
    torch.testing.assert_close(refined, expected, atol=1e-2, rtol=0)


def test_trust_mixes_with_the_given_scores() -> None:
    scores, image, _ = halves()
    full = soft_assignment(scores, image, trust=1.0)
    half = soft_assignment(scores, image, trust=0.5)
    torch.testing.assert_close(half, (full + resize(scores, SIZE)) / 2)


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('soft_asignment', None, "Unknown.*Did you mean 'soft_assignment'"),
        (None, {'rounds': 2}, 'requires a refinement'),
        ('soft_assignment', {'round': 2}, "Unknown.*Did you mean 'rounds'"),
        ('soft_assignment', {'trust': 1.5}, 'must be 0 to 1, got 1.5'),
        ('soft_assignment', {'likelihood': -1}, 'must be 0 or more, got -1'),
    ],
)
def test_what_does_not_exist_is_refused(
    name: str | None, options: dict[str, Any] | None, message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        check_refinement(name, options)


def test_geometric_blend_lies_between_scores_and_refinement() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(2, 3, 8, 8, generator=generator)
    scores /= scores.sum(dim=1, keepdim=True)
    refined = torch.rand(2, 3, 8, 8, generator=generator)
    refined /= refined.sum(dim=1, keepdim=True)
    torch.testing.assert_close(geometric_blend(scores, refined, 1.0), refined)
    torch.testing.assert_close(geometric_blend(scores, refined, 0.0), scores)
    blended = geometric_blend(scores, refined)
    torch.testing.assert_close(blended.sum(dim=1), torch.ones(2, 8, 8))
    by_hand = (scores * refined).sqrt()
    torch.testing.assert_close(blended, by_hand / by_hand.sum(dim=1, keepdim=True))


def test_geometric_blend_keeps_absent_classes_absent_and_is_never_empty() -> None:
    scores = torch.zeros(1, 3, 4, 4)
    scores[:, 0] = 1
    refined = torch.zeros(1, 3, 8, 8)
    refined[:, 1] = 1
    blended = geometric_blend(scores, refined)
    assert blended.isfinite().all()
    torch.testing.assert_close(blended.sum(dim=1), torch.ones(1, 8, 8))
    assert not blended[:, 2].any()
