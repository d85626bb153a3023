"""The way of the finished model, drawn from the deployment: who holds it, what a caller gets, who attacks."""

from collections.abc import Mapping
from typing import Any

from fedsim.report.flow import Crossing, Part, Zone
from fedsim.words import counted

Json = Mapping[str, Any]

ANSWERS = {
    "confidences": "the confidence in every class",
    "top_k": "the {top} largest confidences",
    "rounded": "confidences, rounded to {decimals} decimal places",
    "label_only": "the label alone",
}
"""What leaves the service at each access level; at none of these, the model itself does."""


def served(stated: Json) -> tuple[Part, ...]:
    """From the training to whoever attacks the finished model, under one combination's deployment."""
    deployment = stated.get("deployment") or {}
    trained = Zone("Clients and server", ("train the model together, and end with it",))
    access = str(deployment.get("access"))
    if access not in ANSWERS:
        holder = Zone("Whoever holds the model", ("reads the weights, and asks without a limit",), watched=True)
        return trained, Crossing("the finished model, weights included"), holder
    budget = deployment.get("query_budget")
    kinds = [str(control["kind"]).replace("_", " ") for control in deployment.get("controls") or []]
    steps = [
        "holds the finished model",
        *([f"changes each answer: {', then '.join(kinds)}"] if kinds else []),
        *([f"answers a caller {counted(int(budget), 'input')} at most"] if budget is not None else []),
    ]
    caller = Zone("Caller", ("asks about inputs of its choice, and reads the answers",), watched=True)
    answer = ANSWERS[access].format(**deployment)
    return trained, Crossing("the finished model"), Zone("Service", tuple(steps)), Crossing(answer), caller
