"""Model directories that the stock packages write, caches, split GGUF files and batches, through qinsconv and back."""
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFWriter
from huggingface_hub import scan_cache_dir, try_to_load_from_cache
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.serialization._base import split_state_dict_into_shards_factory

import decoder
import gguf_files
import reference as ref
import sources

HIDDEN, VOCAB = 64, 500

TEMPLATE = "{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] }}{% endfor %}"
VOCABULARY = {w: i for i, w in enumerate(["<s>", "</s>", "<unk>", "\u0120the", "\u2581und", "\u65e5\u672c", "\U0001f600", '"', "\\", "\u00e9"])}
CONFIG = {"architectures": ["LlamaForCausalLM"], "hidden_size": HIDDEN, "model_type": "llama", "num_hidden_layers": 3,
          "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 8.0, "rope_type": "llama3"}, "vocab_size": VOCAB}


def pretty(value):
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def side_files(rng):
    """What lies beside the weights, as repositories have it, a configuration of another kind in a folder included."""
    tokenizer = {"version": "1.0", "added_tokens": [{"id": 0, "content": "<s>", "special": True}],
                 "model": {"type": "BPE", "vocab": VOCABULARY, "merges": ["\u0120 t", "h e"]}}
    return {
        "generation_config.json": pretty({"bos_token_id": 1, "eos_token_id": [2, 3], "temperature": 0.6}),
        "tokenizer.json": json.dumps(tokenizer, ensure_ascii=False, indent=2).encode(),
        "tokenizer_config.json": pretty({"chat_template": TEMPLATE, "model_max_length": 1000000000000000019884624838656, "tokenizer_class": "LlamaTokenizer"}),
        "tokenizer.model": rng.bytes(70001),
        "special_tokens_map.json": b'{"bos_token": "<s>"}',
        "vocab.json": json.dumps(VOCABULARY).encode(),
        "merges.txt": "#version: 0.2\n\u0120 t\nh e\n".encode(),
        "added_tokens.json": b"",
        "chat_template.jinja": TEMPLATE.encode(),
        "modeling_toy.py": b"import torch\n\n\nclass Toy(torch.nn.Module):\n    pass\n",
        "README.md": "---\nlicense: mit\n---\n# Toy \u2014 a model\r\n".encode(),
        "LICENSE": b"MIT\n",
        ".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
        "1_Pooling/config.json": b'{"pooling_mode_mean_tokens": true, "word_embedding_dimension": 64}',
        "assets/deep/er/logo.png": b"\x89PNG\r\n\x1a\n\0" + rng.bytes(5000),
        "original/params.json": b'{"dim": 64}\r\n',
    }


def weights(rng, dtype, tied):
    """A model's tensors in the order in which its modules have them. tied stores the embedding again as the head; else a
    matrix of the first layer is also in the last. A buffer of integers is the same in all layers."""
    tensors = {}

    def add(name, *shape, kind=dtype):
        tensors[name] = (kind, list(shape), sources.narrow(kind, rng.normal(0, 0.02, int(np.prod(shape)))))
    add("model.embed_tokens.weight", VOCAB, HIDDEN)
    for i in range(3):
        p = f"model.layers.{i}."
        for name, *shape in (("self_attn.q_proj", HIDDEN, HIDDEN), ("self_attn.k_proj", 32, HIDDEN), ("self_attn.v_proj", 32, HIDDEN), ("self_attn.o_proj", HIDDEN, HIDDEN),
                             ("mlp.gate_proj", 176, HIDDEN), ("mlp.up_proj", 176, HIDDEN), ("mlp.down_proj", HIDDEN, 176)):
            add(p + name + ".weight", *shape)
        add(p + "self_attn.rotary_emb.inv_freq", 16, kind="F32")
        add(p + "input_layernorm.weight", HIDDEN)
        tensors[p + "self_attn.ids"] = ("I64", [1, 40], np.arange(40).astype("<i8").tobytes())
    add("model.norm.weight", HIDDEN)
    add("lm_head.weight", VOCAB, HIDDEN)
    if tied:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    else:
        tensors["model.layers.2.mlp.up_proj.weight"] = tensors["model.layers.0.mlp.up_proj.weight"]
    return tensors


def write_files(folder, files):
    for name, data in files.items():
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)


