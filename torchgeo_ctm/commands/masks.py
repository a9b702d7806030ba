"""Commands that change maps, or make something else of them."""

from pathlib import Path

from ..files import check_not_input, write_text
from .inputs import check_output_file, confidence_beside
from .output import print_line


def vectorize(
    mask: str,
    output: str,
    /,
    *,
    confidence: str | None = None,
    sieve: int = 0,
    min_area: float = 0.0,
    simplify: float = 0.0,
    fill_holes: float = 0.0,
    smooth: bool = False,
    style: bool = True,
    hectares: bool = False,
    overwrite: bool = False,
) -> None:
    """Convert a mask to polygons with class, name, area and mean confidence.

    Args:
        mask: Class raster written by predict.
        output: File to write: .gpkg, .parquet (GeoParquet) or .fgb (FlatGeobuf).
        confidence: Confidence raster; by default MASK_confidence.tif, if it exists.
        sieve: Merge regions of fewer pixels into their largest neighbor.
        min_area: Leave out polygons of fewer hectares.
        simplify: Simplify borders by triangles of about this side in meters. Neighbors
            keep one border.
        fill_holes: Fill holes of fewer hectares, and the polygons in them.
        smooth: Cut the corners of borders. Neighbors keep one border.
        style: Write OUTPUT.qml, colors and names for QGIS, and put them into a GeoPackage.
        hectares: Put the hectares of each class into the names of the QGIS legend.
        overwrite: Replace existing files.
    """
    from ..inference import vector
    from ..inference.style import has_style, style_of

    vector.check_vector_output(output, overwrite)
    named = Path(output).with_suffix('.qml')
    # polygons in another format share the style that is there
    if style and not has_style(mask, named, hectares):
        check_output_file(named, overwrite, '.qml')

    path = vector.vectorize(
        mask,
        output,
        confidence=confidence or confidence_beside(mask),
        sieve=sieve,
        min_area=min_area,
        simplify=simplify,
        fill_holes=fill_holes,
        smooth=smooth,
        style=style,
        hectares=hectares,
        overwrite=overwrite,
    )
    print_line(str(path))
    if style:
        print_line(str(style_of(mask, named, hectares)))


def areas(
    mask: str,
    /,
    *,
    zones: str | None = None,
    field: str | None = None,
    confidence: str | None = None,
    output: str | None = None,
    overwrite: bool = False,
) -> None:
    """Measure the hectares of each class on the ellipsoid, also by zone.

    Args:
        mask: Class raster.
        zones: Polygons, as districts, in any CRS.
        field: Column with the names of the zones; by default the first with text.
        confidence: Confidence raster; MASK_confidence.tif if that exists.
        output: Table to write (.csv, .xlsx or .parquet).
        overwrite: Replace an existing file.
    """
    from ..assessment import zones as measured

    path = None if output is None else measured.check_table(output, overwrite)
    if path is not None and zones is not None:
        check_not_input(path, zones)
    table = measured.class_table(
        mask, zones=zones, field=field, confidence=confidence or confidence_beside(mask)
    )
    if path is not None:
        measured.write_table(table, path)
    for line in table.to_string(
        index=False, float_format=lambda value: f'{value:,.3f}'
    ).splitlines():
        print_line(line)
    if path is not None:
        print_line(str(path))


def change(
    before: str,
    after: str,
    /,
    *,
    output: str,
    min_confidence: int = 0,
    polygons: bool = True,
    min_area: float = 0.0,
    csv: str | None = None,
    overwrite: bool = False,
) -> None:
    """Compare two maps of one place: hectares from each class to each, and where.

    Args:
        before: Class raster of the first date.
        after: That of the second date, on the same grid. Classes are compared by name.
        output: Class raster of change to write, CHANGE.tif, with its style for QGIS.
        min_confidence: Percent; leave out pixels that MASK_confidence.tif of either map
            knows less well.
        polygons: Write CHANGE.gpkg, a polygon for each region that changed.
        min_area: Leave out polygons of fewer hectares.
        csv: Table of hectares to write (.csv), from rows to columns.
        overwrite: Replace existing files.
    """
    from ..assessment import change as changes

    if csv is not None:
        check_output_file(Path(csv), overwrite, '.csv')
    found = changes.change(
        before,
        after,
        output,
        min_confidence=min_confidence,
        polygons=polygons,
        min_area=min_area,
        overwrite=overwrite,
    )
    for line in changes.lines(found):
        print_line(line)
    if csv is not None:
        write_text(csv, found.hectares.to_csv(index_label='from', lineterminator='\n'))
        print_line(csv)
    for path in found.paths:
        print_line(str(path))


def join(
    maps: list[str],
    /,
    *,
    output: str,
    like: str | None = None,
    polygons: bool = True,
    style: bool = True,
    overwrite: bool = False,
) -> None:
    """Join maps of neighboring scenes, of one UTM zone or several, into one map.

    Where maps overlap, the class with the highest confidence counts, of equal ones the
    first class; without MASK_confidence.tif beside every map, the first map counts.

    Args:
        maps: Class rasters with class names, by which classes are joined.
        output: Class raster to write, MAP.tif; the other products are written beside it.
        like: Raster whose grid the map gets, by default CRS and pixels of the first map,
            as large as all maps need.
        polygons: Write MAP.gpkg, polygons.
        style: Write MAP.qml, colors and names for QGIS.
        overwrite: Replace existing files.
    """
    from ..assessment import join as joining

    for path in joining.join(
        maps, output, like=like, polygons=polygons, style=style, overwrite=overwrite
    ):
        print_line(str(path))


def relabel(
    mask: str,
    /,
    *,
    output: str,
    class_map: list[str] | None = None,
    merge: list[str] | None = None,
    names: list[str] | None = None,
    colors: list[str] | None = None,
    style: bool = True,
    overwrite: bool = False,
) -> None:
    """Give a map other classes, names or colors, without training again.

    Args:
        mask: Class raster.
        output: Class raster to write, MASK.tif.
        class_map: Names of the values of a map that does not name them: worldcover,
            dfc2020, dynamic-world, esri, igbp or igbp-simplified, and VALUE=NAME pairs.
        merge: Merged classes, as "Shrubland+Grassland=Open". "Crops=Fields" renames one.
        names: Names of all classes after that, in order.
        colors: Their colors, as #rrggbb or names.
        style: Write OUTPUT.qml, colors and names for QGIS.
        overwrite: Replace existing files.
    """
    from ..assessment import relabel as relabeling

    for path in relabeling.relabel(
        mask,
        output,
        class_map=class_map,
        merge=merge,
        names=names,
        colors=colors,
        style=style,
        overwrite=overwrite,
    ):
        print_line(str(path))
