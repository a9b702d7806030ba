"""An assessment as one HTML page, without pictures or scripts from elsewhere."""

from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..accuracy import Design
from .assess import Assessment, no_certainty, shown

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: .5rem 0 1.5rem }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
thead th { border-bottom: 2px solid #888; vertical-align: bottom }
.bar { display: inline-block; height: .7rem; background: #4878a8 }
.mapped { background: #b8c8d8 }
small { color: #666 }
"""


def page(found: Assessment, mask: str, samples: str, design: Design) -> str:
    """Return the page.

    Args:
        found: The assessment.
        mask: Name of the map.
        samples: Name of the samples.
        design: How the samples were drawn.
    """
    accuracy = found.accuracy
    shares = accuracy.shares * np.nansum(found.areas.value)
    drawn = {
        'stratified': 'drawn at random in each class of the map',
        'simple': 'drawn at random in the whole map, poststratified by its classes',
        'cluster': 'drawn at random in blocks that were drawn in the whole map, '
        'poststratified by its classes',
    }[design]
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Accuracy of {escape(mask)}</title>
<style>{STYLE}</style></head><body>
<h1>Accuracy of {escape(mask)}</h1>
<p><b>Overall accuracy {shown(accuracy.overall, 0, '.3f')}</b>, from
{found.counts.sum()} samples of {escape(samples)}, {drawn}. ± is half of the 95 %
confidence interval.</p>
<h2>Classes</h2>
{_classes(found)}
<p>{escape(no_certainty(found))}</p>
<h2>Confusion matrix, samples</h2>
{_matrix(found.counts, found.names, '{:,.0f}')}
<h2>Confusion matrix, estimated {found.unit}</h2>
{_matrix(shares, found.names, '{:,.0f}')}
<p><small>Estimators of Olofsson et al. (2014), Remote Sensing of Environment 148, 42–57,
<a href="https://doi.org/10.1016/j.rse.2014.02.015">10.1016/j.rse.2014.02.015</a>. The
area of a class is estimated from the samples. It differs from the mapped area by the
errors of the map.</small></p>
</body></html>
"""


def _classes(found: Assessment) -> str:
    """Return the table of classes."""
    accuracy, areas = found.accuracy, found.areas
    longest = max(np.nanmax(areas.value), found.sizes.max())
    heads = ('class', 'samples', f'mapped {found.unit}', found.unit, '')
    rates = ("user's accuracy", "producer's accuracy", 'F1')
    rows = []
    for index, name in enumerate(found.names):
        bars = [
            f'<span class="bar {kind}" style="width:{100 * size / longest:.1f}px"></span>'
            for kind, size in (
                ('mapped', found.sizes[index]),
                ('', np.nan_to_num(areas.value[index])),
            )
        ]
        cells = [
            escape(name),
            str(found.counts[index].sum()),
            f'{found.sizes[index]:,.1f}',
            shown(areas, index, ',.1f'),
            f'<div style="text-align:left;line-height:.8rem">{"<br>".join(bars)}</div>',
            *(
                shown(rate, index, '.3f')
                for rate in (accuracy.users, accuracy.producers, accuracy.f1)
            ),
        ]
        rows.append(_row(cells))
    return _table((*heads, *rates), rows)


def _matrix(values: NDArray[Any], names: list[str], form: str) -> str:
    """Return a matrix: rows map, columns reference, colored by shares of rows."""
    rows = []
    for name, row in zip(names, values, strict=True):
        total = row.sum()
        cells = [
            f'<td style="background:rgba(72,120,168,{value / total if total else 0:.2f})">'
            f'{form.format(value)}</td>'
            for value in row
        ]
        rows.append(
            f'<tr><td>{escape(name)}</td>{"".join(cells)}'
            f'<td>{form.format(total)}</td></tr>'
        )
    heads = ('map \\ reference', *map(escape, names), 'all')
    rows.append(
        _row(
            [
                'all',
                *(form.format(v) for v in values.sum(axis=0)),
                form.format(values.sum()),
            ]
        )
    )
    return _table(heads, rows)


def _row(cells: list[str]) -> str:
    return f'<tr>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _table(heads: tuple[str, ...], rows: list[str]) -> str:
    """Return a table; heads and rows are HTML."""
    head = ''.join(f'<th>{each}</th>' for each in heads)
    return (
        f'<table><thead><tr>{head}</tr></thead>\n<tbody>'
        + '\n'.join(rows)
        + '</tbody></table>'
    )
