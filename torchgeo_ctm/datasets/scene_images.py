"""Scenes of one grid as a TorchGeo GeoDataset of images."""

import copy
import os
from collections.abc import Sequence
from typing import Any

import shapely
from pyproj import CRS
from rasterio.transform import array_bounds

from ..errors import SettingError
from ..grids import Window
from ..scenes.scene import SceneWindows
from .fixed_grid import TOLERANCE, FixedGridDataset

#: Files that stay open between samples; TorchGeo's RasterDataset keeps as many.
OPEN = 128


class SceneImages(FixedGridDataset):
    """What :class:`SceneWindows` reads of scenes, by place, pixel for pixel.

    Not a RasterDataset, so that a network is trained on the very numbers that it is
    given to predict: bands by name file by file, each scene's own offset, pixels
    without data filled, Sentinel-2 products and folders of bands read as they are.
    Nothing is resampled or merged: a sample comes from the first scene that contains
    the query, and a query between pixels is refused.
    """

    def __init__(self, scenes: Sequence[SceneWindows]) -> None:
        """Index scenes of one CRS and resolution.

        Args:
            scenes: The scenes, north up, each with the bands wanted.
        """
        self.scenes = list(scenes)
        self.paths = [scene.scene for scene in scenes]
        transform = scenes[0].grid.transform
        self._res = (transform.a, -transform.e)
        self._open: dict[tuple[int, int], SceneWindows] = {}
        outlines = [
            shapely.box(*array_bounds(*scene.grid[:2], scene.grid.transform))
            for scene in scenes
        ]
        crs = CRS(scenes[0].grid.crs.to_wkt())
        self._set_index(range(len(scenes)), outlines, crs)

    def __getitem__(self, query: Any) -> dict[str, Any]:
        """Return the image of a query.

        Args:
            query: [xmin:xmax:xres, ymin:ymax:yres, tmin:tmax:tres], at most as large
                as the scenes' ``window``.

        Returns:
            ``image`` float32 (bands, h, w) in the data set's numbers, ``crs`` and
            ``bounds``: the slices.

        Raises:
            GridError: If the query lies between pixels, or asks for another resolution.
            IndexError: If no scene contains it.
            SceneError: If the pixels cannot be read.
            SettingError: If the query is larger than the scenes' window.
        """
        x, y, t = self._disambiguate_slice(query)
        asked = shapely.box(x.start, y.start, x.stop, y.stop)
        near = self.index.sindex.query(asked, predicate='intersects', sort=True)
        for number in self.index['number'].iloc[near]:
            window = self._window(number, x, y)
            if window is not None:
                break
        else:
            raise IndexError(f'query: {query} is in none of {len(self)} scenes')
        scene = self._opened(number)
        sample = scene.sample(window, *scene.read(window))
        image = sample['image'][:, : window.height, : window.width]
        return {'image': image, 'crs': self.crs, 'bounds': (x, y, t)}

    def _window(self, number: int, x: slice, y: slice) -> Window | None:
        """Return a query's window of a scene, None if it reaches beyond."""
        grid = self.scenes[number].grid
        place = (*(~grid.transform @ (x.start, y.stop)),)
        place += (*(~grid.transform @ (x.stop, y.start)),)
        left, top, right, bottom = (round(value) for value in place)
        if min(left, top) < 0 or right > grid.width or bottom > grid.height:
            return None
        off = max(abs(value - round(value)) for value in place)
        if (x.step, y.step) != self.res or off > TOLERANCE:
            self._refuse(f'a query of {x.step:g} × {y.step:g}, {off:.2f} px off,')
        window = Window(top, left, bottom - top, right - left)
        largest = self.scenes[number].window
        if max(window.height, window.width) > largest:
            raise SettingError(
                f'a query of {window.height} × {window.width} px is larger than the '
                f'window of {largest} px that the scenes were opened with'
            )
        return window

    def _opened(self, number: int) -> SceneWindows:
        """Return a copy of a scene, whose file stays open in this process alone.

        Workers of a data loader must not share what their parent opened.
        """
        key = (number, os.getpid())
        scene = self._open.pop(key, None)
        if scene is None:
            scene = copy.copy(self.scenes[number])
        while len(self._open) >= OPEN:
            # the one that was not asked for longest
            del self._open[next(iter(self._open))]
        self._open[key] = scene
        return scene
