"""GGUF files that the gguf package writes, through qinsconv and back, and what the package reads then."""
import os
import subprocess
from types import SimpleNamespace

import numpy as np
from gguf import GGML_QUANT_SIZES, MODEL_ARCH, GGMLQuantizationType as Type, GGUFEndian, GGUFReader, GGUFValueType as Value, GGUFWriter, get_tensor_name_map
from gguf.quants import dequantize, quantize

import decoder
import reference as ref
import sources

ref.SIZES |= {t.name: size / block for t, (block, size) in GGML_QUANT_SIZES.items() if block > 1}
FLOATS = ("F32", "F16", "BF16")
TYPES = set(Type) - {Type.Q8_1}  # the package has 40 bytes for a block of Q8_1; ggml, which writes no such tensors, has 36
PLAIN = {Type.F32: "<f4", Type.F16: "<f2", Type.F64: "<f8", Type.I8: "<i1", Type.I16: "<i2", Type.I32: "<i4", Type.I64: "<i8"}


def values():
    """(key, type, type of the items, value) of every type that a key-value can have. The writer has no empty arrays."""
    for bits in (8, 16, 32, 64):
        for kind, low, high in (("UINT", 0, 2 ** bits - 1), ("INT", -2 ** (bits - 1), 2 ** (bits - 1) - 1)):
            for name, v in (("low", low), ("high", high)):
                yield f"test.{kind}{bits}.{name}".lower(), Value[f"{kind}{bits}"], None, v
            yield f"test.{kind}{bits}.array".lower(), Value.ARRAY, Value[f"{kind}{bits}"], [high, low, 0, 1, 77]
    for kind, least, most in ((Value.FLOAT32, 2.0 ** -149, 3.4028234663852886e38), (Value.FLOAT64, 5e-324, 1.7976931348623157e308)):
        several = [0.1 if kind == Value.FLOAT64 else 0.125, -0.0, least, -most, float("inf"), float("nan")]
        for i, v in enumerate(several):
            yield f"test.{kind.name}.{i}".lower(), kind, None, v
        yield f"test.{kind.name}.array".lower(), Value.ARRAY, kind, several * 50
    for v in (False, True):
        yield f"test.bool.{v}".lower(), Value.BOOL, None, v
    yield "test.bool.array", Value.ARRAY, Value.BOOL, [True, False, True]
    texts = ["", "one", "ä/ö 日本 \U0001f600", "a\0b", "line\nbreak", " ", "x" * 70000]
    for i, v in enumerate(texts):
        yield f"test.string.{i}", Value.STRING, None, v
    yield "test.string.array", Value.ARRAY, Value.STRING, texts[:-1] * 40
    yield "tokenizer.chat_template", Value.STRING, None, "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def add_tensor(writer, name, dtype, shape, data):
    """Adds the bytes of a tensor of F32, F16 or BF16, the last of which numpy lacks."""
    if dtype == "BF16":
        writer.add_tensor(name, np.frombuffer(data, "u1").reshape(*shape[:-1], 2 * shape[-1]), raw_dtype=Type.BF16)
    else:
        writer.add_tensor(name, np.frombuffer(data, PLAIN[Type[dtype]]).reshape(shape))


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_values(writer):
    for key, kind, item, v in values():
        writer.add_key_value(key, v, kind, item)


