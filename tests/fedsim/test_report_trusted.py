"""Who sees what, in the report's words: they follow from who holds the key and from what is encrypted."""

import pytest

from fedsim.report.trusted import KEY_HOLDERS, must_trust, others_see, server_sees
from strategies.homomorphic import Homomorphic

NOISE = {"kind": "client_dp", "level": "client"}


def encrypted(**fields):
    return {"kind": "homomorphic", "keys": "clients_share_key", "encrypted_fraction": 1.0, **fields}


def masked(**fields):
    return {"kind": "secure_aggregation", "profile": "paper", "mode": "protocol", **fields}


def test_only_clients_with_every_check_need_not_trust_the_server():
    assert "the server" not in must_trust([masked()])


def test_every_key_holder_has_its_words():
    assert set(KEY_HOLDERS) == set(Homomorphic.__annotations__["keys"].__args__)
    assert len(set(KEY_HOLDERS.values())) == len(KEY_HOLDERS)


@pytest.mark.parametrize(
    ("stack", "sees", "trusts"),
    [
        ([], "each client's update in the clear", "the server"),
        ([encrypted(keys="server_holds_key")], "which it can decrypt", "the server"),
        ([encrypted(keys="trusted_decryptor")], "and the sum, from the decryptor", "the decryptor"),
        ([encrypted()], "never holds a sum", "every single client"),
        ([encrypted(encrypted_fraction=0.3)], "70% of each update in the clear", "every single client"),
        ([encrypted(encrypted_fraction=0.0)], "nothing is encrypted", "every single client"),
        ([NOISE, encrypted()], "without opening", "the client's software"),
        ([NOISE], "after the client clipped it", "the client's software"),
        ([masked()], "a masked vector", "enough clients are honest"),
        ([masked(profile="semi_honest")], "a masked vector", "the server keeps to the protocol"),
        ([masked(profile="flower_1_41")], "a masked vector", "the server keeps to the protocol"),
        ([NOISE, masked(mode="ideal")], "the sum over the cohort, from a trusted party", "it reads every update"),
        ([{"kind": "of the future"}], "what the defence named leaves visible", "–"),
    ],
)
def test_what_the_server_sees_and_whom_one_trusts(stack, sees, trusts):
    assert sees in server_sees(stack)
    assert trusts in must_trust(stack)


def test_other_clients_are_said_to_hold_the_key_where_they_do():
    plain = dict(others_see({"none": []}))
    assert "the decryptor" not in plain
    assert plain["other clients"].endswith("never another client's update")
    rows = dict(others_see({"none": [], "HE": [encrypted()], "party": [encrypted(keys="trusted_decryptor")]}))
    assert "under HE: they have the key" in rows["other clients"]
    assert "under HE every round's sum" in rows["each client"]
    assert rows["the decryptor"].startswith("under party every sum")
