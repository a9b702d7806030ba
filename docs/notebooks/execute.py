"""Execute the notebooks, and keep what comes out small and free of this machine.

    python docs/notebooks/execute.py                      # all, into output/notebooks
    python docs/notebooks/execute.py 01_scene_analysis    # one
    python docs/notebooks/execute.py --inplace            # refresh what is committed

Paths in the notebooks' settings, and their environment variables (CTM_SCENE, …), are
taken from the folder in which this runs. A cell that fails ends it, with status 1.
"""

import argparse
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from PIL import Image

FOLDER = Path(__file__).parent
#: Colours of a figure that is kept.
COLOURS = 128


def execute(path: Path, timeout: int = 1200) -> NotebookNode:
    """Execute a notebook from its first cell to its last.

    Args:
        path: The notebook; it is not changed.
        timeout: Seconds that a cell may take.

    Returns:
        The notebook with its outputs, without traces of this machine.

    Raises:
        CellExecutionError: If a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name='python3',
        record_timing=False,
        # what the kernel says of its own transport is no output of a cell
        extra_arguments=['--IPKernelApp.log_level=ERROR'],
        resources={'metadata': {'path': str(Path.cwd())}},
    )
    return clean(client.execute())


def clean(notebook: NotebookNode) -> NotebookNode:
    """Leave out what tells of this machine, and shrink pictures; in place."""
    notebook.metadata = {
        'kernelspec': {
            'display_name': 'Python 3',
            'language': 'python',
            'name': 'python3',
        },
        'language_info': {'name': 'python'},
    }
    for cell in notebook.cells:
        for output in cell.get('outputs', []):
            data = output.get('data', {})
            if 'image/png' in data:
                data['image/png'] = shrunk(data['image/png'])
    return notebook


def shrunk(picture: str) -> str:
    """Return a picture, PNG in base 64, with a palette instead of true colours."""
    with Image.open(BytesIO(b64decode(picture))) as image:
        palette = image.convert('RGB').quantize(COLOURS)
        buffer = BytesIO()
        palette.save(buffer, format='PNG', optimize=True)
    return b64encode(buffer.getvalue()).decode('ascii')


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, execute, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('names', nargs='*', help='notebooks; all if none is named')
    parser.add_argument('--output', type=Path, default=Path('output/notebooks'))
    parser.add_argument(
        '--inplace', action='store_true', help='overwrite the notebooks'
    )
    options = parser.parse_args(arguments)
    names = [Path(name).stem for name in options.names]
    paths = [FOLDER / f'{name}.ipynb' for name in names] or sorted(
        FOLDER.glob('*.ipynb')
    )
    folder = FOLDER if options.inplace else options.output
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        start = time.perf_counter()
        try:
            notebook = execute(path)
        except CellExecutionError as error:
            sys.stderr.write(f'{path.name}: {error}\n')
            return 1
        nbformat.write(notebook, folder / path.name)
        seconds = time.perf_counter() - start
        sys.stdout.write(f'{folder / path.name}: {seconds:.0f} s\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
