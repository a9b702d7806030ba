"""The products of a scene: their names, and the order in which they are written.

What writes polygons, picture, style and STAC item is imported when it is their turn, so
that the first window is read at once.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from ..errors import GridError, OutputError
from ..files import atomic_path, check_file, check_name, write_text
from ..grids import Grid
from ..rasters import CONFIDENCE
from .former import check_polygons, former_products, retire
from .geotiff import RasterRows, check_output
from .masks import open_mask
from .memory import FINISHING_CACHE
from .options import ProductOptions
from .paths import product_paths

#: File that lists what is being published.
PUBLISHING = 'publishing.json'
#: Options that require a location on Earth.
LOCATED = ('stac', 'min_area', 'hectares')
#: Scale of the raster of probabilities.
PERCENT = 0.01


@dataclass
class Products:
    """The products of one scene, from the first row to their final names.

    Attributes:
        output: The class raster.
        options: Products to write.
        class_names: Name of each class.
        class_colors: Color of each class, as matplotlib reads it.
        grid: Grid of the scene.
        folder: Folder for temporary files.
        tags: Tags of the rasters.
        rasters: Open rasters by product.
    """

    output: Path
    options: ProductOptions
    class_names: list[str]
    class_colors: list[str]
    grid: Grid
    folder: Path
    tags: Mapping[str, str]
    rasters: dict[str, RasterRows] = field(default_factory=dict)

    @property
    def paths(self) -> dict[str, Path]:
        """Final paths by product, the class raster first."""
        return product_paths(self.output, self.options)

    def open(self) -> None:
        """Create the rasters under temporary names."""
        folder, names = self.folder, self.class_names
        bands = {'mask': ['land cover class']}
        if self.options.confidence:
            bands['confidence'] = [CONFIDENCE]
        if self.options.probabilities:
            bands['probabilities'] = [f'share of {name}' for name in names]
        classes = (names, self.class_colors)
        for product, descriptions in bands.items():
            self.rasters[product] = RasterRows(
                self.paths[product],
                self.grid,
                descriptions,
                self.tags,
                classes if product == 'mask' else None,
                folder,
            )

    def write(self, row: int, values: Mapping[str, NDArray[np.uint8]]) -> None:
        """Write finished rows of every raster product."""
        for product, raster in self.rasters.items():
            raster.write(row, values[product])

    def finish(
        self, picture: Callable[[], NDArray[np.float32]] | None, acquired: str | None
    ) -> None:
        """Write the other products, all still in the hidden folder.

        Args:
            picture: Returns a thumbnail of the scene (3, h, w) for the quick look, NaN
                where invalid; None: no quick look.
            acquired: Acquisition time of the scene, ISO 8601, if known.
        """
        # libraries change warning filters in threads: restore them after all ended
        pool = ThreadPoolExecutor(2)
        with (
            self._named(),
            warnings.catch_warnings(),
            rasterio.Env(GDAL_CACHEMAX=FINISHING_CACHE * 2**20),
            _stopped(pool),
        ):
            for product, raster in self.rasters.items():
                raster.close(PERCENT if product == 'probabilities' else None)
            # polygons take longest, and are made from rows before these are a COG
            tasks = [pool.submit(self._vectorize)] if self.options.polygons else []
            tasks += [pool.submit(self._finish_raster, name) for name in self.rasters]
            if picture is not None:
                # matplotlib keeps fonts for every thread that draws
                self._draw(picture)
            for task in tasks:
                task.result()
        with self._named():
            self._finish_texts(acquired)

    def _finish_texts(self, acquired: str | None) -> None:
        """Write style and STAC item."""
        staged = self._staged
        if self.options.style:
            from .style import ramp_style, style_of

            style_of(staged['mask'], staged['style'], self.options.hectares)
            for product, highest in (('confidence', 100), ('probabilities', 1)):
                if product in self.rasters:
                    write_text(staged[f'{product}_style'], ramp_style(highest))
        if self.options.stac:
            from .stac import write_item

            others = ('mask', 'stac', 'confidence_style', 'probabilities_style')
            assets = {k: v for k, v in staged.items() if k not in others}
            properties: dict[str, Any] = {
                f'ctm:{key.lower()}': value for key, value in self.tags.items()
            }
            if acquired is not None:
                properties['datetime'] = acquired
            write_item(
                staged['stac'],
                staged['mask'],
                assets,
                self.class_names,
                self.class_colors,
                properties,
            )

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Name files in errors as they will be called."""
        try:
            yield
        except OutputError as error:
            hidden, folder = str(self.folder), str(self.output.parent)
            raise OutputError(str(error).replace(hidden, folder)) from error

    @property
    def _staged(self) -> dict[str, Path]:
        """Paths by product in the hidden folder."""
        return {name: self.folder / path.name for name, path in self.paths.items()}

    def publish(self, overwrite: bool) -> None:
        """Give every product its final name.

        The class raster comes after its companions, so that it exists only with them;
        only the STAC item, which describes it, follows.

        Args:
            overwrite: Replace existing files.

        Raises:
            OutputError: If a file appeared under a final name, or the disk refuses.
        """
        check_products(self.output, self.options, overwrite, self.folder)
        staged, last = self._staged, ('mask', 'stac')
        order = [name for name in staged if name not in last]
        order += [name for name in last if name in staged]
        former = former_products(self.output)
        facts = {self.paths[name].name: _facts(path) for name, path in staged.items()}
        try:
            write_text(self.folder / PUBLISHING, json.dumps(facts))
            for name in order:
                if name in self.rasters:
                    self.rasters[name].publish()
                elif name == 'polygons':
                    from .vector import publish_vector

                    publish_vector(staged[name], self.paths[name])
                else:
                    staged[name].replace(self.paths[name])
        except OSError as error:
            raise OutputError(f'Cannot write {self.output}: {error}') from error
        retire(former, self.paths.values())

    def _finish_raster(self, product: str) -> None:
        """Convert the rows of a raster product to a COG."""
        self.rasters[product].finish('mode' if product == 'mask' else 'average')

    def _vectorize(self) -> None:
        """Write the polygons of the class raster."""
        from .vector import vectorize

        confidence = self.rasters.get('confidence')
        vectorize(
            self.rasters['mask'].rows,
            self._staged['polygons'],
            confidence=confidence.rows if confidence is not None else None,
            sieve=self.options.sieve,
            min_area=self.options.min_area,
            style=self.options.style,
            hectares=self.options.hectares,
            overwrite=True,
        )

    def _draw(self, picture: Callable[[], NDArray[np.float32]]) -> None:
        """Write the quick look."""
        from ..plots import BAR_HEIGHT, Ground, quick_look
        from .areas import class_areas, ground_scale

        rgb = picture()
        rows = self.rasters['mask'].rows
        with open_mask(rows) as raster:
            mask = raster.read(1, out_shape=rgb.shape[1:])
            scale = ground_scale(raster, raster.height * (1 - BAR_HEIGHT))
            shrink = raster.width / mask.shape[1], raster.height / mask.shape[0]
        ground = None
        if scale is not None:
            ground = Ground(
                scale.across * shrink[0],
                scale.down * shrink[1],
                (scale.north[0] / shrink[0], scale.north[1] / shrink[1]),
                list(class_areas(rows).values()),
            )
        figure = quick_look(rgb, mask, self.class_names, self.class_colors, ground)
        with atomic_path(self._staged['picture']) as temporary:
            figure.savefig(
                temporary, format='png', dpi=100, pil_kwargs={'compress_level': 3}
            )
        # its parts refer to each other, and would stay for a while
        figure.clear()

    def abandon(self) -> None:
        """Remove temporary files."""
        for raster in self.rasters.values():
            raster.abandon()
        self.rasters = {}
        for path in self._staged.values():
            path.unlink(missing_ok=True)


