"""The files that are converted. The stock writer makes what it can; the rest, such as shared offsets, is written by hand."""
import json
import os
import subprocess

import numpy as np
from safetensors import TensorSpec, serialize_file

from reference import CHUNK, SIZES, crc32c

STOCK = dict(BOOL="bool", U8="uint8", I8="int8", F8_E5M2="float8_e5m2", F8_E4M3="float8_e4m3fn", F8_E8M0="float8_e8m0fnu",
             F8_E4M3FNUZ="float8_e4m3fnuz", F8_E5M2FNUZ="float8_e5m2fnuz", I16="int16", U16="uint16", F16="float16",
             BF16="bfloat16", I32="int32", U32="uint32", F32="float32", C64="complex64", F64="float64", I64="int64",
             U64="uint64", F4="float4_e2m1fn_x2")


class Source:
    """A file to convert, and the options."""

    def __init__(self, name, path, *options, stock=True):
        self.name, self.path, self.options = name, path, list(options)
        self.stock = stock  # the stock reader opens the source too


def nbytes(dtype, shape):
    return int(np.prod(shape, dtype=np.int64) * SIZES[dtype])


def write(path, tensors, metadata=None):
    """Writes {name: (dtype, shape, data)} with the stock writer."""
    specs, alive = {}, []
    for name, (dtype, shape, data) in tensors.items():
        size = len(data)
        data = np.frombuffer(bytes(data) or b"\0", np.uint8)
        alive.append(data)
        if dtype == "F4":  # the writer doubles the last dimension, as two elements share a byte
            shape = list(shape[:-1]) + [shape[-1] // 2]
        specs[name] = TensorSpec(dtype=STOCK[dtype], shape=list(shape), data_ptr=data.ctypes.data, data_len=size)
    serialize_file(specs, path, metadata)


def write_by_hand(path, header, data, metadata=None):
    """Writes a header of {name: (dtype, shape, begin, end)} as it is."""
    entries = {"__metadata__": metadata} if metadata else {}
    for name, (dtype, shape, begin, end) in header.items():
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(entries, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text + data)


def narrow(dtype, values):
    """float64 to the bytes of F32, F16 or BF16."""
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype == "F16":
            return values.astype("<f2").tobytes()
        single = values.astype("<f4")
    if dtype == "F32":
        return single.tobytes()
    bits = single.view("<u4")
    return np.where(np.isnan(single), 0x7FC0, (bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes()


def random_bytes(rng, dtype, shape):
    data = rng.integers(0, 256, nbytes(dtype, shape), np.uint8)
    return (data & 1 if dtype == "BOOL" else data).tobytes()


def every_dtype(rng, path):
    tensors = {}
    for dtype in STOCK:
        shapes = [[2], [4, 6], [0], [3, 0], [33, 64]] if dtype == "F4" else [[], [1], [0], [3, 0], [7], [3, 5, 2], [1, 1, 1, 3], [33, 65]]
        for i, shape in enumerate(shapes):
            tensors[f"{dtype}.{i}"] = (dtype, shape, random_bytes(rng, dtype, shape))
    write(path, tensors, {"format": "np", "note": "every dtype"})


def compressible(rng, path):
    """Kept tensors that shrink, around the size of a chunk."""
    tensors = {}
    for n in (5000, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3):
        gauss = rng.normal(0, 0.02, n)
        for dtype in ("F32", "F16", "BF16"):
            tensors[f"{dtype}.{n}"] = (dtype, [n], narrow(dtype, gauss))
        tensors[f"F64.{n}"] = ("F64", [n], gauss.astype("<f8").tobytes())
        for dtype in ("I16", "U16", "I32", "U32", "I64", "U64"):
            tensors[f"{dtype}.{n}"] = (dtype, [n], rng.integers(0, 100, n).astype("<" + dtype.lower()[0] + str(SIZES[dtype])).tobytes())
    n = CHUNK + 7
    tensors["C64.n"] = ("C64", [n], (rng.normal(0, 1, n) + 1j * rng.normal(0, 1, n)).astype("<c8").tobytes())
    tensors["BOOL.n"] = ("BOOL", [n], (rng.random(n) < 0.1).tobytes())
    for dtype in ("U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"):
        tensors[f"{dtype}.n"] = (dtype, [n], rng.binomial(255, 0.2, n).astype(np.uint8).tobytes())
    tensors["F4.n"] = ("F4", [4, CHUNK], rng.binomial(20, 0.2, 2 * CHUNK).astype(np.uint8).tobytes())
    tensors["constant"] = ("F32", [CHUNK], narrow("F32", np.ones(CHUNK)))
    tensors["zeros"] = ("I64", [3, CHUNK], bytes(3 * 8 * CHUNK))
    write(path, tensors)


def weights(rng, path, dtype):
    """Tensors that are encoded, or refused, for each special case of the codec."""
    most = {"F32": 3.4028234e38, "F16": 65504.0, "BF16": 3.3895314e38}[dtype]
    tensors = {}

    def add(name, values, shape=None):
        tensors[name + ".weight"] = (dtype, shape or [32, len(values) // 32], narrow(dtype, np.asarray(values, np.float64)))

    for shape in ([1, 1024], [1024, 1], [31, 37], [1, CHUNK - 1], [1, CHUNK], [1, CHUNK + 1], [2, CHUNK], [257, 1021], [3, 100003]):
        add(f"shape.{shape[0]}x{shape[1]}", rng.normal(0, 0.02, shape[0] * shape[1]), shape)
    gauss, n = rng.normal(0, 1, 4096), 4096
    add("wide", np.exp(rng.normal(0, 8, n)) * np.sign(gauss))
    add("sparse", gauss * (rng.random(n) < 0.1))
    add("zeros", gauss * 0)  # of both signs
    add("one_magnitude", 0.3 * np.sign(gauss))
    add("one_and_zeros", 0.3 * np.sign(gauss) * (rng.random(n) < 0.5))
    add("around_one", 1 + rng.integers(-3, 4, n) * 2.0 ** {"F32": -23, "F16": -10, "BF16": -7}[dtype])
    add("half_above", np.exp2(rng.integers(-1, 4, n)) * np.sign(gauss))  # ranges of 1:3 and 3:1 put 1 between two codes
    add("half_below", np.exp2(rng.integers(-3, 2, n)) * np.sign(gauss))
    add("powers", 2.0 ** rng.integers(-12, 13, n) * np.sign(gauss))
    add("largest", np.concatenate([gauss, np.full(32, most), np.full(32, -most)]))
    add("tiny_too", np.concatenate([gauss, rng.normal(0, 1e-8, 1024), [5e-324 if dtype == "F64" else 1e-45, 6e-8, -1e-8, 1.0000001e-8] * 8]))
    add("all_tiny", np.full(n, 2e-9) if dtype != "F16" else gauss * 0)
    add("denormals", rng.integers(1, 1024, n) * (2.0 ** -24 if dtype == "F16" else 1e-38))
    add("nan", np.where(np.arange(n) == 77, np.nan, gauss))
    add("infinity", np.where(np.arange(n) == 4095, -np.inf, gauss))
    write(path, tensors, {"format": "np"})


def any_shape(rng, path):
    """Encoded because a rule says so."""
    write(path, {f"t{i}": (dtype, shape, narrow(dtype, rng.normal(0, 1, int(np.prod(shape)))))
                 for i, (dtype, shape) in enumerate((d, s) for d in ("F32", "F16", "BF16") for s in
                                                    ([], [1], [0], [5], [8], [9], [2, 3, 4], [1000], [1, 1, 17, 1], [CHUNK + 9]))})


def names(rng, path):
    odd = ["weight", ".weight", "a.weight.weight", "a.weight_ih", "ä/ö ü.weight", "日本.weight", "\U0001f600.weight", 'q"uo\\te.weight', "tab\there.weight",
           "b.kernel", "c.q_proj", "d.lora_A", "0", " ", "embed.planes", "shape", "dtype", "e.weight "]
    tensors = {n: ("F32", [32, 40], narrow("F32", rng.normal(0, 1, 1280))) for n in odd}
    write(path, tensors, {"format": "np", "dtype": "F32", "": "empty key", "ключ": "значение", "json": '{"a": [1, "\\n"]}', "long": "x" * 5000, "nul": "a\0b"})


def by_hand(rng, folder):
    """What the stock writer does not write: F6, other orders, ties, an unaligned tensor."""
    data = rng.normal(0, 1, 4096).astype("<f4").tobytes() + rng.integers(0, 50, 12288, np.uint8).tobytes() + b"\1"
    header = {"late": ("U8", [1], 28672, 28673), "six": ("F6_E2M3", [128, 128], 16384, 28672), "first.weight": ("F32", [64, 64], 0, 16384)}
    path = os.path.join(folder, "order.safetensors")
    write_by_hand(path, header, data, {"b": "2", "a": "1"})
    yield Source("other order of data", path)

    header = {"z": ("BOOL", [1], 0, 1), "six": ("F6_E3M2", [4, 8], 1, 25), "w.weight": ("F32", [32, 33], 25, 25 + 4224), "h": ("F16", [3], 4249, 4255)}
    path = os.path.join(folder, "unaligned.safetensors")
    write_by_hand(path, header, b"\0" + rng.bytes(24) + rng.normal(0, 1, 1056).astype("<f4").tobytes() + b"\0\1\2\3\4\5")
    yield Source("unaligned", path)

    one, two = rng.normal(0, 1, 2048).astype("<f4").tobytes(), rng.normal(0, 1, 2048).astype("<f4").tobytes()
    header = {"a.weight": ("F32", [32, 64], 0, 8192), "b.weight": ("F32", [64, 32], 0, 8192), "c.bias": ("F32", [2048], 8192, 16384),
              "d.view": ("U8", [8192], 8192, 16384), "e.copy.weight": ("F32", [32, 64], 16384, 24576), "f.copy": ("F32", [2048], 24576, 32768),
              "g.empty": ("F32", [0], 32768, 32768), "h.empty": ("F32", [0, 4], 32768, 32768)}
    path = os.path.join(folder, "ties.safetensors")
    write_by_hand(path, header, one + two + one + two, {"format": "pt", "x.weight": "a.weight", "y": "f.copy", "z": "gone"})
    yield Source("every tie at once", path, stock=False)

    header = {"a.weight": ("F32", [32, 64], 0, 8192), "bits": ("I32", [2048], 0, 8192)}
    path = os.path.join(folder, "view.safetensors")
    write_by_hand(path, header, one)
    yield Source("a view as another dtype", path, stock=False)


def written_elsewhere(path, dtype, count):
    """A .qins file by hand, in the packed layout: all codes with both signs, in many ranges. Returns the ranges."""
    rng = np.random.default_rng(count)
    ranges = [(0, 0), (-104, 104), (-104, -80), (80, 88.72284), (88.72284, 88.72284), (-103.9, -103.9), (-17, 11.09), (-0.5, 1.5), (-1e-6, 1e-6)]
    # The ranges in 3*10^8 table entries where evaluation in double precision gives another float32.
    ranges += [(-17.67298698425293, -0.6421974301338196), (-1.8286328315734863, 6.199245452880859),
               (-11.899861335754395, 4.75401496887207), (-3.5331387519836426, -0.6678687930107117)]
    while len(ranges) < count:
        middle, half = rng.normal(-4, 4), rng.uniform(0, 12)
        ranges.append((middle - half, middle + half))
    ranges = np.array(ranges, "<f4")
    codes, signs = np.arange(512).astype("u1").tobytes(), bytes(32) + b"\xff" * 32
    header, parts, described, end = {}, [], [], 4 * ranges.size
    for i, (low, high) in enumerate(ranges.astype("f8").tolist()):
        m = f"t{i}"
        for k, name in enumerate(("log_min", "log_max")):
            header[f"{m}.{name}"] = ("F32", [], 8 * i + 4 * k, 8 * i + 4 * k + 4)
        header[m + ".stored"] = ("U8", [2, 256], end, end + 512)
        header[m + ".sign"] = ("U8", [64], end + 512, end + 576)
        end += 576
        parts.append(codes + signs)
        described.append({"name": m + ".weight", "dtype": dtype, "shape": [2, 256], "action": "encoded",
                          "codec": {"id": "log", "log_min": low, "log_max": high}, "stored": "raw", "sign": "bits",
                          "crc32c": crc32c(codes + signs + ranges[i].tobytes())})
    description = {"version": 1, "layout": "packed", "chunk": CHUNK, "source": {"format": "safetensors"}, "tensors": described}
    write_by_hand(path, header, ranges.tobytes() + b"".join(parts), {"qins": json.dumps(description)})
    return len(ranges)


GGUF = dict(F32=(0, 1, 4), F16=(1, 1, 2), BF16=(30, 1, 2), F64=(28, 1, 8), I8=(24, 1, 1), I16=(25, 1, 2), I32=(26, 1, 4), I64=(27, 1, 8),
            Q4_0=(2, 32, 18), Q8_0=(8, 32, 34), Q4_K=(12, 256, 144), Q6_K=(14, 256, 210), MXFP4=(39, 32, 17))


def gguf(path, alignment):
    """A GGUF file of plain and block types, with bytes after the last tensor. Returns {name: (dtype, shape, begin, end)} in the file."""
    rng = np.random.default_rng(alignment)
    kinds = [(d, [64, 256]) for d in GGUF] + [("F32", [257, 1021]), ("BF16", [2, CHUNK + 1]), ("Q8_0", [9, CHUNK]), ("F16", [3])]
    def text(s):
        return len(s.encode()).to_bytes(8, "little") + s.encode()
    head = b"GGUF" + (3).to_bytes(4, "little") + len(kinds).to_bytes(8, "little") + (2).to_bytes(8, "little")
    head += text("general.architecture") + (8).to_bytes(4, "little") + text("llama") + text("general.alignment") + (4).to_bytes(4, "little") + alignment.to_bytes(4, "little")
    data, places = b"", {}
    for i, (dtype, shape) in enumerate(kinds):
        number, block, size = GGUF[dtype]
        name, n = f"blk.{i}.ffn_up.weight", int(np.prod(shape)) // block * size
        head += text(name) + len(shape).to_bytes(4, "little") + b"".join(d.to_bytes(8, "little") for d in reversed(shape))
        head += number.to_bytes(4, "little") + len(data).to_bytes(8, "little")
        places[name] = (dtype, shape, len(data), len(data) + n)
        data += narrow(dtype, rng.normal(0, 0.1, int(np.prod(shape)))) if dtype in ("F32", "F16", "BF16") else rng.binomial(255, 0.3, n).astype("u1").tobytes()
        data += bytes(-len(data) % alignment)
    head += bytes(-len(head) % alignment)
    with open(path, "wb") as f:
        f.write(head + data + b"the end")
    return {name: (dtype, shape, len(head) + begin, len(head) + end) for name, (dtype, shape, begin, end) in places.items()}


def make(folder, mkmodel, data):
    """Yields every source, made in folder with fixed seeds. data is a folder of real files or None."""
    rng = np.random.default_rng(20260801)

    def path(name):
        return os.path.join(folder, name + ".safetensors")

    for name, write_source in (("every dtype", every_dtype), ("kept, compressible", compressible), ("names and metadata", names)):
        write_source(rng, path(name))
        yield Source(name, path(name))
    for dtype in ("F32", "F16", "BF16"):
        weights(rng, path("weights " + dtype), dtype)
        yield Source("weights " + dtype, path("weights " + dtype))
    any_shape(rng, path("any shape"))
    yield Source("every shape, encoded by rule", path("any shape"), "--include", "^t")
    write(path("empty"), {})
    yield Source("no tensors", path("empty"))
    write(path("empty metadata"), {}, {"a": "b"})
    yield Source("no tensors but metadata", path("empty metadata"))
    yield from by_hand(rng, folder)
    for tie in ("offset", "content", "metadata"):
        subprocess.run([*mkmodel, "toy", "-tie", tie, path("toy " + tie)], check=True)
        yield Source("toy model tied by " + tie, path("toy " + tie), stock=tie != "offset")
    for dtype in ("F32", "F16", "BF16"):
        subprocess.run([*mkmodel, "llama", "-dtype", dtype, "-layers", "1", "-hidden", "384", "-intermediate", "1000", "-vocab", "777", "-kv", "96", path("llama " + dtype)], check=True)
        yield Source("small Llama, " + dtype, path("llama " + dtype))
    for name in ("silero_vad_16k", "hadamards"):
        real = os.path.join(data, name + ".safetensors")
        if os.path.exists(real):
            yield Source(name, real)
        else:
            print(f"absent: {name}.safetensors, looked for in ../shared/data; not checked")
