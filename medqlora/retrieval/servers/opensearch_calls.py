"""Calls to an OpenSearch server: its errors as one line, batches of passages, and what it holds of documents."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medqlora.errors import InputError
from medqlora.retrieval.servers.opensearch_shapes import passage_id
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


@contextmanager
def answers(place: Place) -> Iterator[None]:
    """Turns the client's errors, and answers of another form, into InputErrors of one line."""
    from opensearchpy.exceptions import ConnectionError as Unreachable
    from opensearchpy.exceptions import OpenSearchException, TransportError

    where = f"{place.option}: {place.url}"
    try:
        yield
    except Unreachable as error:
        raise InputError(f"{where} doesn't answer ({_line(error)}): start it, or correct url") from error
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


def _refusal(place: Place, status: int | str, line: str) -> str:
    if status == 404:
        return f"there is no index {place.name}: build it with `medqlora index build`"
    if status in (401, 403):
        return f"refuses user {place.user}: correct user, or the password in {PASSWORD}"
    return f"{place.name}: {line}"


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