def write_model(folder, rng, dtype, tied, config, most="100KB"):
    """Writes a model as huggingface_hub shards it, by the stock writer. Returns {file: {tensor: (dtype, shape, data)}}."""
    tensors = weights(rng, dtype, tied)
    split = split_state_dict_into_shards_factory(tensors, get_storage_size=lambda t: len(t[2]), filename_pattern="model{suffix}.safetensors", max_shard_size=most)
    os.makedirs(folder)
    shards = {file: {n: tensors[n] for n in names} for file, names in split.filename_to_tensors.items()}
    for file, content in shards.items():
        sources.write(os.path.join(folder, file), content, {"format": "pt"})
    if split.is_sharded:
        write_files(folder, {"model.safetensors.index.json": pretty({"metadata": split.metadata, "weight_map": split.tensor_to_filename})})
    write_files(folder, {"config.json": config} | side_files(rng))
    return shards


def tree(folder, links=False):
    """{path: bytes} of all files below a folder. Only where links are allowed may any be one."""
    files = {}
    for root, _, names in os.walk(folder, followlinks=links):
        for name in names:
            path = os.path.join(root, name)
            if os.path.islink(path) and not links:
                raise ValueError(f"{path} is a link")
            files[os.path.relpath(path, folder)] = gguf_files.read(path)
    return files


def qins_name(file):
    return os.path.splitext(file)[0] + ".qins"


def close(a, b, c):
    return abs(a - (b / c if c else 0)) <= 1e-6


def check_dir_manifest(run, source, out, scratch, where):
    """The manifest of a folder against the disk (13). Returns {output: {tensor: its entry}} and {output: the file's own manifest}."""
    check, text = run.check, gguf_files.read(os.path.join(out, "qins-manifest.json")).decode()
    m = json.loads(text, object_pairs_hook=ref.unique)
    check(list(m) == ["schema", "tool", "files", "side_files", "totals", "self_sha256"] and m["schema"] == "qins-manifest/1" and text.endswith("}\n"),
          "manifests of folders: members", where)
    head, tail = text.rsplit(f'"{m["self_sha256"]}"', 1)
    check(run.sha256(f'{head}""{tail}'.encode()) == m["self_sha256"], "manifests of folders: self_sha256", where)
    disk = tree(out)
    names = [f["output"]["name"] for f in m["files"]]
    check(names == sorted(names) and {n for n in disk if n.endswith(".qins")} == set(names), "manifests of folders: every .qins file, sorted", where)
    beside = [f["name"] for f in m["side_files"]]
    check(beside == sorted(beside) and set(beside) == disk.keys() - set(names) - {"qins-manifest.json"}, "manifests of folders: every other file, sorted", where)
    for f in m["side_files"]:
        check(list(f) == ["name", "size", "sha256"] and (f["size"], f["sha256"]) == (len(disk[f["name"]]), run.sha256(disk[f["name"]])),
              "manifests of folders: side files", f"{where}: {f['name']}")
    # A file's part is its own manifest, less two members and indented by four.
    lines = text.splitlines()
    starts = [i for i, line in enumerate(lines[:lines.index('  "side_files": [')] if beside else lines) if line == "    {"]
    entries, manifests, stored, sums = {}, {}, {}, {}
    for f, start in zip(m["files"], starts, strict=True):
        here, name = f"{where}: {f['output']['name']}", f["output"]["name"]
        end = next(i for i in range(start, len(lines)) if lines[i] in ("    }", "    },"))
        alone = "\n".join(["{", *lines[1:3], *(line[4:] for line in lines[start + 1:end]), "}"]) + "\n"
        manifests[name] = alone.encode()
        path = os.path.join(scratch, "alone")
        with open(path + ".manifest.json", "w", encoding="utf-8") as file:
            file.write(alone)
        check(lines[1:3] == [f'  "schema": "{m["schema"]}",', f'  "tool": "{m["tool"]}",'] and list(f) == ["options", "source", "output", "totals", "tensors", "self_sha256"],
              "manifests of folders: members", here)
        entries[name] = run.check_manifest(path, SourceFile(os.path.join(source, f["source"]["name"])), ref.Container(os.path.join(out, name)), here)
        os.remove(path + ".manifest.json")
        stored[name] = {t["name"] for t in f["tensors"] if t["action"] != "tied"}
        for group in ("encoded", "kept", "tied"):
            for k, v in f["totals"][group].items():
                sums[group, k] = sums.get((group, k), 0) + v
    total = m["totals"]
    before, after = (sum(f[k]["size"] for f in m["files"]) for k in ("source", "output"))
    parameters = sums["encoded", "parameters"] + sums["kept", "parameters"]
    check(all(total[g][k] == v for (g, k), v in sums.items()) and total["parameters"] == parameters and close(total["ratio"], before, after) and
          close(total["bits_per_weight"], 8 * after, parameters) and close(total["bits_per_encoded_weight"], 8 * sums["encoded", "output_bytes"], sums["encoded", "parameters"]),
          "manifests of folders: totals", where)
    for name, tensors in entries.items():
        for t in tensors.values():
            if "tied_in" in t:
                check(t["action"] == "tied" and t["tied_to"] in stored[os.path.join(os.path.dirname(name), t["tied_in"])], "manifests of folders: ties across files", f"{where}: {t['name']}")
    return entries, manifests


