"""What may the prediction API of our model return, and what does each answer give away?

Five clinics train a reader of digits together; the model then answers callers. Whoever calls, or gets hold of the
model, tries to see what the classes look like, to copy the model, and to tell who was in the training data. The report
puts the access levels side by side, and what each control on the answers costs those who ask honestly.
"""

from fedsim import (
    Adversary,
    Attack,
    AttackBudget,
    Deployment,
    Federation,
    Noise,
    Rounding,
    Scenario,
    Task,
    Temperature,
    main,
)

scenario = Scenario(
    name="prediction api",
    task=Task(dataset="digits", model="mlp", test_fraction=0.6, public_fraction=0.2),
    federation=Federation(
        algorithm="fedavg",
        clients=5,
        rounds=10,
        batch_size=8,
        local_epochs=4,
        learning_rate=0.1,
        examples_per_client=40,
    ),
    adversary=Adversary(knows=["value_range"]),
    attacks=[
        "loss_membership",
        Attack(name="label_only_membership", targets=200, budget=AttackBudget(iterations=8)),
        "model_inversion_white_box",
        "model_inversion_confidences",
        "model_inversion_labels",
        "model_extraction",
    ],
    seeds=[0, 1],
    compare={
        "deployment": {
            "the model itself": Deployment(),
            "confidences": Deployment(access="confidences"),
            "top 3": Deployment(access="top_k", top=3),
            "rounded": Deployment(access="rounded"),
            "noise, rounding": Deployment(access="confidences", controls=[Noise(std=0.1), Rounding(decimals=1)]),
            "temperature": Deployment(access="confidences", controls=[Temperature(value=10.0)]),
            "label only": Deployment(access="label_only"),
            "label only, 500 queries": Deployment(access="label_only", query_budget=500),
        }
    },
)

if __name__ == "__main__":
    main(__file__)
