"""Keys are slow to make and safe to share between tests: one pair per preset and process."""

from functools import lru_cache

import pytest

from crypto.he.contexts import Keys, SecretContext, generate_keys, open_secret
from crypto.he.presets import PRESETS

COHORT = 100


@lru_cache
def keys_for(preset: str) -> Keys:
    return generate_keys(PRESETS[preset], COHORT)


@pytest.fixture(params=sorted(PRESETS))
def secret(request) -> SecretContext:
    return open_secret(keys_for(request.param).secret)


@pytest.fixture
def ckks() -> SecretContext:
    return open_secret(keys_for("ckks").secret)


@pytest.fixture
def bfv() -> SecretContext:
    return open_secret(keys_for("bfv").secret)
