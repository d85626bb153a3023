"""Messages: what is written is what is read; damage, truncation, replay and disorder end the round without a sum."""

import numpy as np
import pytest

from crypto.entropy import FixedEntropy
from crypto.errors import (
    CorruptMessage,
    DuplicateMessage,
    MalformedMessage,
    SecAggError,
    UnknownClient,
    WrongRound,
    WrongStage,
)
from crypto.secagg import PROFILES, STEPS, Client, Server, enrol, messages, simulate_round
from crypto.secagg.round import make_terms
from crypto.secagg.wire import FRAME_BYTES

N, D = 4, 6
UPDATES = np.linspace(-1, 1, N * D, dtype=np.float32).reshape(N, D)
KINDS = {
    ("advertise", "down"): messages.Terms,
    ("advertise", "up"): messages.Advert,
    ("shares", "down"): messages.Roster,
    ("shares", "up"): messages.Shares,
    ("masked", "down"): messages.Inbox,
    ("masked", "up"): messages.Masked,
    ("consistency", "down"): messages.Survivors,
    ("consistency", "up"): messages.Endorsement,
    ("unmask", "down"): messages.UnmaskRequest,
    ("unmask", "up"): messages.Unmasking,
}


def record(profile="paper", **options):
    """Every message of a round, in order: (stage, client, way, bytes)."""
    log = []
    simulate_round(UPDATES, threshold=3, profile=profile, tap=lambda *entry: log.append(entry), **options)
    return log


def play(change, profile="paper", entropy=None):
    """A round in which ``change(stage, client, way, message)`` may replace each message on its way."""
    entropy = entropy or FixedEntropy(b"play")
    terms = make_terms(UPDATES, None, 3, 16, 1.0, None, entropy)
    server = Server(terms, PROFILES[profile], entropy=entropy)
    clients = [Client(i, PROFILES[profile], identity, entropy) for i, identity in enumerate(enrol(N, entropy))]
    outbox = server.start()
    while outbox:
        stage = server.stage
        for index, message in outbox.items():
            message = change(stage, index, "down", message)
            extra = (UPDATES[index], 1, bytes(32)) if stage == "masked" else ()
            answer = getattr(clients[index], STEPS[stage])(message, *extra)
            server.receive(index, change(stage, index, "up", answer))
        outbox = server.advance()
    return server.result()[0]


@pytest.mark.parametrize("profile", ["paper", "semi_honest"])
def test_what_is_written_is_what_is_read(profile):
    for stage, client, way, message in record(profile, dropped={"masked": [1]}):
        kind = KINDS[stage, way]
        read = kind.decode(message, client=client, stage=stage)
        assert read.stage == stage
        assert read.encode() == message


def test_no_change_no_error():
    assert np.abs(play(lambda *entry: entry[-1]) - UPDATES.sum(0)).max() < 1e-3


