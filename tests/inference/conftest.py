import pytest

from torchgeo_ctm.inference import masks


@pytest.fixture(autouse=True)
def small_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small rasters are read in several strips too."""
    monkeypatch.setattr(masks, 'STRIP', 3000)
