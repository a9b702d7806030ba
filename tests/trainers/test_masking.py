import pytest
import torch

from torchgeo_ctm.errors import SettingError
from torchgeo_ctm.trainers.masking import draw_masking, mask_schedule


def test_masking_spares_present_classes_and_keeps_its_rate() -> None:
    random = torch.Generator().manual_seed(1)
    presence = (torch.rand(2000, 5, generator=random) < 0.4).float()
    drop = draw_masking(presence, 0.3, torch.Generator().manual_seed(0))
    assert not (drop & (presence == 1)).any()
    assert drop[presence == 0].float().mean() == pytest.approx(0.3, abs=0.02)
    again = draw_masking(presence, 0.3, torch.Generator().manual_seed(0))
    assert torch.equal(drop, again)
    assert not draw_masking(presence, 0.0, torch.Generator()).any()


@pytest.mark.parametrize(
    ('rate', 'expected'),
    [(0.5, [(0, 0.5)]), (0, [(0, 0)]), ([[1, 0.2], [3, 0.5]], [(1, 0.2), (3, 0.5)])],
)
def test_a_rate_is_a_schedule_from_the_start(rate: float, expected: object) -> None:
    assert mask_schedule(rate) == expected


@pytest.mark.parametrize('rate', [1, -0.1, [], [[3, 0.2], [1, 0.5]], [[-1, 0.2]]])
def test_rates_that_are_none_are_refused(rate: float) -> None:
    with pytest.raises(SettingError, match='mask_rate='):
        mask_schedule(rate)
