"""What a client refuses, and what the server refuses: each with its own error, naming client and stage."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from crypto.errors import (
    AlreadyUnmasked,
    BadKey,
    BadRoster,
    BadShare,
    BadSignature,
    BadSurvivorSet,
    BadUpdate,
    DuplicateMessage,
    InconsistentSurvivors,
    InfeasibleParameters,
    OverlappingSets,
    PolicyViolation,
    ReplayedRound,
    TooFewSurvivors,
    UnknownClient,
    WrongStage,
)
from crypto.keys import KeyPair
from crypto.secagg import PROFILES, STEPS, Client, Policy, Server, enrol, messages, run_round, simulate_round
from crypto.secagg.round import carry, make_terms

N, D = 5, 8
UPDATES = np.random.default_rng(1).uniform(-1, 1, (N, D)).astype(np.float32)


def terms_of(**changes):
    return replace(make_terms(UPDATES, None, 4, 16, 1.0, None, np.random.default_rng(0).bytes), **changes)


class Meddling(Server):
    """An honest server but for one kind of message to one client, changed as told."""

    def __init__(self, kind, change, profile="paper", target=1, **options):
        super().__init__(terms_of(), PROFILES[profile], **options)
        self.kind, self.change, self.target = kind, change, target

    def _send(self, outbox):
        changed = {u: self.change(m) if u == self.target and isinstance(m, self.kind) else m for u, m in outbox.items()}
        return super()._send(changed)


def meet(kind, change, error, stage, profile="paper", client=1, clients=None):
    server = Meddling(kind, change, profile)
    with pytest.raises(error) as caught:
        carry(server, clients or people(profile), UPDATES)
    assert type(caught.value) is error
    assert (caught.value.client, caught.value.stage) == (client, stage)


def people(profile="paper"):
    chosen = PROFILES[profile] if isinstance(profile, str) else profile
    return [Client(i, chosen, identity) for i, identity in enumerate(enrol(N, np.random.default_rng(2).bytes))]


@pytest.mark.parametrize(
    "changes",
    [
        {"clients": 2, "degree": 1, "threshold": 2},
        {"threshold": 2},
        {"threshold": 6},
        {"degree": 3},
        {"degree": 0},
        {"degree": 5},
        {"modulus_bits": 1},
        {"modulus_bits": 31},
        {"bits": 0},
        {"bits": 25},
        {"bits": 40},
        {"max_weight": 0},
        {"max_weight": 1 << 20},
        {"clip": float("nan")},
        {"clip": float("inf")},
        {"clip": 0.0},
        {"clip": -1.0},
        {"dimension": 0},
    ],
    ids=str,
)
def test_terms_outside_the_policy_are_refused(changes):
    message = terms_of(client=3, **changes).encode()
    with pytest.raises(PolicyViolation) as caught:
        people()[3].advertise(message)
    assert (caught.value.client, caught.value.stage) == (3, "advertise")
    assert next(iter(changes)) in caught.value.reason


def test_the_policy_names_everything_that_is_wrong_at_once():
    problems = Policy().problems(terms_of(threshold=1, modulus_bits=7, clip=-1.0))
    assert len(problems) >= 3


def test_a_policy_counts_corrupt_neighbours():
    terms = terms_of(threshold=3)
    assert Policy(corrupt=0.0).problems(terms) == []
    assert Policy(corrupt=0.5).problems(terms) != []
    assert Policy(corrupt=0.5, split_view=False).problems(terms) == []


def test_a_client_that_takes_no_part_is_refused():
    stranger = Client(N, PROFILES["paper"], enrol(N + 1, np.random.default_rng(0).bytes)[N])
    with pytest.raises(UnknownClient):
        stranger.advertise(terms_of(client=N).encode())


def test_a_round_is_joined_once_and_never_an_earlier_one():
    identity = enrol(N, np.random.default_rng(0).bytes)[0]
    for round, fits in ((4, True), (4, False), (3, False), (5, True)):
        client = Client(0, PROFILES["paper"], identity)
        if fits:
            client.advertise(terms_of(round=round).encode())
            continue
        with pytest.raises(ReplayedRound):
            client.advertise(terms_of(round=round).encode())


def with_neighbour(change):
    return lambda m: replace(m, neighbours=(change(m.neighbours[0]), *m.neighbours[1:]))


def test_a_low_order_key_is_refused():
    low_order = with_neighbour(lambda n: n._replace(share_key=bytes(32)))
    meet(messages.Roster, low_order, BadKey, "shares", profile="semi_honest")


def test_a_key_that_its_client_did_not_sign_is_refused():
    other = KeyPair(bytes(range(32))).public
    meet(messages.Roster, with_neighbour(lambda n: n._replace(mask_key=other)), BadSignature, "shares")
    meet(messages.Roster, with_neighbour(lambda n: n._replace(signature=bytes(64))), BadSignature, "shares")


def test_a_key_used_twice_is_refused():
    twice = with_neighbour(lambda n: n._replace(mask_key=n.share_key))
    meet(messages.Roster, twice, BadRoster, "shares", profile="semi_honest")


def test_a_roster_with_oneself_or_a_stranger_or_too_few_is_refused():
    meet(messages.Roster, with_neighbour(lambda n: n._replace(client=1)), BadRoster, "shares", client=1)
    last = lambda m: replace(m, neighbours=(*m.neighbours[:-1], m.neighbours[-1]._replace(client=77)))  # noqa: E731
    meet(messages.Roster, last, BadRoster, "shares")
    meet(messages.Roster, lambda m: replace(m, neighbours=m.neighbours[:2]), BadRoster, "shares")


def test_swapped_or_altered_shares_do_not_open():
    def swapped(m):
        (one, a), (two, b), *rest = m.sealed
        return replace(m, sealed=((one, b), (two, a), *rest))

    def altered(m):
        (one, a), *rest = m.sealed
        return replace(m, sealed=((one, a[:-1] + bytes([a[-1] ^ 1])), *rest))

    meet(messages.Inbox, swapped, BadShare, "masked")
    meet(messages.Inbox, altered, BadShare, "masked")


def test_an_inbox_of_strangers_or_of_too_few_is_refused():
    meet(messages.Inbox, lambda m: replace(m, sealed=m.sealed[:2]), TooFewSurvivors, "masked")
    meet(messages.Inbox, lambda m: replace(m, sealed=(*m.sealed[:-1], (99, m.sealed[-1][1]))), UnknownClient, "masked")


def test_impossible_survivor_sets_are_refused():
    def alive(*clients):
        return lambda m: replace(m, alive=frozenset(clients))

    meet(messages.Survivors, alive(0, 2, 3, 4), BadSurvivorSet, "consistency")
    meet(messages.Survivors, alive(0, 1, 2), TooFewSurvivors, "consistency")
    meet(messages.Survivors, lambda m: replace(m, clients=N + 1), BadSurvivorSet, "consistency")


def test_a_survivor_who_never_shared_is_refused():
    """Its shares were kept from this client alone, so this client's mask with it is missing."""
    meet(messages.Inbox, lambda m: replace(m, sealed=m.sealed[:-1]), BadSurvivorSet, "consistency")


