"""The data sets by name, and the one call that loads them or your own."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fedsim.search_path import find
from fedsim.tasks import images, own_data, own_tables, tabular, text
from fedsim.tasks.data import Dataset
from fedsim.tasks.names import check_options, unknown

DATASETS: dict[str, Callable[..., Dataset]] = {
    "breast_cancer": tabular.breast_cancer,
    "digits": images.digits,
    "faces": images.faces,
    "messages": text.messages,
    "photos": images.photos,
    "records": tabular.records,
    "wine": tabular.wine,
}
"""Name to loader; a loader takes the seed and its options by keyword."""

FILES: dict[str, Callable[..., Dataset]] = {
    ".npz": own_data.npz,
    ".csv": own_tables.table,
    ".parquet": own_tables.table,
    ".txt": own_data.lines,
    ".jsonl": own_data.lines,
}
"""File suffix to loader; a loader takes the path and its options by keyword."""


def load_dataset(name: str, options: Mapping[str, Any], seed: int) -> Dataset:
    """Load a registered data set, or your own; the same name, options and seed give the same examples.

    Your own is the path of a file (.npz, .csv, .parquet, .txt, .jsonl) or of a folder of pictures,
    ``"package.module:name"`` of a torch Dataset, or ``"hf:<name>"`` on Hugging Face. Raises TaskError for an unknown
    name or option, and for data that are missing, broken or do not fit together.
    """
    if name in DATASETS:
        check_options("task.data_options", options, DATASETS[name], given=frozenset({"seed"}))
        return DATASETS[name](seed=seed, **options)
    loader, source = _own(name)
    check_options("task.data_options", options, loader, given=frozenset({"path", "name"}))
    return loader(source, **options)


def _own(name: str) -> tuple[Callable[..., Dataset], str]:
    suffix = Path(name).suffix.lower()
    if name.startswith("hf:"):
        return own_data.hugging_face, name.removeprefix("hf:")
    if suffix in FILES:
        return FILES[suffix], name
    if ":" in name:
        return own_data.torch_dataset, name
    if "/" in name or ((place := find(name)) and place.is_dir()):
        return own_data.folder, name
    hint = f"; or a path ({', '.join(FILES)} or a folder/), 'package.module:name' or 'hf:<name>'"
    raise unknown("task.dataset", name, DATASETS, hint)
