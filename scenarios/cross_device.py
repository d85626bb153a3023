"""Many phones send masked updates and some leave in mid-round: does the sum still open, and what does it still hide?

Thirty phones train on handwritten digits, on one picture each in a round; each shares masks with ten neighbours. A
phone that leaves after it has shared its keys takes its masks with it, and its neighbours must give up the shares that
remove them. Compare single updates with sums, where all stay, where one in ten leaves, and where one in three does.
"""

from fedsim import Adversary, Attack, Federation, Scenario, SecureAggregation, Task, main

scenario = Scenario(
    name="cross-device",
    task=Task(dataset="digits", model="mlp", model_options={"hidden": [32]}),
    federation=Federation(clients=30, rounds=4, batch_size=1, learning_rate=0.2, weighted=False),
    adversary=Adversary(knows=["batch_size", "value_range", "public", "public_labels"]),
    attacks=[
        Attack(name="prior", victims=5),
        Attack(name="analytic", victims=5),
        Attack(name="label_counts", victims=5),
    ],
    seeds=[0, 1],
    compare={
        "protocol": {
            "none": [],
            "secure aggregation": [SecureAggregation(clip=4.0, neighbours=10)],
        },
        "federation.dropout": {"all stay": 0.0, "one in ten leaves": 0.1, "one in three leaves": 1 / 3},
    },
)

if __name__ == "__main__":
    main(__file__)
