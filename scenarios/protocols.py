"""What does each protocol cost, and what is left to attack once it is on?

The same federation six times: in the clear, with client-side noise, with secure aggregation, with homomorphic
encryption whose sums a trusted party opens, and both of these behind noise. The report puts bytes, CPU seconds,
errors, key holders and leakage side by side, and says what a larger cohort would cost.
"""

from fedsim import (
    Adversary,
    Attack,
    ClientDP,
    Federation,
    Homomorphic,
    Scenario,
    SecureAggregation,
    Task,
    main,
)

noise = ClientDP(clip=1.0, noise_multiplier=0.05)
masks = SecureAggregation(clip=8.0)
keys = Homomorphic(keys="trusted_decryptor")

scenario = Scenario(
    name="protocols",
    task=Task(dataset="photos", model="mlp"),
    federation=Federation(
        algorithm="fedsgd", clients=10, rounds=5, batch_size=1, learning_rate=0.02, weighted=False, dropout=0.1
    ),
    adversary=Adversary(knows=["batch_size", "value_range", "public", "public_labels"]),
    attacks=[
        Attack(name="prior", victims=4),
        Attack(name="label_counts", victims=4),
        Attack(name="analytic", victims=4),
    ],
    seeds=[0, 1],
    compare={
        "protocol": {
            "none": [],
            "DP": [noise],
            "secure aggregation": [masks],
            "HE": [keys],
            "DP + secure aggregation": [noise, masks],
            "DP + HE": [noise, keys],
        },
    },
)

if __name__ == "__main__":
    main(__file__)
