"""Tables of what was measured, from the benchmarks' own results."""

import json
import re
import statistics
from pathlib import Path
from typing import Any

#: Where the measurements lie, below the repository.
RESULTS = Path('benchmarks', 'results')
#: Columns of the table of quality, and what they are called.
COLUMNS = {
    'miou': 'mIoU',
    'average_accuracy': 'accuracy by class',
    'boundary_f': 'borders (F)',
    'ece': 'calibration error',
}
NOT_YET = 'Not measured yet with this version.'


def measured_pages(repository: Path) -> dict[str, str]:
    """Return the text of each part by file name, to include in a page.

    Args:
        repository: Folder that holds ``benchmarks``.
    """
    folder = repository / RESULTS
    return {
        'quality.inc': _quality(repository),
        'pruning.inc': _pruning(folder / 'pruning.json'),
        'speed.inc': _speed(folder),
    }


def _quality(repository: Path) -> str:
    """Return the benchmark's report, else the table of its results."""
    report = repository / 'benchmarks' / 'RESULTS.md'
    if report.is_file():
        return _without_links(report.read_text(encoding='utf-8'))
    for name in ('quality.json', 'quality.jsonl'):
        path = repository / RESULTS / name
        if path.is_file():
            rows = _rows(path.read_text(encoding='utf-8'))
            return quality_table(rows) if rows else NOT_YET
    return NOT_YET


def _without_links(text: str) -> str:
    """Return a report as part of a page: no title, and links to files as their names.

    A link to a file beside the report leads nowhere from another page; pictures are
    taken from where the report has them, and its headings go one level down.
    """
    text = re.sub(r'\A\s*# .*\n', '', text)
    text = re.sub(r'^##', '###', text, flags=re.MULTILINE)
    text = re.sub(r'(!\[[^\]]*\]\()(?=results/)', r'\1../../benchmarks/', text)
    return re.sub(r'(?<!!)\[([^\]]+)\]\((?!https?:|#)[^)]*\)', r'\1', text)


def _rows(text: str) -> list[dict[str, Any]]:
    """Return the results in a file of JSON, or of JSON lines."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError:
        content = [json.loads(line) for line in text.splitlines() if line.strip()]
    if isinstance(content, dict):
        content = content.get('rows', [content])
    return list(content)


def quality_table(rows: list[dict[str, Any]]) -> str:
    """Return a table of ``benchmarks/quality.py``'s results, a row a method.

    Means over seeds; behind the mIoU half the distance between the seeds' extremes.
    """
    parts = []
    settings = {json.dumps(row['setting'], sort_keys=True): None for row in rows}
    for setting in settings:
        chosen = [
            r for r in rows if json.dumps(r['setting'], sort_keys=True) == setting
        ]
        values = json.loads(setting)
        parts.append(
            f'Tiles of {values["size"]} px, {values["steps"]} steps of '
            f'{values["batch"]} tiles.\n\n{_setting_table(chosen)}'
        )
    return '\n'.join(parts)


def _setting_table(rows: list[dict[str, Any]]) -> str:
    """Return the table of the results of one setting."""
    head = ['method', 'seeds', *COLUMNS.values(), 'mIoU, true labels']
    lines = ['| ' + ' | '.join(head) + ' |', '|---' * len(head) + '|']
    for name in dict.fromkeys(row['row'] for row in rows):
        found = [row for row in rows if row['row'] == name]
        values = {c: [row['predicted'][c] for row in found] for c in COLUMNS}
        cells = [f'{statistics.mean(value):.3f}' for value in values.values()]
        spread = (max(values['miou']) - min(values['miou'])) / 2
        cells[0] += f' ± {spread:.3f}' if len(found) > 1 else ''
        told = statistics.mean(row['true']['miou'] for row in found)
        line = [name, str(len(found)), *cells, f'{told:.3f}']
        lines.append('| ' + ' | '.join(line) + ' |')
    return '\n'.join(lines) + '\n'


def _pruning(path: Path) -> str:
    """Return the table of ``benchmarks/pruning.py``."""
    if not path.is_file():
        return NOT_YET
    results = json.loads(path.read_text(encoding='utf-8'))
    dense, removed = results['rows']['dense'], results['rows']['removed']
    lines = ['| | dense | closed heads removed |', '|---|---|---|']
    for name, form in (
        ('heads', 'd'), ('mAP', '.3f'), ('miou', '.3f'), ('miou_true_labels', '.3f'),
    ):  # fmt: skip
        said = name.replace('miou', 'mIoU').replace('_', ' ', 1).replace('_', ' ')
        lines.append(f'| {said} | {dense[name]:{form}} | {removed[name]:{form}} |')
    billions = [row['operations'] / 1e9 for row in (dense, removed)]
    lines.append(f'| operations | {billions[0]:.2f} G | {billions[1]:.2f} G |')
    speed = results['ratios']['speed']
    return '\n'.join(lines) + f'\n\nThe removed network runs {speed:.2f} × as fast.\n'


def _speed(folder: Path) -> str:
    """Return what the benchmarks of speed measured."""
    said = {
        'inference.json': {
            'pipeline_efficiency': 'mapping a scene against the bare forward pass',
            'model_vs_timm': "forward pass with maps against timm's ViT-B/16",
            'half_heads_vs_timm': 'the same, half of the heads removed',
        },
        'loading.json': {
            'over_torchgeo': "loading windows against TorchGeo's RandomGeoSampler"
        },
        'training.json': {
            'ours_over_timm': "a training step against timm's ViT-B/16 classifier"
        },
    }
    lines = ['| ratio of speeds | measured |', '|---|---|']
    for name, ratios in said.items():
        path = folder / name
        results = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}
        lines += [
            f'| {text} | {results[key]:.2f} |'
            for key, text in ratios.items()
            if key in results
        ]
    return '\n'.join(lines) + '\n' if len(lines) > 2 else NOT_YET
