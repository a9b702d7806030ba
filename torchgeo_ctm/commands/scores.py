"""Commands that tell how good a map is."""

from pathlib import Path
from typing import Literal

from ..files import write_text
from .inputs import check_output_file
from .output import print_line, write_figure, write_json


def evaluate(
    mask: str,
    reference: str,
    /,
    *,
    classes: list[str] | None = None,
    class_map: list[str] | None = None,
    align: bool = False,
    band: int | None = None,
    kappa: bool = False,
    json: str | None = None,
    plot: str | None = None,
    overwrite: bool = False,
) -> None:
    """Score a mask against a reference raster.

    Args:
        mask: Class raster written by predict.
        reference: Raster of classes, compared by name where both rasters name them;
            255, nodata and negatives do not count.
        classes: Names of the reference's values 0, 1, 2, ..., if it does not name them.
        class_map: Names of the reference's values: worldcover, dfc2020, dynamic-world,
            esri, igbp or igbp-simplified, and VALUE=NAME or NAME=OTHER pairs, as
            "worldcover,Tree cover=Forest,Shrubland=Forest,70=". Nothing after the
            sign leaves a class out.
        align: Bring a reference with another grid or CRS to the grid of the mask, by
            nearest neighbor.
        band: Band of the reference with the classes, if it has several.
        kappa: Also print Cohen's kappa.
        json: File to write the scores to.
        plot: Picture of the confusion matrix to write (.png).
        overwrite: Replace existing files.
    """
    import numpy as np

    from .. import scoring

    for path, suffix in ((json, '.json'), (plot, '.png')):
        if path is not None:
            check_output_file(Path(path), overwrite, suffix)
    scores = scoring.evaluate(
        mask, reference, classes, class_map=class_map, align=align, band=band
    )
    confusion = np.array(scores['confusion'])
    if kappa:
        scores['kappa'] = scoring.cohens_kappa(confusion)
    if json is not None:
        write_json(Path(json), scores | _weights(mask))
    if plot is not None:
        from ..plots import confusion_figure

        figure = confusion_figure(confusion, [*scores['iou']], 'reference', 'mask')
        write_figure(Path(plot), figure)
    columns = ('iou', 'users_accuracy', 'producers_accuracy', 'f1')
    width = max(20, *map(len, scores['iou']))
    print_line(f'{"class":<{width}}  {"  ".join(columns)}')
    for name in scores['iou']:
        values = [(scores[key][name], len(key)) for key in columns]
        cells = [f'{"-" if v is None else f"{v:.3f}":>{max(n, 5)}}' for v, n in values]
        print_line(f'{name:<{width}}  {"  ".join(cells).strip()}')
    averages = ('miou', 'pixel_accuracy', 'average_accuracy', 'macro_f1', 'weighted_f1')
    for name in (*averages, *(['kappa'] if kappa else [])):
        print_line(f'{name:<{width}}  {scores[name]:.3f}')
    for name in ('pixels', 'pixels_without_mask'):
        print_line(f'{name:<{width}}  {scores[name]}')


def sample(
    mask: str,
    /,
    *,
    output: str,
    size: int | None = None,
    standard_error: float | None = None,
    floor: int | None = None,
    expected: list[str] | None = None,
    window: int = 21,
    clusters: int | None = None,
    block: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Draw a stratified random sample of a map, to be labeled by eye in QGIS.

    Args:
        mask: Class raster.
        output: GeoPackage of points to write (.gpkg).
        size: Samples in all.
        standard_error: Instead of --size, the standard error of overall accuracy to
            reach, as 0.01.
        floor: Fewest samples of a class; by default 50, or less if that makes more than
            half of all.
        expected: Expected user's accuracy, as 0.8, or of single classes, as
            0.9,built=0.6. With it, samples go where they lower the standard error most;
            without, in proportion to area.
        window: Side of the surroundings that QGIS outlines, in pixels.
        clusters: Draw so many blocks of the map instead, and as many samples in each,
            so that fewer places are visited. Assess with --design cluster.
        block: Side of a block in pixels, by default 100.
        seed: Seed of the draw.
        overwrite: Replace an existing file, with all its labels.
    """
    from ..assessment.samples import draw_samples

    numbers = draw_samples(
        mask,
        output,
        size=size,
        standard_error=standard_error,
        floor=floor,
        expected=expected,
        window=window,
        clusters=clusters,
        block=block,
        seed=seed,
        overwrite=overwrite,
    )
    for name, number in numbers.items():
        print_line(f'{name:<20}  {number}')
    print_line(f'{"samples":<20}  {sum(numbers.values())}')
    print_line(output)


def assess(
    mask: str,
    samples: str,
    /,
    *,
    column: str = 'reference',
    design: Literal['stratified', 'simple', 'cluster'] = 'stratified',
    json: str | None = None,
    csv: str | None = None,
    report: str | None = None,
    plot: str | None = None,
    overwrite: bool = False,
) -> None:
    """Estimate accuracy and area of each class of a map, with 95 % intervals.

    Args:
        mask: Class raster that was sampled.
        samples: Labeled points, as sample writes them.
        column: Column with the true classes.
        design: stratified for samples drawn in each class of the map, simple for samples
            drawn at random in the whole map, cluster for those of sample --clusters.
        json: File to write all numbers to.
        csv: Table of classes to write (.csv).
        report: Page to write (.html).
        plot: Picture of the confusion matrix to write (.png).
        overwrite: Replace existing files.
    """
    outputs = ((json, '.json'), (csv, '.csv'), (report, '.html'), (plot, '.png'))
    for path, suffix in outputs:
        if path is not None:
            check_output_file(Path(path), overwrite, suffix)
    from ..assessment import assess as assessment

    found = assessment.assess(mask, samples, column=column, design=design)
    for line in assessment.lines(found):
        print_line(line)
    if json is not None:
        write_json(Path(json), assessment.content(found) | _weights(mask))
    if csv is not None:
        write_text(
            csv, assessment.table(found).to_csv(index=False, lineterminator='\n')
        )
    if report is not None:
        from ..assessment.report import page

        write_text(report, page(found, Path(mask).name, Path(samples).name, design))
    if plot is not None:
        from ..plots import confusion_figure

        figure = confusion_figure(found.counts, found.names, 'map', 'reference')
        write_figure(Path(plot), figure)
    for path, _ in outputs:
        if path is not None:
            print_line(path)


def _weights(mask: str) -> dict[str, str]:
    """Return the hash of the weights that made a mask, if the mask says."""
    from ..inference.masks import open_mask

    with open_mask(mask) as raster:
        found = raster.tags().get('WEIGHTS_SHA256')
    return {} if found is None else {'weights_sha256': found}
