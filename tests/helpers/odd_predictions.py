"""Sets of predictions at the edges of what a metric is given."""

from evaluation_builders import prediction, random_predictions

from medqlora.records import YES_NO_MAYBE, Prediction

ODD = {
    "random": random_predictions(200),
    "four options": random_predictions(60, labels="ABCD"),
    "likelihoods alone": random_predictions(50, generated=False),
    "a class that never occurs": [
        prediction(0, "yes", [-1, -2, -3], text="Yes.", parsed="yes"),
        prediction(1, "no", [-1, -2, -3], text="Yes.", parsed="yes"),
    ],
    "a class that is only decided": [prediction(n, "no", [-5, -1, -0.5]) for n in range(4)],
    "unparsed": [
        prediction(0, "yes", text="Yes.", parsed="yes"),
        prediction(1, "no", text="Hm."),
        prediction(2, "no", text="Well"),
    ],
    "none parsed": [prediction(n, "no", text="?") for n in range(3)],
    "ties": [prediction(n, gold, [-1, -1, -1]) for n, gold in enumerate(YES_NO_MAYBE * 3)],
    "a tie of two": [prediction(n, gold, [-1, -1, -900]) for n, gold in enumerate(YES_NO_MAYBE * 3)],
    "confidence 1": [
        prediction(n, gold, scores)
        for n, (gold, scores) in enumerate([("yes", [0, -3, -9]), ("no", [0, -900, -900])] * 4)
    ],
    "one question": [prediction(0, "maybe", [-1, -2, -3], text="No.", parsed="no")],
    "options that differ": [
        prediction(0, "A", [-1, -2, -3, -4], labels="ABCD"),
        prediction(1, "E", [-1, -2, -3, -4, -0.5], labels="ABCDE"),
        prediction(2, "B", [-1, -1, -3], labels="CBA"),
    ],
    "free answers": [
        Prediction("1", "40 mg daily", (), text="40 mg, daily."),
        Prediction("2", "aspirin", (), text="Aspirin should be given"),
    ],
    "free answers, not generated": [Prediction("1", "40 mg daily", ())],
}


def labels_of(predictions: list[Prediction]) -> list[str]:
    return list(dict.fromkeys(label for one in predictions for label in one.labels))
