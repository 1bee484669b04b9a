"""An adapter behind LitServe, for those who run Lightning's servers: pip install litserve; python litserve_api.py DIR

`medqlora serve` has more: streams, OpenAI's API, tokens, metrics, a page. This is the shortest way to an endpoint.
"""

import sys
from collections.abc import Mapping, Sequence

import litserve as ls

from medqlora.inference import Answer, Predictor
from medqlora.records import Record


class MedicalAPI(ls.LitAPI):
    """POST /predict {"question": "…", "contexts": ["…"]} → the answer as `medqlora ask --json` gives it."""

    def setup(self, device: str) -> None:
        self.predictor = Predictor.load(sys.argv[1], device=device.replace("mps", "cpu"))

    def decode_request(self, request: Mapping[str, object]) -> Record:
        contexts = request.get("contexts") or ()
        assert isinstance(contexts, (list, tuple))
        labels = self.predictor.labels
        return Record("", str(request["question"]), tuple(map(str, contexts)), labels=labels)

    def predict(self, batch: Sequence[Record]) -> list[Answer]:
        from dataclasses import replace

        # a question that calls for a fixed safety reply never reaches the model
        return self.predictor.answers([replace(record, id=str(at)) for at, record in enumerate(batch)])

    def encode_response(self, output: Answer) -> dict[str, object]:
        return dict(output.to_json())


if __name__ == "__main__":
    ls.LitServer(MedicalAPI(max_batch_size=16, batch_timeout=0.01)).run(host="127.0.0.1", port=8000)
