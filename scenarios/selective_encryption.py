"""How much of an update must be encrypted? Gradient inversion on what travels in clear, against the fraction p.

The most sensitive coordinates, by the size of public examples' gradients, are encrypted; a trusted party decrypts the
sum for the server, which is attacked too.
"""

from fedsim import Adversary, Attack, AttackBudget, Federation, Homomorphic, Scenario, Task, main


def encrypting(p: float) -> list[Homomorphic]:
    """The protocol that encrypts the fraction ``p`` of the coordinates."""
    return [Homomorphic(keys="trusted_decryptor", encrypted_fraction=p, sensitivity="magnitude")]


scenario = Scenario(
    name="selective encryption",
    task=Task(dataset="digits", model="mlp"),
    federation=Federation(algorithm="fedsgd", clients=5, rounds=1, batch_size=1, weighted=False),
    adversary=Adversary(knows=["batch_size", "labels", "value_range", "public", "public_labels"]),
    attacks=[
        Attack(name="prior", victims=2),
        Attack(name="analytic", victims=2),
        Attack(name="inverting_gradients", victims=2, budget=AttackBudget(iterations=300, restarts=1)),
    ],
    seeds=[0, 1, 2],
    compare={"protocol": {f"p = {p:g}": encrypting(p) for p in (0, 0.1, 0.3, 0.5, 0.7, 1)}},
)

if __name__ == "__main__":
    main(__file__)
