"""Texts as models write them: corrections, splits, cuts, marks, markup, languages.

Each row: the text, the question's options (a key of `ASKED`), and the decision that a person reads.
"""

#: options by name; a tuple stands for labels that are words
ASKED: dict[str, dict[str, str] | tuple[str, ...]] = {
    "ynm": ("yes", "no", "maybe"),
    "truth": ("true", "false"),
    "german": ("ja", "nein", "unklar"),
    "drugs": {"A": "Metformin", "B": "Hydroxyurea", "C": "Propranolol", "D": "Lisinopril"},
    "parts": {"A": "Oxygen", "B": "Oxygen and fluids", "C": "Oxygen, fluids and antibiotics", "D": "Fluids"},
    "both": {"A": "Pain", "B": "Fever", "C": "Both A and B", "D": "None of the above"},
    "all": {"A": "Cough", "B": "Fever", "C": "Rash", "D": "All of the above"},
    "rashes": {"A": "Influenza", "B": "Measles", "C": "Mumps", "D": "Rubella"},
    "digits": {"1": "Aorta", "2": "Vena cava", "3": "Pulmonary artery", "4": "Pulmonary vein"},
    "numbers": {"1": "2", "2": "4", "3": "6", "4": "8"},
    "ten": dict(
        zip("ABCDEFGHIJ", ("one", "two", "six", "ten", "ace", "bay", "cue", "dye", "elm", "fir"), strict=True)
    ),
    "small": {"a": "Aorta", "b": "Vena cava", "c": "Pulmonary artery", "d": "Pulmonary vein"},
    "doses": {"A": "5 mg/kg", "B": "10 mg/kg", "C": "15 mg/kg", "D": "50 mg/kg"},
    "chinese": {"A": "心肌梗死", "B": "肺栓塞", "C": "气胸", "D": "主动脉夹层"},
}

CORRECTIONS = [
    ("The answer is B. Wait, no — it is C", "drugs", "C"),
    ("The answer is B... hmm, actually C.", "drugs", "C"),
    ("The answer is B. Sorry, I meant C.", "drugs", "C"),
    ("The answer is B. No, C.", "drugs", "C"),
    ("\\boxed{B}\n\nWait, no. \\boxed{C}", "drugs", "C"),
    ("The answer is no. Hmm, let me reconsider. The answer is yes.", "ynm", "yes"),
    ("Yes. Actually no.", "ynm", "no"),
    ("The answer is yes. Wait, no.", "ynm", "no"),
    ("The answer is B. No.", "drugs", None),
    ("The answer is B. No, it's not.", "drugs", None),
    ("The answer is B.\n\nWait, let me re-read the question", "drugs", None),
    ("**B**\n\nHmm, but metformin", "drugs", None),
    ("The answer is B. I made a mistake.", "drugs", None),
    (
        "The answer is B.\n\nWait, let me re-read. Hydroxyurea raises HbF. So the answer is B.",
        "drugs",
        "B",
    ),
    ("The answer is B. Wait for the result before treatment.", "drugs", "B"),
    ("The answer is not actually B.", "drugs", None),
    ("At first glance, the answer is A", "drugs", None),
    ("The answer is A? No, metformin", "drugs", None),
    ("A. Yes B. No C. Maybe", "ynm", None),
]

CONTRADICTIONS = [
    ("Yes. No. Yes. No. Yes.", "ynm", None),
    ("Yes, A reduces B. No, C does not reduce D.", "ynm", None),
    ("Yes, it helps. Are there harms? No.", "ynm", "yes"),
    ("The answer is yes for adults and no for children.", "ynm", None),
    ("The answer is yes in adults, but no in children.", "ynm", None),
    ("Yes in adults, no in children.", "ynm", None),
    ("The answer is yes in mice, but no in vivo imaging was done.", "ynm", "yes"),
    ("The answer is B (or C)", "drugs", None),
    ("Answer: A; B", "drugs", None),
    ('{"answer": "Metformin", "letter": "B"}', "drugs", None),
    ("False positives are common.", "truth", None),
    ("False, by definition.", "truth", "false"),
    ("The statement is true.", "truth", "true"),
    ("If the statement is true, it follows.", "truth", None),
]

REJECTED = [
    ("Hydroxyurea: no. Propranolol: yes.", "drugs", None),
    ("B (incorrect)", "drugs", None),
    ("B (correct)", "drugs", "B"),
    ("The answer that is wrong is B", "drugs", None),
    ("The answer that is right is B", "drugs", "B"),
    ("A and C only", "drugs", None),
    ("Die Antwort wäre ja, wenn", "german", None),
    ("Nein. Doch, ja.", "german", None),
    ("A、B都对", "chinese", None),
    ("选项A错误，选项B正确，选项C错误。", "chinese", "B"),
]

FURTHER = [
    ("B\n\nWhich one lowers blood pressure?\n\nA. Metformin\nB. Lisinopril\n\nAnswer: A", "drugs", "B"),
    ("It depends.\n\nWhich one is best here?\nA. Metformin\nB. Hydroxyurea\n\nAnswer: B", "drugs", "B"),
    ("Which one is best for him?\nA. Metformin\nB. Hydroxyurea\n\nAnswer: B", "drugs", "B"),
]

