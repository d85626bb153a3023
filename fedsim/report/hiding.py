"""Evidence of what hides updates: masks that look like noise, sums over so many, and who holds which key."""

from collections.abc import Mapping
from typing import Any

from fedsim.report.blocks import Block, Bullets, Cell, Heading, Table
from fedsim.report.protocols import by_stage, costs_of, survivors
from fedsim.report.reading import Json, mean, setting_name, unique
from fedsim.report.sections import Context
from fedsim.report.wording import MISSING, finite, number, plain, seconds
from fedsim.words import counted, listed

SUSPECT = 1e-6
"""A p-value below which masked bytes are not called random: one honest run in a million falls there."""


def hiding_blocks(context: Context) -> list[Block]:
    """One table for masked vectors, one for ciphertexts; none where a run has neither."""
    masked: list[list[object]] = []
    encrypted: list[list[object]] = []
    findings: list[str] = []
    for protocol, setting in context.results.combinations:
        found = costs_of(context, protocol, setting)
        name = Cell(context.swatch(protocol), setting_name(setting))
        if any("masked" in (m.get("wire") or {}).get("forms", []) for m in found):
            masked.append([name, *_masked(found)])
        if any("secret_key_at" in (m.get("protocol") or {}) for m in found):
            encrypted.append([name, *_encrypted(found)])
        said = unique(str(text) for m in found for text in (m.get("protocol") or {}).get("findings", []))
        findings += [f"{protocol}: {text}" for text in said]
    blocks: list[Block] = []
    if masked:
        head = ["protocol", "bytes of masked vectors", "sums over", "opened by the server"]
        blocks += [Table("Masked vectors", head, masked, tone="words cards")]
    if encrypted:
        head = ["protocol", "encryption", "bytes a parameter", "encrypt", "add", "decrypt", "error", "secret key at"]
        blocks += [Table("Ciphertexts; CPU seconds per client, per round and per sum", head, encrypted, head[2:6])]
    return [
        *blocks,
        *([Heading("What a review has to know of the keys"), Bullets(unique(findings))] if findings else []),
    ]


def _masked(found: list[Json]) -> list[object]:
    """Whether the masked bytes look random, over how many clients the sums are, and what opened."""
    wire = [m.get("wire") or {} for m in found]
    least = min((p for w in wire if (p := finite(w.get("masked_byte_p_value"))) is not None), default=None)
    if least is None:
        looks = Cell("not tested", "no masked vector of an attacked round was kept")
    elif least < SUSPECT:
        looks = Cell("not random: masks are missing or wrong", f"chi-squared p = {number(least)}")
    else:
        looks = Cell("as random bytes are", f"chi-squared p = {number(least, 2)}, the least over seeds")
    opened = sum(int(w.get("readable_updates") or 0) for w in wire)
    attacked = f"{counted(opened, 'sum or update', 'sums and updates')} in the attacked rounds, over all seeds"
    return [looks, survivors([m["cost"] for m in found]), attacked]


def _encrypted(found: list[Json]) -> list[object]:
    """Parameters, bytes, seconds, error and keys of one protocol's homomorphic encryption."""
    protocol = next(m["protocol"] for m in found if "protocol" in m)
    measured = [m["cost"] for m in found]
    client, server = by_stage(measured, "client_cpu_seconds"), by_stage(measured, "server_cpu_seconds")
    per = mean(_mean_of(m, "homomorphic.bytes_per_encrypted_parameter") for m in found)
    decryptor = protocol.get("decryptor") or {}
    opened = client.get("decrypt") or server.get("decrypt")
    if decryptor:
        opened = mean(m["protocol"]["decryptor"]["cpu_seconds"] / m["cost"]["rounds"] for m in found)
    worst = max((e for m in measured if (e := finite(m.get("largest_error"))) is not None), default=None)
    holds = "the server holds it" if protocol.get("server_holds_secret_key") else "the server holds none"
    return [
        Cell(_scheme(protocol["parameters"]), f"{protocol['security_bits']} bits of security"),
        number(per),
        seconds(client.get("encrypt")),
        seconds(server.get("add")),
        seconds(opened),
        Cell(f"{number(worst, 2)} of the mean", _bound(protocol)),
        Cell(listed([plain(party) for party in protocol["secret_key_at"]]), holds),
    ]


def _bound(protocol: Json) -> str:
    """What the error may be: of CKKS a stated bound, of BFV the rounding before it."""
    stated, step = finite(protocol.get("stated_error_of_a_sum")), finite(protocol.get("rounding_step"))
    if stated:
        return f"stated for a sum: {number(stated, 2)}"
    return f"exact sums; rounded to steps of {number(step, 2)}" if step else "exact"


def _scheme(parameters: Mapping[str, Any]) -> str:
    chain = " + ".join(str(bits) for bits in parameters.get("chain") or [])
    return (
        f"{str(parameters.get('scheme', '')).upper()}, ring {parameters.get('degree', MISSING)}, primes of {chain} bits"
    )


def _mean_of(found: Json, name: str) -> float | None:
    return finite((found.get("clients") or {}).get(name, {}).get("mean"))