def request(**changes):
    return lambda m: replace(m, **{k: v(m) for k, v in changes.items()})


def test_impossible_requests_are_refused():
    meet(messages.UnmaskRequest, request(dead=lambda m: (m.alive[0],)), OverlappingSets, "unmask")
    meet(messages.UnmaskRequest, request(alive=lambda m: m.alive[1:]), BadSurvivorSet, "unmask")
    meet(messages.UnmaskRequest, request(alive=lambda m: (*m.alive, 66)), BadSurvivorSet, "unmask")
    split = {"alive": lambda m: m.alive[1:], "dead": lambda m: m.alive[:1]}
    meet(messages.UnmaskRequest, request(**split), InconsistentSurvivors, "unmask")
    few = {"alive": lambda m: m.alive[:3], "dead": lambda m: m.alive[3:]}
    meet(messages.UnmaskRequest, request(**few), TooFewSurvivors, "unmask")


def test_a_survivor_set_that_too_few_signed_is_refused():
    meet(messages.UnmaskRequest, request(endorsements=lambda m: m.endorsements[:2]), InconsistentSurvivors, "unmask")
    repeat = lambda m: tuple((u, m.endorsements[0][1]) for u, _ in m.endorsements)  # noqa: E731
    meet(messages.UnmaskRequest, request(endorsements=repeat), InconsistentSurvivors, "unmask")


def test_unmasking_happens_once():
    server, clients = Server(terms_of(), PROFILES["paper"]), people()
    asked = {}
    run_round(server, clients, UPDATES, tap=lambda s, c, w, m: asked.update({(s, c, w): m}))
    with pytest.raises(AlreadyUnmasked):
        clients[0].unmask(asked["unmask", 0, "down"])


@pytest.mark.parametrize(
    ("profile", "error", "stage"), [("paper", BadSignature, "shares"), ("semi_honest", BadShare, "masked")]
)
def test_clients_with_different_models_share_no_key(profile, error, stage):
    server = Server(terms_of(), PROFILES[profile])
    with pytest.raises(error) as caught:
        carry(server, people(profile), UPDATES, model_hash=lambda client: b"a" if client == 2 else b"b")
    assert caught.value.stage == stage


def test_shares_that_rebuild_another_secret_end_the_round():
    """One client hands out shares of a seed that it does not use: no sum rather than a wrong one."""

    class Cheat(Client):
        def unmask(self, message):
            honest = messages.Unmasking.decode(super().unmask(message), client=self.index, stage="unmask")
            (owner, share), *rest = honest.seeds
            return replace(honest, seeds=((owner, bytes([share[0] ^ 1]) + share[1:]), *rest)).encode()

    clients = people()
    clients[0] = Cheat(0, PROFILES["paper"], clients[0].identity)
    with pytest.raises(BadShare) as caught:
        run_round(Server(terms_of(), PROFILES["paper"]), clients, UPDATES)
    assert caught.value.stage == "unmask"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.5])