@pytest.mark.parametrize("profile", ["paper", "semi_honest"])
@pytest.mark.parametrize("target", list(KINDS), ids="-".join)
def test_every_flipped_bit_ends_the_round_naming_client_and_stage(target, profile):
    entries = [entry for entry in record(profile) if (entry[0], entry[2]) == target and entry[1] == 2]
    for size in {len(entry[3]) for entry in entries}:
        for bit in {*range(0, 8 * size, 37), 8 * size - 1}:

            def flip(stage, client, way, message, bit=bit):
                if (stage, way) != target or client != 2:
                    return message
                damaged = bytearray(message)
                damaged[bit // 8] ^= 1 << bit % 8
                return bytes(damaged)

            with pytest.raises(CorruptMessage) as caught:
                play(flip, profile)
            assert (caught.value.client, caught.value.stage) == (2, target[0])


@pytest.mark.parametrize("target", list(KINDS), ids="-".join)
def test_a_truncated_or_padded_message_ends_the_round(target):
    for cut in (0, 1, FRAME_BYTES - 1, FRAME_BYTES, -1, +1):

        def resize(stage, client, way, message, cut=cut):
            if (stage, way) != target or client != 1:
                return message
            return message + b"\0" if cut == 1 else message[: cut or None] if cut else b""

        with pytest.raises(MalformedMessage) as caught:
            play(resize)
        assert (caught.value.client, caught.value.stage) == (1, target[0])


@pytest.mark.parametrize("target", [key for key in KINDS if key != ("advertise", "down")], ids="-".join)
def test_a_body_of_another_length_is_malformed_even_with_a_right_checksum(target):
    """Whoever can write checksums still cannot smuggle in half a field."""
    stage, way = target
    message = next(entry[3] for entry in record() if (entry[0], entry[2]) == target and entry[1] == 1)
    kind = KINDS[target]
    whole = kind.decode(message, client=1, stage=stage)
    body = bytes(whole.body())

    class Shortened(kind):
        def body(self):
            return body[:-1]

    short = Shortened(**vars(whole)).encode()
    with pytest.raises(MalformedMessage, match=kind.__name__ if target != ("masked", "up") else "words"):
        play(lambda s, c, w, m: short if (s, w, c) == (stage, way, 1) else m, entropy=replayable(message, target))


def replayable(message, target):
    """Entropy of a round whose session is that of ``message``, so that only the body is wrong."""
    rest = FixedEntropy(b"rest")
    first = [message[24:40]]
    return lambda count: first.pop() if first and count == 16 else rest(count)


@pytest.mark.parametrize("target", [key for key in KINDS if key != ("advertise", "down")], ids="-".join)
def test_a_message_of_another_round_is_refused(target):
    old = {(stage, client, way): message for stage, client, way, message in record()}

    def replay(stage, client, way, message):
        return old[stage, client, way] if (stage, way) == target and client == 3 else message

    with pytest.raises(WrongRound) as caught:
        play(replay)
    assert (caught.value.client, caught.value.stage) == (3, target[0])


def test_an_earlier_message_of_the_same_round_is_refused():
    kept = {}

    def reorder(stage, client, way, message):
        kept[stage, client, way] = message
        return kept["shares", client, way] if stage == "masked" and client == 0 else message

    with pytest.raises(WrongStage) as caught:
        play(reorder)
    assert (caught.value.client, caught.value.stage) == (0, "masked")


def test_another_clients_message_is_refused():
    kept = {}

    def swap(stage, client, way, message):
        kept[stage, client, way] = message
        return kept[stage, 0, way] if (stage, way, client) == ("masked", "up", 1) else message

    with pytest.raises(UnknownClient) as caught:
        play(swap)
    assert caught.value.client == 1


def test_the_server_takes_one_message_from_each_client_it_waits_for():
    server, clients = start()
    offers = server.start()
    answer = clients[0].advertise(offers[0])
    server.receive(0, answer)
    with pytest.raises(DuplicateMessage):
        server.receive(0, answer)
    with pytest.raises(UnknownClient):
        server.receive(N, answer)
    with pytest.raises(WrongStage, match="not open"):
        server.result()


def test_a_late_message_is_refused_and_changes_nothing():
    server, clients = start()
    adverts = {i: client.advertise(m) for (i, m), client in zip(server.start().items(), clients, strict=True)}
    for i in (0, 1, 2):
        server.receive(i, adverts[i])
    rosters = server.advance()
    assert set(rosters) == {0, 1, 2}
    with pytest.raises(UnknownClient) as caught:
        server.receive(3, adverts[3])
    assert (caught.value.client, caught.value.stage) == (3, "shares")


def test_a_client_that_raised_never_answers_again():
    server, clients = start()
    offer = server.start()[0]
    with pytest.raises(CorruptMessage):
        clients[0].advertise(offer[:-1] + b"\xff")
    with pytest.raises(WrongStage, match="aborted"):
        clients[0].advertise(offer)


def test_stages_cannot_be_skipped():
    _, clients = start()
    for step in (clients[0].share, clients[0].endorse, clients[0].unmask):
        with pytest.raises(WrongStage):
            step(b"")


def start(profile="paper"):
    terms = make_terms(UPDATES, None, 3, 16, 1.0, None, FixedEntropy(b"start"))
    clients = [Client(i, PROFILES[profile], identity) for i, identity in enumerate(enrol(N, FixedEntropy(b"ids")))]
    return Server(terms, PROFILES[profile]), clients


def test_errors_say_who_where_and_why():
    error = SecAggError(3, "masked", "no reason")
    assert str(error) == "SecAggError at stage 'masked', client 3: no reason"