def every_type(path, alignment):
    """Every tensor type and every type of value. Returns the types that the package quantizes to."""
    rng = np.random.default_rng(alignment)
    writer, made = GGUFWriter(path, "llama"), []
    add_values(writer)
    if alignment != 32:
        writer.add_custom_alignment(alignment)
    writer.add_file_type(1)

    def gauss(*shape):
        return rng.normal(0, 0.02, shape).astype("f4")

    def add(name, kind, weights):
        add_tensor(writer, name, kind, weights.shape, sources.narrow(kind, weights.astype("f8").ravel()))
    add("token_embd.weight", "F16", gauss(300, 64))
    for i, kind in enumerate(sorted(TYPES)):
        block, size = GGML_QUANT_SIZES[kind]
        name, shape = f"blk.{i}.ffn_up.weight", (32, 1024)
        if kind.name in FLOATS:
            add(name, kind.name, gauss(*shape))
            add(f"blk.{i}.attn_q.weight", kind.name, gauss(32, 32))  # as few weights as are encoded
            add(f"blk.{i}.attn_k.weight", kind.name, gauss(31, 33))  # one too few
            add(f"blk.{i}.attn_v.weight", kind.name, gauss(67, 2003))  # more than a chunk
            add(f"blk.{i}.ffn_norm.weight", kind.name, gauss(5000))
            add(f"blk.{i}.ffn_gate_inp.weight", kind.name, gauss(8, 256))
            add(f"blk.{i}.ffn_gate_exps.weight", kind.name, gauss(4, 32, 40))
            add(f"blk.{i}.four.weight", kind.name, gauss(2, 3, 4, 5))
            add(f"blk.{i}.attn_q.bias", kind.name, gauss(1))
            add(f"blk.{i}.attn_output.weight", kind.name, np.where(np.arange(2048) == 77, np.nan, rng.normal(0, 1, 2048)).reshape(32, 64))
        elif kind in PLAIN:
            low = rng.integers(-100, 100, shape).astype(PLAIN[kind])
            writer.add_tensor(name, low if kind != Type.F64 else gauss(*shape).astype("f8"))
            writer.add_tensor(f"blk.{i}.ids", low[0, :7].copy())
        else:
            try:
                data = quantize(gauss(*shape), kind)
                made.append(kind.name)
            except NotImplementedError:  # then blocks of any bits: the package writes and reads those too
                data = rng.binomial(255, 0.3, (shape[0], shape[1] // block * size)).astype("u1")
            writer.add_tensor(name, data, raw_dtype=kind)
    writer.add_tensor("scalar", np.array(3.5, "f4"))
    writer.add_tensor("empty", np.zeros((0, 4), "f2"))
    writer.add_tensor("blk.98.ffn_down.weight", quantize(gauss(160, 1024), Type.Q8_0), raw_dtype=Type.Q8_0)
    twice = gauss(40, 64)
    add("blk.96.ffn_up.weight", "F32", twice)
    add("blk.97.ffn_up.weight", "F32", twice)
    add("output.weight", "F16", gauss(300, 64))
    add("output_norm.weight", "F32", gauss(64))
    finish(writer)
    return made


def read(path):
    with open(path, "rb") as f:
        return f.read()


def same_fields(a, b):
    return list(a.fields) == list(b.fields) and all(
        x.offset == y.offset and x.types == y.types and [p.tobytes() for p in x.parts] == [p.tobytes() for p in y.parts]
        for x, y in zip(a.fields.values(), b.fields.values()))


def through(run, name, source, folder, *options):
    """Takes a file through every layout. Returns the .qins files and what they decode to."""
    check, whole = run.check, "--exclude" in options
    raw, before = read(source), GGUFReader(source)
    places = {t.name: t for t in before.tensors}
    files, backs = {}, {}
    for layout in run.LAYOUTS:
        where = f"{name}, {layout}"
        out, back = os.path.join(folder, "gguf.qins"), os.path.join(folder, "back.gguf")
        run.qinsconv("--force", "--layout", layout, *options, source, out)
        run.qinsconv("verify", out)
        run.qinsconv("verify", "--against", source, out)
        run.qinsconv("decode", "--force", out, back)
        qins = files[layout] = run.stock(out, where)
        run.check_qins(qins, where)
        manifest = run.check_manifest(out, SimpleNamespace(raw=raw), qins, where)
        restored = backs[layout] = read(back)
        after = run.tally.attempt("decoded GGUF files that the gguf package reads", where, GGUFReader, back)
        if after is None:
            continue
        check(same_fields(before, after), "GGUF files whose key-values the gguf package finds again", where)
        check(restored[:before.data_offset] == raw[:before.data_offset], "GGUF files whose head is restored byte for byte", where)
        check([t.name for t in after.tensors] == list(places), "GGUF files whose tensors are restored, in order", where)
        d = {t["name"]: t for t in run.description(qins)["tensors"]}
        check(list(d) == list(places), "GGUF files whose tensors are all described, in order", where)
        expected, arrays = bytearray(raw), decoder.decode(out)
        for t in after.tensors:
            here, was, about = f"{where}: {t.name}", places[t.name], d[t.name]
            check(t.tensor_type == was.tensor_type and t.shape.tolist() == was.shape.tolist() and t.data_offset == was.data_offset and
                  about["dtype"] == t.tensor_type.name and about["shape"] == t.shape.tolist()[::-1], "GGUF tensors of the same type, shape and place", here)
            data, old = t.data.tobytes(), was.data.tobytes()
            check(arrays[t.name].tobytes() == data, "GGUF tensors that docs/decoder.py decodes alike", here)
            root = d[about.get("tied_to", t.name)]
            if root["action"] != "encoded":
                check(data == old, "GGUF tensors kept bit for bit", here)
                continue
            expected[t.data_offset:t.data_offset + t.n_bytes] = data
            check(t.tensor_type.name in FLOATS and len(t.shape) == 2 and t.n_elements >= 1024, "GGUF tensors that may be encoded", here)
            if layout == "packed" and root is about:
                run.check_codes(about, old, qins, here)
                run.check_errors(about, manifest[t.name]["error"], old, data, here)
            worst = np.max(np.abs(dequantize(t.data, t.tensor_type).astype("f8") - dequantize(was.data, was.tensor_type)), initial=0)
            check(worst <= manifest[root["name"]]["error"]["max_abs"] * (1 + 1e-6), "encoded GGUF matrices within max_abs, as the gguf package has the values", here)
        check(expected == restored, "GGUF files restored byte for byte outside encoded matrices", where)
        if whole:
            check(restored == raw, "GGUF files with nothing encoded restored byte for byte", where)
    check(len(set(backs.values())) == 1, "GGUF files that every layout decodes to the same file", name)
    encoded = {t["name"] for t in run.description(files["packed"])["tensors"] if t["action"] == "encoded"}
    check(not (whole and encoded), "GGUF files with nothing encoded restored byte for byte", f"{name}: {sorted(encoded)}")
    print(f"{name}: {len(before.fields) - 3} key-values, {len(places)} tensors, {len(encoded)} encoded; {len(raw):,} bytes, "
          f"compact {len(files['compact'].raw):,}", flush=True)
    return files, backs["packed"], encoded


def check_types(run, folder):
    source = os.path.join(folder, "types.gguf")
    expected = {key: (kind, item, v) for key, kind, item, v in values()}
    for alignment in (32, 4096):
        made = every_type(source, alignment)
        reader = GGUFReader(source)
        run.check(reader.alignment == alignment and {t.tensor_type for t in reader.tensors} == TYPES, "GGUF sources of every type", str(alignment))
        name = f"GGUF by its package, every type, alignment {alignment}"
        _, restored, encoded = through(run, name, source, folder)
        run.check(len(encoded) == 10, "GGUF matrices that the default rules choose", f"{name}: {sorted(encoded)}")
        back = os.path.join(folder, "back.gguf")
        fields = GGUFReader(back).fields
        for key, (kind, item, v) in expected.items():
            f = fields[key]
            run.check(f.types == ([kind] if item is None else [kind, item]) and repr(f.contents()) == repr(v), "values of key-values, in decoded files", key)
        through(run, name + ", nothing encoded", source, folder, "--exclude", ".")
    print(f"quantized by the gguf package: {', '.join(made)}; blocks of other types are of any bits", flush=True)
    writer = GGUFWriter(source, "llama")
    add_values(writer)
    finish(writer)
    through(run, "GGUF by its package, no tensors", source, folder, "--exclude", ".")


def check_llama(run, folder):
    """The same weights as safetensors, under the names that the package maps to GGUF's."""
    model, source, out, back = (os.path.join(folder, n) for n in ("llama.safetensors", "llama.gguf", "safetensors.qins", "back.safetensors"))
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, 2)
    for dtype, alignment in (("F32", 32), ("F16", 4096), ("BF16", 64)):
        subprocess.run([*run.MKMODEL, "llama", "-dtype", dtype, "-layers", "2", "-hidden", "256", "-intermediate", "640", "-vocab", "300", "-kv", "64", model], check=True)
        tensors = ref.Container(model).tensors
        renamed = {n: names.get_name(n, (".weight",)) for n in tensors}
        writer = GGUFWriter(source, "llama")
        writer.add_custom_alignment(alignment)
        writer.add_block_count(2)
        for n, t in tensors.items():
            add_tensor(writer, renamed[n], dtype, t["shape"], t["data"])
        finish(writer)
        name = f"GGUF by its package, small Llama, {dtype}"
        files, restored, encoded = through(run, name, source, folder)
        for layout in run.LAYOUTS:
            where = f"{name}, {layout}"
            run.qinsconv("--force", "--layout", layout, model, out)
            qins, other = ref.Container(out), files[layout]
            d, d2 = ({t["name"]: t for t in run.description(q)["tensors"]} for q in (qins, other))
            run.check({renamed[n] for n in d if d[n]["action"] == "encoded"} == encoded, "sources of which GGUF and safetensors have the same matrices encoded", where)
            for n, g in renamed.items():
                if g in encoded:
                    planes = [[q.tensors[p]["data"] for p in run.planes_of(x)] for q, x in ((qins, d[n]), (other, d2[g]))]
                    run.check(planes[0] == planes[1] and d[n]["codec"] == d2[g]["codec"], "matrices with the same planes from GGUF and safetensors", f"{where}: {g}")
        run.qinsconv("decode", "--force", out, back)
        decoded = ref.Container(back).tensors
        with open(source, "wb") as f:
            f.write(restored)
        for t in GGUFReader(source).tensors:
            n = next(n for n, g in renamed.items() if g == t.name)
            run.check(decoded[n]["data"] == t.data.tobytes(), "tensors decoded alike to GGUF and safetensors", f"{name}: {t.name}")


def check_big_endian(run, folder):
    source, out = os.path.join(folder, "big.gguf"), os.path.join(folder, "big.qins")
    writer = GGUFWriter(source, "llama", endianess=GGUFEndian.BIG)
    writer.add_tensor("blk.0.ffn_up.weight", np.ones((32, 32), "f4"))
    finish(writer)
    p = subprocess.run([*run.COMMAND, source, out], capture_output=True, text=True)
    run.check(p.returncode == 3 and "big-endian" in p.stderr and not os.path.exists(out), "big-endian GGUF files refused by name", f"exit {p.returncode}: {p.stderr}")


def check_all(run, folder):
    """run is the module that counts checks and runs the command."""
    for check in (check_types, check_llama, check_big_endian):
        run.tally.attempt("groups of checks of GGUF files carried out", check.__name__, check, run, folder)
        for name in os.listdir(folder):
            os.remove(os.path.join(folder, name))
