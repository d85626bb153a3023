"""What does one client's update give away, and how much noise does it take to stop that?

Ten clients train on photographs, and on faces; in each round each sends the gradient of one example. The server is
honest but curious, and attacks the first round. Change the model, the batch size or the noise, and run it again.
"""

from fedsim import Adversary, Attack, AttackBudget, ClientDP, Federation, Scenario, Task, main

scenario = Scenario(
    name="quickstart",
    federation=Federation(algorithm="fedsgd", clients=10, rounds=15, batch_size=1, learning_rate=0.05),
    adversary=Adversary(knows=["batch_size", "value_range", "public", "public_labels"]),
    attacks=[
        Attack(name="prior", victims=4),
        Attack(name="label_counts", victims=4),
        Attack(name="analytic", victims=4),
        Attack(name="absolute_matching", victims=1, budget=AttackBudget(iterations=200, restarts=1)),
    ],
    seeds=[0, 1],
    compare={
        "task": {
            "photos": Task(dataset="photos", model="mlp"),
            "faces": Task(dataset="faces", model="mlp"),
        },
        "protocol": {
            "none": [],
            "DP z=0.001": [ClientDP(clip=1.0, noise_multiplier=0.001)],
            "DP z=0.01": [ClientDP(clip=1.0, noise_multiplier=0.01)],
            "DP z=0.1": [ClientDP(clip=1.0, noise_multiplier=0.1)],
        },
    },
)

if __name__ == "__main__":
    main(__file__)
