"""What the prompts say, and what can never stand in them."""

import copy
import inspect
import json
import sys
from dataclasses import fields

import pytest
from tokenizer_families import CHATML, INST_CHAT, family

from medqlora.data import prompts
from medqlora.data.encoding.encode import encode, end_token_ids
from medqlora.data.sources.pubmedqa import PubMedQA
from medqlora.errors import InputError
from medqlora.records import ImageFile, Record

LABELS = ("yes", "no", "maybe")
SENTINEL = "GIVEAWAY"
MEDICAL = "e7215ee672f59cf38d92d75c1c8a42f7e115938eb91a2e05147fa28cb079372b"
LM_EVAL = "eb77962a8417f3c3959e23aae1c789e8fe6d12ef87a9e9ac59912832a7844410"
SECRETS = ("LONG_ANSWER", "final_decision", "reasoning_required_pred", "reasoning_free_pred")


def body(name, *args):
    return prompts.lookup(name).body(*args)


def test_medical_reads_as_documented():
    assert body("medical", " Why? ", ("One.", "Two."), {}, LABELS) == (
        "MEDICAL QUESTION: Why?\nCONTEXT: One. Two.\nANSWER:"
    )
    assert body("medical", "Why?", (), {}, LABELS) == "MEDICAL QUESTION: Why?\nANSWER:"
    assert body("medical", "Which?", ("One.",), {"A": "Aspirin", "B": "Rest"}, ("A", "B")) == (
        "MEDICAL QUESTION: Which?\nA. Aspirin\nB. Rest\nCONTEXT: One.\nANSWER:"
    )


def test_lm_eval_is_the_harness_prompt_byte_for_byte(pubmedqa_file):
    for item in json.loads(pubmedqa_file.read_text("utf-8")).values():
        harness = "Abstract: {}\nQuestion: {}\nAnswer:".format("\n".join(item["CONTEXTS"]), item["QUESTION"])
        assert body("lm_eval", item["QUESTION"], item["CONTEXTS"], {}, LABELS) == harness
    prompt = prompts.lookup("lm_eval")
    assert prompt.frame(None).delimiter + prompt.completion("yes", "Because.", LABELS) == " yes"


def test_chat_names_the_labels_as_they_are_to_be_written():
    text = body("chat", "Why?", ("One.", "Two."), {}, LABELS)
    assert (
        text
        == "Context: One.\nTwo.\n\nQuestion: Why?\n\nAnswer with one of: Yes, No, Maybe. Then explain why."
    )
    assert body("chat", "Why?", (), {}, ()) == "Question: Why?\n\nAnswer the question."
    assert prompts.lookup("chat").completion("maybe", "Unclear.", LABELS) == "Maybe. Unclear."


@pytest.mark.parametrize(
    ("answer", "long_answer", "labels", "expected"),
    [
        ("yes", "It helps.", LABELS, "yes. It helps."),
        ("yes", "", LABELS, "yes."),
        ("Rest and fluids", "", (), "Rest and fluids"),
        ("Rest and fluids", "It is a virus.", (), "Rest and fluids. It is a virus."),
        ("Rest.", "It is a virus.", (), "Rest. It is a virus."),
    ],
)
def test_medical_completions(answer, long_answer, labels, expected):
    assert prompts.lookup("medical").completion(answer, long_answer, labels) == expected


def test_lm_evals_answer_is_the_label_alone():
    assert prompts.lookup("lm_eval").completion("yes", "Because.", LABELS) == "yes"


def test_a_prompt_can_see_question_contexts_options_labels_and_subject_alone():
    allowed = ["self", "question", "contexts", "options", "labels", "subject"]
    for name in prompts.prompt_names():
        assert list(inspect.signature(type(prompts.lookup(name)).body).parameters) == allowed
    plain = {
        "question": str,
        "contexts": "Sequence",
        "options": "Mapping",
        "labels": "Sequence",
        "subject": str,
        "return": str,
    }
    for key, kind in inspect.get_annotations(prompts.Prompt.body).items():
        assert kind is plain[key] or plain[key] in str(kind)
        assert "Record" not in str(kind)


