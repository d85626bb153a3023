"""Secure aggregation hides each update in a sum. What does that help against a server that chooses the model?

Ten clients send the gradient of two photographs each; the server opens the sum over all ten, and nothing else. An
honest but curious one gets little out of it. A malicious one gets

- one client's photographs, by sending all others a model that answers with zeros (inconsistency). Clients that bind
  their keys to the model's hash stop that: they share no key with one that was sent another model;
- most photographs of all clients, by putting a layer in front of the model that sorts them into bins (imprint). All
  are sent the same model, so that no hash disagrees. Clients that look for parallel rows see it and do not answer;
- the same photographs, with rows turned by a hundredth of a radian (imprint, turned): nothing looked for betrays it
  but the architecture itself. Clients here take that from the server's app, as they do across devices; set
  ``architecture=True`` for clients that know better.
"""

from fedsim import (
    Adversary,
    Attack,
    ClientChecks,
    Federation,
    Imprint,
    Inconsistency,
    Scenario,
    SecureAggregation,
    Task,
    main,
)

BINS = 200

scenario = Scenario(
    name="malicious server",
    task=Task(dataset="photos", model="mlp"),
    federation=Federation(clients=10, rounds=1, batch_size=2, weighted=False),
    attacks=[Attack(name="prior"), Attack(name="analytic"), Attack(name="model_inconsistency"), Attack(name="imprint")],
    seeds=[0, 1],
    compare={
        "adversary": {
            "curious": Adversary(),
            "inconsistency": Adversary(kind="malicious_model", plant=Inconsistency(), victim=3),
            "imprint": Adversary(kind="malicious_model", plant=Imprint(bins=BINS)),
            "imprint, turned": Adversary(kind="malicious_model", plant=Imprint(bins=BINS, jitter=0.01)),
        },
        "protocol": {
            "model not bound": [SecureAggregation(clip=8.0, profile="server_chosen_parameters")],
            "model bound": [SecureAggregation(clip=8.0)],
            "bound and checked": [ClientChecks(architecture=False), SecureAggregation(clip=8.0)],
        },
    },
)

if __name__ == "__main__":
    main(__file__)
