"""Calls to an OpenSearch server: its errors as one line, batches of passages, and what it holds of documents."""

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from medqlora.errors import InputError
from medqlora.retrieval.servers.opensearch_shapes import counted, passage_id
from medqlora.utils.types import Json

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

#: environment variable of the password, which a description never holds
PASSWORD = "OPENSEARCH_PASSWORD"
#: ids of one request
_IDS = 500


@dataclass(frozen=True)
class Place:
    """An index on a server, for messages.

    Args:
        option: what named its description.
        url: the server's.
        name: of the index.
        user: as who.
    """

    option: str
    url: str
    name: str
    user: str | None


class Settings(Protocol):
    """The options of an index on OpenSearch."""

    url: str
    name: str
    user: str | None
    certificates: str | None
    embedding: str | None
    query_embedding: str | None
    shards: int
    replicas: int
    timeout_s: float


def check_values(settings: Settings) -> None:
    """Raises InputError for values that no server makes right."""
    for option in ("user", "certificates", "embedding", "query_embedding"):
        value = getattr(settings, option)
        if value is not None and not isinstance(value, str):
            raise InputError(f"{option} {value!r}: write a text, in quotes")
    for option, least in (("shards", 1), ("replicas", 0), ("timeout_s", 0.1)):
        value = getattr(settings, option)
        kinds = (int, float) if option == "timeout_s" else (int,)
        if isinstance(value, bool) or not isinstance(value, kinds) or value < least:
            raise InputError(f"{option} {value!r}: write a number of at least {least}")
    if not str(settings.url).startswith(("http://", "https://")):
        raise InputError(f"url {settings.url}: write it as https://localhost:9200")
    name = settings.name
    if not name or name != name.lower() or name[0] in "_-+." or any(one in ' \\/*?"<>|,#:' for one in name):
        raise InputError(
            f"name {name!r}: OpenSearch takes lower-case letters, digits, - and _: choose another"
        )
    if settings.certificates is not None and not Path(settings.certificates).expanduser().is_file():
        raise InputError(f"certificates: there is no file {settings.certificates}: correct it")


def connect(place: Place, certificates: str | None, timeout_s: float) -> "OpenSearch":
    """A client for the server.

    Args:
        place: its address, and the user.
        certificates: a file of certificate authorities; None for the system's.
        timeout_s: a request may take this long.

    Raises:
        InputError: `opensearch-py` is missing, or there is no password for the user.
    """
    try:
        from opensearchpy import OpenSearch
    except ImportError as error:
        raise InputError(
            f"{place.option}: OpenSearch needs opensearch-py: pip install 'medqlora[opensearch]'"
        ) from error
    logging.getLogger("opensearch").setLevel(logging.ERROR)  # it remarks on each reply that is none
    login = None
    if place.user is not None:
        password = os.environ.get(PASSWORD)
        if not password:
            raise InputError(f"{place.option}: user {place.user}: put the password into {PASSWORD}")
        login = (place.user, password)
    return OpenSearch(
        hosts=[place.url],
        http_auth=login,
        ca_certs=None if certificates is None else str(Path(certificates).expanduser()),
        timeout=timeout_s,
        max_retries=2,
        http_compress=True,
    )


@contextmanager
def answers(place: Place) -> Iterator[None]:
    """Turns the client's errors, and answers of another form, into InputErrors of one line."""
    from opensearchpy.exceptions import ConnectionError as Unreachable
    from opensearchpy.exceptions import OpenSearchException, TransportError

    where = f"{place.option}: {place.url}"
    try:
        yield
    except Unreachable as error:
        raise InputError(
            f"{where} doesn't answer ({_cause(error.error)}): start it, or correct url"
        ) from error
    except TransportError as error:
        raise InputError(f"{where}: {_refusal(place, error.status_code, _line(error))}") from error
    except (OpenSearchException, LookupError, TypeError, ValueError, StopIteration) as error:
        raise InputError(f"{where}: {place.name}: answers in another form ({_line(error)})") from error


