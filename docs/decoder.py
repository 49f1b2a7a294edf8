"""Decodes a .qins file of version 1 to numpy arrays, as format.md says; numbers are its sections.
    python decoder.py FILE    prints SHA-256, dtype, shape and name of each tensor
BF16 comes back as uint16, dtypes that numpy lacks as bytes, what is tied to another file not at all. CRC-32C is not checked (10), XXH64 is.
"""
import hashlib, json, math, sys
from decimal import Decimal
import numpy as np, zstandard
from safetensors import deserialize

NUMPY = dict(BOOL="?", U8="u1", I8="i1", U16="<u2", I16="<i2", F16="<f2", BF16="<u2", U32="<u4", I32="<i4",
             F32="<f4", U64="<u8", I64="<i8", F64="<f8", C64="<c8")

def single(x):
    """Rounds once to float32. By way of a double it would be twice."""
    e = max(math.frexp(x)[1], -125)  # subnormals share the least exponent
    return math.ldexp(round(x * Decimal(2) ** (24 - e)), e - 24)

def levels(lo, hi, dtype):
    """The bit pattern that each code decodes to (5), in 28 digits."""
    exact = [0.0] + [single((lo + (255 - c) * (hi - lo) / 254).exp()) for c in range(1, 256)]
    bits = np.minimum(exact, np.finfo("f4").max).astype("<f4").view("<u4")
    if dtype == "BF16":
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")
    return bits if dtype == "F32" else bits.view("<f4").astype("<f2").view("<u2")

def chunks(stream):
    """The contents of a stream's frames, found by its index (8)."""
    n, at = int.from_bytes(stream[-9:-5], "little"), 0
    for packed, size in np.frombuffer(stream[len(stream) - 9 - 8 * n:-9], "<u4").reshape(n, 2).tolist():
        yield zstandard.ZstdDecompressor().decompress(stream[at:at + packed], max_output_size=size)
        at += packed

def join(chunk, size, rotated):
    """The elements of a chunk of byte planes (9)."""
    words = np.ascontiguousarray(np.frombuffer(chunk, "u1").reshape(size, -1)[::-1].T).view(f"<u{size}")
    return (words >> 1 | words << (8 * size - 1) if rotated else words).tobytes()

def decode(path):
    raw = open(path, "rb").read()
    planes, data = {name: bytes(t["data"]) for name, t in deserialize(raw)}, {}
    qins = json.loads(json.loads(raw[8:8 + int.from_bytes(raw[:8], "little")])["__metadata__"]["qins"])
    assert (qins["version"], qins["chunk"]) == (1, 131072), "unknown version of the .qins format"
    for t in qins["tensors"]:
        name, element = t["name"], np.dtype(NUMPY.get(t["dtype"], "u1"))
        if t["action"] == "kept":
            data[name] = planes[name] if t["data"] == "raw" else b"".join(
                join(c, element.itemsize, t["data"] == "zstd-rotated") for c in chunks(planes[name + ".planes"]))
        elif t["action"] == "encoded":
            m = name.removesuffix(".weight") or name
            codes = planes[m + ".stored"] if t["stored"] == "raw" else b"".join(chunks(planes[m + ".stored"]))
            sign = np.frombuffer(planes[m + ".sign"], "u1")
            sign = sign >> 7 if t["sign"] == "int8" else np.unpackbits(sign, count=len(codes), bitorder="little")
            bits = levels(Decimal(t["codec"]["log_min"]), Decimal(t["codec"]["log_max"]), t["dtype"])[np.frombuffer(codes, "u1")]
            data[name] = (bits | sign.astype(bits.dtype) << (8 * bits.itemsize - 1)).tobytes()
    shaped = lambda t, d: np.frombuffer(d, NUMPY[t["dtype"]]).reshape(t["shape"]) if t["dtype"] in NUMPY else np.frombuffer(d, "u1")
    return {t["name"]: shaped(t, data[t.get("tied_to", t["name"])]) for t in qins["tensors"] if "tied_in" not in t}

if __name__ == "__main__":
    for name, array in decode(sys.argv[1]).items():
        print(hashlib.sha256(array.tobytes()).hexdigest(), array.dtype, array.shape, name)
