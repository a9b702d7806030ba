import math

import pytest
import torch

from torchgeo_ctm.errors import SettingError
from torchgeo_ctm.losses import (
    attention_loss,
    balance_weights,
    diversity_loss,
    gate_penalty,
    pool_patch_logits,
)


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
    pooled = pool_patch_logits(logits, 'share', share=0.4)
    assert pooled.item() == pytest.approx(expected)
    # a share of less than one patch asks for the highest alone
    assert pool_patch_logits(logits, 'share', share=1e-3).item() == 4


def test_unknown_pooling_is_refused() -> None:
    with pytest.raises(SettingError, match="Did you mean 'share'"):
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


def test_unknown_forms_and_numbers_out_of_range_are_refused() -> None:
    maps, presence = torch.rand(1, 2, 3, 3), torch.ones(1, 2)
    with pytest.raises(SettingError, match=r"Unknown form 'refernce'.*'reference'"):
        diversity_loss(maps, presence, form='refernce')  # type: ignore[arg-type]
    for options in ({'share': 1.5}, {'share': -1}, {'sharpness': -1.0}):
        [name] = options
        with pytest.raises(SettingError, match=f'^{name}='):
            pool_patch_logits(maps, **options)


def test_the_limits_of_sharpness_themselves() -> None:
    logits = torch.rand(2, 3, 4, 4)
    mean = pool_patch_logits(logits, sharpness=0.0)
    assert torch.equal(mean, logits.mean(dim=(-2, -1)))
    most = pool_patch_logits(logits, sharpness=math.inf)
    assert torch.equal(most, logits.amax(dim=(-2, -1)))


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


def test_competing_classes_pool_the_log_odds_of_the_softmax() -> None:
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    shares = logits.softmax(dim=1)
    by_hand = (shares / (1 - shares)).log().mean(dim=(-2, -1))
    pooled = pool_patch_logits(logits, 'mean', compete=True)
    torch.testing.assert_close(pooled, by_hand, rtol=1e-4, atol=1e-4)


def test_what_all_classes_share_does_not_move_competing_classes() -> None:
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    ours, raised = (
        pool_patch_logits(maps, 'share', share=0.25, compete=True)
        for maps in (logits, logits + 7)
    )
    torch.testing.assert_close(ours, raised, rtol=1e-4, atol=1e-4)


class TestBalance:
    frequency = torch.tensor([0.9, 0.5, 0.1])

    def test_presences_and_absences_weigh_the_same_in_sum(self) -> None:
        labels = torch.zeros(10, 3)
        for column, count in enumerate((9, 5, 1)):
            labels[:count, column] = 1
        weights = balance_weights(labels, self.frequency, 1.0)
        present = (weights * labels).sum(dim=0)
        absent = (weights * (1 - labels)).sum(dim=0)
        torch.testing.assert_close(present, absent)

    def test_without_balance_every_label_weighs_one(self) -> None:
        labels = torch.eye(3)
        assert (balance_weights(labels, self.frequency, 0.0) == 1).all()

    def test_a_class_that_never_occurs_has_a_finite_weight(self) -> None:
        weights = balance_weights(torch.eye(3), torch.tensor([0.0, 1.0, 0.5]), 1.0)
        assert weights.isfinite().all() and weights.max().item() == pytest.approx(50)


class TestAttentionLoss:
    presence = torch.tensor([[1.0, 1.0, 0.0]])

    def patches(self) -> torch.Tensor:
        """Left half class 0, right half class 1, on a grid of 4 × 4."""
        logits = torch.full((1, 3, 4, 4), -20.0)
        logits[:, 0, :, :2], logits[:, 1, :, 2:] = 20.0, 20.0
        return logits

    def attention(self, sharp: float) -> torch.Tensor:
        """Attention (1, 2 blocks, 3 classes, 2, 2) in *sharp* agreement with it."""
        rows = torch.full((1, 2, 3, 2, 2), 0.25)
        rows[:, :, 0, :, 0] += sharp
        rows[:, :, 0, :, 1] -= sharp
        rows[:, :, 1, :, 0] -= sharp
        rows[:, :, 1, :, 1] += sharp
        return rows

    def test_it_falls_as_attention_agrees_with_the_patches(self) -> None:
        losses = [
            attention_loss(self.attention(sharp), self.patches(), self.presence)
            for sharp in (-0.2, 0.0, 0.2, 0.25)
        ]
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] < 1e-3
        assert losses[1].item() == pytest.approx(math.log(2), abs=1e-4)

    def test_patches_get_no_gradient(self) -> None:
        patches = self.patches().requires_grad_()
        attention = self.attention(0.1).requires_grad_()
        loss = attention_loss(attention, patches, self.presence)
        loss.backward()  # type: ignore[no-untyped-call]
        assert patches.grad is None
        assert attention.grad is not None and attention.grad.isfinite().all()
        # the token of a class that is absent is taught nothing
        assert not attention.grad[:, :, 2].any()

    def test_an_image_without_a_present_class_teaches_nothing(self) -> None:
        nothing = attention_loss(self.attention(0.1), self.patches(), torch.zeros(1, 3))
        assert nothing.item() == 0