@pytest.mark.parametrize("name", prompts.prompt_names())
def test_nothing_that_gives_the_answer_away_reaches_a_prompt(pubmedqa_file, tmp_path, name):
    data = json.loads(pubmedqa_file.read_text("utf-8"))
    for number, item in enumerate(data.values()):
        item["LONG_ANSWER"] = f"{SENTINEL} {number}"
        for key in SECRETS[1:]:
            item[key] = LABELS[(LABELS.index(item[key]) + 1) % 3]
    other = tmp_path / "other.json"
    other.write_text(json.dumps(data), "utf-8")
    tokenizer, prompt = family("qwen2"), prompts.lookup(name)
    pairs = [
        (real, fake)
        for parts in zip(PubMedQA(str(pubmedqa_file)).read(), PubMedQA(str(other)).read(), strict=True)
        for real, fake in zip(*parts, strict=True)
    ]
    assert len(pairs) == 1000
    for real, fake in pairs:
        assert real.answer != fake.answer
        texts = [prompt.body(r.question, r.contexts, r.options, r.labels) for r in (real, fake)]
        assert texts[0].encode() == texts[1].encode()
        assert SENTINEL not in texts[1]
        assert real.long_answer not in texts[0]
    for real, fake in pairs[::50]:
        assert encode(real, prompt, tokenizer, 5000).prompt == encode(fake, prompt, tokenizer, 5000).prompt


def test_every_other_field_of_a_record_leaves_the_prompt_as_it_is():
    base = Record(id="1", question="Why?", contexts=("One.",), answer="yes")
    free = {
        "id": "2",
        "context_labels": ("X",),
        "answer": "no",
        "long_answer": SENTINEL,
        "topics": (SENTINEL,),
    }
    free |= {"annotations": {"reasoning_free": SENTINEL}, "where": SENTINEL, "aliases": (SENTINEL,)}
    free["images"] = (ImageFile(SENTINEL, SENTINEL),)  # a base that reads text alone leaves them out
    seen = {"question", "contexts", "options", "labels", "subject"}
    assert {field.name for field in fields(Record)} == {*free, *seen}
    changed = Record(question=base.question, contexts=base.contexts, labels=base.labels, **free)
    for name in prompts.prompt_names():
        found = [encode(r, prompts.lookup(name), family("llama3"), 500).prompt for r in (base, changed)]
        assert found[0] == found[1]


# --- identity ---------------------------------------------------------------------------------------


def test_a_registered_prompt_has_the_name_that_it_is_registered_by():
    assert prompts.prompt_names() == ("chat", "lm_eval", "medical")
    for name, kind in prompts.PROMPTS:
        assert (kind.name, prompts.lookup(name).name) == (name, name)


def test_a_prompts_identity_is_pinned():
    """These stand in published reports: a changed template is another prompt."""
    assert prompts.lookup("medical").sha256() == MEDICAL
    assert prompts.lookup("lm_eval").sha256() == LM_EVAL


def test_chats_identity_goes_by_the_chat_template():
    chat = prompts.lookup("chat")
    other = copy.deepcopy(family("qwen2"))
    assert chat.sha256(other) == chat.sha256(family("qwen2")) != chat.sha256(family("llama3"))
    other.chat_template += " "
    assert chat.sha256(other) != chat.sha256(family("qwen2"))


def test_descriptions_are_plain_json():
    for name in prompts.prompt_names():
        plain = prompts.lookup(name).describe(family("llama3"))
        assert json.loads(json.dumps(plain)) == plain
        assert plain["name"] == name
        assert plain["sha256"] == prompts.lookup(name).sha256(family("llama3"))


def test_descriptions_tell_what_is_rendered():
    for name in ("medical", "lm_eval", "chat"):
        pieces = prompts.lookup(name).template(family("llama3"))
        context = pieces["context"].replace("{contexts}", pieces["context_joiner"].join(["One.", "Two."]))
        option = pieces["option"].replace("{label}", "A").replace("{text}", "Rest")
        ask = pieces.get("instruction", "").replace("{labels}", "A, B")
        text = pieces["prompt"].replace("{question}", "Why?").replace("{context}", context)
        text = text.replace("{options}", option).replace("{instruction}", ask)
        assert body(name, "Why?", ("One.", "Two."), {"A": "Rest"}, ("A", "B")) == text


@pytest.mark.parametrize(("name", "hint"), [("medicla", "medical"), ("lm-eval", "lm_eval"), ("Chat", "chat")])
def test_an_unknown_prompt_names_the_nearest(name, hint):
    with pytest.raises(InputError, match=rf"--data\.prompt: .*{name!r}: did you mean {hint}\?"):
        prompts.lookup(name)


