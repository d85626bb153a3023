"""Variants of the protocol: the whole one, the honest-server one, and models of weak deployments to be reviewed."""

from dataclasses import dataclass, field

from crypto.secagg.policy import Policy


@dataclass(frozen=True)
class Profile:
    """Which safeguards the clients of a deployment have."""

    name: str
    claim: str
    signed: bool = True
    """Keys are signed under long-lived keys that clients know from a directory."""
    consistency: bool = True
    """Clients sign the survivor set and open shares only for a set that a threshold of neighbours signed."""
    survivor_rules: bool = True
    """Clients refuse impossible survivor sets and a second unmask request."""
    double_mask: bool = True
    """A self mask covers a vector whose pairwise masks the server can remove."""
    fresh_keys: bool = True
    """Every round has new keys, and derives masks that name the round."""
    bound_terms: bool = True
    """Terms and model hash enter every derived key: clients that were shown different ones share no key."""
    policy: Policy | None = field(default_factory=Policy)
    """What clients accept; None: whatever the server says."""


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("paper", "Active server: Bonawitz et al. (CCS 2017) figure 4 with every check, on Bell et al.'s graph"),
        Profile(
            "semi_honest",
            "Honest-but-curious server: the same without signatures and without the consistency round",
            signed=False,
            consistency=False,
            policy=Policy(split_view=False),
        ),
        Profile(
            "no_consistency",
            "Keys are signed, but clients answer any unmask request about any survivor set",
            consistency=False,
            survivor_rules=False,
            policy=Policy(min_clients=2, split_view=False),
        ),
        Profile(
            "single_mask", "Pairwise masks only: nothing covers a vector once its key is opened", double_mask=False
        ),
        Profile("mask_reuse", "Keys and seeds are made once and serve every round", fresh_keys=False),
        Profile(
            "server_chosen_parameters",
            "Clients take thresholds, modulus, cohort and model from the server",
            bound_terms=False,
            policy=None,
        ),
    )
}