#: names that end with a letter, and items within a line
NOT_THE_LETTER = [
    ("Protein C is correct", "drugs", None),
    ("Influenza A is the most likely", "drugs", None),
    ("Hemoglobin A is correct", "drugs", None),
    ("Coenzyme A is the answer", "drugs", None),
    ("Therefore B is correct", "drugs", "B"),
    ("H. pylori", "ten", None),
    ("A–D", "drugs", None),
    ("A. Rarely B. Often", "drugs", None),
    ("So answer C.", "drugs", "C"),
    ("Could be C or D. Likely C. Answer C.", "drugs", "C"),
    ("The answer is B) Hydroxyurea; the metformin is for diabetes.", "drugs", "B"),
    ("The answer is B) Hydroxyurea; metformin.", "drugs", None),
    ("The answer is B, hydroxyurea. Option A, metformin, lowers glucose", "drugs", "B"),
    ("Clearly B is the best answer", "drugs", "B"),
    ("1. The aorta carries blood. 2. The vena cava returns it. 3. The pulm", "digits", None),
    ("A. Metformin lowers glucose. B. Hydroxyurea raises HbF. C. Prop", "drugs", None),
    ("B. Hydroxyurea raises HbF. C. Propranolol is wrong.", "drugs", "B"),
    ("The answer is B. Incorrect options: A, C.", "drugs", "B"),
    ("A项错误", "chinese", None),
    ("以下选项：\nA", "chinese", None),
    ("选项：B", "chinese", "B"),
]

CUT = [
    ("Oxygen and", "parts", None),
    ("The answer is oxygen and", "parts", None),
    ("The answer is A and", "drugs", None),
    ("Therefore, b", "both", None),
    ("A drop was seen in the first group. Maybe", "ynm", None),
    ("A drop was seen in the first group. No", "ynm", None),
    ("A drop was seen in the first group. No.", "ynm", "no"),
    ("It raises HbF.\n\n**A", "drugs", None),
]

MARKS = [
    ("- Yes", "ynm", None),
    ("→ maybe", "ynm", "maybe"),
    ("(A) yes\n(B) no\n(C) maybe", "ynm", None),
    ("✅ Yes", "ynm", "yes"),
    ("=> B", "drugs", "B"),
    ("→ B", "drugs", "B"),
    ("✅ B. Hydroxyurea", "drugs", "B"),
    ("❌ B. Hydroxyurea", "drugs", None),
    ("B ✅", "drugs", "B"),
    ("A ✅\nB ✅", "drugs", None),
    ("- B. Hydroxyurea", "drugs", "B"),
    ("- A. Metformin\n- B. Hydroxyurea", "drugs", None),
    ("---\nB", "drugs", "B"),
    (": B", "drugs", "B"),
    ("- 5 mg/kg", "doses", "A"),
    ("> 5 mg/kg", "doses", None),
    ("Ans- B", "drugs", "B"),
    ("Answer- B. Hydroxyurea", "drugs", "B"),
    ("Answer key: B", "drugs", "B"),
    ("Solution: B", "drugs", "B"),
    ("[Answer] B", "drugs", "B"),
    ("Answer [A/B/C/D]: B", "drugs", "B"),
    ("answer == 'B'", "drugs", "B"),
    ("| Answer | Yes |\n|---|---|", "ynm", "yes"),
    ("| Answer | no |", "ynm", "no"),
    ("<tr><td>A</td><td>Metformin</td></tr><tr><td>B</td></tr>", "drugs", None),
    ("| Answer | A | B |", "drugs", None),
]

MARKUP = [
    ("B<br>Explanation", "drugs", "B"),
    ("The answer is&nbsp;B.", "drugs", "B"),
    ("<ul><li>A. Metformin</li><li>B. Hydroxyurea</li></ul>", "drugs", None),
    ("Answer: <B>", "drugs", "B"),
    ("Answer: <A>", "drugs", "A"),
    ("<B>Metformin</B>", "drugs", "A"),
    ("Answer: __B__", "drugs", "B"),
    ("\\boxed{ B }", "drugs", "B"),
    ("\\boxed{d}", "small", "d"),
    ("\\boxed{15 \\text{ mg/kg}}", "doses", "C"),
    ("\\boxed{15\\ \\mathrm{mg/kg}}", "doses", "C"),
    ("<s>B</s>", "drugs", "B"),
    ("[/INST] B", "drugs", "B"),
    ("<|im_start|>assistant\nB", "drugs", "B"),
    ("analysisWe think yes.assistantfinalno", "ynm", "no"),
]

STATED = [
    ("I'm going with B.", "drugs", "B"),
    ("The answer is B; C would be correct if the patient had hypertension.", "drugs", "B"),
    ("C would be correct if the patient had hypertension.", "drugs", None),
    ("The most appropriate next step is to start hydroxyurea.", "drugs", "B"),
    ("The most appropriate next step is to stop hydroxyurea.", "drugs", None),
    ("The answer is B as A is contraindicated", "drugs", "B"),
    ("B is actually correct.", "drugs", "B"),
    ("Both A and B are correct.", "both", "C"),
    ("Both A and B are correct.", "all", None),
    ("All of the above are correct.", "all", "D"),
    ("Pain and fever are correct.", "rashes", None),
    ("The answer is option 4.", "numbers", "4"),
    ("The answer is 4.", "numbers", None),
    (
        "B. Hydroxyurea\n\nExplanation of other options:\nA. Metformin: diabetes\nC. Propranolol: tremor",
        "drugs",
        "B",
    ),
    ("B. Measles. Explanation: Choice A (influenza) lacks the rash.", "rashes", "B"),
    ("B. Measles. Or (A) Influenza.", "rashes", None),
    ("Antwort (ja/nein/unklar): nein", "german", "nein"),
    ("Die Studie zeigt einen Effekt. Daher lautet die Antwort ja.", "german", "ja"),
    ("Fazit: nein", "german", "nein"),
    ('{"antwort": "ja"}', "german", "ja"),
    ("Antwort B", "drugs", "B"),
]

MODEL_OUTPUTS = [
    *(*CORRECTIONS, *CONTRADICTIONS, *REJECTED, *FURTHER, *NOT_THE_LETTER, *CUT),
    *(*MARKS, *MARKUP, *STATED),
]
