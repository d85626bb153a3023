"""A made-up run for the report's tests: real digits and photographs, claims that are truth plus noise."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.datasets import load_digits, load_sample_image

PROTOCOLS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "DP z=0.001": [{"kind": "client_dp", "clip": 1.0, "noise_multiplier": 1e-3}],
    "DP z=0.01": [{"kind": "client_dp", "clip": 1.0, "noise_multiplier": 1e-2}],
    "DP z=0.1": [{"kind": "client_dp", "clip": 1.0, "noise_multiplier": 1e-1}],
}
NOISE = {"none": 1e-7, "DP z=0.001": 0.008, "DP z=0.01": 0.2, "DP z=0.1": 0.6}
EPSILON = {"DP z=0.001": 503_000.0, "DP z=0.01": 5_430.0, "DP z=0.1": 92.8}
SEEDS = (0, 1)
VICTIMS = 4


def made_up_run(
    protocols: Mapping[str, list[dict[str, Any]]] = PROTOCOLS, truth: bool = True
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Results and pictures: two tasks; of the attacks one refuses, diverges, is inconclusive; a cell fails."""
    generator = np.random.default_rng(5)
    data = {"digits": _digits(), "photos": _photos()}
    pictures: dict[str, np.ndarray] = {}
    cells = [
        _cell(generator, data[task], task, protocol, i, seed, pictures)
        for task in data
        for i, protocol in enumerate(protocols)
        for seed in SEEDS
    ]
    if not truth:
        pictures = {key: value for key, value in pictures.items() if not key.endswith("/truth")}
    results = {
        "schema_version": 1,
        "fedsim": "0.1.0",
        "digest": "sha256:" + "3f9a5c17" * 8,
        "scenario": {
            "name": "quickstart",
            "task": {"dataset": "digits", "model": "mlp"},
            "federation": {
                "algorithm": "fedsgd", "clients": 4, "cohort": None, "rounds": 8, "batch_size": 1, "learning_rate": 0.1,
            },
            "protocol": [],
            "adversary": {"kind": "honest_but_curious", "knows": ["batch_size", "public", "value_range"]},
            "attacks": [{"name": "analytic", "rounds": [1], "victims": VICTIMS}],
            "seeds": list(SEEDS),
            "compare": {"protocol": dict(protocols), "task": {"digits": "digits", "photos": "photos"}},
        },
        "axes": {"protocol": list(protocols), "task": list(data)},
        "cells": cells,
        "summary": _summary(cells, list(protocols)),
        "evidence": {
            cell["digest"]: {
                "clients": {
                    "client_dp.noise_std": _spread(cell["privacy"]["noise_multiplier"]),
                    "client_dp.norm_after": {"mean": 0.998, "min": 0.981, "max": 1.0, "count": 32},
                    "client_dp.coordinates": {"mean": 9610.0, "min": 9610.0, "max": 9610.0, "count": 32},
                },
                "wire": {"forms": ["plain"], "same_model_for_all": True, "readable_updates": 4},
            }
            for cell in cells
            if cell["privacy"]
        },
        "timings": {"total_seconds": 41.7, "stages": {"training": 9.1, "attacks": 30.2}},
        "environment": {"date": "2026-11-23T14:00:00Z", "python": "3.11.2", "torch": "2.13.0+cpu", "cores": 2},
    }  # fmt: skip
    return results, pictures


def _spread(noise: float) -> dict[str, float]:
    """A measured noise that is what was set."""
    return {"mean": noise, "min": 0.99 * noise, "max": 1.01 * noise, "count": 32}


def _digits() -> np.ndarray:
    return (load_digits().images / 16)[:200, None].astype(np.float32)


def _photos() -> np.ndarray:
    crops = []
    for name in ("china.jpg", "flower.jpg"):
        image = load_sample_image(name)[::4, ::4] / 255.0
        crops += [image[y : y + 32, x : x + 32].transpose(2, 0, 1) for y in range(0, 72, 32) for x in range(0, 128, 32)]
    return np.stack(crops).astype(np.float32)


