"""Checks qinsconv against the stock Python libraries and against docs/format.md: `make interop`.

    run.py QINSCONV MKMODEL...     the command, and the one that makes models

Every check counts. One that fails is printed; the exit status is then 1.
"""
import base64
import collections
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
import zstandard
from safetensors import deserialize, safe_open

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, "docs")]
sys.dont_write_bytecode = True

import cluster  # noqa: E402
import decoder  # noqa: E402
import directories  # noqa: E402
import gguf_files  # noqa: E402
import reference as ref  # noqa: E402
import sources  # noqa: E402

LAYOUTS = ("plain", "packed", "compact")


class Tally:
    """Counts checks by what they are about."""

    def __init__(self):
        self.passed, self.failed = collections.Counter(), collections.Counter()
        self.notes = collections.Counter()

    def check(self, ok, about, where):
        (self.passed if ok else self.failed)[about] += 1
        if not ok:
            print(f"FAILED: {about}: {where}", flush=True)
        return ok

    def attempt(self, about, where, f, *args):
        """Counts a failure where f raises an error, and a pass where not; returns what f does."""
        try:
            result = f(*args)
        except Exception as e:  # whatever a library raises is a finding
            self.check(False, about, f"{where}: {type(e).__name__}: {e}")
            return None
        self.check(True, about, where)
        return result

    def done(self):
        for about in self.passed | self.failed:
            print(f"{self.passed[about] + self.failed[about]:8,}  {about}")
        for note, n in self.notes.items():
            print(f"{n:8,}  {note}")
        print(f"{self.passed.total()} passed, {self.failed.total()} failed")
        return 1 if self.failed else 0


tally = Tally()
check = tally.check


def qinsconv(*args, want=0):
    """Runs the command, checks its exit status and returns its standard output."""
    p = subprocess.run([*COMMAND, *args], capture_output=True, text=True)
    check(p.returncode == want, f"qinsconv exits {want}", f"{' '.join(args)}: exit {p.returncode}: {p.stderr.strip()}")
    return p.stdout


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def stock(path, where):
    """The stock reader opens the file and gives the very bytes of every tensor."""
    mine = ref.Container(path)
    theirs = tally.attempt("files opened by the stock reader", where, lambda: dict(deserialize(mine.raw)))
    if theirs is None or not check(theirs.keys() == mine.tensors.keys(), "files opened by the stock reader", f"{where}: other names"):
        return mine
    check(mine.contiguous(), "files without gap or overlap", where)
    with safe_open(path, "np") as f:
        check((f.metadata() or {}) == (mine.metadata or {}), "metadata as the stock reader sees it", where)
        for name, t in mine.tensors.items():
            got = theirs[name]
            same = got["dtype"] == t["dtype"] and got["shape"] == t["shape"] and bytes(got["data"]) == t["data"]
            if t["dtype"] in decoder.NUMPY and t["dtype"] != "BF16":  # those that numpy has
                array = f.get_tensor(name)
                same &= list(array.shape) == t["shape"] and array.tobytes() == t["data"] and array.dtype == np.dtype(decoder.NUMPY[t["dtype"]])
            check(same, "tensors read by the stock reader", f"{where}: {name!r}")
    return mine


def description(qins):
    return json.loads(qins.metadata["qins"], object_pairs_hook=ref.unique)


def planes_of(t):
    """The names of a tensor's planes, in the order of its CRC-32C."""
    if t["action"] == "tied":
        return []
    if t["action"] == "kept":
        return [t["name"] if t["data"] == "raw" else t["name"] + ".planes"]
    m = t["name"].removesuffix(".weight") or t["name"]
    return [f"{m}.{p}" for p in ("stored", "sign", "log_min", "log_max")]


