"""Labels of any kind, known by suffix and content of their file."""

import warnings
from pathlib import Path
from typing import Any, Final

from ..errors import LabelError, LabelWarning
from .points import COORDINATES, PointLabels
from .polygons import PolygonLabels
from .table_files import TEXT, column, read_table
from .tables import TableLabels
from .vector_files import read_features

AnyLabels = PolygonLabels | PointLabels | TableLabels

#: Share of a window that polygons must cover.
COVERAGE: Final = 0.8
#: Attribute of windows that were labeled by click: whether no other class is in them.
ONLY_THESE: Final = 'only_these'


def read_labels(
    path: str, field: str, layer: str | None = None, crs: str | None = None
) -> tuple[AnyLabels, dict[str, Any]]:
    """Read labels of any kind, known by suffix and content.

    Args:
        path: Polygons or points (a vector file, or a table with lon and lat), or a
            table of scenes.
        field: Attribute or column with the classes.
        layer: Layer of the file, if it has several.
        crs: CRS of the coordinates, if the file has none.

    Returns:
        The labels, and the arguments that they were made with.

    Raises:
        LabelError: If they cannot be used, or name fewer than two classes.
    """
    options: dict[str, Any] = {'path': path, 'field': field}
    place = {k: v for k, v in (('layer', layer), ('crs', crs)) if v is not None}
    kind: type[AnyLabels] = PointLabels
    if Path(path).suffix.lower() in TEXT:
        table = read_table(path)
        column(table, field, path)
        lower = {name.lower() for name in table.columns}
        if any({x, y} <= lower for x, y, _ in COORDINATES):
            options |= place
        else:
            kind = TableLabels
            options['id_field'] = next(n for n in table.columns if n != field)
    else:
        options |= place
        features = read_features(path, field, layer, crs)
        if any(
            'Polygon' in getattr(shape, 'geom_type', '') for shape in features.geometry
        ):
            kind = PolygonLabels
            options['min_coverage'] = COVERAGE
            if ONLY_THESE in features.columns:
                options |= {'complete': ONLY_THESE, 'whole': True}
    if kind is PointLabels:
        # a point describes the small window around it
        options['complete'] = True
    source = kind(**options)
    if isinstance(source, PolygonLabels):
        if (source.members.sum(axis=1) > 1).any():
            options['whole'] = True
        _warn_of_ubiquity(source)
    options['classes'] = [*source.classes]
    if len(source.classes) < 2:
        raise LabelError(
            f'{path} names one class only, {source.classes[0]!r}, expected 2 or more. '
            'Label some of the rest too, for example as "other".'
        )
    return kind(**options), options


def _warn_of_ubiquity(labels: PolygonLabels) -> None:
    """Warn of classes that no polygon excludes."""
    absent = ~labels.members & labels.names_all[:, None]
    always = [
        n for n, c in zip(labels.classes, absent.any(axis=0), strict=True) if not c
    ]
    if always and labels.complete == ONLY_THESE:
        warnings.warn(
            f'{labels.path} has no window without {", ".join(always)}, from which to '
            'learn what the class is not. Say "only these" of more windows.',
            LabelWarning,
            stacklevel=3,
        )
