import torch

from torchgeo_ctm.models import HardConcreteGate


def test_gates_are_hard_and_repeatable_in_evaluation() -> None:
    gate = HardConcreteGate(4).eval()
    gate.log_a.data = torch.tensor([-5.0, -0.1, 0.1, 5.0])
    # z = 1.2 sigmoid(log_a) - 0.1 exceeds one half where log_a > 0
    assert gate().tolist() == [0, 0, 1, 1]


def test_gates_start_open() -> None:
    assert HardConcreteGate(4).eval()().tolist() == [1, 1, 1, 1]


def test_the_gradient_passes_through_the_hard_value() -> None:
    gate = HardConcreteGate(4).eval()
    gate().sum().backward()
    assert gate.log_a.grad is not None
    assert (gate.log_a.grad > 0).all()


def test_training_samples_by_seed() -> None:
    gate = HardConcreteGate(64)
    gate.log_a.data.zero_()
    torch.manual_seed(0)
    first = gate()
    assert 0 < first.mean() < 1
    torch.manual_seed(0)
    assert torch.equal(gate(), first)


def test_open_probability_grows_with_log_a() -> None:
    gate = HardConcreteGate(3)
    gate.log_a.data = torch.tensor([-9.0, 0.0, 9.0])
    probability = gate.open_probability()
    assert (probability.diff() > 0).all()
    assert probability[0] < 0.01
    assert probability[2] > 0.99
