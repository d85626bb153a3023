"""What does a keyboard that learns from messages tell the server?

Six phones train a small language model that suggests the next word; some messages hold an account number. In each
round every phone sends the gradient of two messages. The server reads which words occur from the rows of the embedding
that move, and whole messages from the span of the attention gradients. Compare more messages in a batch, a little
noise, and the sum alone.
"""

from fedsim import Adversary, Attack, ClientDP, Federation, Scenario, SecureAggregation, Task, main

scenario = Scenario(
    name="keyboard text",
    task=Task(dataset="messages", data_options={"count": 600, "secrets": 300}, model="transformer"),
    federation=Federation(algorithm="fedsgd", clients=6, rounds=3, batch_size=2, learning_rate=0.5),
    adversary=Adversary(knows=["batch_size", "public"]),
    attacks=[
        Attack(name="prior", victims=3),
        Attack(name="embedding_rows", victims=3),
        Attack(name="dager", victims=3),
    ],
    seeds=[0, 1],
    compare={
        "federation.batch_size": {"2 messages": 2, "8 messages": 8},
        "protocol": {
            "none": [],
            "DP z=0.00001": [ClientDP(clip=1.0, noise_multiplier=0.00001)],
            "DP z=0.01": [ClientDP(clip=1.0, noise_multiplier=0.01)],
            "secure aggregation": [SecureAggregation(clip=8.0, mode="ideal")],
        },
    },
)

if __name__ == "__main__":
    main(__file__)
