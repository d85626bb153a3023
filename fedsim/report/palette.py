"""One colour and one marker per protocol, the same in every plot, table and gallery."""

from dataclasses import dataclass

INK, PAPER, QUIET, GRID = "#1c2126", "#fefefe", "#5b6570", "#d8dde2"
"""Stand-ins that the page replaces by its own colours, so that plots follow light and dark."""

OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK)
MARKERS = (
    ("o", "M6 1.5a4.5 4.5 0 1 0 0 9a4.5 4.5 0 1 0 0-9z"),
    ("s", "M2 2h8v8H2z"),
    ("^", "M6 1L11 10.5H1z"),
    ("D", "M6 .8L11.2 6L6 11.2L.8 6z"),
    ("v", "M6 11L1 1.5H11z"),
    ("P", "M4.2 1h3.6v3.2H11v3.6H7.8V11H4.2V7.8H1V4.2h3.2z"),
    ("p", "M6 .8L11.2 4.7L9.2 10.8H2.8L.8 4.7z"),
    ("X", "M3.2 1L6 3.8L8.8 1L11 3.2L8.2 6L11 8.8L8.8 11L6 8.2L3.2 11L1 8.8L3.8 6L1 3.2z"),
)


@dataclass(frozen=True)
class Mark:
    """A colour, matplotlib's code of a marker, and the same marker as a 12 x 12 SVG path."""

    colour: str
    code: str
    path: str

    @property
    def ink(self) -> str:
        """The colour for the page, where ink follows light and dark."""
        return "currentColor" if self.colour == INK else self.colour


def marks(protocols: list[str]) -> dict[str, Mark]:
    """Protocol -> mark, by position: seven colours and eight markers give 56 pairs before one repeats."""
    return {
        protocol: Mark(OKABE_ITO[i % len(OKABE_ITO)], *MARKERS[i % len(MARKERS)])
        for i, protocol in enumerate(protocols)
    }