class SourceFile:
    def __init__(self, path):
        self.raw = gguf_files.read(path)


def check_back(run, shards, entries, decoded, back, where):
    """Decoded tensors: kept ones bit for bit, encoded ones within max_rel, all as docs/format.md has them."""
    check = run.check
    for file, tensors in shards.items():
        restored = run.stock(os.path.join(back, file), f"{where}, decoded: {file}")
        check(restored.metadata == {"format": "pt"}, "metadata restored, in order", f"{where}: {file}")
        check(restored.tensors.keys() == tensors.keys(), "shards restored with their tensors", f"{where}: {file}")
        arrays = decoded[qins_name(file)][1]
        for name, (dtype, shape, data) in tensors.items():
            here, got, t = f"{where}: {name}", restored.tensors[name], entries[qins_name(file)][name]
            check((got["dtype"], got["shape"]) == (dtype, shape), "tensors of shards of the same dtype and shape", here)
            check(arrays[name].tobytes() == got["data"], "tensors of shards decoded alike by docs/decoder.py and qinsconv, bit for bit", here)
            root = entries[os.path.join(os.path.dirname(qins_name(file)), t.get("tied_in", qins_name(os.path.basename(file))))][t.get("tied_to", name)]
            if root["action"] == "kept":
                check(got["data"] == data, "tensors of shards kept bit for bit", here)
                continue
            w, g = ref.widen(dtype, data), ref.widen(dtype, got["data"])
            large = np.abs(w) > 1e-8
            worst = np.max(np.abs(w - g)[large] / np.abs(w[large]), initial=0)
            check(root["action"] == "encoded" and 0 < worst <= root["error"]["max_rel"] * (1 + 1e-5) and worst < 0.05, "tensors of shards encoded, within max_rel", f"{here}: {worst}")


