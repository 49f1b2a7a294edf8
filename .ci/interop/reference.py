"""The format once more, from docs/format.md: headers, CRC-32C, the encode formula, frames and the index. Numbers are sections."""
import json
import os
from decimal import Decimal

import numpy as np

SIZES = dict(F4=0.5, F6_E2M3=0.75, F6_E3M2=0.75, BOOL=1, U8=1, I8=1, F8_E5M2=1, F8_E4M3=1, F8_E8M0=1, F8_E4M3FNUZ=1,
             F8_E5M2FNUZ=1, I16=2, U16=2, F16=2, BF16=2, I32=4, U32=4, F32=4, C64=8, F64=8, I64=8, U64=8)
SIZES |= dict(Q4_0=18 / 32, Q8_0=34 / 32, Q4_K=144 / 256, Q6_K=210 / 256, MXFP4=17 / 32)  # of GGUF
CHUNK = 131072


def unique(pairs):
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name is given twice")
    return members


class Container:
    """A safetensors file (1): tensors in the header's order, each with dtype, shape, begin, end and data."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self.raw = f.read()
        self.start = 8 + int.from_bytes(self.raw[:8], "little")
        text = self.raw[8:self.start].decode()
        header = json.loads(text, object_pairs_hook=unique)
        self.padding = len(text) - len(text.rstrip(" "))
        self.metadata = header.pop("__metadata__", None)
        self.tensors = header
        for t in header.values():
            t["begin"], t["end"] = t.pop("data_offsets")
            t["data"] = self.raw[self.start + t["begin"]:self.start + t["end"]]

    def contiguous(self):
        """Whether tensors fill the data, without gap, overlap or sharing."""
        end = 0
        for t in sorted(self.tensors.values(), key=lambda t: (t["begin"], t["end"])):
            if t["begin"] != end or t["end"] - t["begin"] != int(np.prod(t["shape"], dtype=object) * SIZES[t["dtype"]]):
                return False
            end = t["end"]
        return self.start + end == len(self.raw)

    def aligned(self):
        """Whether bytes can be viewed in place."""
        return self.start % 8 == 0 and all(t["begin"] % max(1, int(SIZES[t["dtype"]])) == 0 for t in self.tensors.values())


def advance(state):
    """A CRC-32C register, or an array of them, after eight zero bits."""
    for _ in range(8):
        state = state >> 1 ^ np.uint32(0x82F63B78) * (state & 1)
    return state


TABLE = advance(np.arange(256, dtype=np.uint32))


def crc32c(data, lane=4096):
    """CRC-32C (10), of many pieces of the data at a time, joined as the code is linear."""
    data = np.frombuffer(data, np.uint8)
    lane = max(1, min(lane, len(data) // 64))
    whole = len(data) // lane * lane
    lanes = data[:whole].reshape(-1, lane)
    state = np.zeros(len(lanes), np.uint32)
    basis = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for column in lanes.T:
        state = state >> 8 ^ TABLE[(state ^ column) & 255]
        basis = basis >> 8 ^ TABLE[basis & 255]
    basis, crc = basis.tolist(), 0xFFFFFFFF
    for s in state.tolist():
        joined, bit = s, 0
        while crc:
            if crc & 1:
                joined ^= basis[bit]
            crc, bit = crc >> 1, bit + 1
        crc = joined
    table = TABLE.tolist()
    for b in data[whole:].tolist():
        crc = crc >> 8 ^ table[(crc ^ b) & 255]
    return f"{crc ^ 0xFFFFFFFF:08x}"


def widen(dtype, data):
    """The values of F32, F16 or BF16 as float64."""
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
    return np.frombuffer(data, {"F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float64)


def negative(dtype, data):
    """The sign bits, as 0 and 1."""
    return (np.frombuffer(data, "<u4" if dtype == "F32" else "<u2") >> (31 if dtype == "F32" else 15)).astype(np.uint8)


def fit(w):
    """log_min and log_max (5), or None where the tensor is to be kept."""
    a = np.abs(w)
    seen = a[a > 1e-8]
    if not np.isfinite(w).all() or (len(seen) == 0 and a.any()):
        return None
    if len(seen) == 0:
        return 0.0, 0.0
    return tuple(float(np.float32(float(Decimal(float(x)).ln()))) for x in (seen.min(), seen.max()))


def encode(w, low, high):
    """Codes (5), and where double precision is too near to a boundary to tell."""
    a = np.abs(w)
    unsure = np.zeros(len(a), bool)
    codes = np.full(len(a), 128)
    if low != high:
        with np.errstate(divide="ignore"):
            exact = 255 - 254 * (np.log(a) - low) / (high - low)
        margin = max(1e-9, 254e-13 / (high - low))
        exact = np.clip(exact, 0, 256)  # also the infinity that zero gives
        unsure = (np.abs(exact - np.floor(exact) - 0.5) < margin) & (a > 1e-8) & (a != 1)
        codes = np.clip(np.rint(exact), 1, 255)  # rint rounds half to even
        codes[a <= 1e-8] = 255
    codes[a == 0] = 0
    return codes.astype(np.uint8), unsure


def u32(data, at):
    return int.from_bytes(data[at:at + 4], "little")


def need(ok, what):
    if not ok:
        raise ValueError(what)


def index(tail):
    """(offset, bytes, content) of each frame, from the end of a stream (8), and the length of the index."""
    need(u32(tail, len(tail) - 4) == 0x8F92EAB1 and tail[-5] == 0, "the index does not end as it must")
    n = u32(tail, len(tail) - 9)
    size = 8 * n + 17
    at = len(tail) - size
    need(u32(tail, at) == 0x184D2A5E and u32(tail, at + 4) == 8 * n + 9, "the index does not begin as it must")
    frames, offset = [], 0
    for k in range(n):
        packed, content = u32(tail, at + 8 + 8 * k), u32(tail, at + 12 + 8 * k)
        frames.append((offset, packed, content))
        offset += packed
    return frames, size


def stream(data, elements, element, signs):
    """Checks a stream (8) to the block and returns its frames. signs are those of codes, None for kept tensors."""
    frames, size = index(data)
    end = len(data) - size
    if signs is not None:
        end -= 8 + 4 * len(frames)
        need(u32(data, end) == 0x184D2A51 and u32(data, end + 4) == 4 * len(frames), "no checksums of signs")
        for k in range(len(frames)):
            part = signs[k * CHUNK // 8:(k + 1) * CHUNK // 8]
            need(f"{u32(data, end + 8 + 4 * k):08x}" == crc32c(part), f"chunk {k}: bad checksum of signs")
    need(len(frames) == -(-elements // CHUNK), "wrong number of chunks")
    need(sum(f[1] for f in frames) == end, "the frames do not fill the stream")
    for k, (at, packed, content) in enumerate(frames):
        need(content == element * min(CHUNK, elements - k * CHUNK), f"chunk {k}: wrong content size")
        need(packed <= 13 + 3 * max(1, -(-content // CHUNK)) + content, f"chunk {k}: the frame is too long")
        frame = data[at:at + packed]
        need(u32(frame, 0) == 0xFD2FB528, f"chunk {k}: no zstd frame")
        need(frame[4] & 0x3F == 0x24, f"chunk {k}: descriptor {frame[4]:#x}")  # single segment, checksum, no dictionary
        width = (1, 2, 4, 8)[frame[4] >> 6]
        need(int.from_bytes(frame[5:5 + width], "little") + (256 if width == 2 else 0) == content, f"chunk {k}: claims another size")
        at, last = 5 + width, False
        while not last:
            block = int.from_bytes(frame[at:at + 3], "little")
            last, kind, length = block & 1, block >> 1 & 3, block >> 3
            need(kind < 3 and length <= CHUNK, f"chunk {k}: bad block")
            if signs is not None and kind == 2:
                need(frame[at + 3] & 15 == 14 and frame[at + 2 + length] == 0, f"chunk {k}: more than Huffman literals")
            at += 3 + (1 if kind == 1 else length)
        need(at + 4 == packed, f"chunk {k}: the frame does not end with its checksum")
    return frames


def follow(decoded):
    """Completes {path in the model: (description, {name: array})} by what is tied to another file (11)."""
    for path, (description, arrays) in decoded.items():
        for t in description["tensors"]:
            if "tied_in" in t:
                other, there = decoded[os.path.join(os.path.dirname(path), t["tied_in"])]
                root = next(x for x in other["tensors"] if x["name"] == t["tied_to"])
                need(root["action"] != "tied", f"{t['name']!r}: tied to a tensor that is not stored")
                need((root["dtype"], root["shape"]) == (t["dtype"], t["shape"]), f"{t['name']!r}: tied to another dtype or shape")
                arrays[t["name"]] = there[t["tied_to"]]
