"""TensorBoard as it reads a fit and its test: curves first, HPARAMS filled, questions, confusion and baselines."""

import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from harness import options, run
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext

from medqlora.callbacks import Throughput
from medqlora.records import YES_NO_MAYBE, Prediction, Record
from medqlora.training.samples import samples_table

with warnings.catch_warnings():  # its copy of html5lib warns of itself
    warnings.simplefilter("ignore", DeprecationWarning)
    from tensorboard.plugin_util import markdown_to_safe_html
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

DRAWN = True


@pytest.fixture(scope="module")
def runs(tiny_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A finished fit of two epochs and the test of its adapter."""
    words = [
        *options(tiny_bases["llama"], tmp_path_factory.mktemp("run"), dev=9),
        "--trainer.log_every_n_steps=4",
    ]
    return {verb: run(verb, words) for verb in ("fit", "test")}


def events(cli: Any) -> EventAccumulator:
    read = EventAccumulator(str(cli.trainer.log_dir), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    read.Reload()
    return read


def test_training_and_validation_come_before_all_that_is_of_the_machine(runs: dict[str, Any]) -> None:
    tags = sorted(events(runs["fit"]).Tags()["scalars"])  # TensorBoard shows its groups in this order
    groups = list(dict.fromkeys(tag.partition("/")[0] for tag in tags))
    assert groups == ["train", "val", "x-best", "x-memory", "x-progress", "x-speed"]
    tested = events(runs["test"]).Tags()
    assert all(tag.startswith("x-") for tag in (*tested["scalars"], *tested["images"]))
    assert "x-test/confusion" in tested["images"]
    assert {"val/accuracy", "val/base_accuracy", "val/majority_accuracy", "train/loss"} <= set(tags)


def test_the_whole_runs_speed_is_logged_at_its_end(runs: dict[str, Any]) -> None:
    totals = next(one for one in runs["fit"].trainer.callbacks if isinstance(one, Throughput)).totals
    assert (totals["steps"], totals["examples"]) == (12, 48)  # also the steps since the last logging step
    [point] = events(runs["fit"]).Scalars("x-speed/run_tokens_per_s")
    assert point.step == 12
    assert point.value == pytest.approx(totals["tokens"] / totals["seconds"])


def test_the_hparams_plugin_shows_a_row_for_the_fit_and_one_for_its_test(runs: dict[str, Any]) -> None:
    """Read with the plugin's own handler, as its page asks it."""
    folder = Path(runs["fit"].trainer.log_dir).parent
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(folder))
    context = backend_context.Context(
        TBContext(logdir=str(folder), multiplexer=multiplexer, data_provider=provider)
    )
    request, asked = RequestContext(), "experiment"
    content = context.hparams_metadata(request, asked)
    experiment = context.experiment_from_metadata(request, asked, True, content, [])
    metrics = [info.name.tag for info in experiment.metric_infos]
    columns = [info.name for info in experiment.hparam_infos]
    wanted = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=10,
        include_metrics=True,
        allowed_statuses=[api_pb2.STATUS_SUCCESS],
        col_params=[api_pb2.ColParams(metric=info.name) for info in experiment.metric_infos],
    )
    handler = list_session_groups.Handler(request, context, asked, wanted)
    rows = {
        group.hparams["command"].string_value: (
            group.hparams,
            {value.name.tag: value.value for value in group.metric_values},
        )
        for group in handler.run().session_groups
    }
    assert set(rows) == {"fit", "test"}
    for options_of_row, _ in rows.values():
        assert set(options_of_row) <= set(columns)
        assert options_of_row["learning_rate"].number_value == pytest.approx(5e-3)
        assert options_of_row["lora_r"].number_value == 4
        assert options_of_row["data"].string_value == "JSONLines"
    best = runs["fit"].trainer.checkpoint_callback.best_model_score
    assert rows["fit"][1]["x-best/accuracy"] == pytest.approx(float(best))
    assert rows["test"][1]["x-test/accuracy"] == pytest.approx(runs["test"].report.scores.accuracy)
    assert {"x-best/accuracy", "x-test/accuracy", "x-speed/run_tokens_per_s"} <= set(metrics)


