"""Map many scenes, or every Nth of them: one process of any scheduler each."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import CheckpointError, CTMError, OutputError, SettingError, one_line
from ..files import given_paths
from ..inference.options import ProductOptions
from .kept import KeptMaps
from .scene import predict_scene


class Mapped(NamedTuple):
    """What became of a scene."""

    scene: str
    #: Its class raster.
    path: Path
    #: Whether that was there before.
    kept: bool = False
    #: Why there is none, None if there is one.
    failure: str | None = None


def read_shard(text: str) -> tuple[int, int]:
    """Return I and N of ``I/N``.

    Raises:
        SettingError: If that is no shard.
    """
    match = re.fullmatch(r'\s*(\d+)\s*/\s*(\d+)\s*', text)
    if match is None:
        raise SettingError(
            f'Invalid shard {text!r}, expected I/N, as 1/8 for the first of 8.'
        )
    number, count = int(match[1]), int(match[2])
    if not 1 <= number <= count:
        hint = f' Did you mean 1/{count}?' if count and not number else ''
        raise SettingError(
            f'Shard {text!r} is out of range, expected 1/{count} to {count}/{count}: '
            f'shards count from 1.{hint}'
        )
    return number, count


def predict_scenes(
    scenes: Sequence[str | Path],
    checkpoint: str | Path,
    output: str | Path,
    *,
    shard: str | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Iterator[Mapped]:
    """Write a map of each scene, and continue if one fails.

    Maps that exist are kept, so that the same call resumes what is left. If this call
    would make another one, a :class:`~torchgeo_ctm.errors.KeptMapWarning` says what
    differs.

    Args:
        scenes: The scenes, in any order; of a shard too, all of them.
        checkpoint: As for :func:`~torchgeo_ctm.prediction.predict_scene`.
        output: An existing folder. A map is named after its scene.
        shard: ``I/N``: of the sorted scenes, map the I-th and every N-th after it. N
            processes with the shards 1/N to N/N map all of them. None: all.
        overwrite: Replace existing products.
        **options: As for :func:`~torchgeo_ctm.prediction.predict_scene`.

    Yields:
        What became of each scene of the shard.

    Raises:
        SettingError: If *shard* is not one.
        OutputError: If *output* is no folder, or two scenes would share a map.
        CheckpointError: If the checkpoint cannot be used.
    """
    every = sorted(given_paths('scenes', scenes))
    number, count = (1, 1) if shard is None else read_shard(shard)
    if not Path(output).is_dir():
        raise OutputError(
            f'{output} is no folder, expected an existing one for the maps of '
            f'{len(every)} scenes.'
        )
    # imports PyTorch
    from ..inference.scene_loop import SceneLoop

    paths = SceneLoop(output, overwrite, ProductOptions()).outputs(every)
    kept = KeptMaps(checkpoint, options)
    for scene, path in [*zip(every, paths, strict=True)][number - 1 :: count]:
        if path.exists() and not overwrite:
            kept.warn(scene, path)
            yield Mapped(scene, path, kept=True)
            continue
        try:
            predict_scene(scene, checkpoint, path, overwrite=overwrite, **options)
        except CheckpointError:
            # no other scene would be mapped either
            raise
        except (CTMError, OSError, MemoryError) as error:
            yield Mapped(scene, path, failure=one_line(error))
        else:
            yield Mapped(scene, path)
