"""A few silos encrypt what they send: who must not hold the key, and whom must they still trust?

Six laboratories train on measurements of tumours. The server adds ciphertexts. The same federation with each holder
of the secret key: the laboratories themselves, a third party that opens the sum for the server, and the server, which
is how it must not be. Once more with one laboratory that helps the server, and hands over what it holds: its key too.
"""

from fedsim import Adversary, Attack, Federation, Homomorphic, Scenario, Task, main

KNOWS = ["batch_size", "value_range", "public", "public_labels"]

scenario = Scenario(
    name="cross-silo HE",
    task=Task(dataset="breast_cancer", model="mlp", model_options={"hidden": [64]}),
    federation=Federation(clients=6, rounds=5, batch_size=2, learning_rate=0.1, weighted=False),
    attacks=[Attack(name="prior", victims=3), Attack(name="analytic", victims=3)],
    seeds=[0, 1, 2],
    compare={
        "protocol": {
            "none": [],
            "HE, silos share the key": [Homomorphic(keys="clients_share_key")],
            "HE, trusted decryptor": [Homomorphic(keys="trusted_decryptor")],
            "HE, the server has the key": [Homomorphic(keys="server_holds_key")],
        },
        "adversary": {
            "server": Adversary(knows=KNOWS),
            "server and one silo": Adversary(knows=KNOWS, colluders=1),
        },
    },
)

if __name__ == "__main__":
    main(__file__)
