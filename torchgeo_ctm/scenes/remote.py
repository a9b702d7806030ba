"""Read small files by path or URL, and say in plain words why a request failed."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

#: Answers of a server that may be another one later.
BUSY = (429, 500, 502, 503, 504)
#: Times that a failed request is repeated, and seconds that a server has to answer.
RETRIES, WAIT = 5, 60
#: What to check where an answer has a status.
STATUS = {
    401: 'It asks for a login. Check the token or the account',
    403: 'Access is denied. Check the token, which may have expired, and your account',
    404: 'There is nothing at this address. Check its spelling',
    429: 'Too many requests. Wait some minutes, then run the same command again',
}


def read_text(path: str) -> bytes:
    """Return the content of a file or URL.

    Raises:
        OSError: If it cannot be read.
    """
    if '://' not in path:
        return Path(path).read_bytes()
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3 import Retry

    with requests.Session() as session:
        retry = Retry(RETRIES, backoff_factor=0.5, status_forcelist=BUSY)
        session.mount('http', HTTPAdapter(max_retries=retry))
        answer = session.get(path, timeout=WAIT)
        answer.raise_for_status()
        return answer.content


def failure(error: BaseException, url: str) -> str:
    """Return why something cannot be read, and what to check, as one line.

    Args:
        error: What a library raised.
        url: The address or path that was asked for.
    """
    causes = [*_causes(error)]
    failed = next((u for u in map(_url, causes) if u), url)
    host = urlsplit(failed).netloc.rpartition('@')[2]
    if isinstance(error, FileNotFoundError):
        return 'There is no such file. Check the path. A URL begins with https://.'
    if not host:
        return _short(error)
    # a page of a catalog may be elsewhere
    where = '' if failed.startswith(url) else f'{failed.partition("?")[0]}: '
    return where + _reason(causes, host)


def _reason(causes: list[BaseException], host: str) -> str:
    """Return why a request failed, by all errors that led to it."""
    kinds = {type(cause).__name__ for cause in causes}
    text = ' '.join(str(cause) for cause in causes)
    status = next((s for s in map(_status, causes) if s), None)
    if status is not None:
        check = STATUS.get(status) or (
            'The server is busy or broken. Try again later'
            if status >= 500
            else 'The server refuses the request. Check address and options'
        )
        return f'{host} answers HTTP {status}. {check}.'
    if kinds & {'SSLError', 'SSLCertVerificationError', 'CertificateError'}:
        detail = re.search(r'certificate verify failed: ([^(\]]+)', text)
        return (
            f'The certificate of {host} cannot be verified'
            f'{f" ({detail[1].strip()})" if detail else ""}. Check address and clock. '
            'Behind a proxy with a certificate of its own, set REQUESTS_CA_BUNDLE to it.'
        )
    if kinds & {'NameResolutionError', 'gaierror'}:
        return (
            f'The host {host} is unknown. Check its spelling, and your connection to the '
            'internet.'
        )
    if 'ProxyError' in kinds:
        return 'The proxy does not answer. Check HTTPS_PROXY and HTTP_PROXY.'
    if kinds & {'ConnectTimeout', 'ConnectTimeoutError', 'ReadTimeout'} or re.search(
        'timed out', text, re.IGNORECASE
    ):
        return (
            f'{host} does not answer in time. Try again later, or check firewall and '
            'proxy (HTTPS_PROXY).'
        )
    if 'ConnectionRefusedError' in kinds or 'refused' in text:
        return (
            f'{host} refuses the connection. Check host and port, and that its server '
            'runs.'
        )
    broken = next((c for c in causes if isinstance(c, json.JSONDecodeError)), None)
    if broken is not None:
        page = broken.doc.lstrip()[:1] == '<'
        return (
            f'{host} answers with {"a web page" if page else "text"} in place of JSON. '
            'Check that the address is that of a STAC API or file, not of its page for '
            'browsers.'
        )
    return _short(causes[0])


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and all that led to it."""
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        found = waiting.pop(0)
        if not isinstance(found, BaseException) or found in seen:
            continue
        seen.append(found)
        yield found
        # urllib3 keeps causes as reason, requests as an argument
        waiting += [found.__cause__, found.__context__, getattr(found, 'reason', None)]
        waiting += [each for each in found.args if isinstance(each, BaseException)]


def _status(error: BaseException) -> int | None:
    """Return the status of an answer, None if the error tells none."""
    repeated = re.search(r'too many (\d{3}) error responses', str(error))
    if repeated:
        return int(repeated[1])
    answer = getattr(error, 'response', None)
    status = getattr(error, 'status_code', None)
    return status or getattr(answer, 'status_code', None)


def _url(error: BaseException) -> str | None:
    """Return the URL of the request that failed, None if the error tells none."""
    request = getattr(error, 'request', None)
    found: str | None = getattr(request, 'url', None)
    return found


def _short(error: BaseException) -> str:
    """Return the message of an error as one line, not a long one."""
    return ' '.join(str(error).split())[:300] or type(error).__name__