def _cell(
    generator: np.random.Generator,
    data: np.ndarray,
    task: str,
    protocol: str,
    i: int,
    seed: int,
    pictures: dict[str, np.ndarray],
) -> dict[str, Any]:
    digest = f"{task}{i}{seed}" + "0" * 8
    failed = protocol == "DP z=0.1" and task == "photos" and seed == 1
    accuracy = {"none": 0.93, "DP z=0.001": 0.92, "DP z=0.01": 0.86, "DP z=0.1": 0.41}.get(protocol, 0.8)
    dp = PROTOCOLS.get(protocol)
    cell: dict[str, Any] = {
        "labels": {"protocol": protocol, "task": task},
        "seed": seed,
        "digest": digest,
        "status": "failed" if failed else "done",
        "cause": "client 2 returned an update that is not finite in round 3: training diverged" if failed else None,
        "threat_model": [
            "The server runs the protocol as agreed and is curious.",
            "Updates cross the wire as they are." if protocol == "none" else f"Before an update leaves: {protocol}.",
        ],
        "data": f"{task}: shipped inside scikit-learn.",
        "training": [],
        "privacy": None,
        "side_channels": [],
        "cost": {},
        "attacks": [],
    }
    if failed:
        return cell
    for round in range(9):
        reached = 0.1 + (accuracy - 0.1) * (1 - np.exp(-round / 2.5)) + generator.normal(0, 0.012)
        cell["training"].append(
            {"round": round, "cohort": [0, 1, 2, 3], "accuracy": float(reached), "loss": 2.3 - 2 * float(reached)}
        )
    if dp:
        cell["privacy"] = {
            "unit": "client", "relation": "replace-one", "sampling": "none: the server picks the cohort", "delta": 1e-5,
            "rounds": 8, "noise_multiplier": dp[0]["noise_multiplier"], "clip": 1.0, "epsilon": EPSILON.get(protocol),
            "epsilon_rdp": EPSILON.get(protocol, 1.0) * 1.04, "observer": "the server",
            "trust": "each client's own code",
            "accountant": "dp-accounting 0.6.0, PLD", "amplification": "none",
        }  # fmt: skip
    cell["side_channels"] = [
        {"name": "num-examples", "where": "metrics", "example": 1, "says": "how many examples the client used"},
        {"name": "train_loss", "where": "metrics", "example": 2.3025, "says": "how well the model fits the client"},
    ]  # fmt: skip
    cell["cost"] = {"bytes_up_per_client_round": 38_440 + 4 * i, "bytes_down_per_client_round": 38_912}
    average = data.mean(0)
    pictures[f"{digest}/baseline/mean"] = average
    cell["attacks"] = [
        _attack(digest, "analytic", "L7", data, average, NOISE.get(protocol, 0.1), generator, seed, pictures),
        _attack(digest, "inverting_gradients", "L7", data, average, NOISE.get(protocol, 0.1) + 0.05, generator, seed,
                pictures),
        _empty("idlg", "not_applicable", "needs labels (rung L6)"),
    ]  # fmt: skip
    if protocol == "DP z=0.1" and task == "digits":
        cell["attacks"][1] = _empty(
            "inverting_gradients", "diverged", "all 4 restarts ended with a loss that is not finite"
        )
    if protocol == "DP z=0.01" and task == "photos":
        cell["attacks"][1] |= {"status": "inconclusive", "reason": "lost its sanity case", "sanity": False}
    return cell


def _attack(
    digest: str, name: str, rung: str, data: np.ndarray, average: np.ndarray, noise: float,
    generator: np.random.Generator, seed: int, pictures: dict[str, np.ndarray],
) -> dict[str, Any]:  # fmt: skip
    victims = []
    for client in range(VICTIMS):
        true = data[7 * seed + 3 * client]
        claim = true + generator.normal(0, noise * (0.8 + 0.1 * client), true.shape)
        stem = f"{digest}/{name}/{client}/0"
        pictures |= {f"{stem}/truth": true, f"{stem}/claim": claim}
        victims.append(
            {
                "client": client,
                "figures": {
                    "psnr": [_psnr(claim, true)],
                    "mse": [float(((claim - true) ** 2).mean())],
                    "ssim": [1 / (1 + noise)],
                },
                "labels_right": 1.0,
                "objective": [1e-9],
                "diverged": 0,
                "baseline": {
                    "psnr_mean_image": [_psnr(average, true)], "psnr_nearest_public": [15.2], "label_majority": 0.12,
                },
                "pictures": [stem],
            }
        )  # fmt: skip
    return {
        "name": name, "rung": rung, "paper": "Zhu et al. 2019", "claim": "The inputs of one batch.",
        "round": 1, "status": "done", "reason": None,
        "knowledge": ["batch_size"], "budget": {}, "sanity": True, "victims": victims,
    }  # fmt: skip


def _empty(name: str, status: str, reason: str) -> dict[str, Any]:
    return {
        "name": name, "rung": "L6", "paper": "", "claim": "", "round": 1, "status": status, "reason": reason,
        "knowledge": [], "budget": {}, "sanity": None, "victims": [],
    }  # fmt: skip


def _psnr(claim: np.ndarray, true: np.ndarray) -> float:
    return float(-10 * np.log10(((claim - true) ** 2).mean()))


def _summary(cells: list[dict[str, Any]], protocols: list[str]) -> list[dict[str, Any]]:
    entries = []
    for task in ("digits", "photos"):
        for protocol in protocols:
            for name in ("analytic", "inverting_gradients"):
                records = [
                    a
                    for c in cells
                    for a in c["attacks"]
                    if c["labels"] == {"protocol": protocol, "task": task} and a["name"] == name and a["victims"]
                ]
                values = np.array([v["figures"]["psnr"][0] for a in records for v in a["victims"]])
                guesses = [v["baseline"]["psnr_mean_image"][0] for a in records for v in a["victims"]]
                if not len(values):
                    continue
                broken = np.median(values) > 25
                word = "broken at rung L7 by" if broken else "not broken by"
                entries.append(
                    {
                        "labels": {"protocol": protocol, "task": task}, "attack": name, "round": 1, "rung": "L7",
                        "recovered": float(np.mean(values > 25)), "rebuilt": int((values > 25).sum()),
                        "metric": "psnr", "unit": "dB", "n": len(values), "median": float(np.median(values)),
                        "low": float(np.quantile(values, 0.1)), "high": float(np.quantile(values, 0.9)),
                        "worst": float(values.max()), "baseline": float(np.median(guesses)),
                        "baseline_name": "mean image",
                        "verdict": f"{word} {name}" + ("" if broken else " at rung L7 with the default budget"),
                        "fractions": {str(t): float((values > t).mean()) for t in (20, 30, 40)},
                    }
                )  # fmt: skip
    return entries
