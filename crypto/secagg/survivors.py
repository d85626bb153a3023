"""What a client checks before it opens a share: the survivor set, and that its neighbours saw the same one.

On the complete graph that is everybody's agreement (Bonawitz et al.); on a k-regular one it is each neighbourhood's,
and rests, like Bell et al.'s privacy against a semi-malicious server, on a ring that the server did not choose. A
server that cuts such a graph apart, by its choice or by dropping a neighbourhood's neighbours, still opens no sum of
fewer than the threshold: whoever answers for a client is in the same sum, and 2t > holders.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from crypto.errors import BadSurvivorSet, InconsistentSurvivors, OverlappingSets, TooFewSurvivors
from crypto.keys import verify
from crypto.secagg import binding
from crypto.secagg.messages import Survivors, Terms, UnmaskRequest
from crypto.secagg.profiles import Profile


@dataclass(frozen=True)
class Survived:
    """The survivor set that a client signed, and the part of it whose shares the client holds."""

    everyone: frozenset[int]
    circle: frozenset[int]


def accept(
    shown: Survivors, terms: Terms, profile: Profile, roster: Collection[int], held: Collection[int]
) -> Survived:
    """The survivor set as client ``terms.client`` may sign it, having met ``roster`` and holding shares of ``held``.

    Raises BadSurvivorSet or TooFewSurvivors.
    """
    if strangers := shown.alive.intersection(roster).difference(held):
        raise BadSurvivorSet(terms.client, "consistency", f"client {min(strangers)} survived without having shared")
    circle = shown.alive.intersection(held)
    if shown.clients != terms.clients:
        raise BadSurvivorSet(terms.client, "consistency", f"a set over {shown.clients} clients, not {terms.clients}")
    _check_circle(circle, terms, "consistency")
    _check_cohort(len(shown.alive), terms, profile, "consistency")
    return Survived(shown.alive, circle)


def check_request(request: UnmaskRequest, terms: Terms, profile: Profile, held: Collection[int]) -> None:
    """The two lists split ``held``, the client is alive, and enough survive.

    Raises OverlappingSets, BadSurvivorSet or TooFewSurvivors.
    """
    alive, dead = frozenset(request.alive), frozenset(request.dead)
    if both := alive & dead:
        raise OverlappingSets(terms.client, "unmask", f"client {min(both)} is listed both alive and dead")
    if alive | dead != frozenset(held):
        raise BadSurvivorSet(terms.client, "unmask", "the lists are not the neighbours that shared, each once")
    _check_circle(alive, terms, "unmask")
    if terms.degree == terms.clients - 1:  # the neighbourhood is everybody
        _check_cohort(len(alive), terms, profile, "unmask")


def check_endorsed(
    request: UnmaskRequest, mine: Survived, terms: Terms, context: bytes, directory: Mapping[int, bytes]
) -> None:
    """The request is about the set this client signed, and a threshold of its circle, itself included, signed it too.

    Raises InconsistentSurvivors (Bonawitz et al., CCS 2017, figure 4, round 4).
    """
    if frozenset(request.alive) != mine.circle:
        raise InconsistentSurvivors(terms.client, "unmask", "the request is about another survivor set than was signed")
    statement = binding.survivor_statement(context, mine.everyone)
    signed = 1
    for client, signature in request.endorsements:
        if signed >= terms.threshold:
            return
        if client == terms.client or client not in mine.circle:
            continue
        if not verify(directory.get(client, b""), signature, statement):
            raise InconsistentSurvivors(terms.client, "unmask", f"client {client} did not sign this survivor set")
        signed += 1
    if signed < terms.threshold:
        reason = f"{signed} of {terms.threshold} signatures on this survivor set"
        raise InconsistentSurvivors(terms.client, "unmask", reason)


def _check_circle(circle: frozenset[int], terms: Terms, stage: str) -> None:
    if terms.client not in circle:
        raise BadSurvivorSet(terms.client, stage, "this client sent its vector and is not in the survivor set")
    if len(circle) < terms.threshold:
        reason = f"{len(circle)} survivors in the neighbourhood: the threshold is {terms.threshold}"
        raise TooFewSurvivors(terms.client, stage, reason)


def _check_cohort(survivors: int, terms: Terms, profile: Profile, stage: str) -> None:
    least = profile.policy.min_clients if profile.policy else 1
    if survivors < least:
        raise TooFewSurvivors(terms.client, stage, f"{survivors} survivors: this client demands at least {least}")
