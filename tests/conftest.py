"""Tiny real files, and a tiny model, that many tests share."""

import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from numpy.typing import NDArray

from tests.commands import Run, TorchGeoMain
from torchgeo_ctm import trainers
from torchgeo_ctm.main import main
from torchgeo_ctm.scaling import SENTINEL2_BANDS
from torchgeo_ctm.trainers import ClassTokenMaskingTask
from torchgeo_ctm.trainers.options import regrouped

SHARED = Path(__file__).parents[2] / 'shared'

WriteScene = Callable[..., Path]

TRANSFORM = Affine(10, 0, 500_000, 0, -10, 4_200_000)


def tiny_task(**kwargs: object) -> ClassTokenMaskingTask:
    """A model of a few thousand weights, chips of 32 px, patches of 8.

    Options may be given without their group, by their names of version 0.1.
    """
    arguments: dict[str, object] = {
        'model': 'ctm_vit_tiny_patch8_224',
        'img_size': 32,
        'num_classes': 3,
        'class_names': ['Forest', 'Water', 'Urban/Built-up'],
        'class_colors': ['#009900', '#1c0dff', '#a5a5a5'],
        'model_options': {'embed_dim': 16, 'depth': 2, 'num_heads': 2},
    }
    torch.manual_seed(0)
    return ClassTokenMaskingTask(**regrouped(arguments | kwargs))


def decisive(task: ClassTokenMaskingTask) -> ClassTokenMaskingTask:
    """Sharpen untrained maps, which are nearly flat, so that every class is in a mask."""
    for attention in task.model.attentions:
        attention.qkv.weight.data *= 30
    local = task.model.local_head
    if local is None:
        return task
    pixels = torch.from_numpy(scene_pixels(64, 64, local.stem.in_channels))
    training = task.training
    with torch.no_grad():
        local.head.weight *= 30
        logits = local.eval()(task.scaling(pixels[None].float()))
        local.head.bias -= logits.mean(dim=(0, 2, 3))
    task.train(training)
    return task


def save_task(task: ClassTokenMaskingTask, path: Path) -> Path:
    """Save a task and return where."""
    trainers.save_task(task, path)
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the slow tests: the fast ones keep all processes busy to the end."""
    items.sort(key=lambda item: item.get_closest_marker('slow') is None)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say which versions were tested."""
    names = ('torchgeo', 'torch', 'timm', 'lightning', 'rasterio', 'geopandas', 'numpy')
    found = ', '.join(f'{name} {version(name)}' for name in names)
    terminalreporter.write_line(f'Python {platform.python_version()}, {found}')


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``torchgeo-ctm`` in this process; return status, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        status = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = int(stop.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def torchgeo_main(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> TorchGeoMain:
    """Run ``torchgeo`` in this process and in ``tmp_path``; return its stdout."""
    import torchgeo.main

    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> str:
        capsys.readouterr()
        # TorchGeo sets options of GDAL, which other tests must not get
        with patch.dict(os.environ):
            torchgeo.main.main([str(argument) for argument in arguments])
        return capsys.readouterr().out

    return call


@pytest.fixture(scope='session')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the tiny model, with untrained weights."""
    return save_task(tiny_task(), tmp_path_factory.mktemp('checkpoint') / 'tiny.ckpt')


def scene_pixels(height: int, width: int, bands: int = 13) -> NDArray[np.uint16]:
    """Smoothly varying reflectances × 10,000, none of them 0."""
    rows, cols = np.mgrid[:height, :width]
    wave = np.sin(rows / 9)[None] + np.cos(cols / 7)[None]
    level = np.arange(1, bands + 1)[:, None, None] * 100
    pixels: NDArray[np.uint16] = (1500 + level + 300 * wave).astype(np.uint16)
    return pixels


@pytest.fixture
def write_scene(tmp_path: Path) -> WriteScene:
    """Write a georeferenced raster; every fact of it can be changed."""

    def write(
        name: str = 'scene.tif',
        height: int = 70,
        width: int = 90,
        pixels: NDArray[np.generic] | None = None,
        descriptions: tuple[str, ...] | None = SENTINEL2_BANDS,
        nodata: float | None = None,
        crs: str | None = 'EPSG:32630',
        transform: Affine = TRANSFORM,
    ) -> Path:
        values = scene_pixels(height, width) if pixels is None else pixels
        path = tmp_path / name
        with rasterio.open(
            path,
            'w',
            driver='GTiff',
            dtype=values.dtype,
            count=values.shape[0],
            height=values.shape[1],
            width=values.shape[2],
            crs=crs,
            transform=transform,
            nodata=nodata,
        ) as raster:
            raster.write(values)
            if descriptions is not None:
                raster.descriptions = descriptions
        return path

    return write


@pytest.fixture
def golden() -> Callable[[str], dict[str, NDArray[np.generic]]]:
    """Outputs of the reference network, where they lie beside the repository."""

    def load(name: str) -> dict[str, NDArray[np.generic]]:
        path = SHARED / 'golden' / f'{name}.npz'
        if not path.is_file():
            pytest.skip('golden vectors are not here')
        with np.load(path) as archive:
            return dict(archive)

    return load