def check_ties(run, shards, entries, where):
    """Of tensors with the same bytes one is stored and the others are tied to it, in whichever file. Returns how many are in another."""
    copies, across = {}, 0
    for file, tensors in shards.items():
        for name, tensor in tensors.items():
            copies.setdefault((tensor[0], *tensor[1], tensor[2]), []).append((file, name))
    for same in copies.values():
        of = {n: (qins_name(f), entries[qins_name(f)][n]) for f, n in same}
        stored = [(n, f) for n, (f, t) in of.items() if t["action"] != "tied"]
        if not run.check(len(stored) == 1, "tensors of the same bytes stored once in all files", f"{where}: {same}"):
            continue
        (root, home), = stored
        for name, (file, t) in of.items():
            if name != root:
                run.check((t["tied_to"], t.get("tied_in", file), t["tie"], t["output_bytes"]) == (root, home, "content", 0) and ("tied_in" in t) == (file != home),
                          "tensors of the same bytes tied to the one that is stored", f"{where}: {name}")
                across += "tied_in" in t
    return across


def check_alone(run, source, entries, manifests, converted, folder, where):
    """Files of a directory in which nothing is tied to another become what they become alone."""
    for name in manifests:
        if any("tied_in" in t for t in entries[name].values()):
            continue
        alone = os.path.join(folder, name)
        run.qinsconv("--layout", "packed", os.path.join(source, name.removesuffix(".qins") + ".safetensors"), alone)
        for path, want in ((alone, converted[name]), (alone + ".manifest.json", manifests[name])):
            run.check(gguf_files.read(path) == want, "files of directories converted alike alone, manifests included", f"{where}: {name}")
            os.remove(path)


def check_model(run, name, source, shards, folder, options=()):
    """Takes a directory through every layout."""
    check = run.check
    before = tree(source)
    names = {n: qins_name(n) if n.endswith(".safetensors") else n.replace(".safetensors.index.json", ".qins.index.json") for n in before}
    backs = []
    for layout in run.LAYOUTS:
        where = f"{name}, {layout}"
        out, back = os.path.join(folder, "out"), os.path.join(folder, "back")
        run.qinsconv("--layout", layout, *options, source, out)
        run.qinsconv("verify", out)
        run.qinsconv("verify", "--against", source, out)
        run.qinsconv("decode", out, back)
        check(tree(source) == before, "directories left as they were", where)
        converted, restored = tree(out), tree(back)
        check(converted.keys() == set(names.values()) | {"qins-manifest.json"}, "directories converted file by file", f"{where}: {sorted(converted)}")
        for n, data in before.items():
            if n.endswith(".index.json"):
                mine, theirs = json.loads(data), json.loads(converted[names[n]])
                mapped = {k: qins_name(v) for k, v in mine["weight_map"].items()}
                check(theirs == mine | {"weight_map": mapped} and list(theirs["weight_map"]) == list(mine["weight_map"]), "indices of converted directories", where)
                check(json.loads(restored[n]) == mine, "indices restored, equal in meaning", where)
            elif n == "config.json":
                config = json.loads(converted[n])
                added = config.pop("quantization_config")
                check(added == {"quant_method": "qins", "version": 1, "layout": layout, "codec": "log"} and config == json.loads(data), "configurations of converted directories", where)
                check(restored[n] == data, "configurations restored byte for byte", where)
            elif not n.endswith(".safetensors"):
                check(converted[n] == data and restored[n] == data, "side files carried over and restored byte for byte", f"{where}: {n}")
        check(restored.keys() == before.keys(), "directories restored file by file", f"{where}: {sorted(restored)}")
        entries, manifests = check_dir_manifest(run, source, out, folder, where)
        if layout == "packed":
            check_alone(run, source, entries, manifests, converted, folder, where)
        decoded = {}
        for file in shards:
            qins = run.stock(os.path.join(out, qins_name(file)), f"{where}: {file}")
            run.check_qins(qins, f"{where}: {file}")
            decoded[qins_name(file)] = run.description(qins), decoder.decode(os.path.join(out, qins_name(file)))
        ref.follow(decoded)
        check_back(run, shards, entries, decoded, back, where)
        across = check_ties(run, shards, entries, where)
        check(across == (3 if len(shards) > 1 else 0), "ties across files, as they were made", f"{where}: {across}")
        backs.append(restored)
        shutil.rmtree(out)
        shutil.rmtree(back)
    check(all(b == backs[0] for b in backs), "directories that every layout decodes to the same files", name)
    encoded = sum(t["action"] == "encoded" for e in entries.values() for t in e.values())
    print(f"{name}: {len(shards)} files of weights, {len(before) - len(shards)} others, {encoded} tensors encoded, {across} tied across files", flush=True)


