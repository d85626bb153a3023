"""The way of an update under one protocol, drawn from the scenario: who holds what, where the trust boundary is."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from markupsafe import escape

from fedsim.report.palette import GRID, INK, PAPER, QUIET

Json = Mapping[str, Any]
WIDTH, MARGIN, LINE, CHARACTERS = 300, 10, 16, 31
"""Pixels of the drawing, around its parts and of a line of text; characters in a line."""


@dataclass(frozen=True)
class Zone:
    """One party and what happens there; ``watched`` where the adversary of the scenario sits."""

    party: str
    steps: tuple[str, ...]
    watched: bool = False

    @property
    def lines(self) -> list[list[str]]:
        """Each step, wrapped."""
        return [textwrap.wrap(step, CHARACTERS) for step in self.steps]

    @property
    def height(self) -> int:
        """Pixels."""
        return 2 * LINE + 4 + sum(LINE * len(lines) + 14 for lines in self.lines)


@dataclass(frozen=True)
class Crossing:
    """What leaves one party for the next, over the trust boundary."""

    what: str
    watched: bool = False

    @property
    def lines(self) -> list[str]:
        """What leaves, wrapped; whose hands it passes, where the adversary reads along."""
        return textwrap.wrap(self.what + (" · the adversary" if self.watched else ""), CHARACTERS)

    @property
    def height(self) -> int:
        """Pixels."""
        return 40 + LINE * len(self.lines)


Part = Zone | Crossing
LAST = "Every client"
"""Where every way ends."""
UNWATCHED = "nobody"
"""In the place of a kind of adversary, where no attack reads updates."""

_PROTECTS = {
    "client_checks": "checks the model that it was sent",
    "client_dp": "clips its update, then adds noise",
    "secure_aggregation": "rounds its update, then adds masks",
    "homomorphic": "encrypts its update",
}


def parts(stated: Json, *, attacked: bool = True) -> tuple[Part, ...]:
    """The way of one update, from a client's data to the next model, under the stack of one combination; no party on
    it is the adversary where updates are not ``attacked``."""
    stack = list(stated.get("protocol") or [])
    federation = stated.get("federation") or {}
    kind = (stated.get("adversary") or {}).get("kind") if attacked else UNWATCHED
    hiding = next((d for d in stack if d["kind"] in _AFTER), {"kind": "plain"})
    form, after = _AFTER[hiding["kind"]](hiding, any(d["kind"] == "client_dp" for d in stack))
    before = [_PROTECTS[d["kind"]] for d in stack if d["kind"] == "client_checks"]
    trains = "trains on one batch" if federation.get("algorithm") == "fedsgd" else "trains for some local steps"
    if any(d["kind"] == "client_dp" and d.get("level") == "example" for d in stack):
        trains += ", each example's gradient clipped and noised"
    does = [
        _PROTECTS[d["kind"]]
        for d in stack
        if d["kind"] in _PROTECTS and d["kind"] != "client_checks" and d.get("level") != "example"
    ]
    held = "masked" if hiding["kind"] == "secure_aggregation" and hiding.get("mode") != "ideal" else hiding.get("keys")
    keys = [_KEYS[held]] if held in _KEYS else []
    client = Zone("Each client", ("holds its data, and never sends them", *keys, *before, trains, *does))
    watched = [
        Zone(zone.party, zone.steps, zone.party == _seat(kind, hiding)) if isinstance(zone, Zone) else zone
        for zone in after
    ]
    return (client, Crossing(form, kind == "eavesdropper"), *watched)


def _seat(kind: Any, hiding: Json) -> str:
    """The party that the adversary is; opened sums go to the clients only where these share the key."""
    if kind in ("eavesdropper", UNWATCHED):
        return ""
    return LAST if kind == "sum_recipient" and hiding.get("keys") == "clients_share_key" else "Server"


def _plain(defence: Json, noised: bool) -> tuple[str, list[Part]]:
    update = "noised update" if noised else "update"
    return f"one {update}, readable", [
        Zone("Server", (f"reads each {update}", "takes the mean, and steps the model")),
        *_next_model(),
    ]


def _next_model() -> list[Part]:
    """The end of every round whose model the server steps."""
    return [Crossing("the next model, in clear"), Zone(LAST, ("goes on from the next model",))]


def _masked(defence: Json, noised: bool) -> tuple[str, list[Part]]:
    if defence.get("mode") == "ideal":
        return "one rounded update, readable", [
            Zone("Trusted adder (stands in for the masks)", ("reads each update, gives the sum",)),
            Crossing("the sum"),
            Zone("Server", ("reads the sum alone", "steps the model")),
            *_next_model(),
        ]
    unmasks = "takes away the masks of the sum with the clients' help, reads the sum"
    return "one masked vector", [Zone("Server", ("adds masked vectors", unmasks, "steps the model")), *_next_model()]


def _encrypted(defence: Json, noised: bool) -> tuple[str, list[Part]]:
    part = 1 - float(defence.get("encrypted_fraction", 1.0))
    form = f"one ciphertext, and {part:.0%} of the update readable" if part else "one ciphertext"
    keys = defence.get("keys")
    adds = "adds ciphertexts without opening them"
    if keys == "server_holds_key":
        holds = "holds the secret key: can open each update"
        return form, [Zone("Server", (holds, adds, "opens the sum, steps the model")), *_next_model()]
    blind = Zone("Server", (adds, "holds no key"))
    if keys == "clients_share_key":
        return form, [blind, Crossing("the encrypted sum"), Zone(LAST, ("opens the sum, steps the model itself",))]
    opener, back, reads = (
        (
            Zone("All clients together", ("each gives its part of the decryption",)),
            "the parts of the decryption",
            "puts the parts together, reads the sum",
        )
        if keys == "threshold"
        else (
            Zone("Decryptor", ("holds the secret key", "opens sums of enough clients alone")),
            "the sum, opened",
            "reads the sum",
        )
    )
    return form, [
        blind,
        Crossing("the encrypted sum"),
        opener,
        Crossing(back),
        Zone("Server", (reads, "steps the model")),
        *_next_model(),
    ]


_AFTER: Mapping[str, Callable[[Json, bool], tuple[str, list[Part]]]] = {
    "plain": _plain,
    "secure_aggregation": _masked,
    "homomorphic": _encrypted,
}
_KEYS = {
    "masked": "holds its own keys, and shares of others' secrets",
    "clients_share_key": "holds the secret key, the same as all clients",
    "threshold": "holds a share of the secret key",
}


def told(way: Sequence[Part]) -> str:
    """The drawing in words."""
    said = []
    for part in way:
        where = ", where the adversary is" if part.watched else ""
        if isinstance(part, Zone):
            said.append(f"{part.party}{where}: {'; '.join(part.steps)}")
        else:
            said.append(f"over the trust boundary{where} goes {part.what}")
    return ". ".join(text[0].upper() + text[1:] for text in said) + "."


def drawn(way: Sequence[Part]) -> str:
    """The drawing as SVG text."""
    height = sum(part.height for part in way) + 2
    body, top = [], 1
    for part in way:
        body += _zone(part, top) if isinstance(part, Zone) else _crossing(part, top)
        top += part.height
    return (
        # The page puts its own outermost element and typeface in place of these; size and colour stand within.
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">'
        f'<g font-size="12" fill="{INK}">' + "".join(body) + "</g></svg>"
    )


def _zone(zone: Zone, top: int) -> list[str]:
    border = f'stroke="{INK}" stroke-width="2.5"' if zone.watched else f'stroke="{QUIET}"'
    title = zone.party + (" · the adversary" if zone.watched else "")
    body = [
        f'<rect x="2" y="{top}" width="{WIDTH - 4}" height="{zone.height}" rx="4" fill="none" {border}/>',
        f'<text x="{MARGIN + 2}" y="{top + 19}" font-weight="bold">{escape(title)}</text>',
    ]
    y = top + 2 * LINE - 4
    places = []
    for lines in zone.lines:
        tall = LINE * len(lines) + 4
        body.append(
            f'<rect x="{MARGIN}" y="{y}" width="{WIDTH - 2 * MARGIN}" height="{tall}" rx="3" fill="{PAPER}" '
            f'stroke="{GRID}"/>'
        )
        body += [
            f'<text x="{MARGIN + 8}" y="{y + LINE - 2 + LINE * i}">{escape(line)}</text>'
            for i, line in enumerate(lines)
        ]
        places.append((y, y + tall))
        y += tall + 10
    body += [_arrow(WIDTH - 3 * MARGIN, end, start) for (_, end), (start, _) in pairwise(places)]
    return body


def _crossing(crossing: Crossing, top: int) -> list[str]:
    border = top + 10 + LINE * len(crossing.lines)
    weight = "bold" if crossing.watched else "normal"
    return [
        f'<line x1="0" x2="{WIDTH}" y1="{border}" y2="{border}" stroke="{QUIET}" stroke-dasharray="6 4"/>',
        _arrow(WIDTH - 3 * MARGIN, top, top + crossing.height),
        *(
            f'<text x="{MARGIN}" y="{top + 4 + LINE * (i + 1)}" font-weight="{weight}">{escape(line)}</text>'
            for i, line in enumerate(crossing.lines)
        ),
        f'<text x="{MARGIN}" y="{border + 16}" font-size="11" fill="{QUIET}">trust boundary</text>',
    ]


def _arrow(x: int, start: int, end: int) -> str:
    return (
        f'<path d="M{x} {start}V{end - 5}" stroke="{QUIET}" fill="none"/>'
        f'<path d="M{x - 4} {end - 6}h8l-4 6z" fill="{QUIET}"/>'
    )