def check_qins(qins, where):
    """What the description claims of the planes, without decoding."""
    d = description(qins)
    left = set(qins.tensors)
    for t in d["tensors"]:
        here, names = f"{where}: {t['name']!r}", planes_of(t)
        left -= set(names)
        if t["action"] == "tied":
            check("crc32c" not in t, "tied tensors without data", here)
            continue
        parts = [qins.tensors[n]["data"] for n in names]
        check(ref.crc32c(b"".join(parts)) == t["crc32c"], "CRC-32C of stored tensors", here)
        elements = int(np.prod(t["shape"], dtype=object))
        if t["action"] == "encoded":
            values = [np.frombuffer(p, "<f4")[0] for p in parts[2:]]
            check(values == [np.float32(t["codec"]["log_min"]), np.float32(t["codec"]["log_max"])] and
                  all(qins.tensors[n]["dtype"] == "F32" and qins.tensors[n]["shape"] == [] for n in names[2:]),
                  "parameters of the codec, in the metadata and as planes", here)
            if d["layout"] == "plain":
                code, sign = qins.tensors[names[0]], qins.tensors[names[1]]
                check(code["dtype"] == "U8" and sign["dtype"] == "I8" and code["shape"] == sign["shape"] == t["shape"] and
                      set(np.unique(np.frombuffer(sign["data"], "i1"))) <= {-1, 1}, "planes that QINSLinear.load_state_dict takes", here)
            if t["stored"] == "zstd":
                tally.attempt("streams of codes, to the block", here, ref.stream, parts[0], elements, 1, parts[1])
        elif t["data"] != "raw":
            size = ref.SIZES[t["dtype"]]
            packed = size not in (1, 2, 4, 8)
            tally.attempt("streams of kept tensors, to the block", here, ref.stream, parts[0], int(elements * size) if packed else elements, 1 if packed else size, None)
    check(not left, "files with no tensor that the description leaves out", f"{where}: {sorted(left)}")
    check(qins.aligned(), "files whose tensors can be viewed in place", where)


def check_manifest(path, source, qins, where):
    """Every sum of the manifest."""
    with open(path + ".manifest.json", "rb") as f:
        text = f.read()
    m = json.loads(text, object_pairs_hook=ref.unique)
    own = f'"self_sha256": "{m["self_sha256"]}"'.encode()
    check(text.count(own) == 1 and sha256(text.replace(own, b'"self_sha256": ""')) == m["self_sha256"], "manifests: self_sha256", where)
    s, o, total, d = m["source"], m["output"], m["totals"], description(qins)
    check((s["size"], s["sha256"]) == (len(source.raw), sha256(source.raw)), "manifests: the source", where)
    check((o["size"], o["sha256"]) == (len(qins.raw), sha256(qins.raw)), "manifests: the output", where)
    check((o["padding_bytes"], o["header_bytes"], o["payload_bytes"]) == (qins.padding, qins.start - qins.padding, len(qins.raw) - qins.start),
          "manifests: parts of the output", where)
    sums = {a: dict(tensors=0, parameters=0, source_bytes=0, output_bytes=0) for a in ("encoded", "kept", "tied")}
    for a, b in zip(m["tensors"], d["tensors"], strict=True):
        shared = ("name", "dtype", "shape", "action", "tied_to", "tied_in", "tie", "codec")
        elements, stored = int(np.prod(b["shape"], dtype=object)), sum(len(qins.tensors[n]["data"]) for n in planes_of(b))
        size = int(elements * ref.SIZES[b["dtype"]])
        size = size if b["action"] != "tied" or b["tie"] == "content" else 0
        check(all(a.get(k) == b.get(k) for k in shared) and a["crc32c"] == b.get("crc32c", "") and
              (a["source_bytes"], a["output_bytes"]) == (size, stored), "manifests: tensors", f"{where}: {b['name']!r}")
        for k, v in (("tensors", 1), ("parameters", elements if b["action"] != "tied" else 0), ("source_bytes", size), ("output_bytes", stored)):
            sums[b["action"]][k] += v
    parameters = sums["encoded"]["parameters"] + sums["kept"]["parameters"]

    def close(a, b, c):
        return abs(a - (b / c if c else 0)) <= 1e-6
    check(all(total[a] == sums[a] for a in sums) and total["parameters"] == parameters and close(total["ratio"], s["size"], o["size"]) and
          close(total["bits_per_weight"], 8 * o["size"], parameters) and
          close(total["bits_per_encoded_weight"], 8 * sums["encoded"]["output_bytes"], sums["encoded"]["parameters"]), "manifests: totals", where)
    return {t["name"]: t for t in m["tensors"]}


def check_errors(t, error, data, back, where):
    """The errors that the manifest gives."""
    w, g = ref.widen(t["dtype"], data), ref.widen(t["dtype"], back)
    d = (w - g).astype(np.float32)
    noise, signal = np.sum(d.astype(np.float64) ** 2), np.sum(w ** 2)
    large = np.abs(w) > 1e-8
    rel = np.max(np.abs(d[large]).astype(np.float64) / np.abs(w[large]), initial=0)

    def near(a, b):
        return abs(a - b) <= 1e-6 * abs(b)
    snr = error["snr_db"]
    ok = (snr is None) == (noise == 0) and (noise == 0 or abs(snr - 10 * np.log10(signal / noise)) < 2e-6)
    cosine = np.sum(w * g) / np.sqrt(signal * np.sum(g ** 2)) if signal else 1
    check(ok and near(error["max_abs"], np.max(np.abs(d), initial=0)) and near(error["max_rel"], rel) and abs(error["cosine"] - cosine) < 2e-6,
          "manifests: errors of encoded tensors", f"{where}: {error}, expected noise {noise}, signal {signal}, {np.max(np.abs(d), initial=0)}, {rel}, {cosine}")


