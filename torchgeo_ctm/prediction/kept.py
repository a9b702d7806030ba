"""Warn about existing maps that differ from what this run would write."""

import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CTMError, KeptMapWarning
from ..inference.options import ProductOptions
from ..options import options_of
from ..rasters import grid_of, open_raster
from .scene import chosen_detector

#: Tags that only some maps have.
OPTIONAL = frozenset({'ADAPT', 'RESAMPLE', 'CLOUDS', 'AREA', 'MERGE'})
#: A map of another version is not another map.
IGNORED_TAGS = frozenset({'TORCHGEO_CTM_VERSION'})
#: Longest value of a tag that a warning names.
LONGEST = 30


class KeptMaps:
    """Compares maps that are there with those that a run would make.

    By what the tags of a map record, by products that are missing, and by files of the
    scene that are newer than its map. The scene is opened, but no pixel is read.
    """

    def __init__(self, checkpoint: str | Path, options: Mapping[str, Any]) -> None:
        """Take what a run is given; nothing is loaded yet.

        Args:
            checkpoint: The checkpoint.
            options: Options of :func:`~torchgeo_ctm.prediction.predict_scene`.
        """
        self._checkpoint, self._options = checkpoint, options
        self._loaded: tuple[Any, str] | None = None

    def warn(self, scene: str, path: Path) -> None:
        """Warn if the run would make another map of a scene than the one at a path.

        Raises:
            CheckpointError: If the checkpoint cannot be used.
        """
        predictor, weights = self._load()
        try:
            with warnings.catch_warnings():
                # they were said when the map was made
                warnings.simplefilter('ignore')
                found = [*self._differences(scene, path, predictor, weights)]
        except (CTMError, OSError):
            # a scene may be deleted once it is mapped
            return
        if found:
            warnings.warn(
                f'{path} is kept, but this run would make another map: '
                f'{", ".join(found)}. Delete it to make it anew, or pass overwrite=True '
                'to replace all.',
                KeptMapWarning,
                stacklevel=3,
            )

    def _load(self) -> tuple[Any, str]:
        """Return the predictor and the hash of its weights, loaded once."""
        if self._loaded is None:
            # import PyTorch
            from ..inference.scene_loop import weights_hash
            from ..trainers.any_checkpoint import load_scene_predictor

            predictor = load_scene_predictor(self._checkpoint)
            self._loaded = predictor, weights_hash(predictor)
        return self._loaded

    def _differences(
        self, scene: str, path: Path, predictor: Any, weights: str
    ) -> Iterator[str]:
        """Yield in a few words each what the run would do otherwise."""
        from ..inference.paths import product_paths
        from ..inference.scene_loop import map_tags
        from ..scenes.area import chosen_area
        from ..scenes.clouds import DILATION
        from ..scenes.coverage import Coverage

        given = self._options
        dilation = given.get('cloud_dilation', DILATION)
        detector = chosen_detector(
            given.get('clouds'), given.get('cloud_mask'), dilation
        )
        predictor.with_options(ensemble=given.get('ensemble'))
        own = {} if detector is None else {'clouds': 'none'}
        coverage = Coverage(**options_of(Coverage, given) | own)
        opened = coverage.batches([scene], predictor, 'cpu')[0].scene
        box, area = given.get('bbox'), given.get('area')
        opened.area = chosen_area(opened.scene, opened.grid, box, area)
        products = ProductOptions(**options_of(ProductOptions, given))
        wanted = map_tags(predictor, opened, weights, products)
        if coverage.adaptation(predictor) != 'none':
            wanted['ADAPT'] = coverage.adaptation(predictor)
        if detector is not None:
            wanted['CLOUDS'] = f'{detector} {version(detector)}, {dilation} px'
        with open_raster(path) as raster:
            tags, grid = raster.tags(), grid_of(raster)
        yield from _other_tags(tags, wanted)
        ours = opened.extent
        near = np.allclose(grid.transform, ours.transform, rtol=1e-9, atol=1e-9)
        if 'AREA' in tags and (grid[:2] != ours[:2] or not near):
            yield 'another area'
        made = path.stat().st_mtime
        inputs = [*opened.input_files(), *([Path(area)] if area else [])]
        # other programs write statistics beside a raster
        newer = [p.name for p in inputs if p.suffix != '.xml' and _time(p) > made]
        if newer:
            yield f'{newer[0]} is newer'
        for product in product_paths(path, products).values():
            if not product.exists():
                yield f'{product.name} is missing'


def _other_tags(found: Mapping[str, str], wanted: Mapping[str, str]) -> Iterator[str]:
    """Yield the tags that differ, with both values if these are short."""
    for key in sorted((wanted.keys() | OPTIONAL) - IGNORED_TAGS):
        one, other = found.get(key, ''), wanted.get(key, '')
        if one == other:
            continue
        if key == 'WEIGHTS_SHA256':
            yield 'another checkpoint'
        elif max(len(one), len(other)) > LONGEST:
            yield f'another {key}'
        else:
            yield f'{key} {other or "none"} instead of {one or "none"}'


def _time(path: Path) -> float:
    """Return when a file was written."""
    return path.stat().st_mtime
