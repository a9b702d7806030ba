import math

import pytest
import torch

from torchgeo_ctm.trainers.metrics import BalancedBCE, BestShift, MeanAveragePrecision


def test_mean_average_precision_leaves_out_classes_that_never_occur() -> None:
    metric = MeanAveragePrecision(3)
    target = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0]])
    metric.update(target.float() * 0.8 + 0.1, target)
    assert metric.compute() == 1
    metric.reset()
    metric.update(torch.rand(2, 3), torch.zeros(2, 3, dtype=torch.long))
    assert metric.compute() == 0


def test_the_best_shift_separates_what_can_be_separated() -> None:
    presence = (torch.rand(200, 4, generator=torch.manual_seed(0)) < 0.3).float()
    presence[:, 2] = 0  # never
    presence[:, 3] = 1  # always
    logits = 2 + presence + 0.1 * torch.rand(200, 4)
    for threshold in (0.5, 0.3):
        metric = BestShift(threshold)
        for part in (slice(0, 90), slice(90, 200)):
            metric.update(logits[part], presence[part])
        shift = metric.compute()
        predicted = (logits + shift).sigmoid() > threshold
        assert torch.equal(predicted[:, :2], presence[:, :2].bool())
        assert shift[2:].tolist() == [0, 0]


def test_no_shift_is_better() -> None:
    generator = torch.manual_seed(1)
    presence = (torch.rand(300, 1, generator=generator) < 0.4).float()
    logits = 1.5 * presence + torch.randn(300, 1, generator=generator)

    def f1(cut: float) -> float:
        taken = (logits > cut).float()
        return float(2 * (taken * presence).sum() / (taken.sum() + presence.sum()))

    metric = BestShift(0.5)
    metric.update(logits, presence)
    best = f1(-float(metric.compute()))
    assert best >= max(f1(cut / 50) for cut in range(-150, 150)) - 1e-6


def test_what_is_not_known_does_not_count() -> None:
    generator = torch.manual_seed(2)
    presence = (torch.rand(120, 3, generator=generator) < 0.4).float()
    logits = 2 * presence + torch.randn(120, 3, generator=generator)
    known = torch.rand(120, generator=generator) < 0.5
    partial = presence.masked_fill(~known[:, None], -1)
    partial[:, 2] = -1
    shift, precision = BestShift(0.5), MeanAveragePrecision(3)
    shift.update(logits, partial)
    precision.update(logits.sigmoid(), partial.long())
    alone = BestShift(0.5), MeanAveragePrecision(2)
    alone[0].update(logits[known], presence[known])
    alone[1].update(logits[known, :2].sigmoid(), presence[known, :2].long())
    torch.testing.assert_close(shift.compute()[:2], alone[0].compute()[:2])
    assert shift.compute()[2] == 0
    torch.testing.assert_close(precision.compute(), alone[1].compute())


class TestBalancedBCE:
    def shares(self, *values: float) -> torch.Tensor:
        """One chip whose classes cover these shares of it."""
        return torch.tensor(values).view(1, -1, 1, 1).expand(1, -1, 4, 4)

    def test_a_class_at_the_share_that_makes_it_present_is_undecided(self) -> None:
        for label in (0.0, 1.0):
            metric = BalancedBCE(2, 0.1)
            metric.update(self.shares(0.1, 0.1), torch.full((1, 2), label))
            assert metric.compute().item() == pytest.approx(math.log(2), abs=1e-5)

    def test_any_share_may_make_a_class_present(self) -> None:
        metric = BalancedBCE(2, 0.0)
        metric.update(self.shares(0.5, 0.0), torch.tensor([[1.0, 0.0]]))
        assert 0 <= metric.compute().item() < 1

    def test_better_areas_score_lower(self) -> None:
        values = []
        for wrong in (0.0, 0.1, 0.3, 0.5):
            metric = BalancedBCE(2)
            metric.update(self.shares(1 - wrong, wrong), torch.tensor([[1.0, 0.0]]))
            values.append(metric.compute().item())
        assert values == sorted(values)

    def test_rare_presences_count_as_much_as_many_absences(self) -> None:
        metric = BalancedBCE(1)
        for _ in range(99):
            metric.update(self.shares(0.0), torch.zeros(1, 1))
        metric.update(self.shares(0.1), torch.ones(1, 1))
        assert metric.compute().item() == pytest.approx(math.log(2) / 2, abs=1e-3)

    def test_unknown_labels_and_classes_without_labels_are_left_out(self) -> None:
        metric = BalancedBCE(3)
        metric.update(self.shares(0.1, 0.9, 0.9), torch.tensor([[1.0, -1.0, -1.0]]))
        assert metric.compute().item() == pytest.approx(math.log(2), abs=1e-5)