def check_models(run, folder):
    """Directories in shards and in one file, tied by their configuration or only by their bytes."""
    rng = np.random.default_rng(20270101)
    source = os.path.join(folder, "source")
    for dtype in ("F32", "F16", "BF16"):
        for tied, config in ((False, pretty(CONFIG | {"tie_word_embeddings": False, "torch_dtype": dtype})),
                             (True, json.dumps(CONFIG | {"tie_word_embeddings": True}, ensure_ascii=False).encode())):
            shards = write_model(source, rng, dtype, tied, config)
            run.check(len(shards) >= 4, "directories in several shards", f"{dtype}: {len(shards)}")
            check_model(run, f"directory, {dtype}, {'head' if tied else 'layers'} tied", source, shards, folder)
            shutil.rmtree(source)
    shards = write_model(source, rng, "BF16", True, b'{\r\n\t"vocab_size":500 , "x":[ ]\r\n}', "5GB")
    check_model(run, "directory of one file", source, shards, folder)
    shutil.rmtree(source)


def hub_cache(cache, repo, model):
    """Moves a model into a cache as huggingface_hub has it. Returns the snapshot."""
    root = os.path.join(cache, repo_folder_name(repo_id=repo, repo_type="model"))
    commit = hashlib.sha1(repo.encode()).hexdigest()
    snapshot = os.path.join(root, "snapshots", commit)
    for name, data in tree(model).items():
        # Large files are named by their SHA-256, small ones by git's SHA-1.
        large = len(data) > 50000
        digest = hashlib.sha256(data).hexdigest() if large else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        link = os.path.join(snapshot, name)
        write_files(root, {os.path.join("blobs", digest): data})
        os.makedirs(os.path.dirname(link), exist_ok=True)
        os.symlink(os.path.relpath(os.path.join(root, "blobs", digest), os.path.dirname(link)), link)
    write_files(root, {"refs/main": commit.encode()})
    shutil.rmtree(model)
    return snapshot


def state(folder):
    """What must not change where nothing is written."""
    return {str(p): (p.lstat().st_mode, p.lstat().st_ino, p.lstat().st_mtime_ns, os.readlink(p) if p.is_symlink() else p.is_file() and p.read_bytes()) for p in Path(folder).rglob("*")}


def check_cache(run, folder):
    """A cache of snapshots and blobs: read through its links, never written to."""
    check, rng = run.check, np.random.default_rng(20270102)
    cache, out, back = (os.path.join(folder, n) for n in ("cache", "out", "back"))
    shards = write_model(os.path.join(folder, "model"), rng, "BF16", True, pretty(CONFIG))
    snapshot = hub_cache(cache, "acme/toy", os.path.join(folder, "model"))
    write_files(cache, {".locks/models--acme--toy/x.lock": b""})
    known = scan_cache_dir(cache)
    repo = next(iter(known.repos))
    check(not known.warnings and len(known.repos) == 1 and repo.repo_id == "acme/toy" and
          all(try_to_load_from_cache("acme/toy", f, cache_dir=cache) == os.path.join(snapshot, f) for f in shards), "caches that huggingface_hub knows as its own", str(known.warnings))
    before, source = state(cache), tree(snapshot, links=True)
    place = os.path.relpath(snapshot, cache)
    run.qinsconv("batch", cache, out)
    run.qinsconv("verify", "--against", cache, out)
    check(state(cache) == before, "caches left as they were, every blob and link", "batch")
    files = tree(out)  # which refuses links
    check({os.path.relpath(f, place) for f in files} == {qins_name(f) if f in shards else f.replace(".safetensors.index", ".qins.index") for f in source} | {"qins-manifest.json"},
          "snapshots converted file by file, to real files", str(sorted(files)))
    run.qinsconv("decode", os.path.join(out, place), back)
    restored = tree(back)
    check(restored.keys() == source.keys() and all(restored[n] == source[n] or n.endswith(".index.json") for n in source if n not in shards), "side files of snapshots restored byte for byte", place)
    alone = os.path.join(folder, "alone")
    run.qinsconv(snapshot, alone)
    check(state(cache) == before, "caches left as they were, every blob and link", "one snapshot")
    check(tree(alone) == {os.path.relpath(f, place): data for f, data in files.items()}, "snapshots converted alike alone and in a batch", place)
    print(f"cache: {len(known.repos)} repository of {repo.size_on_disk:,} bytes, {len(source)} links", flush=True)


