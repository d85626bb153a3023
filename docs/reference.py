"""The pages that are generated: one for each attack, protocol and scenario, from what the code says of itself."""

import ast
import dataclasses
import inspect
import itertools
import sys
import textwrap
from collections.abc import Iterator
from typing import Any, get_args

from attacks import available
from attacks.inference import Inference
from attacks.registry import COSTS, Attack
from crypto.he import KEY_HOLDERS
from crypto.secagg import PROFILES
from crypto.secagg.lies import LIES
from docs.measured import measured
from fedsim.lies import CLAIMS
from fedsim.scenario import Defence
from fedsim.scripts import SCENARIOS, available_scripts, story
from fedsim.threat import Grant
from fedsim.words import KNOWLEDGE, RUNGS
from strategies.plants import PLANTS, Plant


def reference_pages() -> dict[str, str]:
    """Every generated page by its place below ``docs/``."""
    defences = get_args(get_args(Defence)[0])
    return {
        "scenarios/index.md": _scenario_list(),
        **{f"scenarios/{path.stem}.md": _scenario(path.stem) for path in sorted(SCENARIOS.glob("*.py"))},
        "attacks/index.md": _attack_list(),
        **{f"attacks/{name}.md": _attack(attack) for name, attack in available().items()},
        "attacks/crafted-models.md": _plants(),
        "protocols/index.md": _protocol_list(defences),
        **{f"protocols/{defence.kind}.md": _protocol(defence) for defence in defences},
        "protocols/lies.md": _lies(),
    }


def usage(attack: Attack | Inference) -> str:
    """The Python that asks for ``attack`` in a scenario."""
    plant = next((kind for kind in PLANTS.values() if kind.attack == attack.name), None)
    knows = sorted({*attack.needs.knowledge, *(["public"] if plant and plant.public else [])} & set(get_args(Grant)))
    crafted = f', kind="malicious_model", plant={plant.__name__}()' if plant else ""
    imports = ["Adversary", "Attack", *([plant.__name__] if plant else []), "Scenario"]
    return "\n".join(
        [
            f"from fedsim import {', '.join(imports)}",
            "",
            "scenario = Scenario(",
            f'    name="{attack.name}",',
            f"    adversary=Adversary(knows={knows}{crafted}),".replace("'", '"'),
            f'    attacks=[Attack(name="prior"), Attack(name="{attack.name}")],'
            if attack.name != "prior"
            else '    attacks=[Attack(name="prior")],',
            ")",
        ]
    )


def _attack(attack: Attack | Inference) -> str:
    needs, module = attack.needs, inspect.getmodule(attack.solve)
    knowing = [f"`{name}` ({KNOWLEDGE[name]})" for name in needs.knowledge]
    facts = {
        "least it starts from": f"rung {needs.rung}: {RUNGS[needs.rung]}",
        "knowing": "; ".join(knowing) or "nothing besides",
        "works on": needs.works_on,
        "cost": attack.cost,
        "stopped by": attack.stopped_by,
        "paper": attack.paper,
    }
    parts = [f"# {attack.name}", f"Recovers {attack.claim}.", _table(("", attack.name), facts.items())]
    parts += ["## How it works", _told(module), _told(attack.solve), f"Source: [{_path(module)}](../{_path(module)})"]
    parts += ["## In a scenario", f"```python\n{usage(attack)}\n```"]
    if attack.sanity is not None:
        parts += ["## The case that it must win first", _told(attack.sanity) or "A small synthetic one."]
    if figures := measured(attack.name):
        parts += ["## Measured", figures]
    return "\n\n".join(part for part in parts if part) + "\n"


def _attack_list() -> str:
    attacks = sorted(available().values(), key=lambda attack: (COSTS.index(attack.cost), attack.name))
    rows = [
        (f"[{a.name}](attacks/{a.name}.md)", a.needs.rung, a.cost, a.needs.works_on, a.claim, a.stopped_by)
        for a in attacks
    ]
    head = ("attack", "rung", "cost", "works on", "recovers", "stopped by")
    return "\n\n".join(
        [
            "# Attacks",
            "Cheapest first. The [rung](glossary.md#rungs) is the least that an attack can start from; the cost is "
            "that of one victim at the default budget, on one core. What a server plants for some of them: "
            "[crafted models](attacks/crafted-models.md).",
            _table(head, rows),
        ]
    )


