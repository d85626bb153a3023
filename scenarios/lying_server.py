"""Which lie of a server gets past which safeguards of secure aggregation, and what it reads then?

Every lie against every profile of the clients: the report shows the victim's picture where the lie worked, names the
error where a client refused, and says of what no profile stops. ``fedsim list`` names all lies and profiles.
"""

from fedsim import Adversary, Attack, Federation, Scenario, SecureAggregation, Task, main

PROFILES = ("paper", "semi_honest", "no_consistency", "single_mask", "mask_reuse", "server_chosen_parameters")
LIES = ("both_lists", "key_substitution", "late_message", "degenerate_modulus", "mask_reuse", "differencing")

scenario = Scenario(
    name="lying-server",
    task=Task(dataset="digits", model="mlp"),
    federation=Federation(algorithm="fedsgd", clients=5, rounds=2, batch_size=1, examples_per_client=1, weighted=False),
    protocol=[SecureAggregation(clip=4.0)],
    adversary=Adversary(kind="malicious_protocol", lie=LIES[0], victim=1),
    attacks=[Attack(name="analytic")],
    compare={
        "protocol": {profile: [SecureAggregation(clip=4.0, profile=profile)] for profile in PROFILES},
        "adversary.lie": {lie: lie for lie in LIES},
    },
)

if __name__ == "__main__":
    main(__file__)
