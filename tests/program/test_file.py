"""The file of a program: what comes back of a network, and what is refused."""

import json
import os
import re
import stat
import struct
import zlib
from io import FileIO

import numpy as np
import pytest
from helpers import programs
from helpers.documents import ROOT

from sepconv.program import file, header, reference
from sepconv.program.network import ACTIVATIONS, OPERATIONS, UNARY, Input, Network, Step
from sepconv.program.program import Program
from sepconv.program.validate import MOST_STEPS, MOST_TENSORS
from sepconv.quantization.dequantized import dequantized
from sepconv.quantization.origin import origin_of

NOTES = {"model": "MobileNet", "remark": "two\nlines, größer"}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """The bytes of a file."""
    path = tmp_path_factory.mktemp("raw") / "every.sepconv"
    file.write(path, programs.every_operation(), NOTES)
    return path.read_bytes()


@pytest.fixture
def refused(tmp_path):
    """Asserts that a file is refused by name and gives the message."""
    path = tmp_path / "strange.sepconv"

    def check(content):
        path.write_bytes(content)
        with pytest.raises(ValueError) as error:
            file.read(path)
        assert type(error.value) is ValueError
        message = str(error.value)
        assert message.startswith(f"{path}: ")
        assert message.isprintable()
        return message

    return check


# ---- what comes back


