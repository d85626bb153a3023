"""Flower's own SecAgg+ under review: which lies of the server get past its clients, and which past the full protocol?

Its clients run as Flower ships them (1.41) and are lied to over Flower's messages. They take thresholds, modulus and
keys from the server, as the protocol for an honest server does; the full protocol of Bonawitz et al., with signed keys
and a consistency round, stands beside it. ``lying_server.py`` has lies that no protocol of this kind stops.
"""

from fedsim import Adversary, Attack, Federation, Scenario, SecureAggregation, Task, main

LIES = ("both_lists", "split_view", "forged_dropouts", "key_substitution", "shrunken_cohort", "degenerate_modulus")

scenario = Scenario(
    name="Flower SecAgg+",
    task=Task(dataset="digits", model="softmax"),
    federation=Federation(clients=5, rounds=2, batch_size=1, examples_per_client=1, weighted=False),
    protocol=[SecureAggregation(clip=4.0)],
    adversary=Adversary(kind="malicious_protocol", lie=LIES[0], victim=1),
    attacks=[Attack(name="prior"), Attack(name="analytic")],
    compare={
        "protocol": {
            "Flower's SecAgg+": [SecureAggregation(clip=4.0, profile="flower_1_41")],
            "full protocol": [SecureAggregation(clip=4.0)],
        },
        "adversary": {
            "honest but curious": Adversary(),
            **{lie: Adversary(kind="malicious_protocol", lie=lie, victim=1) for lie in LIES},
        },
    },
)

if __name__ == "__main__":
    main(__file__)
