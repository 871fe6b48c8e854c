"""What to tell when the hub refuses, or cannot be reached: one text for each reason, with the next step.

The classes of errors are huggingface_hub's; those of the HTTP client below it are told apart by what they
wrap, because it is not the same client in all releases.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterator
from typing import Any

from zoo.errors import DoesNotFit, LicenceError, NetworkError, NotFound, OutputNotWritable, ZooError
from zoo.store.hub.address import HubAddress, endpoint

#: Answers that another try may better: overload, and errors of a server or a gateway.
PASSING = (408, 425, 429, 500, 502, 503, 504)

_AGAIN = "then repeat the command."

_RATE_LIMIT = re.compile(r"\br=0;\s*t=(\d{1,6})\b")


def translated(error: Exception, address: HubAddress, token: str | None) -> ZooError:
    """What the error of a request for `address`, sent with `token`, means to the user."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return translated(error.__cause__, address, token)
    if isinstance(error, HfHubHTTPError):
        return _refused(error, address, token)
    if isinstance(error, OfflineModeIsEnabled):
        return offline_error(address, "TRANSFORMERS_OFFLINE")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DoesNotFit(f"{address}: no space is left for it", "Free some space, " + _AGAIN)
    if isinstance(error, OSError) and error.filename:
        reason = (error.strerror or str(error)).lower()
        return OutputNotWritable(f"{error.filename}: {reason}", "Set HF_HUB_CACHE to a folder to write to.")
    return NetworkError(
        f"{address.url()}: {_trouble(error)[0]}",
        "Check the connection, the proxy variables and HF_ENDPOINT, " + _AGAIN,
    )


def offline_error(address: HubAddress, switch: str) -> NetworkError:
    """What is told instead of a request while a switch forbids them."""
    return NetworkError(
        f"{address.url()}: is not asked for, because {switch} is set and the file is not on this machine",
        f"Unset {switch}, " + _AGAIN,
    )


def pause_before_retry(error: Exception, attempt: int) -> float | None:
    """Seconds to wait before another try, where one may help; `attempt` counts from 1."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return None  # It is a ConnectionError, though no connection was tried.
    response = getattr(error, "response", None)
    own = 2.0 ** (attempt - 1)
    if response is None:
        return own if _trouble(error)[1] else None
    if response.status_code not in PASSING:
        return None
    return max(own, _asked_pause(response) or 0.0)


def _asked_pause(response: Any) -> float | None:
    """Seconds that the server asks to wait: `Retry-After`, or the hub's own account of its limit."""
    asked = (response.headers.get("Retry-After") or "").strip()
    if asked.isdigit() and len(asked) < 7:
        return float(asked)
    limit = _RATE_LIMIT.search(response.headers.get("RateLimit") or "")
    return float(limit[1]) if limit and response.status_code == 429 else None


# Answers


def _refused(error: Any, address: HubAddress, token: str | None) -> ZooError:
    from huggingface_hub import errors as theirs

    status = error.response.status_code
    if isinstance(error, theirs.DisabledRepoError):
        return NotFound(f"{address.page}: the repository has been disabled", "Its page may tell why.")
    if isinstance(error, theirs.RevisionNotFoundError):
        return _no_revision(address)
    if isinstance(error, theirs.EntryNotFoundError):
        return _no_file(address)
    if status == 401 and (token is None or not _hides_the_repository(error)):
        return _needs_login(error, address, token)
    if isinstance(error, theirs.GatedRepoError) or status == 403:
        return _not_granted(error, address)
    if isinstance(error, theirs.RepositoryNotFoundError) or status == 401:
        return _no_repository(address, token)
    if status == 404:
        return NotFound(f"{address.url()}: there is no such file", f"Its repository: {address.page}")
    return _unwell(error, address)


def _hides_the_repository(error: Any) -> bool:
    """Whether a 401 says that there is no such repository, and not that the token is not accepted."""
    return bool(error.response.headers.get("X-Error-Code") == "RepoNotFound")


def _needs_login(error: Any, address: HubAddress, token: str | None) -> LicenceError:
    reason = "needs a login"
    if token is not None:
        reason = "needs a valid login: the token that was sent is not accepted"
    elif _hides_the_repository(error):
        reason += ", or there is no such repository"
    return LicenceError(
        f"{address.url()}: {reason}",
        f"Create a token at {endpoint()}/settings/tokens\nthen: hf auth login (or set HF_TOKEN)\n" + _AGAIN,
    )


def _not_granted(error: Any, address: HubAddress) -> LicenceError:
    said = _one_line(getattr(error, "server_message", None) or "")
    return LicenceError(
        f"{address.page}: your account has not been given access",
        f"Open {address.page}\naccept the terms there, or wait for the approval\n{_AGAIN}"
        + (f"\nThe server says: {said}" if said else ""),
    )


def _no_repository(address: HubAddress, token: str | None) -> NotFound:
    hidden = "" if token is None else " that your account may see"
    return NotFound(
        f"{address.page}: there is no such repository{hidden}",
        "Check its name. Which account is asking: hf auth whoami",
    )


def _no_revision(address: HubAddress) -> NotFound:
    return NotFound(
        f"{address.url()}: the repository has no revision '{address.revision}'",
        f"Its branches and commits: {address.page}/commits/main",
    )


def _no_file(address: HubAddress) -> NotFound:
    revision = address.revision or "main"
    return NotFound(
        f"{address.url()}: the repository has no file '{address.path}' at revision '{revision}'",
        f"Its files: {address.page}/tree/{revision}",
    )


def _unwell(error: Any, address: HubAddress) -> NetworkError:
    status = error.response.status_code
    asked = _asked_pause(error.response)
    wait = f"Wait {asked:.0f} s, " if asked else "Wait a little, "
    if status == 429:
        return NetworkError(f"{address.url()}: the server is asked too often (429)", wait + _AGAIN)
    said = _one_line(getattr(error, "server_message", None) or "")
    return NetworkError(
        f"{address.url()}: the server answers {status}" + (f": {said}" if said else ""),
        wait + _AGAIN if status in PASSING else "Check HF_ENDPOINT, " + _AGAIN,
    )


# No answer


def _trouble(error: BaseException) -> tuple[str, bool]:
    """Why there was no answer, and whether another try may bring one."""
    causes = list(_causes(error))

    def met(*kinds: type[BaseException], named: str = "$") -> bool:
        return any(isinstance(cause, kinds) or type(cause).__name__.endswith(named) for cause in causes)

    if met(socket.gaierror):
        return "the server's name cannot be resolved", False
    if met(ConnectionRefusedError):
        return "the connection was refused", False
    if met(ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {_one_line(str(error))}", False
    if met(named="ProxyError"):
        return f"the proxy refuses: {_one_line(str(error))}", False
    if met(TimeoutError, named="Timeout"):
        return "no answer in time", True
    if met(ConnectionError, ssl.SSLError, named="ProtocolError"):
        return "the connection broke off", True
    return _one_line(str(error)) or type(error).__name__, False


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was raised from or while handling."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _one_line(text: str, most: int = 200) -> str:
    """What a server or library says, fit to be printed."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return line if len(line) <= most else line[: most - 1] + "…"