def test_a_strange_prompt_names_all():
    with pytest.raises(
        InputError, match=r"'qqq': choose one of chat, lm_eval, medical, or give the class path"
    ):
        prompts.lookup("qqq")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (
            "no_such_module.Mine",
            "there is no module 'no_such_module': correct the name, or put its",
        ),
        ("own_prompts.Shoot", "module own_prompts has no class 'Shoot': did you mean Shout? "),
        ("own_prompts.Other", "it is no subclass of medqlora.data.Prompt"),
        ("own_prompts.value", "it is no subclass of medqlora.data.Prompt"),
        ("own_prompts.Needs", "missing 1 required positional argument: 'loud'"),
        (
            "own_prompts.Half",
            "it can't be constructed without arguments (Can't instantiate abstract class Half",
        ),
        (
            "broken_prompts.Any",
            "can't be imported (ZeroDivisionError: division by zero)",
        ),
        ("medqlora.data.prompts.medical.Medica", "did you mean Medical?"),
        (".", "can't be imported"),
    ],
)
def test_a_class_path_that_gives_no_prompt_says_why_in_one_line(path, why, tmp_path, monkeypatch):
    (tmp_path / "own_prompts.py").write_text(
        "from medqlora.data import Prompt\nfrom medqlora.data.prompts.medical import Medical\nvalue = 1\n"
        "class Shout(Medical): pass\nclass Other: pass\nclass Half(Prompt): pass\n"
        "class Needs(Medical):\n    def __init__(self, loud): pass\n"
    )
    (tmp_path / "broken_prompts.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_prompts", raising=False)
    with pytest.raises(InputError) as refused:
        prompts.lookup(path)
    message = str(refused.value)
    assert message.startswith(f"--data.prompt: {path}: ")
    assert why in message
    assert "\n" not in message


# --- chat templates ---------------------------------------------------------------------------------


def templated(kind: str, template: str | None):
    tokenizer = copy.deepcopy(family(kind))
    tokenizer.chat_template = template
    return tokenizer


def test_chat_without_a_chat_template_says_which_prompt_to_use():
    with pytest.raises(InputError, match=r"chat template.*use --data\.prompt medical"):
        prompts.lookup("chat").frame(templated("llama3", None))


@pytest.mark.parametrize(
    "template",
    ["no messages", "{{ messages[0]['content'] }}", "{{ raise_exception('no') }}", "{% broken", CHATML * 2],
)
def test_a_chat_template_that_can_not_be_used_says_so(template):
    with pytest.raises(InputError, match=r"--data\.prompt.*use --data\.prompt medical"):
        prompts.lookup("chat").frame(templated("qwen2", template))


def test_todays_date_does_not_reach_a_prompt(monkeypatch):
    dated = "{{ strftime_now('%d %b %Y') }} " + CHATML
    frame = prompts.lookup("chat").frame(templated("qwen2", dated))
    assert frame.before.startswith("26 Jul 2024 ")


def test_thinking_is_left_out_where_the_template_would_open_it():
    opens = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    skips = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}<think>\n\n</think>\n\n"
        "{% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    assert (
        prompts.lookup("chat").frame(templated("qwen2", opens)).after == "<|im_end|>\n<|im_start|>assistant\n"
    )
    assert prompts.lookup("chat").frame(templated("qwen2", skips)).after.endswith("<think>\n\n</think>\n\n")


def test_the_answers_space_belongs_to_the_answer():
    frame = prompts.lookup("chat").frame(templated("mistral", INST_CHAT))
    assert frame[:4] == ("<s>[INST] ", " [/INST]", " ", "</s>")


def test_generation_stops_at_the_end_of_the_turn_and_of_the_sequence():
    ids = family("llama3").convert_tokens_to_ids
    assert end_token_ids(prompts.lookup("chat"), family("llama3")) == (
        ids("<|eot_id|>"),
        ids("<|end_of_text|>"),
    )
    assert end_token_ids(prompts.lookup("medical"), family("llama3")) == (ids("<|end_of_text|>"),)
    turn = family("gemma").convert_tokens_to_ids("<end_of_turn>")
    assert end_token_ids(prompts.lookup("chat"), family("gemma"))[0] == turn
    assert end_token_ids(prompts.lookup("chat"), family("mistral")) == (family("mistral").eos_token_id,)