def test_bfloat16_comes_back_to_the_bit(tmp_path):
    file.write(tmp_path / "a.sepconv", programs.halves())
    found, _ = file.read(tmp_path / "a.sepconv")
    assert programs.same(found, programs.halves())
    header_of, _ = programs.split((tmp_path / "a.sepconv").read_bytes())
    assert {tensor["dtype"] for tensor in json.loads(header_of)["tensors"]} == {"bfloat16"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_network_comes_back_to_the_bit(dtype, tmp_path):
    network = programs.every_operation(dtype)
    file.write(tmp_path / "a.sepconv", network, NOTES)
    found = file.read(tmp_path / "a.sepconv")
    assert programs.same(found.network, network)
    assert found.notes == NOTES
    relu = found.network.steps[3].attributes
    assert (relu["b"], str(relu["c"])) == (float("inf"), "-0.0")
    file.write(tmp_path / "b.sepconv", *found)
    assert (tmp_path / "b.sepconv").read_bytes() == (tmp_path / "a.sepconv").read_bytes()


def test_the_tensors_are_aligned_read_only_and_no_longer_the_files(tmp_path):
    path, network = tmp_path / "a.sepconv", programs.every_operation()
    file.write(path, network)
    tensors = file.read(path).network.tensors
    path.write_bytes(b"")  # of a file in memory this would take the pages away
    assert all(tensor.ctypes.data % 64 == 0 for tensor in tensors)
    assert not any(tensor.flags.writeable for tensor in tensors)
    for found, expected in zip(tensors, network.tensors, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_any_numbers_and_layouts_of_tensors_are_kept(tmp_path):
    nan = np.array([0x7FC01234, 0x80000000, 0xFF800000], "uint32").view("float32")
    tensors = (nan, np.zeros((0, 3), "float32"), np.float32(2).reshape(()), np.eye(3)[:, ::2])
    tensors = tuple(np.asarray(tensor, "float32") for tensor in tensors)
    steps = tuple(Step("constant", "", (), {}, {"value": i}) for i in range(len(tensors)))
    network = Network("float32", (Input("x", (None,)),), steps, (0,), ("x",), tensors)
    file.write(tmp_path / "a.sepconv", network)
    assert programs.same(file.read(tmp_path / "a.sepconv").network, network)


def test_the_layout_is_the_documented_one(raw):
    text, tensors = programs.split(raw)
    assert programs.join(text, tensors, version=2) == raw
    assert raw[:8] == programs.MAGIC
    assert struct.unpack_from("<I", raw, 8) == (2,)


def test_the_page_names_every_operation_and_all_that_it_has():
    text = (ROOT / "docs/program-file.md").read_text(encoding="utf-8")
    for name, operation in OPERATIONS.items():
        (row,) = (line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        _, _, count, attributes, weights, _ = (cell.strip() for cell in row.split("|"))
        least, most = operation.inputs
        assert count == (f"{least}" if least == most else f"{least} to {most}")
        assert re.findall("`(.*?)`", attributes) == [field.name for field in operation.fields]
        assert re.findall("`(.*?)`", weights) == list(operation.weights)
        assert all(f"[`{w}`]" in weights for w in set(operation.weights) - set(operation.required))
    for choice in (*ACTIVATIONS, *UNARY):
        assert f'`"{choice}"`' in text
    assert f"{header.MOST_BYTES:,}" in text
    assert f"{MOST_STEPS:,} steps, {MOST_TENSORS:,} tensors" in text


def test_a_whole_number_does_for_a_float(raw, tmp_path):
    path = tmp_path / "a.sepconv"
    path.write_bytes(programs.edited(raw, lambda h: h["steps"][0]["attributes"].update(value=1)))
    value = file.read(path).network.steps[0].attributes["value"]
    assert (type(value), value) == (float, 1.0)


# ---- how it is written


def test_a_file_that_is_there_survives_a_failure(tmp_path, monkeypatch):
    path, network = tmp_path / "a.sepconv", programs.every_operation()
    file.write(path, network)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="the disk is full"):
        file.write(path, network._replace(outputs=(1, 2)))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.sepconv"]
    monkeypatch.undo()
    file.write(path, network._replace(outputs=(1, 2)))
    assert file.read(path).network.outputs == (1, 2)
    assert os.listdir(tmp_path) == ["a.sepconv"]


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        file.write(tmp_path / "a.sepconv", programs.every_operation())
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="has no such permissions")
def test_the_file_may_be_read_by_whom_other_new_files_may(tmp_path):
    (tmp_path / "other").write_bytes(b"")
    file.write(tmp_path / "a.sepconv", programs.every_operation())
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.sepconv", "other")]
    assert modes[0] == modes[1]


def test_what_cannot_be_written_is_refused_first(tmp_path):
    network = programs.every_operation()
    with pytest.raises(ValueError, match="is there and is no file"):
        file.write(tmp_path, network)
    with pytest.raises(ValueError, match=r"outputs\[0\] must be 0 to 20"):
        file.write(tmp_path / "a.sepconv", network._replace(outputs=(21, 0)))
    with pytest.raises(FileNotFoundError):
        file.write(tmp_path / "no" / "a.sepconv", network)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        (["a"], "notes must be a mapping of at most 256 names"),
        ({str(i): "" for i in range(257)}, "notes must be a mapping of at most 256 names"),
        ({"a\x1b[2J": ""}, "the name of a note must be a string"),
        ({1: ""}, "the name of a note must be a string"),
        ({"a": 1}, r"notes\['a'\] must be a string"),
        ({"a": "x" * (2**20 + 1)}, r"notes\['a'\] must be a string of at most 1048576"),
        ({"a": "\ud800"}, r"notes\['a'\] must be a string"),
        ({str(i): "x" * 2**20 for i in range(9)}, "more than the 8388608"),
    ],
)
def test_notes_are_a_few_strings(notes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        file.write(tmp_path / "a.sepconv", programs.every_operation(), notes)
    assert os.listdir(tmp_path) == []


# ---- what is refused


def test_errors_of_the_system_are_the_systems(tmp_path):
    with pytest.raises(FileNotFoundError):
        file.read(tmp_path / "no.sepconv")
    with pytest.raises(OSError):
        file.read(tmp_path)


def test_every_flipped_bit_is_seen(raw, refused):
    damaged = bytearray(raw)
    places = [*range(64), *range(64, len(raw), 7)]
    for place in places:
        damaged[place] ^= 1 << place % 8
        message = refused(damaged)
        damaged[place] ^= 1 << place % 8
        assert place < 32 or "it is damaged: its checksum" in message


def test_every_cut_is_seen(raw, refused):
    for length in [*range(40), *range(40, len(raw), 13), len(raw) - 1]:
        message = refused(raw[:length])
        assert ("not a program" if length < 8 else f"cut short, after {length}") in message
    assert "1 bytes follow the end" in refused(raw + b"\0")


def test_files_of_other_kinds_are_named(raw, refused):
    for content in (b"", b"PK\3\4 a .keras file", raw.replace(b"\r\n", b"\n", 1)):
        assert "it is not a program of sepconv's" in refused(content)


def test_a_newer_version_says_what_to_do(raw, refused):
    message = refused(programs.join(*programs.split(raw), version=4))
    assert "it is a program of version 4, and this sepconv reads versions up to 3" in message
    assert "Install a newer sepconv" in message
    assert "it is a program of version 0" in refused(programs.join(*programs.split(raw), version=0))


def test_a_file_has_nothing_of_a_later_version_than_its_own(raw, refused):
    message = refused(programs.join(*programs.split(raw), version=1))
    assert "of version 1, and has steps or dtypes of a later one" in message


def test_files_are_of_the_oldest_version_that_has_all_of_them(tmp_path):
    networks = [
        (programs.blocks(), 1),
        (programs.every_operation("float64"), 1),
        (programs.every_operation(), 2),
        (programs.halves(), 2),
        (programs.quantized(), 3),
    ]
    for network, version in networks:
        file.write(tmp_path / "a.sepconv", network)
        assert struct.unpack_from("<I", (tmp_path / "a.sepconv").read_bytes(), 8) == (version,)


def test_files_of_version_1_still_open():
    """One that the first release of the format wrote."""
    network, notes = file.read(ROOT / "tests" / "program" / "data" / "version1.sepconv")
    assert notes == {"model": "version 1"}
    assert [step.operation for step in network.steps] == ["convolution", "reduce", "softmax"]
    assert {tensor.dtype for tensor in network.tensors} == {np.dtype("float32")}
    assert network.tensors[1].shape == (1, 1, 4, 5)
    (classes,) = reference.run(network, np.ones((2, 6, 6, 4)))
    np.testing.assert_allclose(classes.sum(1), 1, rtol=1e-6)


def test_files_of_version_2_still_open():
    """One of int8 from before sums became float32 at once: its bytes, and what they stand for."""
    network, notes = file.read(ROOT / "tests" / "program" / "data" / "version2.sepconv")
    assert [step.operation for step in network.steps] == [
        *("quantize", "quantized_convolution", "quantized_mean", "quantized_dense"),
        *("dequantize", "softmax"),
    ]
    x = np.random.default_rng(0).standard_normal((8, 6, 6, 3)).astype("float32")
    (expected,) = reference.run(network, x)
    np.testing.assert_allclose(Program(network)(x), expected, atol=1e-6)
    floats = dequantized(network, origin_of(network, notes, "it"))
    np.testing.assert_allclose(Program(floats)(x), expected, atol=0.05)
    # Written again, it is of the same version.
    assert file.encode(network, notes)[8] == 2


def test_sizes_in_the_prelude_are_not_believed(raw, refused):
    for length in (0, 2**63, 2**64 - 1, len(raw) - 31, header.MOST_BYTES + 1):
        parts = struct.unpack_from(programs.PRELUDE, raw)
        changed = struct.pack(programs.PRELUDE, *parts[:3], length, parts[4]) + raw[32:]
        assert ("damaged" if length == 0 else f"cannot have {length} bytes") in refused(changed)
    for size in (0, 2**64 - 1):
        changed = struct.pack(programs.PRELUDE, *parts[:4], size) + raw[32:]
        assert ("follow the end" if size == 0 else "cut short") in refused(changed)


def test_what_aligns_the_first_tensor_must_be_there(refused):
    whole = bytearray(programs.join(b"{}", b"")[:40])
    struct.pack_into("<I2Q", whole, 12, 0, 2, 40)
    struct.pack_into("<I", whole, 12, zlib.crc32(whole))
    assert "cut short, after 40 of 64 bytes" in refused(whole)


def _step(number, **changes):
    return lambda h: h["steps"][number].update(changes)


def _attribute(number, **changes):
    return lambda h: h["steps"][number]["attributes"].update(changes)


def _tensor(number, **changes):
    return lambda h: h["tensors"][number].update(changes)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        # The whole.
        (lambda h: h.pop("notes"), "the header must be an object of dtype, inputs, steps"),
        (lambda h: h.update(more=1), "the header must be an object of"),
        (lambda h: h.update(dtype="float16"), "dtype must be 'float32' or 'float64'"),
        (lambda h: h.update(dtype=["float32"]), "dtype must be 'float32' or 'float64'"),
        (lambda h: h.update(dtype="float64"), "must be of float64, as its inputs say"),
        (lambda h: h.update(inputs={}), "inputs must be a list"),
        (lambda h: h.update(inputs=[]), "inputs must have 1 to 256 elements"),
        (lambda h: h.update(inputs=[1]), "inputs[0] must be an object of name, shape"),
        (lambda h: h["inputs"][0].update(shape=3), "shape must be a list"),
        (lambda h: h["inputs"][0].update(shape=[True]), "shape must be an integer"),
        (lambda h: h["inputs"][0].update(shape=[1.0]), "shape must be an integer"),
        (lambda h: h["inputs"][0].update(name="\x1b[31m"), "printable"),
        (lambda h: h["inputs"][0].update(name="\ud800"), "printable"),
        (lambda h: h.update(steps=3), "steps must be a list"),
        (lambda h: h.update(outputs=[]), "outputs must have 1 to 256 elements"),
        (lambda h: h.update(outputs=[[1]]), "outputs[0] must be an object of name, value"),
        (lambda h: h["outputs"][0].update(value=21), "outputs[0] must be 0 to 20"),
        (lambda h: h["outputs"][0].update(value=19), "outputs[0] must be a value of float32"),
        (lambda h: h["outputs"][0].update(value=-1), "outputs[0] must be 0 to 20"),
        (lambda h: h["outputs"][0].update(name=None), "output_names[0] must be"),
        (lambda h: h.update(notes=[]), "notes must be a mapping"),
        (lambda h: h["notes"].update(tuning={}), "notes['tuning'] must be a string"),
        # Steps.
        (_step(0, operation="eval"), "operation must be one of convolution, dense"),
        (_step(0, operation=None), "operation must be one of"),
        (_step(0, operation=["pad"]), "operation must be one of"),
        (_step(0, name=5), "name must be a string"),
        (_step(0, inputs=None), "inputs must be a list"),
        (_step(0, inputs=[]), "inputs must have 1 elements"),
        (_step(0, inputs=[1]), "inputs must be 0 to 0. Received: 1"),
        (_step(0, inputs=[False]), "inputs must be 0 to 0. Received: False"),
        (_step(0, weights=[]), "weights must be a mapping"),
        (_step(0, weights={"kernel": 0}), "weights must be of nothing"),
        (_step(0, attributes=[]), "attributes must be a mapping"),
        (_step(0, more=1), "steps[0] must be an object of operation"),
        (lambda h: h["steps"].append(None), "steps[20] must be an object of operation"),
        (_step(15, weights={}), "weights must have 'kernel', which is missing"),
        (_step(15, weights={"kernel": 10**6}), "weights: kernel must be 0 to 11"),
        (_step(15, weights={"kernel": "0"}), "weights: kernel must be 0 to 11"),
        (_step(15, weights={"kernel": -1}), "weights: kernel must be 0 to 11"),
        (_step(15, weights={"kernel": 0}), "kernel must have 2 axes"),
        # Attributes.
        (_attribute(0, value="nan"), "value must be a float"),
        (_attribute(0, value=True), "value must be a float"),
        (_attribute(0, value=None), "value must be a float"),
        (_attribute(0, value=2**60), "value must be a float"),
        (_attribute(0, before=[0, 0, -1, 0]), "before must be an integer of at least 0"),
        (_attribute(0, before=[0] * 9), "before must have 0 to 8 elements"),
        (_attribute(0, before=[0]), "before, after must be of one length"),
        (_attribute(0, more=1), "attributes must be of before, after, value"),
        (lambda h: h["steps"][0]["attributes"].pop("value"), "must have 'value'"),
        (_attribute(1, spec=[1] * 9), "spec must have 10 elements"),
        (_attribute(1, activation="tanh"), "activation must be one of none, relu"),
        (_attribute(1, activation=1), "activation must be one of none, relu"),
        (_attribute(8, stops=[None, 4, 2**53, None]), "stops must be an integer"),
        (_attribute(8, starts=[None, 0, 0, 0]), "starts must be an integer"),
        (_attribute(14, keepdims=0), "keepdims must be True or False"),
        (_attribute(12, epsilon="Infinity"), "epsilon must be finite"),
        # Tensors.
        (lambda h: h.update(tensors={}), "tensors must be a list"),
        (lambda h: h["tensors"].pop(), "bytes follow the last tensor"),
        (lambda h: h["tensors"].append(h["tensors"][0]), "tensors[12]: offset must be"),
        (_tensor(0, more=1), "tensors[0] must be an object of dtype, shape, offset, size"),
        (_tensor(0, dtype="float16"), "tensors[0]: dtype must be one of float32, float64"),
        (_tensor(0, dtype=["float32"]), "tensors[0]: dtype must be one of float32, float64"),
        (_tensor(0, dtype="int32"), "depthwise_kernel must be of float32, as its inputs say"),
        (_tensor(0, offset=64), "tensors[0]: offset must be 0"),
        (_tensor(1, offset=217), "tensors[1]: offset must be 256"),
        (_tensor(0, size=215), "tensors[0]: size must be 216"),
        (_tensor(0, size=216.0), "tensors[0]: size must be 216"),
        (_tensor(0, offset=False), "tensors[0]: offset must be 0"),
        (_tensor(0, shape=[55], size=220), "depthwise_kernel must have 4 axes"),
        (_tensor(0, shape=[1] * 9), "shape must be at most 8 sizes"),
        (_tensor(0, shape=[-1]), "shape must be at most 8 sizes"),
        (_tensor(0, shape=[2**53]), "shape must be at most 8 sizes"),
        (_tensor(0, shape=[2**40] * 8, size=4 * 2**320), "an integer of"),
        (_tensor(0, shape=[2**16, 2**16], size=2**34), "but only"),
        (_tensor(0, shape=[0, *[2**52] * 7], size=0), "shape is too large"),
        (lambda h: h.update(tensors=[{}] * 70000), "tensors must be at most 65536"),
    ],
)
def test_a_wrong_header_is_refused_behind_a_right_checksum(edit, message, raw, refused):
    assert message in refused(programs.edited(raw, edit))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"value":0.5', b'"value":NaN', "has NaN, which is not JSON"),
        (b'"value":0.5', b'"value":-Infinity', "has -Infinity, which is not JSON"),
        (b'"value":0.5', b'"value":1e999', "a number that is too large: 1e999"),
        (b'"value":0.5', b'"value":0.5,"value":0.5', "has 'value' twice"),
        (b'"value":0.5', b'"value":' + b"9" * 5000, "an integer of 5000 digits"),
        (b'"value":0.5', b'"value":' + b"[" * 10**5 + b"]" * 10**5, "lists more than 8 deep"),
        (b'"value":0.5', b'"value":' + b'{"a":' * 9 + b"1" + b"}" * 9, "more than 8 deep"),
        (b'"value":0.5', b'"value":0.5,}', "is not JSON in UTF-8"),
        (b"MobileNet", b"Mobile\xffNet", "is not JSON in UTF-8"),
        (b"MobileNet", b"Mobile\nNet", "is not JSON in UTF-8"),
        (b'{"dtype"', b'\xef\xbb\xbf{"dtype"', "is not JSON in UTF-8"),
        (b'{"dtype"', b'{}{"dtype"', "is not JSON in UTF-8"),
    ],
)
def test_json_that_could_be_read_in_two_ways_is_refused(old, new, message, raw, refused):
    text, tensors = programs.split(raw)
    assert old in text
    assert message in refused(programs.join(text.replace(old, new, 1), tensors))


