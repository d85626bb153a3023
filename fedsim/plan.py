"""The battery: every attack that rebuilds data, cheapest first, and why some of them do not run."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from attacks import Knowledge, NotApplicable, Observation, reconstructions
from attacks.registry import COSTS, check
from fedsim.job import Job

LEAST = 2.0
"""Seconds a victim below which a search is not worth starting."""


def everything() -> list[str]:
    """The attacks of the battery: cheapest first, then by name."""
    known = reconstructions()
    return sorted(known, key=lambda name: (COSTS.index(known[name].cost), name))


def rationed(jobs: Sequence[Job], without: Mapping[str, str], seconds: float | None) -> list[Job]:
    """The battery's jobs with their shares of ``seconds`` a victim; those that do not run say why.

    Closed forms get all the time they take; the searches that can start share the seconds, the costliest left out
    while the shares are below ``LEAST``.
    """
    planned = [replace(job, of_battery=True, skipped=without.get(job.attack, "")) for job in jobs]
    if seconds is None:
        return planned
    searches = [job.attack for job in planned if not job.skipped and _searches(job)]
    affordable = searches[: int(seconds // LEAST)]
    share = seconds / max(1, len(affordable))
    return [_share(job, job.attack in searches, job.attack in affordable, share, seconds) for job in planned]


def _share(job: Job, searches: bool, affordable: bool, share: float, seconds: float) -> Job:
    if job.skipped or not searches:
        return job
    if not affordable:
        return replace(job, skipped=f"the {seconds:g} seconds go to cheaper attacks; give the battery more")
    return replace(job, budget=replace(job.budget, seconds=share))


def _searches(job: Job) -> bool:
    """Whether this is a search that some victim has what it takes for."""
    return reconstructions()[job.attack].cost != "closed form" and any(
        _starts(job.attack, *victim) for victim in job.victims
    )


def _starts(name: str, observations: Sequence[Observation], knowledge: Knowledge, seed: int) -> bool:
    try:
        check(reconstructions()[name].needs, observations, knowledge)
    except NotApplicable:
        return False
    except ValueError:  # a broken update is for the attack itself to report
        return True
    return True


def left_out(excluded: Collection[str], named: Collection[str]) -> dict[str, str]:
    """Why some attacks are no part of the battery."""
    return dict.fromkeys(named, "named beside the battery, with a budget of its own") | dict.fromkeys(
        excluded, "excluded by the scenario"
    )


def silent(outcome: Mapping[str, Any]) -> bool:
    """Whether this is an attack of the battery that had nothing to work on, or was left out."""
    return bool(outcome["battery"]) and outcome["status"] in ("not_applicable", "not_run")


def not_run(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """What results say of such an attack."""
    return {key: outcome[key] for key in ("name", "on", "round", "status", "reason")}
