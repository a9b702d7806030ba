"""Standard streams and signals that cannot break a run."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn


class Terminated(BaseException):
    """SIGTERM was received: stop as after Ctrl-C."""


class LenientStream:
    """A text stream that drops what it cannot write.

    A closed or full output, or a pipe whose reader ended, must not stop a run whose
    products go to files. Characters that its encoding lacks are escaped.
    """

    def __init__(self, stream: Any) -> None:
        """Wrap a stream."""
        self._stream = stream
        self.broken = False

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        try:
            self._stream.write(text)
        except UnicodeEncodeError as error:
            escaped = text.encode(error.encoding, 'backslashreplace')
            return self.write(escaped.decode(error.encoding))
        except (OSError, ValueError):
            self.broken = True
        return len(text)

    def flush(self) -> None:
        """Write what is buffered, or drop it."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self.broken = True

    def __getattr__(self, name: str) -> Any:
        """Return any other attribute of the stream."""
        return getattr(self._stream, name)


@contextmanager
def lenient_streams() -> Iterator[None]:
    """Replace standard output and error by streams that drop what they cannot write."""
    for number in (0, 1, 2):
        # a file that is opened later would get the number of a closed stream, and
        # with it the messages of libraries
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    with open(os.devnull, 'w', encoding='utf-8') as nowhere:
        wrapped = [LenientStream(nowhere if s is None else s) for s in before]
        sys.stdout, sys.stderr = wrapped
        try:
            yield
        finally:
            for stream in wrapped:
                stream.flush()
                if stream.broken:
                    _redirect(stream)
            sys.stdout, sys.stderr = before


def _redirect(stream: LenientStream) -> None:
    """Let a broken stream write to nowhere when the interpreter flushes it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextmanager
def terminable(last: bool = False) -> Iterator[None]:
    """Raise :class:`Terminated` when SIGTERM is received in the block.

    Extensions such as Matplotlib's may turn it, or the KeyboardInterrupt of Ctrl-C, into
    an exception of their own. What was received is raised then.

    Args:
        last: The process ends after the block. What it was asked for is done then: a
            signal that comes while Python ends changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    working = True
    received: list[type[BaseException]] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if working:
            kind = KeyboardInterrupt if number == signal.SIGINT else Terminated
            received.append(kind)
            raise kind

    stops = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in stops}
    signal.signal(signal.SIGTERM, stop)
    if before[signal.SIGINT] is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop)
    try:
        yield
    except Exception as error:
        if received:
            raise received[-1] from error
        raise
    finally:
        working = False
        for number, handler in before.items():
            # None: a handler that was not set from Python
            usual = signal.SIG_DFL if handler is None else handler
            signal.signal(number, signal.SIG_IGN if last else usual)


def leave(status: int) -> NoReturn:
    """End the process at once, without waiting for threads that still compute."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)
