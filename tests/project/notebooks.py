"""Execute the notebooks; ``make notebooks`` also stores what they show.

Usage: python -m tests.project.notebooks [NAME.ipynb ...]
"""

import os
import sys
from base64 import b64decode, b64encode
from collections.abc import Sequence
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

FOLDER = Path(__file__).parents[2] / 'notebooks'


def execute(path: Path, **settings: object) -> Any:
    """Execute a notebook with settings as environment variables.

    Args:
        path: The notebook. It is not changed.
        **settings: Its settings, such as ``CTM_STEPS``. Relative paths start at the
            current folder.

    Returns:
        The notebook with its outputs, but without traces of this machine.

    Raises:
        CellExecutionError: If a cell fails.
    """
    client = import_module('nbclient').NotebookClient(
        import_module('nbformat').read(path, as_version=4),
        timeout=1200,
        kernel_name='python3',
        record_timing=False,
        # pictures and buttons of widgets, which a stored notebook cannot show
        store_widget_state=False,
        # messages about the kernel's own transport are not outputs of a cell
        extra_arguments=['--IPKernelApp.log_level=ERROR'],
        resources={'metadata': {'path': str(Path.cwd())}},
    )
    given = {key: str(value) for key, value in settings.items()}
    notebook = client.execute(env=os.environ | given)
    notebook.metadata.language_info = {'name': 'python'}
    for output in (o for cell in notebook.cells for o in cell.get('outputs', [])):
        if 'image/png' in output.get('data', {}):
            output.data['image/png'] = _with_palette(output.data['image/png'])
    return notebook


def _with_palette(picture: str) -> str:
    """Return a PNG in base64 with 128 colors, to keep the repository small."""
    buffer = BytesIO()
    with Image.open(BytesIO(b64decode(picture))) as image:
        image.convert('RGB').quantize(128).save(buffer, format='PNG', optimize=True)
    return b64encode(buffer.getvalue()).decode('ascii')


def main(names: Sequence[str]) -> None:
    """Execute notebooks, all by default, and store their outputs in them."""
    for path in [Path(name) for name in names] or sorted(FOLDER.glob('*.ipynb')):
        import_module('nbformat').write(execute(path), path)
        sys.stdout.write(f'{path.name}: executed\n')


if __name__ == '__main__':
    main(sys.argv[1:])
