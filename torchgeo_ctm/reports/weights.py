"""The weights of TorchGeo that training can start from, as a table."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..trainers.weights import KINDS

#: Token width by the size in a model's name.
WIDTHS = {'small': 384, 'base': 768, 'large': 1024, 'huge': 1280}
#: Side of a patch in pixels where a model's name does not say it.
PATCH_SIZE = 16
COLUMNS = ('weights', 'bands', 'patch (px)', 'width', 'license')


class WeightFacts(NamedTuple):
    """What TorchGeo says about a weight."""

    name: str
    #: Names of its bands; None: any bands with a wavelength.
    bands: tuple[str, ...] | None
    #: Side of a patch in pixels.
    patch_size: int
    #: Token width D.
    width: int
    #: Its license; None: TorchGeo does not state it.
    license: str | None


def weight_facts() -> list[WeightFacts]:
    """Return the weights that training can start from."""
    return [_facts(weight) for kind in KINDS for weight in kind]


def _facts(weight: Any) -> WeightFacts:
    """Return what TorchGeo says about a weight."""
    model, bands = str(weight.meta['model']), weight.meta.get('bands')
    patch = re.search(r'patch(\d+)', model)
    return WeightFacts(
        str(weight),
        None if bands is None else tuple(bands),
        int(patch[1]) if patch else PATCH_SIZE,
        next(width for size, width in WIDTHS.items() if size in model),
        weight.meta.get('license'),
    )


def _row(facts: WeightFacts) -> tuple[str, ...]:
    """Return the cells of a weight."""
    bands = 'any'
    if facts.bands is not None:
        few = len(facts.bands) <= 3
        shown = facts.bands if few else (facts.bands[0], '…', facts.bands[-1])
        bands = f'{len(facts.bands)}: {" ".join(shown)}'
    stated = facts.license or 'not stated'
    return facts.name, bands, str(facts.patch_size), str(facts.width), stated


def report() -> Iterator[str]:
    """Yield the lines of the table, in columns."""
    rows = [COLUMNS, *map(_row, weight_facts())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield '  '.join(cells).rstrip()


def markdown() -> Iterator[str]:
    """Yield the lines of the table in Markdown."""
    rows: list[tuple[str, ...]] = [COLUMNS, ('---',) * len(COLUMNS)]
    rows += [(f'`{name}`', *cells) for name, *cells in map(_row, weight_facts())]
    for row in rows:
        yield f'| {" | ".join(row)} |'