def send(client: "OpenSearch", place: Place, actions: Sequence[dict[str, Json]]) -> None:
    """Carries out bulk actions, in order.

    https://docs.opensearch.org/latest/api-reference/document-apis/bulk/

    Raises:
        InputError: the server refuses one.
    """
    from opensearchpy.helpers import bulk

    _, errors = bulk(client, actions, raise_on_error=False, max_retries=3, chunk_size=_IDS)
    for error in errors if isinstance(errors, list) else ():
        result = next(iter(error.values()))
        if result.get("status") != 404:  # a deletion that a killed process had done
            reason = result.get("error")
            text = str(reason.get("reason", reason) if isinstance(reason, Mapping) else reason)
            raise InputError(f"{place.option}: {place.name} refuses a passage ({text[:200]}): see its log")


def known(client: "OpenSearch", name: str, keys: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Key → version and number of passages of the documents that the index holds, also before a refresh.

    https://docs.opensearch.org/latest/api-reference/document-apis/multi-get/
    """
    found: dict[str, tuple[int, int]] = {}
    for start in range(0, len(keys), _IDS):
        some = {passage_id(key, 0): key for key in keys[start : start + _IDS]}
        answer = client.mget(index=name, body={"ids": list(some)}, params={"_source": "version,passages"})
        for one in answer["docs"]:
            if one.get("found"):
                source = one["_source"]
                found[some[one["_id"]]] = int(source["version"]), int(source["passages"])
    return found


def stems_of(client: "OpenSearch", name: str, words: Sequence[str]) -> dict[str, str]:
    """Word → stem, of the words that the index's analyzer takes for one; in their order.

    https://docs.opensearch.org/latest/api-reference/analyze-apis/
    """
    answer = client.indices.analyze(index=name, body={"analyzer": "stemmed", "text": " ".join(words)})
    tokens = {int(token["start_offset"]): str(token["token"]) for token in answer["tokens"]}
    stems: dict[str, str] = {}
    start = 0
    for word in words:
        if start in tokens:
            stems[word] = tokens[start]
        start += len(word.encode("utf-16-le")) // 2 + 1  # the server counts UTF-16
    return stems


def passages_with(client: "OpenSearch", name: str, words: Sequence[str | None]) -> list[int]:
    """The number of passages with each word; None stands for all passages."""
    lines = [line for word in words for line in ({}, counted(word))]
    return [int(one["hits"]["total"]["value"]) for one in client.msearch(index=name, body=lines)["responses"]]


def contents(client: "OpenSearch", name: str) -> dict[str, Json]:
    """Numbers of documents (above 40,000 an estimate) and passages, and the years."""
    body: dict[str, Json] = {
        "size": 0,
        "track_total_hits": True,
        "aggs": {
            "documents": {"cardinality": {"field": "key", "precision_threshold": 40_000}},
            "years": {"stats": {"field": "year"}},
        },
    }
    found = client.search(index=name, body=body)
    years = found["aggregations"]["years"]
    return {
        "documents": int(found["aggregations"]["documents"]["value"]),
        "passages": int(found["hits"]["total"]["value"]),
        "first_year": None if years["min"] is None else int(years["min"]),
        "last_year": None if years["max"] is None else int(years["max"]),
    }


def _refusal(place: Place, status: int | str, line: str) -> str:
    if status == 404:
        return f"there is no index {place.name}: build it with `medqlora index build`"
    if status in (401, 403):
        return f"refuses user {place.user}: correct user, or the password in {PASSWORD}"
    return f"{place.name}: {line}"


def _cause(text: object) -> str:
    """What urllib3 says of a connection, without its objects: `Connection refused`."""
    said = re.sub(r"^\w+\([^)]*\): |\[Errno -?\d+\] |\(_ssl\.c:\d+\)", "", str(text)).strip(" ()")
    return (said.splitlines() or ["no reply"])[0][:200]


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
