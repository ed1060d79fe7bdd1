"""The HTTP library under the installed `openai`, and the client's two hooks of ours."""

from __future__ import annotations

import email.utils
import ipaddress
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit, urlunsplit


def http_library() -> Any:
    """`httpx2` since openai 3, `httpx` before."""
    major = int(version("openai").partition(".")[0])
    return import_module("httpx2" if major >= 3 else "httpx")


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bare_url(url: str) -> str:
    """The URL without user, password, query and trailing slash: fit to be written down."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the server asks to wait (RFC 9110, section 10.2.3: a number or a date), or None."""
    value = headers.get("retry-after-ms")
    try:
        if value is not None:
            return float(value) / 1000
        return float(headers["retry-after"])
    except KeyError:
        return None
    except ValueError:
        pass
    date = email.utils.parsedate_tz(headers.get("retry-after", ""))
    return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else None


def no_vain_retries(longest_wait: float) -> Callable[[Any], Awaitable[None]]:
    """A response hook that tells the client not to retry where that cannot help.

    An exhausted quota stays exhausted, and a wait beyond `longest_wait` seconds outlasts the call.
    The client obeys the header ``x-should-retry``; all its other retries are its own.
    """

    async def hook(response: Any) -> None:
        if response.status_code != 429:
            return
        await response.aread()
        wait = retry_after(response.headers)
        if "insufficient_quota" in response.text or (wait is not None and wait > longest_wait):
            response.headers["x-should-retry"] = "false"

    return hook
