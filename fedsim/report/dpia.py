"""The annex for a data protection impact assessment: what each duty asks, where this document answers, what is left."""

from fedsim.report.blocks import Block, Link, Prose, Section, Several, Table
from fedsim.report.sections import Context

Answer = tuple[str, tuple[tuple[str, str], ...], str]
"""What is asked, the sections (title, id) that answer, and what the controller has to add."""

ARTICLE_35: tuple[tuple[str, Answer], ...] = (
    ("Art. 35(7)(a)", (
        "a systematic description of the processing and its purposes",
        (("scope and data flow", "scope"), ("assets", "assets"), ("who sees what", "who-sees-what")),
        "the purpose, the legal basis or legitimate interest, recipients, retention, the data subjects",
    )),
    ("Art. 35(7)(b)", (
        "necessity and proportionality",
        (("leakage against utility", "utility"), ("cost", "cost")),
        "why this purpose needs these data, and why nothing milder does",
    )),
    ("Art. 35(7)(c)", (
        "the risks to rights and freedoms",
        (("adversary model", "adversary"), ("results", "leakage"), ("residual risk", "residual")),
        "how severe each leak is for the people concerned, and how likely such an attacker is",
    )),
    ("Art. 35(7)(d)", (
        "measures, safeguards, and proof of compliance",
        (("protocols", "who-sees-what"), ("differential privacy", "epsilon"), ("conditions", "decision"),
         ("evidence", "evidence")),
        "who answers for each condition, and how it is watched in operation",
    )),
    ("Art. 35(2), (9), (11)", (
        "advice of the privacy officer, views of data subjects, review when the risk changes",
        (("decision", "decision"),),
        "the advice, the views, the date of the next review",
    )),
)  # fmt: skip
OPINION_28: tuple[tuple[str, Answer], ...] = (
    ("Is a model anonymous?", (
        "that the likelihood of extracting personal data directly, and of obtaining it by queries, is insignificant, "
        "considering all means reasonably likely to be used",
        (("results", "leakage"), ("what was not run", "suite"), ("limits", "limits")),
        "this document is evidence of tests on updates and, where such attacks were run, on the model; it claims no "
        "anonymity",
    )),
    ("Documentation of tests", (
        "attribute and membership inference, exfiltration, regurgitation, model inversion, reconstruction",
        (("attacks", "suite"), ("adversary model", "adversary")),
        "tests that this run left out, by name in the list of what was not run",
    )),
    ("Measures while training", (
        "design choices that lower the likelihood of identification",
        (("protocols", "who-sees-what"), ("differential privacy", "epsilon")),
        "selection and preparation of the data before training",
    )),
)  # fmt: skip


def dpia(context: Context) -> Section:
    """The duties of GDPR Article 35(7), and the questions of EDPB Opinion 28/2024."""
    blocks: list[Block] = [
        Prose(
            "A map from duties to sections, for whoever writes the assessment. It is no legal advice, and a filled "
            "table is no compliance."
        ),
        _table("GDPR, Article 35", ARTICLE_35),
        _table("EDPB Opinion 28/2024 on AI models", OPINION_28),
        Prose(
            "Where the system is high-risk under the EU AI Act, Article 15(5) asks for measures against "
            "confidentiality attacks: the adversary model and the results name those that were tried. NIST SP 800-226 "
            "asks that every epsilon stand with its unit, relation, trust model and composition, as it does here.",
            "note",
        ),
    ]
    return Section("dpia", "Annex: impact assessment", blocks)


def _table(caption: str, duties: tuple[tuple[str, Answer], ...]) -> Table:
    rows: list[list[object]] = [
        [name, asks, Several([Link(title, target) for title, target in links]), left]
        for name, (asks, links, left) in duties
    ]
    return Table(caption, ["duty", "asks for", "answered in", "left to the controller"], rows, tone="words cards")