def test_an_update_that_cannot_be_encoded_ends_the_round(bad):
    updates = UPDATES.copy()
    updates[3, 5] = bad
    with pytest.raises(BadUpdate) as caught:
        simulate_round(updates, threshold=4, clip=1.0)
    assert (caught.value.client, caught.value.stage) == (3, "masked")


def test_without_a_clip_the_largest_finite_value_is_taken_and_nan_is_still_refused():
    updates = UPDATES.copy()
    updates[0, 0] = np.nan
    with pytest.raises(BadUpdate, match="NaN"):
        simulate_round(updates, threshold=4)


@pytest.mark.parametrize(
    "weights", [[1, 2, -3, 4, 5], [1, 1, 2.5, 1, 1], [1, 2, float("nan"), 4, 5], [1, float("inf"), 1, 1, 1]]
)
def test_a_weight_that_is_no_weight_ends_the_round(weights):
    with pytest.raises(BadUpdate, match="weight"):
        simulate_round(UPDATES, threshold=4, weights=weights)


def test_every_client_has_a_weight():
    with pytest.raises(ValueError, match="4 weights for 5 clients"):
        simulate_round(UPDATES, threshold=4, weights=[1, 2, 3, 4])


def test_an_array_of_weights_will_do():
    result = simulate_round(UPDATES, threshold=4, weights=np.array([1, 2, 3, 4, 5]), seed=0)
    assert result.weight == 15
    np.testing.assert_array_equal(
        result.words, simulate_round(UPDATES, threshold=4, weights=[1, 2, 3, 4, 5], seed=0).words
    )


def test_a_round_of_two_is_below_the_policy():
    with pytest.raises(PolicyViolation, match="clients = 2"):
        simulate_round(UPDATES[:2], threshold=2)


def test_a_modulus_that_could_overflow_is_refused():
    with pytest.raises(InfeasibleParameters):
        simulate_round(UPDATES, threshold=4, bits=24, weights=[1 << 40] * N)


@pytest.mark.parametrize(
    ("dropped", "error"),
    [
        ({"masked": [N]}, UnknownClient),
        ({"masked": [-1]}, UnknownClient),
        ({"masked": [1.5]}, UnknownClient),
        ({"masked": ["1"]}, UnknownClient),
        ({"masked": [1, 1]}, DuplicateMessage),
        ({"masked": [1], "unmask": [1]}, DuplicateMessage),
        ({"mask": [1]}, WrongStage),
    ],
)
def test_nonsense_dropouts_are_refused(dropped, error):
    with pytest.raises(error) as caught:
        simulate_round(UPDATES, threshold=4, dropped=dropped)
    assert caught.value.stage == list(dropped)[-1]


def test_an_unknown_profile_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="known are paper, semi_honest"):
        simulate_round(UPDATES, threshold=4, profile="flower")


def test_nothing_shows_a_secret():
    identity = enrol(N, np.random.default_rng(0).bytes)[0]
    client = Client(0, PROFILES["paper"], identity)
    client.advertise(terms_of().encode())
    secrets = client._secrets
    hidden = [secrets.seed, secrets.mask_key.secret, secrets.share_key.secret, identity.signing_key._secret]
    unmasking = messages.Unmasking(bytes(16), 0, 0, ((1, b"s" * 39),), ((2, b"k" * 39),))
    shown = " ".join(map(repr, (client, secrets, identity, secrets.mask_key, identity.signing_key, unmasking)))
    for secret in hidden:
        assert repr(secret) not in shown
        assert secret.hex() not in shown
    assert "sss" not in shown
    assert "kkk" not in shown


def test_a_client_can_wait_in_a_pickle_between_any_two_stages():
    server, clients = Server(terms_of(), PROFILES["paper"]), people()

    class Stored:
        def __init__(self, client):
            self.index, self.kept = client.index, pickle.dumps(client)

        def __getattr__(self, step):
            def call(*arguments):
                client = pickle.loads(self.kept)
                answer = getattr(client, step)(*arguments)
                self.kept = pickle.dumps(client)
                return answer

            return call

    stored = [Stored(client) for client in clients]
    outbox = server.start()
    while outbox:
        for i, message in outbox.items():
            extra = (UPDATES[i],) if server.stage == "masked" else ()
            server.receive(i, getattr(stored[i], STEPS[server.stage])(message, *extra))
        outbox = server.advance()
    assert np.abs(server.result()[0] - UPDATES.sum(0)).max() < N * server.terms.encoding.step


def test_profiles_are_distinct_and_described():
    assert len({replace(profile, name="", claim="") for profile in PROFILES.values()}) == len(PROFILES)
    assert all(profile.claim for profile in PROFILES.values())