def test_brackets_in_strings_are_no_nesting(raw, tmp_path):
    path = tmp_path / "a.sepconv"
    text, tensors = programs.split(raw)
    named = text.replace(b"MobileNet", rb"\"[[[[[[[[[[\\\"{{{")
    path.write_bytes(programs.join(named, tensors))
    assert file.read(path).notes["model"] == '"[[[[[[[[[[\\"{{{'
    deep = text.replace(b'"MobileNet"', rb'"]]]]]]]]]]\"]]]]", "a":' + b"[" * 9 + b"]" * 9)
    path.write_bytes(programs.join(deep, tensors))
    with pytest.raises(ValueError, match="more than 8 deep"):
        file.read(path)


def test_padding_must_be_zeros(raw, refused):
    text, tensors = programs.split(raw)
    assert tensors[216:256] == bytes(40)
    message = "something in the bytes that only align a tensor"
    assert message in refused(programs.join(text, tensors[:220] + b"\1" + tensors[221:]))
    assert message in refused(_rewritten(text + b" " * (-(32 + len(text)) % 64 - 1), tensors))


def _rewritten(text, tensors):
    """A file whose one byte between header and tensors is not 0."""
    whole = bytearray(programs.join(text, tensors))
    end = 32 + len(text)
    assert end % 64 == 63
    whole[end] = 1
    whole[12:16] = bytes(4)
    whole[12:16] = struct.pack("<I", zlib.crc32(whole))
    return bytes(whole)


def test_bytes_after_the_last_tensor_are_refused(raw, refused):
    text, tensors = programs.split(raw)
    assert "64 bytes follow the last tensor" in refused(programs.join(text, tensors + bytes(64)))
    assert "but only" in refused(programs.join(text, tensors[:-4]))


@pytest.mark.parametrize("error", [MemoryError, RecursionError])
def test_too_little_memory_is_an_error_of_the_file(error, raw, refused, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(header.json, "loads", fail)
    assert "there is not enough memory to read it" in refused(raw)


def test_a_file_that_shrinks_while_it_is_read_is_cut_short(raw, tmp_path):
    class Shrinking(FileIO):
        def readinto(self, buffer):
            os.truncate(self.name, 80)
            return super().readinto(buffer)

    path = tmp_path / "a.sepconv"
    path.write_bytes(raw)
    with Shrinking(str(path)) as opened, pytest.raises(ValueError, match="after 80 of"):
        file._bytes(opened, len(raw))