def test_each_validation_has_its_questions_and_a_confusion_matrix(runs: dict[str, Any]) -> None:
    read = events(runs["fit"])
    assert [image.step for image in read.Images("val/confusion")] == [6, 12]
    texts = read.Tensors("val/samples/text_summary")
    assert [one.step for one in texts] == [6, 12]
    predictions = {one.id: one for one in runs["fit"].model.validated[1]}
    lines = texts[-1].tensor_proto.string_val[0].decode().splitlines()[2:]
    assert len(lines) == len(predictions) == 9
    for line in lines:
        ident, question, gold, decision, chance, _ = (cell.strip() for cell in line.split("|")[1:7])
        one = predictions[ident]
        assert (question, gold) == (f"Does drug {ident[1:]} help?", one.gold)
        assert decision == f"{'✓' if one.decision == one.gold else '✗'} {one.decision}"
        assert chance == f"{one.confidence:.3f}"


def test_the_baselines_are_the_base_models_own_accuracy_and_the_majoritys(runs: dict[str, Any]) -> None:
    """The oracle: the untrained base, evaluated by a command of its own."""
    read, fit = events(runs["fit"]), runs["fit"]
    gold = [fit.datamodule.records[example.id].answer for example in fit.datamodule.dev]
    majority = [point.value for point in read.Scalars("val/majority_accuracy")]
    assert majority == pytest.approx([max(Counter(gold).values()) / 9] * 2)
    folder = Path(fit.trainer.log_dir).parents[1]
    words = [
        f"--config={folder / 'config.yaml'}",
        "--model.adapter=none",
        f"--trainer.default_root_dir={folder}",
    ]
    words += [f"--model.backend.base={fit.model.backend.base}", "--model.generate=false"]
    words += [f"--data.source.{name}={folder / f'{name}.jsonl'}" for name in ("train", "dev", "test")]
    bare = run("validate", words).trainer.callback_metrics["val/accuracy"]
    assert [point.value for point in read.Scalars("val/base_accuracy")] == pytest.approx([float(bare)] * 2)
    steps = {
        name: [point.step for point in read.Scalars(f"val/{name}")] for name in ("accuracy", "base_accuracy")
    }
    assert steps["accuracy"] == steps["base_accuracy"]


def test_a_validation_is_said_beside_its_baselines_and_what_it_can_not_show(
    tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*options(tiny_bases["llama"], tmp_path, train=8, dev=4), "--trainer.max_epochs=1"]
    run("fit", words)
    out = capsys.readouterr().out
    assert re.search(
        r"^Validation at step 2: accuracy \d\.\d{3} of the text, \d\.\d{3} by likelihood; bare base \d\.\d{3} by "
        r"likelihood; always the majority 0\.500 \(±0\.49 on 4 questions\)$",
        out,
        re.MULTILINE,
    )
    first = "Note: Confidence can't be calibrated: 4 validation questions are too few, 20 are the least"
    assert first in out
    assert out.index(first) < out.index("Engine:")
    run("fit", [*words, "--compare_base=false", "--model.generate=false"])
    assert "bare base" not in capsys.readouterr().out


def test_a_questions_text_is_no_markup_in_tensorboards_page() -> None:
    evil = "a | b <script>x</script> *c* [d](http://e) `f` \\ \n# g"
    one = Prediction("1", "yes", YES_NO_MAYBE, (-1.0, -2.0, -3.0), (1, 1, 1), text=evil, parsed=None)
    shown = markdown_to_safe_html(samples_table([one], {"1": Record("1", evil, answer="yes")}))
    assert shown.count("<td>") == 6
    assert not re.search(r"<(script|em|a|code|h1)\b", shown)
    assert "a | b &lt;script&gt;x&lt;/script&gt; *c* [d](http://e) `f` \\ # g" in shown
