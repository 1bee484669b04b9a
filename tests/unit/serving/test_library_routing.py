"""`serve --library`: which adapter a request goes to."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medqlora.config.serving import ServeOptions
from medqlora.errors import InputError
from medqlora.inference.topic_training import train_router
from medqlora.records import Record
from medqlora.serving.engine import ServedModel
from medqlora.serving.errors import ServiceError
from medqlora.serving.service import Service

NAMES = ("general", "heart")


def service(library: str | None, *, routed: bool = True) -> Service:
    models = {name: ServedModel(name, "base", ("yes", "no"), None, None, False, ()) for name in NAMES}
    records = [Record(f"q{n}", f"Does it help {'the heart' if n % 2 else 'a knee'}?") for n in range(60)]
    router = train_router(records, [NAMES[n % 2] for n in range(60)], "general").router if routed else None
    pool: Any = SimpleNamespace(models=models)
    nothing: Any = None
    return Service(ServeOptions(library=library), pool, nothing, nothing, {}, None, router)


@pytest.mark.parametrize("model", [None, "", "library"])
def test_a_request_that_names_no_model_goes_to_the_adapter_of_its_topic(model: str | None) -> None:
    made = service("library")
    assert made.question("Does it help the heart?", (), None, model).model == "heart"
    assert made.question("Does it help a knee?", (), None, model).model == "general"
    assert made.question("What is it?", (), None, model).model == "general"


def test_a_named_adapter_answers_whatever_the_topic() -> None:
    assert service("library").question("Does it help a knee?", (), None, "heart").model == "heart"


def test_without_a_classifier_the_general_adapter_answers() -> None:
    assert (
        service("library", routed=False).question("Does it help the heart?", (), None, None).model
        == "general"
    )


def test_without_a_library_its_name_is_no_model() -> None:
    made = service(None)
    assert made.question("Does it help the heart?", (), None, None).model == "general"
    with pytest.raises(ServiceError, match="not served"):
        made.question("Does it help the heart?", (), None, "library")


def test_a_library_and_adapters_are_not_named_together(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave --adapter out"):
        ServeOptions(library=str(tmp_path), adapter=("x",)).check()
