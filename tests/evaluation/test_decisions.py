"""The decision parser reads what models really write, and never guesses."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medqlora.evaluation.decisions import parse_decision

YNM = ("yes", "no", "maybe")
ABCD = ("A", "B", "C", "D")
ABCDE = ("A", "B", "C", "D", "E")

YES_NO_MAYBE_OUTPUTS = [
    # bare
    ("yes", "yes"),
    ("no", "no"),
    ("maybe", "maybe"),
    (" yes", "yes"),
    ("Yes.", "yes"),
    ("NO", "no"),
    ("Maybe.", "maybe"),
    ("YES!", "yes"),
    ("\n\nno\n", "no"),
    ("**No**", "no"),
    ("*Maybe*", "maybe"),
    ("`yes`", "yes"),
    ('"no"', "no"),
    ("“Yes”", "yes"),
    ("(maybe)", "maybe"),
    ("[no]", "no"),
    ("<b>Yes</b>", "yes"),
    ("yes<|eot_id|>", "yes"),
    ("no</s>", "no"),
    ("- yes", None),  # an item of a list, not a sentence
    # the answer first
    ("Yes, statins reduce the risk of atrial fibrillation.", "yes"),
    ("No, there was no association between the two.", "no"),
    ("Yes. Our results suggest that no further imaging is needed.", "yes"),
    ("Maybe, since the trial was underpowered.", "maybe"),
    ("no. The rates did not differ.", "no"),
    ("Yes - the difference was significant (p = 0.01).", "yes"),
    ("No — the groups were alike.", "no"),
    ("Yes: mortality fell.", "yes"),
    ("Yes it does, in most patients.", "yes"),
    ("Yes because the hazard ratio was 0.7.", "yes"),
    ("no because the interval includes 1", "no"),
    ("Maybe because the evidence is mixed.", "maybe"),
    ("No (p = 0.43).", "no"),
    ("Well, no.", "no"),
    ("Definitely yes.", "yes"),
    ("Based on the abstract, yes.", "yes"),
    ("According to the study results, no, mortality was unchanged.", "no"),
    ("Based on these results, maybe.", "maybe"),
    ("Is laparoscopy safe in pregnancy? Yes.", "yes"),
    ("A: no", "no"),
    ("Assistant: yes, it does.", "yes"),
    # announced
    ("Answer: yes", "yes"),
    ("Answer: No.", "no"),
    ("**Answer:** no", "no"),
    ("**Answer: maybe**", "maybe"),
    ("**Answer**: **yes**", "yes"),
    ("### Answer\nno", "no"),
    ("**Answer**\n\nYes, it can.", "yes"),
    ("Answer:\n\nmaybe", "maybe"),
    ("ANSWER = YES", "yes"),
    ("Answer -> no", "no"),
    ("Answer (yes/no/maybe): no", "no"),
    ("The answer is maybe.", "maybe"),
    ("The answer is yes", "yes"),
    ("The answer is: No", "no"),
    ("The answer is **no**.", "no"),
    ('The answer is "maybe".', "maybe"),
    ("The answer is no because the confidence interval includes one.", "no"),
    ("The answer is probably yes.", "yes"),
    ("The answer would be maybe.", "maybe"),
    ("The answer is a clear no.", "no"),
    ("The answer is therefore yes.", "yes"),
    ("The answer to the question is no.", "no"),
    ("The answer to whether the drug is no better than placebo is yes.", "yes"),
    ("The correct answer is yes.", "yes"),
    ("Final answer: maybe", "maybe"),
    ("My final answer is no.", "no"),
    ("Decision: yes", "yes"),
    ("Verdict: No", "no"),
    ("Conclusion: maybe.", "maybe"),
    ("The final decision is no.", "no"),
    ("I would say yes.", "yes"),
    ("I would answer: no", "no"),
    ("We conclude that yes, it does.", "yes"),
    ("There is no doubt that the answer is yes.", "yes"),
    ("No significant difference was found, so the answer is no", "no"),
    ("No significant difference was found, so the answer is no.", "no"),
    ("There is no doubt about it: the answer is yes, and no further trial is needed.", "yes"),
    # a stated conclusion
    ("The hazard ratio was 0.98 (0.9 to 1.1). Therefore, no.", "no"),
    ("Mortality fell in both arms, so yes.", "yes"),
    ("The evidence is mixed. In conclusion, maybe.", "maybe"),
    ("The study was small and the interval wide.\n\nMaybe.", "maybe"),
    ("The study found an improvement in all the groups. Yes.", "yes"),
    # structured
    ('{"answer": "yes"}', "yes"),
    ('{"answer":"no","confidence":0.8}', "no"),
    ("{'final_answer': 'maybe'}", "maybe"),
    ('```json\n{\n  "reasoning": "No difference was found.",\n  "answer": "no"\n}\n```', "no"),
    ('{"decision": "Yes, because mortality fell"}', "yes"),
    ("<answer>maybe</answer>", "maybe"),
    ("The groups were alike. \\boxed{no}", "no"),
    ("$\\boxed{\\text{yes}}$", "yes"),
    ("Small trial, wide interval.\n#### maybe", "maybe"),
    # thought
    ("<think>Yes? The answer is yes. Hmm, but p = 0.4.</think>\n\nno", "no"),
    ("<think>The answer is no.</think>The answer is yes.", "yes"),
    ("so it may be no.</think>\nYes", "yes"),  # the template opened the tag
    ("<think>The answer is yes, I am sure", None),
    ("<think>yes</think>", None),
    ("Let me think step by step. The trial had 40 patients. It showed no effect. So the answer is no.", "no"),
    ("At first the answer is yes. However, the interval includes 1, so the answer is no.", "no"),
    ("Yes at first sight. But wait, the control group improved too. So the final answer is maybe.", "maybe"),
    ("The answer is yes. Final answer: no", "no"),
    # a base model that goes on by itself
    (" yes\n\nQuestion: Does aspirin help?\nAnswer: no", "yes"),
    (" no\nAbstract: We studied 40 patients.\nQuestion: Is it safe?\nAnswer: yes", "no"),
    ("Question: Is it safe?\nAnswer: maybe\n\nQuestion: And then?\nAnswer: no", "maybe"),
    # both words
    ("It is not yes but no.", None),
    ("not yes but no", None),
    ("yes or no", None),
    ("Yes and no.", None),
    ("Yes/No", None),
    ("yes, no", None),
    ("Yes, no, or maybe", None),
    ("Answer: yes or no", None),
    ("The answer is yes and no.", None),
    ("The answer is neither yes nor no.", None),
    ("It is not yes but no; the final answer is no.", "no"),
    ("Yes and no, but the answer is maybe.", "maybe"),
    ("No, wait, the answer is yes.", "yes"),
    ("The answer is yes, not no.", "yes"),
    ("The answer is yes. The answer is no.", None),
    ("Answer: yes\nAnswer: no", None),
    ("Yes. The answer is no.", None),
    ("Yes: 0.7\nNo: 0.2\nMaybe: 0.1", None),
    ("Yes - 70%, No - 20%, Maybe - 10%", None),
    ("Please answer yes, no or maybe.", None),
    # words that are no decisions
    ("There is no doubt that the drug works.", None),
    ("No significant difference was found between the groups.", None),
    ("No difference", None),
    ("Answer: No significant difference was found.", None),
    ("Conclusion: No in-hospital deaths occurred.", None),
    ("No. of patients: 40", None),
    ("No. 5 of the trials", None),
    ("No one knows.", None),
    ("No-one knows.", None),
    ("no (significant) difference", None),
    ("Therefore, no association can be shown.", None),
    ("Maybe the drug helps, but it is unclear.", None),
    ("Maybe it helps.", None),
    ("The answer is maybe not.", None),
    ("The drug may be of use, maybe in children.", None),
    ("Yesterday, the eyes were examined.", None),
    ("Nova Scotia, Norway", None),
    ("Non-inferiority was shown.", None),
    ("The eyes have it", None),
    ("It cannot be answered with yes or no.", None),
    ("I cannot answer yes.", None),
    ("I do not think the answer is yes.", None),
    ("The answer is not yes.", None),
    ("Whether the answer is yes is unknown.", None),
    ("If the trial were larger, the answer would be yes.", None),
    ("Is the answer yes? I can't tell.", None),
    ("Yes? Hard to say.", None),
    ("Some argue that the answer is yes.", None),
    ("No. Although some argue that the answer is yes, the evidence is against it.", "no"),
    ("I initially thought the answer is yes", None),
    ("The wrong answer is yes.", None),
    ("The answer could be yes.", None),
    ("The answer is unclear.", None),
    ("I don't know", None),
    ("Was mortality affected? No, it was not. Was quality of life? It improved, and so did", None),
    ("", None),
    ("   \n", None),
    ("...", None),
    ("The", None),
    # more of all kinds
    ("Yes, but only in women.", "yes"),
    ("No, but a larger trial is needed.", "no"),
    ("Yes and the effect lasted.", "yes"),
    ("The final answer is: $\\boxed{maybe}$.", "maybe"),
    ("Based on the findings, the answer would be: no", "no"),
    ('In summary, the study suggests that the answer to the question is "maybe".', "maybe"),
    ("The evidence suggests maybe.", None),
    ("It depends.", None),
    ("Answer: Unclear / maybe", None),
    ("answer is no.", "no"),
    ("Decision: Yes. Rationale: No serious events.", "yes"),
    ("Label: maybe", "maybe"),
    ("Response: Yes", "yes"),
    ("<|assistant|>yes", None),
    ("assistant\n\nno", "no"),
    ("### Response:\nYes, they do.", "yes"),
    ("No, there is no evidence that yes-men exist.", "no"),
    ("Yes. No. Maybe.", None),
    ("yes yes yes", "yes"),
    ("no no no", None),
    ("Step 1: the trial. Step 2: p = 0.2. Conclusion: the answer is **no**.", "no"),
    ("I think the answer is yes", "yes"),
    ("I believe that the answer is no.", "no"),
    ("It is not clear that the answer is yes.", None),
    ("The abstract doesn't say. The answer is maybe.", "maybe"),
    ("Without a doubt, the answer is yes.", "yes"),
    ("The correct answer isn't yes.", None),
    ("My answer: No way to know.", None),
    ("The answer is no, as the p-value is 0.3.", "no"),
    ("The answer is no\nbecause p is 0.3", "no"),
    ("Answer:yes", "yes"),
    ('answer:"no"', "no"),
    ("Yes.\nNo.", None),
    ('{"answer": "yes", "answer2": "no"}', "yes"),
    ('{"answer": "yes or no"}', None),
    ('{"answer": null}', None),
    ('{"final_decision": "maybe", "rationale": "no data"}', "maybe"),
    ("Some say yes, some say no.", None),
    ("One would expect the answer to be no.", None),
    ("The authors conclude that the answer is yes.", None),
    ("The results show no benefit; thus, the answer is no, not maybe.", "no"),
    ("Not yes.", None),
    ("not no", None),
    ("Yes? No.", None),
    ("Hmm, no.", None),
    ("Of course, yes.", None),
    ("Most likely yes.", None),
    ("Probably no.", None),
    ("Yes (95% confidence)", "yes"),
    ("Yes/", None),
    ("yes:no", None),
    ("Yes; no further trial is needed.", "yes"),
    ("No; maybe in children.", "no"),
    ("No, maybe.", None),
    ("The answer is no, maybe.", None),
    ("The answer is yes. Not no.", "yes"),
    ("The study does not support the claim, so no.", "no"),
    ("So, is it safe? Yes.", "yes"),
    ("The answer is no longer clear.", None),
    ("The answer is no different from before.", None),
    ("The answer is no: mortality rose", "no"),
    ("The answer is a definite maybe.", "maybe"),
    ("The answer is an unqualified yes", None),
    ("Answer: not applicable", None),
    ("Final decision: no (the difference was not significant)", "no"),
    ("Answer: no significant", None),
    ("Answer: No statistically significant difference; the answer is no.", "no"),
    ("No.\n\nNo significant difference was found.", "no"),
    ("Maybe. Yes in mice, no in men.", "maybe"),
    ("Yes, no doubt.", "yes"),
    ("Yes, no doubt about it.", "yes"),
    ("no\n\n\nyes", None),
]

LETTER_OUTPUTS = [
    ("A", ABCD, "A"),
    ("(B)", ABCD, "B"),
    ("B.", ABCD, "B"),
    ("C)", ABCD, "C"),
    ("[D]", ABCD, "D"),
    ("b", ABCD, "B"),
    ("d)", ABCD, "D"),
    ("(a)", ABCD, "A"),
    ("**C**", ABCD, "C"),
    ("**B.** Metformin", ABCD, "B"),
    ("**(E)**", ABCDE, "E"),
    ("E", ABCD, None),
    ("F", ABCDE, None),
    ("Option C", ABCD, "C"),
    ("option d", ABCD, "D"),
    ("Choice (B).", ABCD, "B"),
    ("Option C is correct.", ABCD, "C"),
    ("B. Metformin", ABCD, "B"),
    ("B) Metformin", ABCD, "B"),
    ("B: Metformin", ABCD, "B"),
    ("B - Metformin", ABCD, "B"),
    ("(D) Aspirin, because it lowers the risk.", ABCD, "D"),
    ("C because the others are contraindicated", ABCD, "C"),
    ("Answer: A", ABCD, "A"),
    ("Answer: (C)", ABCD, "C"),
    ("Answer: b", ABCD, "B"),
    ("**Answer: D. Heparin**", ABCD, "D"),
    ("Ans: B", ABCD, "B"),
    ("The answer is A.", ABCD, "A"),
    ("The answer is (E).", ABCDE, "E"),
    ("The answer is C, since the others are wrong.", ABCD, "C"),
    ("The answer is B because A is contraindicated.", ABCD, "B"),
    ("The correct answer is option D.", ABCD, "D"),
    ("The correct option is B.", ABCD, "B"),
    ("The best choice is (C).", ABCD, "C"),
    ("The most likely answer is E.", ABCDE, "E"),
    ("The answer is most likely (B).", ABCD, "B"),
    ("The answer is B, not C.", ABCD, "B"),
    ("(C) is correct.", ABCD, "C"),
    ("B is the best answer.", ABCD, "B"),
    ("Therefore, D is the correct answer.", ABCD, "D"),
    ("Option A is incorrect. Option B is correct.", ABCD, "B"),
    ("I would choose C.", ABCD, "C"),
    ("I'd go with (A).", ABCD, "A"),
    ('{"answer": "B"}', ABCD, "B"),
    ('{"answer": "C. Warfarin"}', ABCD, "C"),
    ('{"explanation": "A rise in TSH", "answer_choice": "D"}', ABCD, "D"),
    ('{"answer": ["A", "C"]}', ABCD, None),
    ("\\boxed{B}", ABCD, "B"),
    ("$\\boxed{\\text{C}}$", ABCD, "C"),
    ("<answer>E</answer>", ABCDE, "E"),
    ("#### D", ABCD, "D"),
    ("<think>A? No: B.</think>\n\nC", ABCD, "C"),
    ("A patient with TSH of 12 has hypothyroidism. So the answer is B.", ABCD, "B"),
    ("Let's see. A is wrong. C is contraindicated. Thus B.", ABCD, "B"),
    ("Reasoning first.\n\nD", ABCD, "D"),
    ("Reasoning first.\n\nFinal Answer: (A)", ABCD, "A"),
    ("B. Metformin\n\nExplanation:\nA. is incorrect because of the renal function.\nC. is wrong.", ABCD, "B"),
    ("A. Aspirin\nB. Heparin\nC. Warfarin\nD. None\n\nAnswer: C", ABCD, "C"),
    ("A. Aspirin\nB. Heparin\nC. Warfarin\nD. None", ABCD, None),
    ("A) Aspirin B) Heparin C) Warfarin", ABCD, None),
    ("A and C", ABCD, None),
    ("A, B", ABCD, None),
    ("A or B", ABCD, None),
    ("B/D", ABCD, None),
    ("Answer: A and C", ABCD, None),
    ("The answer is A or B.", ABCD, None),
    ("Both A and B are correct.", ABCD, None),
    ("Neither A nor B is correct.", ABCD, None),
    ("The answer is either A or D.", ABCD, None),
    ("If A is correct, the patient has gout.", ABCD, None),
    ("A is not correct.", ABCD, None),
    ("Option B is incorrect.", ABCD, None),
    ("A patient presents with chest pain.", ABCD, None),
    ("A 45-year-old man", ABCD, None),
    ("A reduction in mortality was seen.", ABCD, None),
    ("The answer is a combination of both.", ABCD, None),
    ("The answer is a", ABCD, None),  # cut off: may be an article
    ("C-reactive protein is raised.", ABCD, None),
    ("C. difficile is the most likely cause.", ABCD, None),
    ("Answer: E. coli", ABCDE, None),
    ("B cells are the source.", ABCD, None),
    ("The answer is vitamin C.", ABCD, None),
    ("The answer is hepatitis B.", ABCD, None),
    ("Vitamin D is correct.", ABCD, None),
    ("e.g. aspirin", ABCDE, None),
    ("D-dimer", ABCD, None),
    ("None of the above", ABCD, None),
    ("ABCD", ABCD, None),
    ("I don't know.", (*ABCDE, "F", "G", "H", "I"), None),
    ("The answer is I.", (*ABCDE, "F", "G", "H", "I"), "I"),
    ("2", ("1", "2", "3"), "2"),
    ("Answer: 3", ("1", "2", "3"), "3"),
    ("2.5 mg", ("1", "2", "3"), None),
    ("true", ("true", "false"), "true"),
    ("The answer is False.", ("true", "false"), "false"),
    # more of all kinds
    ("The final answer is (B).", ABCD, "B"),
    ("Therefore, the correct answer is:\n\n**C. Amoxicillin**", ABCD, "C"),
    ("**Final Answer:** B\n\n**Explanation:** A is wrong because...", ABCD, "B"),
    ("The correct choice is D) all of the above", ABCD, "D"),
    ("The answer is A, B and C.", ABCD, None),
    ("A. ", ABCD, "A"),
    ("A:", ABCD, "A"),
    ("a)", ABCD, "A"),
    ("the correct answer is a.", ABCD, "A"),
    ("The answer is c) warfarin", ABCD, "C"),
    ("Option (a) is correct", ABCD, "A"),
    ("It's B.", ABCD, None),
    ("I choose option B because it fits", ABCD, "B"),
    ("Correct answer: **(C) Warfarin**", ABCD, "C"),
    ("So the answer is (A) or (B).", ABCD, None),
    ("The answer should be B rather than C", ABCD, "B"),
    ("B, C are both plausible, but the answer is C", ABCD, "C"),
    ("Among the options, A is the best choice.", ABCD, "A"),
    ("Only B is correct.", ABCD, "B"),
    ("None of A, B, C is correct.", ABCD, None),
    ("The patient has hepatitis B. The answer is D.", ABCD, "D"),
    ("The diagnosis is vitamin B deficiency.", ABCD, None),
    ("Blood type: A", ABCD, None),
    ("Answer: A patient with this should get B", ABCD, None),
    ("The best answer is: B) Start heparin; A) is second line", ABCD, "B"),
    ("<think>\nshort\n</think>\n\n**Answer: (D)**", ABCD, "D"),
    ("The answer: E", ABCDE, "E"),
    ("E. None of the above", ABCDE, "E"),
    ("The correct answer is not A. The correct answer is D.", ABCD, "D"),
    ("I'm unable to answer.", ABCD, None),
    ("Answer: B\nAnswer: B\nAnswer: B", ABCD, "B"),
    ("Answer: B\nAnswer: C", ABCD, None),
    ("B\n\nQuestion: next\nA. x\nB. y\nAnswer: C", ABCD, "B"),
    ("C\nD", ABCD, None),
    ("B B", ABCD, None),
    ("AB", ABCD, None),
    ("B (not C)", ABCD, "B"),
    ("B!", ABCD, "B"),
    ("Answer - C", ABCD, "C"),
    ('The answer is "C"', ABCD, "C"),
    ("\\text{B}", ABCD, "B"),
    ("The answer is $B$.", ABCD, "B"),
    ("\\(\\boxed{\\mathrm{D}}\\)", ABCD, "D"),
    ("[B]", ABCD, "B"),
    ("{B}", ABCD, "B"),
    ("The answer is: A. Aspirin. B is incorrect because", ABCD, "A"),
    ("A is right.", ABCD, "A"),
    ("A is right-handed.", ABCD, None),
    ("D is not the answer; B is the answer.", ABCD, "B"),
    ("Yes, the answer is B.", ABCD, "B"),
    ("Sure! The answer is C.", ABCD, "C"),
    ('[{"answer":"A"},{"answer":"B"}]', ABCD, None),
    ('{"Answer":"B. Metformin","Confidence":"High"}', ABCD, "B"),
    ("answer: {B}", ABCD, "B"),
]

DRUGS = {"A": "Aspirin", "B": "Metformin", "C": "Aspirin and clopidogrel", "D": "Low-dose heparin"}
BUGS = {"A": "C. difficile", "B": "E. coli", "C": "S. aureus", "D": "A reduction in flora"}
WORDS = {"A": "Yes", "B": "No", "C": "Maybe"}

OPTION_OUTPUTS = [
    ("Metformin", DRUGS, "B"),
    ("metformin.", DRUGS, "B"),
    ("**Metformin**", DRUGS, "B"),
    ("Aspirin", DRUGS, "A"),
    ("Aspirin and clopidogrel", DRUGS, "C"),
    ("The answer is metformin.", DRUGS, "B"),
    ("The correct answer is low-dose  heparin.", DRUGS, "D"),
    ('{"answer": "Metformin"}', DRUGS, "B"),
    ("B. Metformin", DRUGS, "B"),
    ("(B) metformin is the drug of choice", DRUGS, "B"),
    ("B. Aspirin", DRUGS, None),  # the letter and the text contradict each other
    ("Answer: A. Metformin", DRUGS, None),
    ("Metformin is the correct answer.", DRUGS, "B"),
    ("Aspirin or metformin", DRUGS, None),
    ("Metformin is contraindicated here.", DRUGS, None),
    ("The patient should get metformin, I think", DRUGS, None),
    ("C. difficile", BUGS, "A"),
    ("The answer is E. coli.", BUGS, "B"),
    ("Answer: A. C. difficile", BUGS, "A"),
    ("A reduction in flora", BUGS, "D"),
    ("E. coli infection", BUGS, None),
    ("Yes, it does.", WORDS, "A"),
    ("No significant effect", WORDS, None),
    ("B. No", WORDS, "B"),
]


@pytest.mark.parametrize(("text", "decision"), YES_NO_MAYBE_OUTPUTS)
def test_reads_a_yes_no_maybe_output_as_a_person_would(text: str, decision: str | None) -> None:
    assert parse_decision(text, YNM) == decision


@pytest.mark.parametrize(("text", "labels", "decision"), LETTER_OUTPUTS)
def test_reads_a_multiple_choice_output_as_a_person_would(
    text: str, labels: tuple[str, ...], decision: str | None
) -> None:
    assert parse_decision(text, labels) == decision


@pytest.mark.parametrize(("text", "options", "decision"), OPTION_OUTPUTS)
def test_takes_an_options_text_for_its_label(
    text: str, options: dict[str, str], decision: str | None
) -> None:
    assert parse_decision(text, tuple(options), options) == decision


def test_the_table_has_at_least_120_outputs() -> None:
    assert len(YES_NO_MAYBE_OUTPUTS) + len(LETTER_OUTPUTS) + len(OPTION_OUTPUTS) >= 120


PIECES = st.sampled_from(
    (
        *(
            "yes",
            "no",
            "maybe",
            "No",
            "Answer:",
            "the answer is",
            "final answer:",
            "A",
            "(B)",
            "C.",
            "is correct",
        ),
        *("\n", ". ", ", ", "? ", "**", "or", "<think>", "</think>", "so ", "\\boxed{", "}", "#### ", "not "),
        '{"answer": "',
    )
)
TEXTS = st.one_of(
    st.text(max_size=200), st.lists(PIECES, max_size=25).map(" ".join), st.lists(PIECES).map("".join)
)


@given(TEXTS, st.sampled_from([YNM, ABCD, ABCDE, ("1", "2"), ("a+b", "(x"), ("", "yes"), ()]))
@settings(max_examples=400, deadline=None)
def test_any_input_gives_one_of_the_labels_or_none(text: str, labels: tuple[str, ...]) -> None:
    assert parse_decision(text, labels) in {None, *labels}
    assert parse_decision(text, labels, dict.fromkeys(labels, "same text")) in {None, *labels}


@given(st.text(max_size=300).filter(lambda text: not any(word in text.casefold() for word in YNM)))
@settings(max_examples=200, deadline=None)
def test_a_text_without_a_decision_word_is_none(text: str) -> None:
    assert parse_decision(text, YNM) is None


@given(
    st.sampled_from(YNM),
    st.sampled_from(["{}", "{}.", "Answer: {}", "The answer is {}.", '{{"answer": "{}"}}']),
)
def test_the_plain_forms_give_each_label_back(label: str, form: str) -> None:
    assert parse_decision(form.format(label), YNM) == label
    assert parse_decision(form.format(label.upper()), YNM) == label


UNITS = (
    *(
        "a",
        " ",
        "no ",
        "yes, ",
        "answer: yes\n",
        "the answer to ",
        "answer is ",
        "So ",
        "**",
        "(",
        "\n",
        "B) x\n",
    ),
    *(
        "Question:\n",
        "<think>",
        '{"answer": "',
        "is correct ",
        "\\boxed{",
        "?",
        "if the answer is no, ",
        "I say ",
    ),
)


@pytest.mark.parametrize("unit", UNITS)
def test_a_megabyte_is_read_in_seconds(unit: str) -> None:
    text = (unit * (1_000_000 // len(unit) + 1))[:1_000_000]
    start = time.process_time()
    parse_decision(text, ABCD if unit.startswith("B") else YNM)
    assert time.process_time() - start < 4


def test_every_completion_of_pubmedqa_is_read_back(pubmedqa_file: Path) -> None:
    rows = json.loads(pubmedqa_file.read_text("utf-8")).values()
    forms = (" {}. {}", "{}\n\n{}", "Answer: {}. {}", '{{"answer": "{}"}} {}')
    for row in rows:
        for label in YNM:
            for form in forms:
                assert parse_decision(form.format(label, row["LONG_ANSWER"]), YNM) == label
            assert parse_decision(f"{label.capitalize()}. {row['LONG_ANSWER']}", YNM) == label
            assert parse_decision(f"{row['LONG_ANSWER']} So the answer is {label}.", YNM) == label
            assert parse_decision(f"{row['LONG_ANSWER']}\n\n{label.capitalize()}", YNM) == label


def test_no_question_context_or_conclusion_of_pubmedqa_is_taken_for_a_decision(pubmedqa_file: Path) -> None:
    for row in json.loads(pubmedqa_file.read_text("utf-8")).values():
        for text in (row["QUESTION"], row["LONG_ANSWER"], " ".join(row["CONTEXTS"]), *row["CONTEXTS"]):
            assert parse_decision(text, YNM) is None
            assert parse_decision(text, ABCDE) is None
