"""docs/cluster.md: its scripts and commands, run with the environment that each scheduler sets."""
import os
import re
import shlex
import shutil
import subprocess

import kubernetes_validate
import yaml

import directories
import gguf_files

PARTS = 4
VERSIONS = ("1.29", "1.31", "1.34")  # of Kubernetes


def together(commands, env):
    """Runs commands, all at once. Returns those that failed."""
    running = [(c, subprocess.Popen(c, env=dict(os.environ) | e, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)) for c, e in zip(commands, env, strict=True)]
    return [f"{c}: {out}" for c, p, out in ((c, p, p.communicate()[0]) for c, p in running) if p.returncode]


def job(run, name):
    """A Job of docs/cluster, checked against Kubernetes' own schemas."""
    with open(os.path.join(run.ROOT, "docs", "cluster", name), encoding="utf-8") as f:
        value = yaml.safe_load(f)
    for version in VERSIONS:
        run.tally.attempt("jobs that Kubernetes' schema allows", f"{name}, {version}", lambda: kubernetes_validate.validate(value, version, strict=True))
    spec = value["spec"]["template"]["spec"]
    run.check((value["apiVersion"], value["kind"], spec["restartPolicy"]) == ("batch/v1", "Job", "Never"), "jobs as docs/cluster.md says", name)
    return value["spec"], spec["containers"][0], spec["volumes"]


def environment(container, source, out):
    given = {e["name"]: e["value"] for e in container["env"]}
    return given | {"MODELS": source, "OUT": out}


def check_kubernetes(run, source, whole, folder):
    spec, worker, volumes = job(run, "job.yaml")
    last, finish, same = job(run, "finish.yaml")
    run.check(spec["completionMode"] == "Indexed" and str(spec["completions"]) == str(spec["parallelism"]) == environment(worker, "", "")["PARTS"] == str(PARTS) and
              "backoffLimitPerIndex" in spec and (volumes, worker["image"]) == (same, finish["image"]), "jobs as docs/cluster.md says", "job.yaml")
    mounts = [m["mountPath"] for m in worker["volumeMounts"]]
    for container in (worker, finish):
        run.check(all(any(e["value"].startswith(m + "/") for m in mounts) for e in container["env"] if e["name"] != "PARTS"), "jobs as docs/cluster.md says", "paths outside of the volume")
    out = os.path.join(folder, "kubernetes")
    bad = together([worker["command"]] * PARTS, [environment(worker, source, out) | {"JOB_COMPLETION_INDEX": str(i)} for i in range(PARTS)])
    run.check(not bad and directories.tree(out) == whole, "workers of job.yaml: the same bytes as one process", str(bad))
    bad = together([finish["command"]], [environment(finish, source, out)])
    run.check(not bad and directories.tree(out) == whole, "finish.yaml after all workers: nothing left to do", str(bad))
    for absent in range(PARTS):
        shutil.rmtree(out)
        alive = [i for i in range(PARTS) if i != absent]
        bad = together([worker["command"]] * len(alive), [environment(worker, source, out) | {"JOB_COMPLETION_INDEX": str(i)} for i in alive])
        bad += together([finish["command"]], [environment(finish, source, out)])
        run.check(len(bad) == 1 and "missing" in bad[0], "finish.yaml without one of the workers: fails", f"{absent}: {bad}")
    bad = together([worker["command"]], [environment(worker, source, out) | {"JOB_COMPLETION_INDEX": str(absent)}])
    run.check(not bad and directories.tree(out) == whole, "workers of job.yaml: the same bytes as one process", f"one after the others: {bad}")


def check_slurm(run, source, whole, folder):
    """slurm.sh with the variables of --array=1-4, 0-3 and 3-9:2, in no order."""
    script = os.path.join(run.ROOT, "docs", "cluster", "slurm.sh")
    for array, tasks in (("1-4", (4, 2, 1, 3)), ("0-3", (0, 3, 1, 2)), ("3-9:2", (9, 5, 7, 3))):
        out = os.path.join(folder, "slurm")
        step = abs(tasks[0] - tasks[1]) // 2 if ":" in array else 1
        env = {"SLURM_ARRAY_TASK_COUNT": str(len(tasks)), "SLURM_ARRAY_TASK_MIN": str(min(tasks)), "SLURM_ARRAY_TASK_MAX": str(max(tasks)),
               "SLURM_ARRAY_TASK_STEP": str(step), "SLURM_CPUS_PER_TASK": "2"}
        bad = [b for i in tasks for b in together([[script, source, out]], [env | {"SLURM_ARRAY_TASK_ID": str(i)}])]
        run.check(not bad and directories.tree(out) == whole, "slurm.sh, one task after another: the same bytes as one process", f"{array}: {bad}")
        shutil.rmtree(out)


def check_page(run, source, whole, folder):
    """The line with xargs, as it stands."""
    text = gguf_files.read(os.path.join(run.ROOT, "docs", "cluster.md")).decode()
    out = os.path.join(folder, "xargs")
    lines = re.findall(r"^    (seq .*) MODELS OUT$", text, re.M)
    run.check(len(lines) == 1, "commands of docs/cluster.md", str(lines))
    for line in lines:
        bad = together([["sh", "-c", f"{line} {shlex.quote(source)} {shlex.quote(out)}"]], [{}])
        run.check(not bad and directories.tree(out) == whole, "commands of docs/cluster.md", f"{line}: {bad}")
    shutil.rmtree(out)
    for part in ("3/4", "2/3"):  # also with another N than before
        run.qinsconv("batch", "--part", part, source, out)
    run.qinsconv("batch", source, out)
    run.check(directories.tree(out) == whole, "what is missing, converted without --part: the same bytes as one process", out)


def check_all(run, folder):
    """run is the module that counts checks and runs the command."""
    source, one = os.path.join(folder, "models"), os.path.join(folder, "one")
    directories.models(source, run.np.random.default_rng(20270105))
    subprocess.run([*run.MKMODEL, "shards", "-shards", "12", "-tensors", "3", "-weights", "2048", os.path.join(source, "many")], check=True)
    run.qinsconv("batch", source, one)
    whole = directories.tree(one)
    path = os.environ["PATH"]
    os.environ["PATH"] = os.path.dirname(run.COMMAND[0]) + os.pathsep + path
    try:
        for check in (check_kubernetes, check_slurm, check_page):
            run.tally.attempt("groups of checks of docs/cluster.md carried out", check.__name__, check, run, source, whole, folder)
    finally:
        os.environ["PATH"] = path
    shutil.rmtree(folder)
    os.mkdir(folder)
    print(f"docs/cluster.md: {len(whole)} files in {PARTS} parts, by Job, array and xargs", flush=True)