def split_gguf(path, rng, most, small_first):
    """A split GGUF file by its package. Returns the files."""
    writer = GGUFWriter(None, "llama", split_max_tensors=most, small_first_shard=small_first)
    gguf_files.add_values(writer)
    writer.add_block_count(3)
    for name, (dtype, shape, data) in weights(rng, "F16", False).items():
        if dtype != "I64":
            gguf_files.add_tensor(writer, name, dtype, shape, data)
    writer.write_header_to_file(Path(path))
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(str(p) for p in Path(path).parent.glob("*-of-*.gguf"))


def check_split(run, folder):
    """Split GGUF files: converted as one, restored file by file."""
    check, rng = run.check, np.random.default_rng(20270103)
    source, out, back = (os.path.join(folder, n) for n in ("split", "out", "back"))
    for most, small_first in ((9, False), (7, True)):
        os.makedirs(source)
        files = split_gguf(os.path.join(source, "toy.gguf"), rng, most, small_first)
        check(len(files) >= 4, "split GGUF sources", str(files))
        before = tree(source)
        for options in ((), ("--exclude", ".")):
            where = f"split GGUF, {len(files)} files{', small first' * small_first}{', nothing encoded' * bool(options)}"
            for given in (files[0], source):
                run.qinsconv(*options, given, out)
                run.qinsconv("verify", out)
                run.qinsconv("verify", "--against", source, out)
                run.qinsconv("decode", out, back)
                entries, _ = check_dir_manifest(run, source, out, folder, where)
                restored = tree(back)
                check(restored.keys() == before.keys() and tree(source) == before, "split GGUF files restored under their names", f"{where}: {sorted(restored)}")
                check(not options or restored == before, "split GGUF files with nothing encoded restored byte for byte", where)
                decoded = {}
                for file in before:
                    qins = run.stock(os.path.join(out, qins_name(file)), f"{where}: {file}")
                    run.check_qins(qins, f"{where}: {file}")
                    decoded[qins_name(file)] = run.description(qins), decoder.decode(os.path.join(out, qins_name(file)))
                ref.follow(decoded)
                for file in before:
                    was, now = (GGUFReader(os.path.join(d, file)) for d in (source, back))
                    check(gguf_files.same_fields(was, now) and [t.name for t in was.tensors] == [t.name for t in now.tensors], "split GGUF files that the gguf package reads alike", f"{where}: {file}")
                    for a, b in zip(was.tensors, now.tensors, strict=True):
                        t, data = entries[qins_name(file)][a.name], b.data.tobytes()
                        root = entries[t.get("tied_in", qins_name(file))][t.get("tied_to", a.name)]
                        check(decoded[qins_name(file)][1][a.name].tobytes() == data, "tensors of split GGUF files that docs/decoder.py decodes alike", f"{where}: {a.name}")
                        if root["action"] == "kept":
                            check(a.data.tobytes() == data, "tensors of split GGUF files kept bit for bit", f"{where}: {a.name}")
                        else:
                            w, g = a.data.astype("f8"), b.data.astype("f8")
                            check(np.all(np.abs(w - g) <= root["error"]["max_rel"] * (1 + 1e-5) * np.abs(w)), "tensors of split GGUF files encoded, within max_rel", f"{where}: {a.name}")
                shutil.rmtree(out)
                shutil.rmtree(back)
            tied = sum("tied_in" in t for e in entries.values() for t in e.values())
            check(tied == 1, "ties across files, as they were made", f"{where}: {tied}")
            print(f"{where}: {sum(len(e) for e in entries.values())} tensors, {tied} tied across files", flush=True)
        shutil.rmtree(source)


