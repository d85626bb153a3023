"""The epsilon that canaries measured, beside the one that is claimed."""

from fedsim.report.blocks import Block, Cell, Prose, Table
from fedsim.report.reading import setting_name, unique
from fedsim.report.sections import Context
from fedsim.report.wording import at_most, finite, number


def canary_blocks(context: Context) -> list[Block]:
    """One row a combination, its seed with the largest measured epsilon; nothing where no run was audited."""
    results, rows = context.results, list[list[object]]()
    for protocol, setting in results.combinations:
        audits = [cell["audit"] for cell in results.cells_of(protocol, setting) if cell.get("audit")]
        if not audits:
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
        Table("Epsilon as canaries measured it, largest over seeds", head, rows, tuple(head[1:5])),
        Prose(
            "A canary is a contribution in a random direction, sent through the run's own clipping and noise. "
            "“Measured” is an estimate (Andrew et al. 2023), with the end above which it lies at 99.9 % confidence; "
            "the bound of one run (Steinke et al. 2023) assumes nothing of the mechanism, holds at 95 %, and cannot "
            "exceed what its number of trials allows, however much is lost. A run of which either lies above the claim "
            "has failed.",
            "note",
        ),
    ]
