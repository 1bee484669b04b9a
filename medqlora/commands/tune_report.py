"""The page of a search, and the YAML to go on with."""

import json
import math
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial, TrialState

from medqlora.commands.tune_options import BEST, PAGE, STUDY, Search
from medqlora.commands.tune_trials import done_trials
from medqlora.evaluation.report.files import write_files
from medqlora.evaluation.report.markup import Markup, element, fields, joined, picture, table
from medqlora.evaluation.report.page import page, section
from medqlora.evaluation.report.plots import BASE, THIS, drawable, new_axes, svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STATES = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
_CAUTION = (
    "Each value is a score on the validation questions, and the best of many trials is higher than it will be on new "
    "questions. Fit with the best options, and evaluate that adapter once with `medqlora test`."
)


def write_search_report(search: Search, study: optuna.Study, best: FrozenTrial) -> str:
    """Writes the page and the best options; the page's path."""
    paths = write_files(
        search.out,
        {PAGE: render(search, study, best), BEST: best_yaml(search, best)},
    )
    return str(paths[PAGE])


def best_yaml(search: Search, best: FrozenTrial) -> str:
    """The best trial's options as an overlay of the configuration that was searched, and the score it was judged by."""
    import yaml

    nested: dict[str, object] = {}
    for name, value in {"checkpoint.monitor": search.metric, **best.params}.items():
        part = nested
        *groups, last = name.split(".")
        for group in groups:
            inner = part.setdefault(group, {})
            assert isinstance(inner, dict)
            part = inner
        part[last] = value
    return (
        f"# The best of {search.trials} trials of `medqlora tune`: {search.metric} {best.value:.4f} (trial "
        f"{best.number}).\n#   {search.next_fit()}\n# checkpoint.monitor is the search's --metric: the fit keeps "
        f"its best checkpoint by the score that chose these options.\n{yaml.safe_dump(nested)}"
    )


def importances(study: optuna.Study) -> dict[str, float]:
    """Option → share of the variance of the finished trials' values that it explains, the largest first.

    fANOVA (Hutter et al., 2014, https://proceedings.mlr.press/v32/hutter14.html), on a random forest of scikit-learn.
    Empty where fewer than 3 trials are finished, or all have the same value.
    """
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(finished) < 3 or len({trial.value for trial in finished}) < 2:
        return {}
    try:
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    except (ImportError, RuntimeError, ValueError):  # without scikit-learn, or where nothing varies
        return {}
    return {name: float(share) for name, share in found.items() if math.isfinite(share)}


def render(search: Search, study: optuna.Study, best: FrozenTrial) -> str:
    """The page."""
    trials, found = done_trials(study), importances(study)
    counts = {state: sum(trial.state == state for trial in trials) for state in _STATES}
    drawn = [_picture(_history(search, trials), "Value of each trial; crosses are pruned.")]
    if found:
        drawn.insert(
            0, _picture(_bars(found), "Share of the variance of the values that each option explains.")
        )
    chosen = {name: json.dumps(value) for name, value in best.params.items()}
    parts = [
        *section("Best options", fields(chosen)),
        *section("Figures", element("div", *drawn, class_="figures")),
        *section("Trials", _table(search, trials)),
        *section(
            "To repeat this search",
            fields({**search.definition(), "trials": search.trials, "seed": search.seed}),
        ),
    ]
    shown = ", ".join(f"{count} {_STATES[state]}" for state, count in counts.items())
    return page(
        title=f"Search: {search.metric} {best.value:.4f}",
        subtitle=f"{len(trials)} trials ({shown}); {STUDY} is Optuna's storage",
        headline=element(
            "p",
            element("b", f"{best.value:.4f}"),
            f" {search.metric}, trial {best.number}",
            class_="headline",
        ),
        cautions=[_CAUTION],
        sections=joined(parts),
    )


def _table(search: Search, trials: list[FrozenTrial]) -> Markup:
    names = list(search.space)
    rows: list[list[object]] = []
    sign = 1 if search.metric.endswith(("loss", "ece", "unparsed_fraction")) else -1
    for trial in sorted(
        trials, key=lambda one: (one.state != TrialState.COMPLETE, sign * (one.value or 0.0))
    ):
        value = "" if trial.value is None else f"{trial.value:.4f}"
        seconds = "" if trial.duration is None else f"{trial.duration.total_seconds():.0f}"
        values = [json.dumps(trial.params.get(name)) for name in names]
        rows.append(
            [trial.number, value, _STATES[trial.state], len(trial.intermediate_values), seconds, *values]
        )
    return table(["trial", search.metric, "", "validations", "seconds", *names], rows)


def _picture(figure: "Figure", caption: str) -> Markup:
    return picture(svg(figure), caption, caption)


def _bars(found: dict[str, float]) -> "Figure":
    figure, axes = new_axes(6.4, 1.2 + 0.35 * len(found), "Importance of the options")
    names = list(found)[::-1]
    axes.barh(range(len(names)), [found[name] for name in names], color=THIS)
    axes.set_yticks(range(len(names)), [drawable(name) for name in names])
    axes.set_xlim(0, 1)
    return figure


def _history(search: Search, trials: list[FrozenTrial]) -> "Figure":
    figure, axes = new_axes(6.4, 3.2, f"{search.metric} by trial")
    for state, marker, color in ((TrialState.COMPLETE, "o", THIS), (TrialState.PRUNED, "x", BASE)):
        own = [trial for trial in trials if trial.state == state and trial.value is not None]
        axes.plot(
            [trial.number for trial in own],
            [float(trial.value or 0.0) for trial in own],
            marker,
            color=color,
            label=_STATES[state],
        )
    axes.set_xlabel("trial")
    axes.legend(frameon=False, fontsize=9)
    return figure
