"""Can a curious server read the patients' records behind what clinics send?

Five clinics learn to tell claims from insurance records that hold a diagnosis; another study shares measurements of
tumours. Each clinic sends the gradient of four records. The server knows the columns, as whoever builds the model
does, and the sizes of the batches. A guess from public records stands beside every figure: the commonest values, each
column drawn by itself, and the nearest public record.
"""

from fedsim import Adversary, Attack, AttackBudget, ClientDP, Federation, Scenario, SecureAggregation, Task, main

scenario = Scenario(
    name="clinics tabular",
    federation=Federation(algorithm="fedsgd", clients=5, rounds=3, batch_size=4, learning_rate=0.1),
    adversary=Adversary(knows=["batch_size", "value_range", "columns", "public", "public_labels"]),
    attacks=[
        Attack(name="prior", victims=2),
        Attack(name="label_counts", victims=2),
        Attack(name="analytic", victims=2),
        Attack(name="tableak", budget=AttackBudget(iterations=1000, restarts=8)),
    ],
    seeds=[0, 1],
    compare={
        "task": {
            "records": Task(dataset="records", model="mlp"),
            "tumours": Task(dataset="breast_cancer", model="mlp"),
        },
        "protocol": {
            "none": [],
            "DP z=0.001": [ClientDP(clip=1.0, noise_multiplier=0.001)],
            "DP z=0.1": [ClientDP(clip=1.0, noise_multiplier=0.1)],
            "secure aggregation": [SecureAggregation(mode="ideal")],
        },
    },
)

if __name__ == "__main__":
    main(__file__)
