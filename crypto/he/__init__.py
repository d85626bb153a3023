"""Homomorphic aggregation: sums of encrypted updates, by a party that cannot read them."""
