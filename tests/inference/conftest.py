import pytest

from torchgeo_ctm.inference import masks


@pytest.fixture(autouse=True)
def small_row_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small rasters are read in several row bands too."""
    monkeypatch.setattr(masks, 'ROW_BAND', 3000)
