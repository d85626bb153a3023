"""A user's own data load as declared, and what is wrong with them is said in one line."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from fedsim import Scenario, Task, run
from fedsim.seeds import numpy_generator
from fedsim.tasks import Dataset, TaskError, build_model, load_dataset, split
from fedsim.tasks.text import decode

DRAW = numpy_generator(0, "own data")
PICTURES = DRAW.integers(0, 256, (12, 9, 9, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3


def load(path, **options):
    return load_dataset(str(path), options, seed=0)


def save(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def npz(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "mine.npz", **arrays)
        return tmp_path / "mine.npz"

    return write


@pytest.fixture
def pictures(tmp_path):
    for name, label in (("a cat.png", "cat"), ("b.bmp", "cat"), ("c.PNG", "dog")):
        (tmp_path / "zoo" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(PICTURES[len(name)]).save(tmp_path / "zoo" / label / name)
    return tmp_path / "zoo"


def test_npz_pictures_of_bytes_become_unit_floats_channels_first(npz):
    data = load(npz(x=PICTURES, y=LABELS), layout="hwc", class_names=["a", "b", "c"])
    assert torch.allclose(data.inputs, torch.tensor(PICTURES).permute(0, 3, 1, 2) / 255)
    assert data.labels.tolist() == LABELS.tolist()
    assert (data.class_names, data.value_range, data.modality) == (("a", "b", "c"), (0.0, 1.0), "image")
    assert "sha256" in data.note
    build_model("convnet", data, {}, 0)
    split(data, clients=2, kind="iid", options={}, test_fraction=0.2, public_fraction=0.2, seed=0)


def test_npz_grey_and_table(npz):
    assert load(npz(x=PICTURES[..., 0], y=LABELS)).input_shape == (1, 9, 9)
    table = np.array([[-1.0, 5.0], [3.0, 7.0]])
    data = load(npz(x=table, y=np.array([0.0, 1.0])))
    assert data.modality == "tabular"
    assert data.value_range == ((-1.0, 5.0), (3.0, 7.0))
    assert "value range taken from the data" in data.note
    assert load(npz(x=table, y=np.array([0, 1])), value_range=[-5, 10]).value_range == (-5.0, 10.0)
    assert load(npz(x=table, y=np.array([0, 1])), value_range=[[-1, 5], [3, 7]]).value_range == ((-1, 5), (3, 7))


@pytest.mark.parametrize(
    ("arrays", "options", "said"),
    [
        ({"x": PICTURES}, {}, "no array 'y' among ['x']"),
        ({"x": PICTURES, "y": LABELS[:5]}, {"layout": "hwc"}, "12 examples but 5 labels"),
        ({"x": PICTURES, "y": LABELS}, {}, "channels came last; set data_options.layout"),
        ({"x": PICTURES, "y": LABELS}, {"layout": "hcw"}, "task.data_options.layout = 'hcw'"),
        ({"x": PICTURES[0, 0, 0], "y": LABELS[:3]}, {}, "x has shape (3,)"),
        ({"x": PICTURES, "y": LABELS + 0.5}, {"layout": "hwc"}, "not integers"),
        ({"x": PICTURES, "y": LABELS.astype(str)}, {"layout": "hwc"}, "not integers"),
        ({"x": PICTURES, "y": LABELS - 1}, {"layout": "hwc"}, "labels run from -1"),
        ({"x": PICTURES, "y": LABELS}, {"layout": "hwc", "class_names": ["a"]}, "there are 1 classes"),
        ({"x": np.full((12, 2), np.nan), "y": LABELS}, {}, "hold NaN or infinity, the first at index 0"),
        ({"x": np.array(["a"] * 12), "y": LABELS}, {}, "not numbers"),
        ({"x": np.array([{}] * 12), "y": LABELS}, {}, "not a readable .npz"),
        ({"x": np.zeros((0, 4)), "y": LABELS[:0]}, {}, "N >= 1"),
        ({"x": np.eye(12), "y": LABELS}, {"value_range": [0, 0.5]}, "the data run from 0 to 1; widen"),
        ({"x": np.eye(12), "y": LABELS}, {"value_range": [0]}, "task.data_options.value_range = [0]"),
        ({"x": np.eye(12), "y": LABELS}, {"value_range": [[0, 0], [1, 1]]}, "task.data_options.value_range"),
        ({"x": np.eye(12), "y": LABELS}, {"size": 3}, "task.data_options.size = 3: unknown option"),
    ],
)
def test_a_wrong_npz_is_refused_in_one_line(npz, arrays, options, said):
    refused(npz(**arrays), said, **options)


def refused(path, said, **options):
    with pytest.raises(TaskError) as caught:
        load(path, **options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["npz", "csv", "parquet", "txt", "jsonl"])
def test_a_missing_file(tmp_path, suffix):
    options = {"columns": {"a": "numeric"}, "label": "b"} if suffix in ("csv", "parquet") else {}
    refused(tmp_path / f"none.{suffix}", "no such file or folder", **options)


def test_a_missing_folder(tmp_path):
    refused(tmp_path / "none", "no such file or folder")


def test_truncated_and_empty_files(npz, tmp_path):
    whole = npz(x=PICTURES, y=LABELS).read_bytes()
    for size in (0, 10, 200, len(whole) // 2, len(whole) - 30):
        (tmp_path / "cut.npz").write_bytes(whole[:size])
        refused(tmp_path / "cut.npz", "not a readable .npz")
    np.savez_compressed(tmp_path / "small.npz", x=PICTURES, y=LABELS)
    for path in (tmp_path / "mine.npz", tmp_path / "small.npz"):
        damaged = bytearray(path.read_bytes())
        damaged[len(damaged) // 3] ^= 255
        path.write_bytes(damaged)
        refused(path, "not a readable .npz")
    np.save(tmp_path / "one.npy", PICTURES)
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    refused(tmp_path / "one.npz", "not a readable .npz")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(npz):
    path = npz(x=PICTURES, y=LABELS)
    path.chmod(0)
    refused(path, "not a readable .npz")


def test_a_folder_of_pictures(pictures):
    save(pictures / "cat" / "notes.md", "not a picture")
    data = load(pictures)
    assert data.class_names == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 1]
    assert torch.allclose(data.inputs[0], torch.tensor(PICTURES[9]).permute(2, 0, 1) / 255)


def test_a_folder_of_grey_pictures_has_one_channel(tmp_path):
    for i in range(3):
        (tmp_path / str(i)).mkdir()
        Image.fromarray(PICTURES[i, :, :, 0]).save(tmp_path / str(i) / "x.png")
    assert load(tmp_path).input_shape == (1, 9, 9)


def test_pictures_of_several_sizes_need_one(pictures):
    Image.fromarray(PICTURES[0][:5]).save(pictures / "dog" / "small.png")
    refused(pictures, "2 sizes of picture, such as 5x9x3, 9x9x3; set data_options.size")
    assert load(pictures, size=8).input_shape == (3, 8, 8)


def test_wrong_folders(pictures, tmp_path):
    (pictures / "eel").mkdir()
    refused(pictures, "class folder 'eel' holds no picture")
    whole = (pictures / "dog" / "c.PNG").read_bytes()
    (pictures / "eel" / "cut.png").write_bytes(whole[: len(whole) // 2])
    refused(pictures, "cut.png is no readable picture")
    (pictures / "eel" / "cut.png").unlink()
    Image.fromarray(np.zeros((9, 9), dtype=np.uint16)).save(pictures / "eel" / "deep.png")
    refused(pictures, "deep.png has pixels of mode I;16")
    (tmp_path / "flat").mkdir()
    refused(tmp_path / "flat", "no subfolders")


CSV = "age,city,risk\n20,rome,low\n70,oslo,high\n45,rome,low\n"
SCHEMA = {"columns": {"age": [0, 100], "city": ["oslo", "rome", "bonn"]}, "label": "risk"}


def rows(**changes):
    return {"age": [20, 70, 45], "city": ["rome", "oslo", "rome"], "risk": ["low", "high", "low"]} | changes


def parquet(path, cells):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(cells), path)
    return path


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_table_with_a_schema(tmp_path, form):
    path = tmp_path / f"mine.{form}"
    data = load(save(path, CSV) if form == "csv" else parquet(path, rows()), **SCHEMA, sensitive="city")
    assert torch.allclose(data.inputs, torch.tensor([[0.2, 0, 1, 0], [0.7, 1, 0, 0], [0.45, 0, 1, 0]]))
    assert (data.class_names, data.labels.tolist()) == (("high", "low"), [1, 0, 1])
    assert (data.columns[1].categories, data.sensitive) == (("oslo", "rome", "bonn"), "city")
    assert "age 0..100" in data.note


def test_a_table_that_tells_its_own_ranges(tmp_path):
    path = save(tmp_path / "mine.csv", CSV.replace("low", "7").replace("high", "12"))
    data = load(path, columns={"city": "categorical", "age": "numeric"}, label="risk")
    assert torch.allclose(data.inputs, torch.tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0.5]]))
    assert (data.class_names, data.labels.tolist()) == (("7", "12"), [0, 1, 0])
    assert data.columns[1].low == 20


@pytest.mark.parametrize(
    ("text", "changes", "said"),
    [
        (CSV + "3,ro", {}, "row 4 has 2 cells, the header 3"),
        ("", {}, "not a readable CSV"),
        ("age,city,risk\n", {}, "no rows"),
        ('age,city,risk\n"2', {}, "not a readable CSV"),
        (CSV.replace("45", "many"), {}, "columns.age = 'many': row 3 is no finite number"),
        (CSV.replace("45", "nan"), {}, "columns.age = 'nan': row 3 is no finite number"),
        (CSV.replace("45", ""), {}, "columns.age = '': row 3 is no finite number"),
        (CSV.replace("45", "145"), {}, "columns.age = [0, 100]: row 3 has 145; widen"),
        (CSV.replace("oslo", "paris"), {}, "columns.city = 'paris': row 2 is in none of the categories"),
        (CSV.replace("high", ""), {}, "row 2 has no label"),
        (CSV.replace("high", "1.5").replace("low", "2"), {}, "labels are not integers, such as 1.5"),
        (CSV, {"label": "rsk"}, "task.data_options.label = 'rsk': not in the file; its columns: age, city, risk"),
        (CSV, {"sensitive": "name"}, "sensitive column 'name' is not a column"),
        (CSV, {"columns": {"age": "number"}}, "columns.age = 'number': not a column"),
        (CSV, {"columns": {"age": [5, 5]}}, "give [low, high] with low < high"),
        (CSV, {"columns": {"age": [0, 100], "risk": "categorical"}}, "needs inputs other than the label"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(tmp_path, text, changes, said):
    refused(save(tmp_path / "mine.csv", text), said, **{**SCHEMA, **changes})


def test_a_table_needs_a_schema(tmp_path):
    refused(save(tmp_path / "mine.csv", CSV), "task.data_options.columns = None: this option is required")


def test_a_truncated_parquet_file(tmp_path):
    path = parquet(tmp_path / "mine.parquet", rows())
    path.write_bytes(path.read_bytes()[:-20])
    refused(path, "not a readable Parquet file", **SCHEMA)


def test_a_parquet_table_with_a_hole(tmp_path):
    refused(parquet(tmp_path / "a.parquet", rows(age=[20, None, 45])), "row 2 is no finite number", **SCHEMA)
    refused(parquet(tmp_path / "b.parquet", rows(risk=["low", None, "low"])), "row 2 has no label", **SCHEMA)


@pytest.mark.parametrize("suffix", ["txt", "jsonl"])
def test_text(tmp_path, suffix):
    texts = ["Meet me at NOON, please.", "My PIN is 4711.", "Meet Anna."]
    written = "\n".join(texts if suffix == "txt" else [json.dumps({"body": text}) for text in texts])
    options = {"field": "body"} if suffix == "jsonl" else {}
    data = load(save(tmp_path / f"mine.{suffix}", written), length=6, secrets=["PIN is 4711"], **options)
    shown = [decode(row, data.vocabulary) for row in data.inputs]
    assert shown == ["meet me at noon , please", "my pin is 4711 .", "meet anna ."]
    assert (data.secrets, data.loss, data.vocabulary[0]) == (("pin is 4711",), "next_token", "<pad>")
    build_model("transformer", data, {"dim": 8, "heads": 2}, 0)


def test_rare_words_are_unknown(tmp_path):
    data = load(save(tmp_path / "mine.txt", "a a b\na b c"), length=3, vocabulary_size=4)
    assert data.vocabulary == ("<pad>", "<unk>", "a", "b")
    assert data.inputs.tolist() == [[2, 2, 3], [2, 3, 1]]


def test_wrong_text(tmp_path):
    refused(save(tmp_path / "a.txt", " \n"), "no text")
    refused(save(tmp_path / "b.txt", "hello you"), "'4711': occurs in no example", secrets=["4711"])
    refused(save(tmp_path / "c.txt", "hello you"), "task.data_options.length = 1", length=1)
    refused(save(tmp_path / "d.txt", "hello you"), "task.data_options.vocabulary_size = 2", vocabulary_size=2)
    refused(save(tmp_path / "e.jsonl", '{"text": "x y"}\n{"txt": 3}'), "text 2 is no JSON object with 'text'")
    refused(save(tmp_path / "f.jsonl", '{"text": "x y"}\n{"text": "'), "text 2 is no JSON object")
    (tmp_path / "g.txt").write_bytes(b"\xff\xfe\x00")
    refused(tmp_path / "g.txt", "not UTF-8 text")


class Pairs(torch.utils.data.Dataset):
    def __init__(self, n=4, ragged=False):
        self.n, self.ragged = n, ragged

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return torch.full((1, 4, 4 + i * self.ragged), i / self.n), i % 2


READY = Pairs()


def fedsim_dataset():
    return Dataset("ready", "tabular", torch.zeros(3, 2), torch.tensor([0, 1, 0]), ("a", "b"), (0.0, 1.0))


@pytest.mark.parametrize(("name", "options", "n"), [("Pairs", {"arguments": {"n": 6}}, 6), ("READY", {}, 4)])
def test_a_torch_dataset_by_dotted_path(name, options, n):
    data = load(f"{__name__}:{name}", **options)
    assert (len(data), data.input_shape, data.num_classes) == (n, (1, 4, 4), 2)
    assert torch.allclose(data.inputs[:, 0, 0, 0], torch.arange(n) / n)


def test_a_function_may_give_a_whole_dataset():
    assert load(f"{__name__}:fedsim_dataset").name == "ready"


def test_wrong_torch_datasets():
    refused(f"{__name__}:Pairs", "gives no (x, y) pairs of one shape", arguments={"ragged": True})
    refused(f"{__name__}:Pairs", "unexpected keyword", arguments={"m": 2})
    refused(f"{__name__}:Pears", "nearest:")
    refused(f"{__name__}:DRAW", "gives no (x, y) pairs")
    refused("no.such.module:Pairs", "module 'no.such.module' does not import")


class FakeHub:
    """What flwr-datasets gives, without the network."""

    def __init__(self, dataset, subset, partitioners):
        if dataset != "zoo":
            raise ConnectionError("offline\nno route")
        self.splits = partitioners

    def load_split(self, split):
        from datasets import ClassLabel
        from datasets import Dataset as Table

        assert split in self.splits
        cells = {"img": PICTURES.tolist(), "kind": LABELS.tolist(), "text": ["some words"] * 12}
        return Table.from_dict(cells).cast_column("kind", ClassLabel(names=["a", "b", "c"])).with_format("numpy")


def test_hugging_face(monkeypatch):
    import flwr_datasets

    monkeypatch.setattr(flwr_datasets, "FederatedDataset", FakeHub)
    data = load("hf:zoo", input="img", label="kind", split="test")
    assert (data.input_shape, data.class_names, data.labels.tolist()) == ((3, 9, 9), ("a", "b", "c"), LABELS.tolist())
    assert load("hf:zoo", input="text").modality == "text"
    refused("hf:zoo", "task.data_options.input = 'image': no such column; columns: img, kind, text")
    refused("hf:zoos", "cannot be loaded (offline no route); check the name, split, subset and the network")


def test_more_classes_than_examples_are_refused_unless_named(npz):
    path = npz(x=PICTURES, y=np.where(np.arange(12) == 5, 10**9, 0))
    with pytest.raises(TaskError, match="1000000000.*12 examples"):
        load(path, layout="hwc")
    few = npz(x=PICTURES[:2], y=np.array([0, 3]))
    assert load(few, layout="hwc", class_names=["a", "b", "c", "d"]).num_classes == 4


def test_pictures_too_small_to_be_compared_are_refused(npz):
    with pytest.raises(TaskError, match="2x9 pixels.*3x3"):
        load(npz(x=PICTURES[:, :2], y=LABELS), layout="hwc")


def test_a_relative_path_is_looked_up_here_and_then_beside_the_script(npz, tmp_path, monkeypatch):
    npz(x=PICTURES, y=LABELS)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(TaskError, match="no such file"):
        load("mine.npz", layout="hwc")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert len(load("mine.npz", layout="hwc")) == 12
    np.savez("mine.npz", x=PICTURES[:5], y=LABELS[:5])
    assert len(load("mine.npz", layout="hwc")) == 5


@pytest.mark.parametrize(("dataset", "loss"), [("digits", "next_token"), ("messages", "cross_entropy")])
def test_a_loss_that_does_not_fit_the_labels_is_refused_before_anything_runs(dataset, loss, tmp_path):
    model = "transformer" if dataset == "messages" else "mlp"
    scenario = Scenario(name="x", task=Task(dataset=dataset, model=model, loss=loss))
    with pytest.raises(TaskError, match=f"task.loss = '{loss}'"):
        run(scenario, tmp_path / "run")
    assert not (tmp_path / "run").exists()