def _plants() -> str:
    parts = ["# Crafted models", _told(sys.modules[Plant.__module__])]
    for name, plant in PLANTS.items():
        parts += [f"## {name}", _told(plant), f"It sends {plant().describe()}. Rung {plant.rung}."]
        parts += [f"Read by [{plant.attack}](attacks/{plant.attack}.md).", _options(plant)]
    return "\n\n".join(parts)


def _protocol(defence: type[Any]) -> str:
    module = inspect.getmodule(defence)
    parts = [f"# {defence.kind}", f"`fedsim.{defence.__name__}`. With the defaults: {defence().describe()}."]
    parts += ["## What it is", _told(module), _told(defence), f"Source: [{_path(module)}](../{_path(module)})"]
    parts += ["## Options", _options(defence)]
    if defence.kind == "secure_aggregation":
        rows = [(f"`{name}`", profile.claim) for name, profile in PROFILES.items()]
        parts += ["## Profiles", _table(("profile", "what clients do"), rows)]
        parts += ["What each lie of a server does to them: [lies](protocols/lies.md)."]
    if defence.kind == "homomorphic":
        rows = [(f"`{name}`", holder.says) for name, holder in KEY_HOLDERS.items()]
        parts += ["## Who holds the key", _table(("keys", "and so"), rows)]
    if figures := measured(defence.kind):
        parts += ["## Measured", figures]
    stopped = defence.kind.replace("_", " ").removeprefix("client ")
    parts += [f"What else was measured: see the [figures](figures.md) on {stopped}."]
    return "\n\n".join(part for part in parts if part) + "\n"


def _protocol_list(defences: tuple[type[Any], ...]) -> str:
    rows = [
        (f"[{d.kind}](protocols/{d.kind}.md)", f"`{d.__name__}`", d.stage.name.lower(), _told(d).partition("\n")[0])
        for d in sorted(defences, key=lambda d: d.stage)
    ]
    return "\n\n".join(
        [
            "# Protocols",
            "A protocol is a list of defences, in the order in which a client applies them; `[]` is the plain one. A "
            "list that breaks the order of stages is refused.",
            _table(("defence", "class", "stage", "what it does"), rows),
        ]
    )


def _lies() -> str:
    rows = [
        (f"`{name}`", claim, ", ".join(LIES[name].breaks) if name in LIES else "every profile", _refusal(name))
        for name, claim in CLAIMS.items()
    ]
    head = ("lie", "what the server does", "gets past", "the profile `paper` answers with")
    return "\n\n".join(
        [
            "# Lies of a server in secure aggregation",
            '`Adversary(kind="malicious_protocol", lie=..., victim=...)` against '
            "[SecureAggregation](protocols/secure_aggregation.md).",
            _table(head, rows),
        ]
    )


def _refusal(name: str) -> str:
    refused = getattr(LIES.get(name), "refused", None)
    return refused.__name__ if refused else "nothing stops it"


def _scenario(name: str) -> str:
    path = SCENARIOS / f"{name}.py"
    source = path.read_text()
    told = ast.get_docstring(ast.parse(source)) or ""
    return "\n\n".join([f"# {name}", told, f"```python\n{source.strip()}\n```"]) + "\n"


def _scenario_list() -> str:
    rows = [(f"[{name}](scenarios/{name}.md)", story(path)) for name, path in available_scripts().items()]
    return "\n\n".join(
        [
            "# Scenarios",
            "Each is a script to copy. How long they take and what to expect: [scenarios to start from](scenarios.md).",
            _table(("scenario", "the question that it asks"), rows),
        ]
    )


def _options(kind: type[Any]) -> str:
    told = dict(_told_fields(kind))
    rows = [
        (f"`{f.name}`", f"`{f.default!r}`", told.get(f.name, "")) for f in dataclasses.fields(kind) if f.name != "kind"
    ]
    return _table(("option", "default", ""), rows) if rows else "It has no options."


def _told_fields(kind: type[Any]) -> Iterator[tuple[str, str]]:
    """The docstrings that stand under a class's fields."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]
    for field, after in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            yield ast.unparse(field.target), " ".join(str(after.value.value).split())


def _told(thing: Any) -> str:
    return inspect.cleandoc(thing.__doc__ or "").strip()


def _path(module: Any) -> str:
    return f"{module.__name__.replace('.', '/')}.py"


def _table(head: tuple[str, ...], rows: Any) -> str:
    """A Markdown table; bars in cells are escaped, and a cell is one line."""
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