def check_codes(t, data, qins, where):
    """Codes and signs against the formula, in the packed layout."""
    stored, sign = (np.frombuffer(qins.tensors[n]["data"], "u1") for n in planes_of(t)[:2])
    w = ref.widen(t["dtype"], data)
    low_high = ref.fit(w)
    check(low_high == (t["codec"]["log_min"], t["codec"]["log_max"]), "ranges that the formula gives", f"{where}: {low_high}")
    codes, unsure = ref.encode(w, t["codec"]["log_min"], t["codec"]["log_max"])
    tally.notes["weights whose codes were compared"] += int(np.sum(~unsure))
    tally.notes["weights left out, too near to a boundary for double precision"] += int(np.sum(unsure))
    differ = np.flatnonzero((codes != stored) & ~unsure)
    check(len(differ) == 0, "tensors whose codes are those of the formula", f"{where}: {len(differ)} differ, first at {differ[:1]}")
    check(np.array_equal(np.packbits(ref.negative(t["dtype"], data), bitorder="little"), sign), "tensors whose signs are those of the weights", where)


def read_row(path, t, qins, row):
    """The codes of one row, through the index and only the frames that it touches."""
    plane = qins.tensors[planes_of(t)[0]]
    columns = t["shape"][1]
    first = row * columns
    with open(path, "rb") as f:
        def read(at, n):
            f.seek(qins.start + plane["begin"] + at)
            return f.read(n)
        size = plane["end"] - plane["begin"]
        n = int.from_bytes(read(size - 9, 4), "little")
        frames, _ = ref.index(read(size - 8 * n - 17, 8 * n + 17))
        codes = b"".join(zstandard.ZstdDecompressor().decompress(read(at, packed)) for at, packed, _ in
                         frames[first // ref.CHUNK:(first + columns - 1) // ref.CHUNK + 1])
    return codes[first % ref.CHUNK:][:columns]


def check_compact(path, compact, packed, where):
    """Streams of codes, by the command-line zstd and row by row, against the packed layout."""
    inspected = json.loads(qinsconv("inspect", "--json", path))
    offsets = {p["name"]: p for t in inspected["tensors"] for p in t.get("planes", [])}
    for t in description(compact)["tensors"]:
        if t["action"] != "encoded":
            continue
        here, name = f"{where}: {t['name']!r}", planes_of(t)[0]
        codes = packed.tensors[name]["data"]
        if ZSTD:
            cut = compact.raw[offsets[name]["offset"]:][:offsets[name]["size"]]
            p = subprocess.run([ZSTD, "-dcq"], input=cut, capture_output=True)
            check(p.returncode == 0 and p.stdout == codes, "planes of codes restored by zstd -dc from inspect's offsets", f"{here}: {p.stderr}")
        if len(t["shape"]) == 2:
            rows, columns = t["shape"]
            for row in sorted({0, 1 % rows, rows // 2, rows - 1}):
                check(read_row(path, t, compact, row) == codes[row * columns:][:columns], "rows read through the index", f"{here}: row {row}")


def check_source(source, folder):
    before = tally.passed.total() + tally.failed.total()
    original = stock(source.path, source.name) if source.stock else ref.Container(source.path)
    backs, qins_files = {}, {}
    for layout in LAYOUTS:
        where = f"{source.name}, {layout}"
        out, back = (os.path.join(folder, f"{layout}.{end}") for end in ("qins", "safetensors"))
        qinsconv("--layout", layout, *source.options, source.path, out)
        if not os.path.exists(out):
            return
        qinsconv("verify", out)
        qinsconv("verify", "--against", source.path, out)
        alone = os.path.join(folder, "alone.qins")
        os.link(out, alone)
        qinsconv("verify", alone)
        os.remove(alone)
        qinsconv("decode", out, back)
        if not os.path.exists(back):
            return
        qins = qins_files[layout] = stock(out, where)
        restored = backs[layout] = stock(back, where + ", decoded")
        check_qins(qins, where)
        manifest = check_manifest(out, original, qins, where)
        d = description(qins)
        check(dict(restored.metadata or {}) == dict(original.metadata or {}) and list(restored.metadata or {}) == list(original.metadata or {}) and
              list((qins.metadata or {}).items())[:-1] == list((original.metadata or {}).items()), "metadata restored, in order", where)
        check(list(restored.tensors) == list(original.tensors), "tensors restored under the source's names, in order", where)
        check(all(restored.tensors[n]["dtype"] == t["dtype"] and restored.tensors[n]["shape"] == t["shape"] for n, t in original.tensors.items()),
              "files whose dtypes and shapes are restored", where)
        if source.stock:
            check(all(restored.tensors[n]["begin"] == t["begin"] for n, t in original.tensors.items()), "files whose offsets are restored", where)
        actions = {t["name"]: t for t in d["tensors"]}
        arrays = tally.attempt("files decoded by docs/decoder.py", where, decoder.decode, out)
        for name, t in actions.items():
            here = f"{where}: {name!r}"
            root = actions[t.get("tied_to", name)]
            at = name if t.get("tie") != "metadata" else root["name"]
            got = restored.tensors[at]["data"]
            if root["action"] == "kept":
                check(got == original.tensors[at]["data"], "kept tensors restored bit for bit", here)
            if arrays is not None:
                array = arrays[name]
                same = array.tobytes() == got and (t["dtype"] not in decoder.NUMPY or list(array.shape) == t["shape"])
                check(same, "tensors decoded alike by docs/decoder.py and qinsconv, bit for bit", here)
            if t["action"] == "encoded":
                if layout == "packed":
                    check_codes(t, original.tensors[name]["data"], qins, here)
                    check_errors(t, manifest[name]["error"], original.tensors[name]["data"], got, here)
            elif manifest[name]["rule"].startswith("kept: it holds") or manifest[name]["rule"].startswith("kept: no entry"):
                check(ref.fit(ref.widen(t["dtype"], got)) is None, "tensors that the codec refuses", here)
    check(len({b.raw for b in backs.values()}) == 1, "sources that every layout decodes to the same file", source.name)
    check_compact(os.path.join(folder, "compact.qins"), qins_files["compact"], qins_files["packed"], source.name)
    for name in os.listdir(folder):
        os.remove(os.path.join(folder, name))
    sizes = ", ".join(f"{layout} {len(qins_files[layout].raw):,}" for layout in LAYOUTS)
    checks = tally.passed.total() + tally.failed.total() - before
    print(f"{source.name}: {len(original.tensors)} tensors, {len(original.raw):,} bytes; {sizes}; {checks} checks", flush=True)


def check_document(folder):
    """The examples of docs/format.md, in the section on checking a decoder."""
    with open(os.path.join(ROOT, "docs", "format.md"), encoding="utf-8") as f:
        text = re.split(r"^## \d+\. Checking a decoder$", f.read(), flags=re.M)[1]
    blocks = re.findall(r"```(?:json)?\n(.*?)```", text, re.S)
    source, out = (os.path.join(folder, name) for name in ("example.safetensors", "example.qins"))
    w = np.array([[0.5, -0.25, 1, -0.0, 0.125, -2, 0.75, 1e-9, 3, -0.1]], "<f4")
    sources.write(source, {"m.weight": ("F32", [1, 10], w.tobytes()), "m.bias": ("F32", [2], np.array([1, -1], "<f4").tobytes())}, {"format": "np"})
    qinsconv("--include", "m.weight", source, out)
    qins = ref.Container(out)
    check(len(qins.raw) == 897 and qins.start == 816 and description(qins) == json.loads(blocks[0]), "examples of docs/format.md", "the description")
    check(qins.raw[qins.start:].hex() == "".join(line.split()[0] for line in blocks[1].splitlines()), "examples of docs/format.md", "the data")
    check(decoder.decode(out)["m.weight"].tobytes().hex() == "".join(blocks[2].split()), "examples of docs/format.md", "the decoded weights")
    toy, out = os.path.join(folder, "toy.safetensors"), os.path.join(folder, "toy.qins")
    subprocess.run([*MKMODEL, "toy", toy], check=True)
    qinsconv(toy, out)
    arrays = decoder.decode(out)
    rows = re.findall(r"^\| `([^`]+)` \| \w+ \| `([0-9a-f]{64})` \|$", text, re.M)
    for name, digest in rows:
        check(sha256(arrays[name].tobytes()) == digest, "examples of docs/format.md", name)
    check(len(rows) >= 4, "examples of docs/format.md", "the table of digests")
    with open(os.path.join(ROOT, "docs", "decoder.py"), encoding="utf-8") as f:
        check(len(f.readlines()) <= 60, "docs/decoder.py has at most 60 lines", "it has more")


def check_written_elsewhere(folder):
    """A .qins file that Python wrote, with every code in many ranges."""
    out, back = (os.path.join(folder, name) for name in ("elsewhere.qins", "elsewhere.safetensors"))
    for dtype, count in (("F32", 300), ("F16", 300), ("BF16", 600)):
        where = "a .qins file written in Python, " + dtype
        sources.written_elsewhere(out, dtype, count)
        qinsconv("verify", out)
        qinsconv("decode", "--force", out, back)
        restored = stock(back, where)
        with np.errstate(over="ignore"):  # F16 ends before float32 does
            arrays = decoder.decode(out)
        for name, array in arrays.items():
            check(array.tobytes() == restored.tensors[name]["data"], "tensors of all codes, in files written in Python, decoded alike", f"{where}: {name}")
        print(f"{where}: every code in {count} ranges", flush=True)


def check_gguf(folder):
    """GGUF files: kept blocks bit for bit, encoded weights as decoder.py has them, and the file put together again as section 11 says."""
    source, out, back = (os.path.join(folder, name) for name in ("source.gguf", "gguf.qins", "back.gguf"))
    for alignment in (32, 8, 256):
        places = sources.gguf(source, alignment)
        with open(source, "rb") as f:
            raw = f.read()
        for layout in LAYOUTS:
            where = f"GGUF of alignment {alignment}, {layout}"
            qinsconv("--force", "--layout", layout, source, out)
            qinsconv("verify", "--against", source, out)
            qinsconv("decode", "--force", out, back)
            with open(back, "rb") as f:
                restored = f.read()
            qins = stock(out, where)
            check_qins(qins, where)
            d = description(qins)
            container = d["source"]["container"]
            arrays = decoder.decode(out)
            head = zstandard.ZstdDecompressor().decompress(base64.b64decode(container["head"]))
            built = bytearray(container["size"])
            built[:len(head)] = head
            check(list(arrays) == list(places), "tensors of GGUF files restored in order", where)
            for t in d["tensors"]:
                dtype, shape, begin, end = places[t["name"]]
                data = arrays[t["name"]].tobytes()
                built[begin:end] = data
                check((t["dtype"], t["shape"]) == (dtype, shape) and len(data) == end - begin and
                      (t["action"] != "kept" or data == raw[begin:end]), "tensors of GGUF files", f"{where}: {t['name']}")
            for gap in container.get("gaps", []):
                data = base64.b64decode(gap["data"])
                built[gap["offset"]:gap["offset"] + len(data)] = data
            check(bytes(built) == restored, "GGUF files put together as docs/format.md says, the same as qinsconv decode's", where)
        print(f"GGUF of alignment {alignment}: {len(places)} tensors, {sum(t['action'] == 'encoded' for t in d['tensors'])} encoded; {len(raw):,} bytes, compact {len(qins.raw):,}", flush=True)


def main():
    global COMMAND, MKMODEL, ZSTD
    COMMAND, MKMODEL, ZSTD = [os.path.abspath(sys.argv[1])], sys.argv[2:], shutil.which("zstd")
    check(ref.crc32c(b"123456789") == "e3069283", "CRC-32C of the reference", "the check value")
    if not ZSTD:
        print("absent: the zstd command (Debian, Ubuntu: apt-get install zstd); decoding with it is not checked")
        if os.environ.get("CI") == "true":
            check(False, "the zstd command is installed", "it has to be where CI=true")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="interop-") as folder:
        made, work = os.path.join(folder, "made"), os.path.join(folder, "work")
        os.mkdir(made)
        os.mkdir(work)
        check_document(made)
        check_written_elsewhere(work)
        check_gguf(work)
        for name in os.listdir(work):
            os.remove(os.path.join(work, name))
        gguf_files.check_all(sys.modules[__name__], work)
        directories.check_all(sys.modules[__name__], work)
        cluster.check_all(sys.modules[__name__], work)
        for source in sources.make(made, MKMODEL, os.path.join(ROOT, "..", "shared", "data")):
            check_source(source, work)
    print(f"{time.monotonic() - began:.0f} s")
    return tally.done()


if __name__ == "__main__":
    sys.exit(main())
