"""`serve --index`: passages of an index for questions without a context."""

import asyncio

from medqlora.errors import InputError
from medqlora.records import Record
from medqlora.retrieval.opening import open_for_search
from medqlora.retrieval.retriever import Retrieved, Retriever
from medqlora.serving.errors import ServiceError


class Sources:
    """An open index, which all requests share.

    Args:
        index: file of `medqlora index build`.
        k: passages for a question.
        numbered: whether [1], [2], … stand before the passages, as the adapter was trained.

    Raises:
        InputError: the index can't be opened.
    """

    def __init__(self, index: str, k: int, *, numbered: bool) -> None:
        self._retriever = Retriever(open_for_search(index, "--index"), k=k, numbered=numbered)

    async def retrieved(self, record: Record) -> Retrieved:
        """The question with its passages; the event loop goes on meanwhile.

        Raises:
            ServiceError: the index is damaged.
        """
        try:
            return await asyncio.to_thread(self._retriever.retrieve, record)
        except InputError as error:
            raise ServiceError(503, str(error), code="index") from error
