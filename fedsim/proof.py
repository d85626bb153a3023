"""Whether a run shows that its defences were on: each defence's claim, against what was measured while it worked."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attacks.controls import Control
from fedsim.deployment import Deployment
from fedsim.words import counted

SIGMAS = 6
"""A measured noise further from the one that was set than so many standard errors was not that noise."""
UNLIKELY = 1e-6
"""Masked words with a smaller p-value than this are not uniform."""


@dataclass(frozen=True)
class Proof:
    """One defence of one cell, and what speaks against its having been on; nothing, where the evidence is whole."""

    defence: str
    lacking: tuple[str, ...]

    @property
    def shown(self) -> bool:
        """Whether nothing is lacking."""
        return not self.lacking


Probe = Callable[[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]], list[str]]
"""From a defence's settings, the cell and its evidence, to what is lacking."""


def proofs(protocol: Sequence[Mapping[str, Any]], cell: Mapping[str, Any], evidence: Mapping[str, Any]) -> list[Proof]:
    """What the evidence of one cell shows of each defence in its protocol, all as results.json holds them."""
    found = []
    for settings in protocol:
        probe = PROBES.get(settings["kind"])
        lacking = probe(settings, cell, evidence) if probe else ["no probe for this defence"]
        found.append(Proof(settings["kind"], tuple(lacking)))
    return found


def proofs_of(stated: Mapping[str, Any], cell: Mapping[str, Any], evidence: Mapping[str, Any]) -> list[Proof]:
    """The same of everything that a cell's scenario protects with: its protocol, and the controls of its deployment."""
    deployment = Deployment(**(stated.get("deployment") or {}))
    found = evidence.get("deployment") or {}
    served = _served(deployment, found)
    if "failed" in found:
        served = ((name, [f"could not be measured ({found['failed']})"]) for name, _ in served)
    return [*proofs(stated["protocol"], cell, evidence), *(Proof(name, tuple(lacking)) for name, lacking in served)]


def _served(deployment: Deployment, found: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Each control on answers, in order, then the budget: its name, and what is lacking."""
    for place, control in enumerate(deployment.in_order, 1):
        yield control.kind, _control(control, (found.get("controls") or {}).get(f"{place} {control.kind}") or {})
    if deployment.query_budget is not None:
        spent = found.get("query_budget") or {}
        kept = spent.get("set") == deployment.query_budget and spent.get("one_more_refused")
        yield "query_budget", [] if kept else [f"one query past {deployment.query_budget:,} was not seen to be refused"]


def _control(control: Control, told: Mapping[str, Any]) -> list[str]:
    name, fits = CONTROLS[control.kind]
    wanted, got = getattr(control, name) if name else 1, told.get("measured")
    if got is None or told.get("set") != wanted:
        return ["what it does to answers was not measured"]
    return [] if fits(wanted, told) else [f"{got:g} was measured, {wanted:g} was set"]


def _client_dp(settings: Mapping[str, Any], cell: Mapping[str, Any], evidence: Mapping[str, Any]) -> list[str]:
    clients = evidence.get("clients", {})
    norm, noise, per = (clients.get(f"client_dp.{name}") for name in ("norm_after", "noise_std", "coordinates"))
    if not (norm and noise and per):
        return ["no client measured its clipping and noise"]
    lacking = []
    answers = sum(len(row.get("answered", row["cohort"])) for row in cell["training"] or () if row["round"])
    if noise["count"] < answers:
        lacking.append(f"{noise['count']} of {answers} updates were measured")
    if norm["max"] > settings["clip"] * (1 + 1e-6):
        lacking.append(f"a norm of {norm['max']:g} left a client, above the clip of {settings['clip']:g}")
    wanted = settings["clip"] * settings["noise_multiplier"]
    error = wanted * SIGMAS / math.sqrt(2 * max(per["min"], 1))
    if not all(abs(noise[end] - wanted) <= error for end in ("min", "max")):
        lacking.append(f"noise of {noise['min']:g} to {noise['max']:g} was measured, {wanted:g} was set")
    return lacking


def _secure_aggregation(settings: Mapping[str, Any], cell: Mapping[str, Any], evidence: Mapping[str, Any]) -> list[str]:
    if settings.get("mode") == "ideal":
        return ["a trusted adder stood in for the protocol: no cryptography ran"]
    lacking = _only(("masked",), evidence)
    p = evidence.get("wire", {}).get("masked_byte_p_value")
    if p is None:
        lacking.append("the masked words were not tested")
    elif p < UNLIKELY:
        lacking.append(f"the masked words are not uniform (p = {p:.1g})")
    return lacking


def _homomorphic(settings: Mapping[str, Any], cell: Mapping[str, Any], evidence: Mapping[str, Any]) -> list[str]:
    lacking = _only(("ciphertext",), evidence)
    stated = evidence.get("protocol", {})
    if "server_holds_secret_key" not in stated:
        lacking.append("nobody looked whether the server holds the secret key")
    elif stated["server_holds_secret_key"]:
        lacking.append("the server holds the secret key")
    if stated.get("clear_parameters"):
        lacking.append(f"{stated['clear_parameters']} parameters travelled in clear")
    return lacking


def _client_checks(settings: Mapping[str, Any], cell: Mapping[str, Any], evidence: Mapping[str, Any]) -> list[str]:
    looked = {row["round"] for row in cell.get("detection") or () if row.get("clients")}
    blind = [row["round"] for row in cell["training"] or () if row["round"] and row["round"] not in looked]
    return [f"no client's checks were measured in {counted(len(blind), 'round')}"] if blind or not looked else []


def _only(forms: Sequence[str], evidence: Mapping[str, Any]) -> list[str]:
    seen = evidence.get("wire", {}).get("forms") or ["nothing"]
    return [] if list(seen) == list(forms) else [f"{', '.join(seen)} crossed the wire, not {', '.join(forms)} alone"]


PROBES: Mapping[str, Probe] = {
    "client_dp": _client_dp,
    "secure_aggregation": _secure_aggregation,
    "homomorphic": _homomorphic,
    "client_checks": _client_checks,
}
CONTROLS: Mapping[str, tuple[str | None, Callable[[float, Mapping[str, Any]], bool]]] = {
    "temperature": ("value", lambda value, told: abs(told["measured"] - value) <= value / 100),
    "noise": ("std", lambda std, told: told.get("low", told["measured"]) <= std <= told.get("high", told["measured"])),
    "rounding": ("decimals", lambda decimals, told: told["measured"] <= decimals),
    "top_k": ("k", lambda k, told: told["measured"] <= k),
    "label_only": (None, lambda one, told: told["measured"] <= one),
}
"""Each control on answers: the field that says how much, None for one entry; and whether what was measured fits."""
