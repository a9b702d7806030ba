"""Commands that show the data of a configuration."""

from collections.abc import Sequence
from pathlib import Path

from ..files import check_not_input
from ..split import Split
from .inputs import check_inputs, check_output_file
from .output import print_line, print_loading, write_figure, write_json


def stats(
    *,
    config: str,
    output: str | None = None,
    json: str | None = None,
    limit: int | None = None,
    nodata: float | None = None,
    overwrite: bool = False,
    overrides: Sequence[str] = (),
) -> None:
    """Measure the bands and count the labels of a training split.

    Options --data.KEY VALUE and --model.KEY VALUE override the configuration, as those
    of torchgeo do.

    Args:
        config: Configuration of torchgeo (.yaml).
        output: Configuration to write (.yaml) with the means and deviations as the
            model's scaling, for torchgeo fit --config CONFIG --config OUTPUT.
        json: File to write all numbers to.
        limit: Number of chips to read, evenly spread over the split; by default all.
        nodata: Nodata value: pixels with this value in all bands are left out.
        overwrite: Replace existing files.
        overrides: Arguments that override the configuration.
    """
    for path, suffix in ((output, '.yaml'), (json, '.json')):
        if path is not None:
            check_output_file(Path(path), overwrite, suffix)
            check_not_input(Path(path), config)
    check_inputs(config=config)
    print_loading()
    from ..configuration import Overridden
    from ..reports import statistics

    config = Overridden(config, overrides)
    measured = statistics.measure(config, limit=limit, nodata=nodata)
    for line in statistics.report(measured):
        print_line(line)
    if json is not None:
        write_json(Path(json), statistics.content(measured))
    if output is not None:
        statistics.write_config(measured, config, Path(output))
        print_line(output)


def describe(
    *,
    config: str,
    output: str | None = None,
    split: Split = 'train',
    limit: int | None = None,
    nodata: float | None = None,
    overwrite: bool = False,
    overrides: Sequence[str] = (),
) -> None:
    """Describe the data of a configuration, and plot ten chips with their labels.

    Options --data.KEY VALUE and --model.KEY VALUE override the configuration, as those
    of torchgeo do.

    Args:
        config: Configuration of torchgeo (.yaml).
        output: Picture to write (.png).
        split: Split to read: train, val or test.
        limit: Number of chips to read, evenly spread over the split; by default all.
        nodata: Nodata value: a chip whose pixels all have it counts as empty.
        overwrite: Replace an existing picture.
        overrides: Arguments that override the configuration.
    """
    if output is not None:
        check_output_file(Path(output), overwrite, '.png')
        check_not_input(Path(output), config)
    check_inputs(config=config)
    print_loading()
    from ..configuration import Overridden
    from ..reports import describe as description

    config = Overridden(config, overrides)
    described = description.describe(config, split=split, limit=limit, nodata=nodata)
    for line in description.report(described):
        print_line(line)
    if output is not None:
        write_figure(Path(output), description.picture(described))
        print_line(output)
