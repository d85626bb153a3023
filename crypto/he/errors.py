"""What can go wrong before anything is decrypted or added; each cause has its own type, all are ``HEError``."""


class HEError(ValueError):
    """Base of this package's errors; the message is one line with the cause and the remedy."""


class ParameterError(HEError):
    """Encryption parameters that SEAL refuses, or that are below 128-bit security."""


class ValueRangeError(HEError):
    """A value, or a sum that would follow from it, leaves the range that decrypts correctly."""


class CorruptMessageError(HEError):
    """Bytes that are truncated, altered, of another type or of another version."""


class ForeignCiphertextError(HEError):
    """A ciphertext that was made under another context."""


class IncompatibleCiphertextsError(HEError):
    """Ciphertexts that do not stand for vectors of one length, or nothing to add."""


class SecretKeyExposedError(HEError):
    """A secret key where only a public context may be."""


class KeyPolicyError(HEError):
    """Something that the chosen key holder does not allow."""


class CohortTooSmallError(HEError):
    """A sum over fewer clients than the decryptor agrees to open."""


class SelectionError(HEError):
    """A fraction outside [0, 1], or a sensitivity that ranks no coordinates."""


class ThresholdUnavailableError(HEError):
    """Threshold CKKS was asked for where openfhe cannot be imported."""
