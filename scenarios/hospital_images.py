"""Can a server that averages hospitals' models see their patients' pictures, and does it help how the network begins?

Three hospitals train together; each round a hospital takes four local steps on one picture each, and sends what
changed. No federation has patients' pictures to give away, so crops of photographs stand in for them: set ``dataset``
to a folder of your own, one subfolder a class. The server knows how the hospitals train, and attacks the first round.
A network that begins with a fully connected layer is read without any search; one that begins with convolutions must
be searched, local steps and all.
"""

from fedsim import Adversary, Attack, AttackBudget, ClientDP, Federation, Scenario, Task, main

scenario = Scenario(
    name="hospital images",
    task=Task(dataset="photos"),
    federation=Federation(algorithm="fedavg", clients=3, rounds=10, batch_size=1, local_steps=4, learning_rate=0.03),
    adversary=Adversary(
        knows=["batch_size", "value_range", "learning_rate", "local_steps", "local_batch_size", "public"]
    ),
    attacks=[
        Attack(name="prior"),
        Attack(name="analytic"),
        Attack(name="fedavg_inversion", budget=AttackBudget(iterations=200, restarts=2)),
    ],
    seeds=[0, 1],
    compare={
        "task.model": {"dense": "mlp", "convolutional": "convnet"},
        "protocol": {"none": [], "DP z=0.01": [ClientDP(clip=1.0, noise_multiplier=0.01)]},
    },
)

if __name__ == "__main__":
    main(__file__)
