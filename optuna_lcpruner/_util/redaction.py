"""Texts without the passwords in them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus, unquote, unquote_plus

# All repetitions are bounded: errors and study names come from outside, and may be long.
_IN_URL = re.compile(r"(:/{1,9}[^\s:/@'\"]{0,256}):([^\s'\"]{0,512})@")
"""Also where a slash was forgotten, and up to the last ``@`` of the word: a password may hold one
that nobody escaped."""

_NAMED = re.compile(
    r"(?i)((?:password|passwd|passphrase|pwd|secret|token)[\w-]{0,20}[\"']?\s{0,9}[=:]\s{0,9})"
    r"(\"[^\"]{0,512}\"|'[^']{0,512}'|[^\s&,;)}\"']{1,512})"
)

_LONGEST = 300  # heuristic
"""Characters of an error that is shown."""

_SHORTEST = 3  # heuristic
"""Characters of a password that is looked for by itself; a shorter one would blot out words."""


def redact(text: str, urls: Iterable[str] = ()) -> str:
    """The text with ``***`` for each password.

    Found are the password of a URL, what follows ``password=`` and its like, and, wherever they
    stand, the passwords in the URLs given.

    Example:
        >>> redact("cannot reach postgresql://me:secret@db/studies")
        'cannot reach postgresql://me:***@db/studies'
    """
    for secret in sorted(set(_secrets(urls)), key=len, reverse=True):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, "***")
    text = _IN_URL.sub(r"\1:***@", text)
    return _NAMED.sub(r"\1***", text)


def _secrets(urls: Iterable[str]) -> Iterator[str]:
    for url in urls:
        found = [match.group(2) for match in _IN_URL.finditer(url)]
        found += [match.group(2).strip("\"'") for match in _NAMED.finditer(url)]
        # A password of quotes and blanks ends at the last "@" all the same.
        found += re.findall(r":/{1,9}[^:/@]{0,256}:(.{0,512})@", url, flags=re.DOTALL)
        for raw in found:
            plain = unquote(raw)
            yield from (raw, plain, unquote_plus(raw), quote(plain), quote_plus(plain))


def describe_error(error: BaseException, urls: Iterable[str] = ()) -> str:
    """An error in one line without passwords, as the database or driver put it.

    Args:
        error: The error; Optuna's and SQLAlchemy's own words, and the statement, are left out.
        urls: URLs whose passwords must not show.
    """
    is_optunas = type(error).__module__.startswith("optuna.")
    cause = (error.__cause__ if is_optunas else None) or error
    words = str(getattr(cause, "orig", None) or cause).strip() or repr(cause)
    return redact(words, urls).splitlines()[0][:_LONGEST]
