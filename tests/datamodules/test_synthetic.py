from pathlib import Path

from torchgeo_ctm.datamodules import SyntheticDataModule


def test_tiles_are_made_once(tmp_path: Path) -> None:
    datamodule = SyntheticDataModule(
        batch_size=2, img_size=24, root=str(tmp_path), num_tiles=(4, 2, 2), size=32
    )
    datamodule.prepare_data()
    made = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*.tif')}
    assert len(made) == 16
    datamodule.setup('fit')
    [first, second] = list(datamodule.train_dataloader())
    assert first['image'].shape == second['image'].shape == (2, 13, 24, 24)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*.tif')} == made
