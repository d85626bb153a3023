"""The epsilon that canaries measured, beside the one that is claimed."""

from fedsim.report.blocks import Block, Cell, Prose, Table
from fedsim.report.reading import Json, Setting, setting_name, unique
from fedsim.report.sections import Context
from fedsim.report.wording import MISSING, at_most, finite, number


def canary_blocks(context: Context) -> list[Block]:
    """One row a combination, its seed with the largest measured epsilon, or that it was not audited; nothing where no
    run was."""
    results, rows, left_out = context.results, list[list[object]](), list[list[object]]()
    for protocol, setting in results.combinations:
        audits = [cell["audit"] for cell in results.cells_of(protocol, setting) if cell.get("audit")]
        if not audits:
            if privacy := results.privacy_of(protocol, setting):
                left_out.append(_left_out(context, protocol, setting, privacy))
            continue
        worst = max(audits, key=lambda audit: finite(audit["estimate"]["epsilon"]) or 0.0)
        estimate, bound = worst["estimate"], worst["bound"]
        causes = unique(str(audit["cause"]) for audit in audits if audit["cause"])
        rows.append(
            [
                Cell(context.swatch(protocol), setting_name(setting)),
                at_most(worst["claimed"]),
                Cell(number(estimate["epsilon"]), f"at least {number(estimate['low'])}"),
                Cell(number(bound["low"]), f"{number(bound['ceiling'])} at most with {bound['trials']:,} trials"),
                f"{worst['releases']:,}",
                causes[0] if causes else "keeps its claim",
            ]
        )
    if not rows:
        return []
    head = ["protocol", "claimed", "measured", "bound of one run", "releases", "so the run"]
    return [
        Table("Epsilon as canaries measured it, largest over seeds", head, [*rows, *left_out], tuple(head[1:5])),
        Prose(
            "A canary is a contribution in a random direction, sent through the run's own clipping and noise. "
            "“Measured” is an estimate (Andrew et al. 2023), with the end above which it lies at 99.9 % confidence; "
            "the bound of one run (Steinke et al. 2023) assumes nothing of the mechanism, holds at 95 %, and cannot "
            "exceed what its number of trials allows, however much is lost. A run of which either lies above the claim "
            "has failed. Unasked, canaries are sent only where that takes seconds.",
            "note",
        ),
    ]


def _left_out(context: Context, protocol: str, setting: Setting, privacy: Json) -> list[object]:
    """The row of a combination that claims an epsilon which no canary measured, with what to say to have it."""
    asked = context.results.stated_of(protocol, setting).get("audit")
    said: dict[object, str] = {True: "not audited", False: "not audited: the scenario says audit=False"}
    where = Cell(context.swatch(protocol), setting_name(setting))
    return [
        where,
        at_most(privacy.get("epsilon")),
        MISSING,
        MISSING,
        MISSING,
        said.get(asked, "not audited: say audit=True"),
    ]