def models(folder, rng):
    """A tree of every kind of model."""
    write_model(os.path.join(folder, "sharded"), rng, "BF16", True, pretty(CONFIG))
    write_model(os.path.join(folder, "nested", "one file"), rng, "F32", False, pretty(CONFIG), "5GB")
    write_model(os.path.join(folder, "model"), rng, "F16", False, pretty(CONFIG))
    hub_cache(os.path.join(folder, "hub"), "acme/toy", os.path.join(folder, "model"))
    os.makedirs(os.path.join(folder, "gguf"))
    split_gguf(os.path.join(folder, "gguf", "toy.gguf"), rng, 9, False)
    for name in ("loose", "other"):
        sources.write(os.path.join(folder, name + ".safetensors"), weights(rng, "F32", False))
    write_files(folder, {"notes.txt": b"no model"})


def check_batch(run, folder):
    """A batch of every kind, with one model that is broken."""
    check, rng = run.check, np.random.default_rng(20270104)
    source, out = os.path.join(folder, "models"), os.path.join(folder, "out")
    models(source, rng)
    run.qinsconv("batch", source, os.path.join(folder, "whole"))
    write_model(os.path.join(source, "broken"), rng, "F32", False, pretty(CONFIG))
    missing = sorted(f for f in os.listdir(os.path.join(source, "broken")) if f.endswith(".safetensors"))[1]
    os.remove(os.path.join(source, "broken", missing))
    before = state(source)
    p = subprocess.run([*run.COMMAND, "batch", source, out], capture_output=True, text=True)
    table = [line.split() for line in p.stdout.splitlines() if not line.startswith("[")]
    check(p.returncode == 1 and missing in p.stderr, "batches with a broken model: exit 1, and what is wrong", f"exit {p.returncode}: {p.stderr}")
    broken = [row for row in table if row[-1] == "broken"]
    check(table[0] == ["before", "after", "ratio", "time", "model"] and len(broken) == 1 and broken[0][:3] == ["-"] * 3 and broken[0][-2] == "failed" and
          sum("converted" in row for row in table) == 6 and table[-1][-4:] == ["1", "failed", "7", "models"], "batches with a broken model: the table", p.stdout)
    check(tree(out) == tree(os.path.join(folder, "whole")), "batches with a broken model: the others as without it", p.stdout)
    check(state(source) == before, "batches that leave their source as it was", source)
    run.qinsconv("verify", out)
    events = [json.loads(line) for line in run.qinsconv("batch", "--json", source, out, want=1).splitlines()]
    status = {e["model"]: e["status"] for e in events if e["event"] == "model"}
    check(status.pop("broken") == "failed" and len(status) == 6 and set(status.values()) == {"unchanged"}, "batches run again: nothing is done twice", str(status))
    shutil.rmtree(os.path.join(source, "broken"))
    run.qinsconv("verify", "--against", source, out)
    print(f"batch: {', '.join(status)}, and one that is broken", flush=True)


def check_all(run, folder):
    """run is the module that counts checks and runs the command."""
    for check in (check_models, check_cache, check_split, check_batch):
        run.tally.attempt("groups of checks of directories carried out", check.__name__, check, run, folder)
        shutil.rmtree(folder)
        os.mkdir(folder)
