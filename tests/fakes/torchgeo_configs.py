"""The configurations for TorchGeo's own data modules, over small real files."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.fakes.torchgeo_data import (
    write_bigearthnet,
    write_l8biome,
    write_landcoverai,
    write_sen12ms,
)

CONFIGS = Path(__file__).parents[2] / 'configs'

#: What makes the data set of each configuration.
MAKERS: dict[str, Callable[[Path], object]] = {
    'bigearthnet': write_bigearthnet,
    'landcoverai': write_landcoverai,
    'sen12ms': write_sen12ms,
    'l8biome': write_l8biome,
}

#: Side of a chip where it is less than the configuration's.
CHIPS = {'bigearthnet': 120, 'landcoverai': 64, 'sen12ms': 64, 'l8biome': 32}


def small_config(name: str, folder: Path, **more: Any) -> Path:
    """Write a configuration with less of everything, and its data.

    Args:
        name: Which of ``configs/*.yaml``.
        folder: Where to write.
        **more: Sections to change, ``model={'init_args': {…}}``.
    """
    data: dict[str, Any] = {'batch_size': 2, 'num_workers': 0}
    place: dict[str, Any] = {'root': str(folder / name)}
    if name == 'sen12ms':
        # since TorchGeo 0.9 it compares its lists with those of the originals
        place['checksum'] = False
    if name == 'l8biome':
        data['patch_size'] = CHIPS[name]
        place = {'paths': str(folder / name)}
    MAKERS[name](folder / name)
    options = {'embed_dim': 16, 'depth': 2, 'num_heads': 2}
    content = yaml.safe_load((CONFIGS / f'{name}.yaml').read_text())
    for change in (
        {'trainer': {'accelerator': 'cpu', 'precision': '32-true', 'max_epochs': 1}},
        {'model': {'init_args': {'img_size': CHIPS[name], 'model_options': options}}},
        {'data': {'init_args': data, 'dict_kwargs': place}},
        more,
    ):
        _change(content, change)
    path = folder / f'{name}.yaml'
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def _change(content: dict[str, Any], change: Mapping[str, Any]) -> None:
    """Change a nested dictionary in place."""
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(content.get(key), dict):
            _change(content[key], value)
        else:
            content[key] = value
