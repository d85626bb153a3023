"""Can a server that averages hospitals' models see their patients' pictures, and what does noise at the hospital cost?

Three hospitals train a convolutional network together; each round a hospital takes four local steps on one picture
each, and sends what changed. No federation has patients' pictures to give away, so crops of photographs stand in for
them: set ``dataset`` to a folder of your own, one subfolder a class. The server knows how the hospitals train, rebuilds
their local steps, and attacks the first round.
"""

from fedsim import Adversary, Attack, AttackBudget, ClientDP, Federation, Scenario, Task, main

scenario = Scenario(
    name="hospital images",
    task=Task(dataset="photos", model="convnet"),
    federation=Federation(
        algorithm="fedavg", clients=3, rounds=5, batch_size=1, local_steps=4, examples_per_client=4, learning_rate=0.03
    ),
    adversary=Adversary(
        knows=["batch_size", "value_range", "learning_rate", "local_steps", "local_batch_size", "public"]
    ),
    attacks=[
        Attack(name="prior"),
        Attack(name="label_counts"),
        Attack(name="fedavg_inversion", budget=AttackBudget(iterations=200, restarts=2)),
    ],
    seeds=[0, 1],
    compare={
        "protocol": {
            "none": [],
            "DP z=0.01": [ClientDP(clip=1.0, noise_multiplier=0.01)],
            "DP z=0.1": [ClientDP(clip=1.0, noise_multiplier=0.1)],
        },
    },
)

if __name__ == "__main__":
    main(__file__)