@contextmanager
def _stopped(pool: ThreadPoolExecutor) -> Iterator[None]:
    """Wait for the tasks of a pool; after an interruption, leave them behind."""
    try:
        yield
    except Exception:
        pool.shutdown(cancel_futures=True)
        raise
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def check_products(
    output: Path, options: ProductOptions, overwrite: bool, folder: Path
) -> None:
    """Check that all products can be written.

    An interrupted run may have given some their final names already. These may be
    replaced, as long as nobody changed them.

    Args:
        output: The class raster.
        options: Products to write.
        overwrite: Replace existing files.
        folder: The hidden folder of the run, if it exists.

    Raises:
        OutputError: If one cannot be written.
    """
    ours = _published(folder)
    longest = f'{output.stem}_probabilities{output.suffix}.aux.xml'
    check_name(output, max(longest, f'.{output.name}.part.lock', key=len))
    for name, path in product_paths(output, options).items():
        known = path.exists() and ours.get(path.name) == _facts(path)
        if name == 'mask':
            check_output(path, overwrite or known)
            # what an interrupted run has published has its names beside it
            beside = path.with_name(f'{path.name}.aux.xml')
            check_file(beside, overwrite or bool(ours) or path.exists())
        else:
            if name == 'polygons':
                check_polygons(path)
            check_file(path, overwrite or known)


def _facts(path: Path) -> list[int]:
    """Return size and time of change, which a new name does not change."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _published(folder: Path) -> dict[str, Any]:
    """Return facts of the files that an interrupted run was publishing, by name."""
    try:
        found = json.loads((folder / PUBLISHING).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def check_georeference(scene: str, grid: Grid, options: ProductOptions) -> None:
    """Check that products that require a location on Earth have one.

    Args:
        scene: Name of the scene, for the message.
        grid: Its grid.
        options: Products to write.

    Raises:
        GridError: If they have none.
    """
    wanted = next((n for n in LOCATED if getattr(options, n)), None)
    if wanted is None:
        return
    fault = None
    if grid.crs is None:
        fault = 'no CRS'
    elif grid.transform.is_identity:
        fault = 'no transform'
    elif not (grid.crs.is_projected or grid.crs.is_geographic):
        fault = 'a local CRS'
    if fault is not None:
        raise GridError(
            f'{scene} has {fault}, but {wanted} requires a location on Earth. Leave '
            f'{wanted} out, or assign one with gdal_edit.py -a_srs … -a_ullr …'
        )
    from .stac import check_location

    check_location(scene, grid)
