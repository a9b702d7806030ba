import pytest
import torch

from torchgeo_ctm.errors import SettingError
from torchgeo_ctm.losses import diversity_loss, gate_penalty, pool_patch_logits


def test_pooling_of_constants_is_the_constant() -> None:
    logits = torch.full((2, 3, 4, 5), 1.5)
    for pooling in ('mean', 'logsumexp', 'rank', 'share'):
        pooled = pool_patch_logits(logits, pooling)
        torch.testing.assert_close(pooled, torch.full((2, 3), 1.5))


def test_logsumexp_lies_between_mean_and_maximum() -> None:
    logits = torch.randn(2, 3, 4, 5)
    pooled = pool_patch_logits(logits)
    assert (pooled > logits.mean(dim=(-2, -1))).all()
    assert (pooled < logits.amax(dim=(-2, -1))).all()


@pytest.mark.parametrize(('sharpness', 'limit'), [(1e-3, 'mean'), (1e4, 'amax')])
def test_sharpness_has_the_stated_limits(sharpness: float, limit: str) -> None:
    logits = torch.randn(2, 3, 4, 5)
    pooled = pool_patch_logits(logits.double(), 'logsumexp', sharpness)
    expected = getattr(logits.double(), limit)(dim=(-2, -1))
    torch.testing.assert_close(pooled, expected, atol=2e-3, rtol=0)


def test_rank_pooling_by_hand() -> None:
    logits = torch.tensor([3.0, 1.0, 2.0]).view(1, 1, 1, 3)
    weights = [1, 0.996, 0.996**2]
    expected = (3 * weights[0] + 2 * weights[1] + 1 * weights[2]) / sum(weights)
    assert pool_patch_logits(logits, 'rank').item() == pytest.approx(expected)


def test_share_pooling_by_hand() -> None:
    logits = torch.tensor([0.0, 4.0, 1.0, 3.0, 2.0]).view(1, 1, 1, 5)
    # twice the share is 0.8: weights 1 − 0.1/0.8, 1 − 0.3/0.8, …, none for the last
    weights = [0.875, 0.625, 0.375, 0.125]
    expected = sum(w * x for w, x in zip(weights, (4, 3, 2, 1), strict=True)) / 2
    pooled = pool_patch_logits(logits, 'share', least_share=0.4)
    assert pooled.item() == pytest.approx(expected)
    # a share of less than one patch asks for the highest alone
    assert pool_patch_logits(logits, 'share', least_share=1e-3).item() == 4


def test_unknown_pooling_is_refused() -> None:
    with pytest.raises(SettingError, match='nearest: share'):
        pool_patch_logits(torch.zeros(1, 1, 2, 2), 'shares')  # type: ignore[arg-type]


def test_diversity_of_equal_and_of_disjoint_maps() -> None:
    disjoint = torch.eye(4).view(1, 4, 2, 2)
    equal = torch.ones(1, 4, 2, 2)
    everything = torch.ones(1, 4)
    for form in ('present', 'reference'):
        assert diversity_loss(disjoint, everything, form) < 1e-5
    # the Gram matrix of equal maps minus the identity: 12 ones, norm sqrt(12)
    assert diversity_loss(equal, everything, 'reference').item() == pytest.approx(
        12**0.5
    )
    assert diversity_loss(equal, everything).item() == pytest.approx(12**0.5 / 12)


def test_diversity_of_present_classes_only() -> None:
    maps = torch.rand(2, 4, 3, 3)
    presence = torch.tensor([[1.0, 1, 0, 0], [1, 0, 0, 0]])
    changed = maps.clone()
    changed[:, 2:] = 1
    torch.testing.assert_close(
        diversity_loss(maps, presence), diversity_loss(changed, presence)
    )
    single = maps[1:].clone().requires_grad_()
    diversity_loss(single, presence[1:]).backward()  # type: ignore[no-untyped-call]
    assert single.grad is not None
    assert torch.isfinite(single.grad).all()


def test_gate_penalty_is_the_expected_number_of_open_gates() -> None:
    penalty = gate_penalty([torch.tensor([1.0, 0.5]), torch.tensor([0.25])], 0.01)
    assert penalty.item() == pytest.approx(0.0175)
