"""Output that nobody reads, and signals, change nothing but what is printed."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from torchgeo_ctm.files import uninterrupted
from torchgeo_ctm.streams import LenientStream, Terminated, lenient_streams, terminable


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no full disk here')
def test_a_full_output_drops_lines() -> None:
    with open('/dev/full', 'w', encoding='utf-8') as full:
        stream = LenientStream(full)
        stream.write('lost\n')
        stream.flush()
        assert stream.broken
        # so that closing it does not raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())


def test_a_closed_or_missing_output_drops_lines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    closed = (tmp_path / 'x').open('w')
    closed.close()
    monkeypatch.setattr(sys, 'stdout', closed)
    monkeypatch.setattr(sys, 'stderr', None)
    with lenient_streams():
        print('lost')
        print('lost', file=sys.stderr)
    assert (sys.stdout, sys.stderr) == (closed, None)


def test_letters_that_an_output_lacks_are_escaped() -> None:
    raw = io.BytesIO()
    stream = LenientStream(io.TextIOWrapper(raw, 'ascii', write_through=True))
    stream.write('Wälder\n')
    assert raw.getvalue() == b'W\\xe4lder\n'


def test_sigterm_raises_and_is_put_off() -> None:
    steps = []
    with terminable(), pytest.raises(Terminated):
        with uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            steps.append('published')
        steps.append('never')
    assert steps == ['published']


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_python_ends_changes_nothing(number: int) -> None:
    """What the command was asked for is done then, so it says so."""
    code = (
        'import atexit, os, sys\n'
        'from torchgeo_ctm.main import main\n'
        f'atexit.register(os.kill, os.getpid(), {int(number)})\n'
        'sys.argv = ["torchgeo-ctm", "--version"]\n'
        'main()'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, check=False, text=True
    )
    assert done.returncode == 0
    assert done.stderr == ''


def test_handlers_are_those_of_the_caller_after_a_block() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with terminable():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ('number', 'kind'),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)],
)
def test_a_signal_that_an_extension_turns_into_an_error_is_raised(
    number: int, kind: type[BaseException]
) -> None:
    before = signal.getsignal(number)
    if number == signal.SIGINT:
        # a shell starts what runs in the background with this signal ignored
        signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(kind) as caught, terminable():
            try:
                signal.raise_signal(number)
            except BaseException:  # noqa: BLE001 # what a C extension does
                raise ValueError('glyph') from None
    finally:
        signal.signal(number, before)
    assert str(caught.value.__cause__) == 'glyph'
    with pytest.raises(ValueError, match='ours'), terminable():
        raise ValueError('ours')
