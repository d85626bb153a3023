"""The document's section on the protocols: what each party sees, whom one must trust, and what shows that it was on."""

from fedsim.deployment import Deployment
from fedsim.report.aims import aims
from fedsim.report.blocks import Cell, Prose, Section, Table
from fedsim.report.proven import shown_on
from fedsim.report.reading import Results, Setting, setting_name, unique
from fedsim.report.sections import Context
from fedsim.report.trusted import must_trust, others_see, server_sees
from fedsim.words import listed


def who_sees_what(context: Context) -> Section:
    """What the server receives under each protocol, and the evidence that the protection was on."""
    results = context.results
    _, own, _ = threat(results)
    callers: list[list[object]] = [[who, said] for who, said in _callers(results)]
    rows: list[list[object]] = []
    for protocol in results.protocols:
        stack = results.stacks.get(protocol, [])
        sees = Cell(server_sees(stack), own.get(protocol, ""))
        rows.append([context.swatch(protocol), sees, must_trust(stack), _evidence(results, protocol)])
    return Section(
        "who-sees-what",
        "Protocols compared: who sees what",
        [
            Table(
                "What the server receives, and whether the run shows that the protection was on",
                ["protocol", "the server sees", "what must be trusted", "protection was on"],
                rows,
                tone="words cards",
            ),
            Prose(
                "“Shown” means that every defence was measured while it worked, in every cell that finished: noise and "
                "norms as set, masked words uniform, nothing but ciphertext on the wire, no secret key at the server, "
                "answers of the finished model changed, or refused, as set. The measurements stand in the last "
                "sections.",
                "note",
            ),
            Table("The other parties", ["party", "sees"], [*others_see(results.stacks), *callers], tone="words cards"),
            Prose(
                "The result is void if one of these fails: attacks were given only the adversary's view and the "
                "knowledge listed above; no client shares memory, files or random seeds with the server; and the "
                "deployed system sends what was simulated here, nothing besides.",
                "caution",
            ),
        ],
    )


def _callers(results: Results) -> list[tuple[str, str]]:
    """Who reaches the finished model, and what that party gets, a row each deployment; none where no attack asks it."""
    found: list[tuple[str, str]] = []
    for protocol, setting in results.combinations:
        stated = results.stated_of(protocol, setting)
        if stated and aims(results, [(protocol, setting)]).model:
            label = ", ".join(label for axis, label in setting if axis.split(".")[0] == "deployment")
            said = Deployment(**stated["deployment"]).describe().removeprefix("A caller of the finished model ")
            found.append((f"a caller, {label}" if label else "a caller of the finished model", said.removesuffix(".")))
    return unique(found)


def _evidence(results: Results, protocol: str) -> Cell:
    """Shown or lacking over all settings; what is lacking, with its setting where there are several."""
    found = [(setting, shown_on(results, p, setting)) for p, setting in results.combinations if p == protocol]
    if not found:
        return Cell("nothing was run")
    lacking: dict[str, list[Setting]] = {}
    for setting, proof in found:
        for text in proof.notes:
            lacking.setdefault(text, []).append(setting)
    said = [
        text if len(among) == len(found) else f"{'; '.join(map(setting_name, among))}: {text}"
        for text, among in lacking.items()
    ]
    words = unique(proof.word for _, proof in found)
    if len(words) > 1:
        among = {word: [setting_name(setting) for setting, proof in found if proof.word == word] for word in words}
        said = [*(f"{word}: {listed(names)}" for word, names in among.items()), *said]
    worst = next((proof for _, proof in found if proof.lacking), found[0][1])
    return Cell(worst.chip, "\n".join(said))


def threat(results: Results) -> tuple[list[str], dict[str, str], dict[Setting, str]]:
    """The threat model's sentences that all cells share, for each protocol its own, and for each setting its own.

    What holds of all cells of a setting, whatever the protocol, is the setting's; what is left is the protocol's.
    """
    told = [(c, [str(sentence) for sentence in c.get("threat_model") or []]) for c in results.cells]
    common = [sentence for sentence in told[0][1] if all(sentence in others for _, others in told)] if told else []
    own: dict[str, list[str]] = {}
    settings: dict[Setting, list[str]] = {}
    for cell, sentences in told:
        setting = results.setting_of(cell)
        mates = [others for other, others in told if results.setting_of(other) == setting]
        shared = [s for s in sentences if s not in common and all(s in others for others in mates)]
        if len(results.settings) > 1:
            settings.setdefault(setting, []).extend(shared)
            shared = [*common, *shared]
        else:
            shared = common
        own.setdefault(results.protocol_of(cell), []).extend(s for s in sentences if s not in shared)
    spoken = {setting: " ".join(unique(sentences)) for setting, sentences in settings.items() if sentences}
    return common, {protocol: " ".join(unique(sentences)) for protocol, sentences in own.items()}, spoken
