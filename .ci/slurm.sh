#!/usr/bin/env bash
# docs/cluster/slurm.sh as an array of a real Slurm, on this machine alone: `make slurm`.
#
#     slurm.sh QINSCONV MKMODEL
#
# The daemons have everything, sockets and keys included, in bin/slurm, and are
# gone when this ends; the folder stays where it failed. Where they are not
# installed: Debian's packages, as root.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(dirname "$(realpath "$1")") mkmodel=$(realpath "$2")

missing() {
	for c in slurmctld slurmd munged sbatch; do command -v $c >/dev/null || return 0; done
	return 1
}
if missing && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	apt-get update -qq
	# Its daemons are started here, not by the system.
	DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null
fi
if missing; then
	echo "make slurm needs slurmctld, slurmd, sbatch and munged (Debian, Ubuntu: apt-get install slurm-wlm munge)" >&2
	exit 1
fi

# Waits for a command to succeed, for a time in seconds.
await() {
	for _ in $(seq $((20 * $1))); do
		"${@:2}" >/dev/null 2>&1 && return
		sleep 0.05
	done
	echo "slurm.sh: waited $1 s for: ${*:2}" >&2
	return 1
}
none() { ! squeue -h -o %i | grep -q .; }
idle() { sinfo -h -t idle -o %D | grep -qx 1; }
ended() { ! squeue -h -j "$1" -t pending,running,completing -o %i | grep -q .; }

rm -rf bin/slurm
mkdir -p bin/slurm/state bin/slurm/spool
dir=$(realpath bin/slurm)
daemons=()
stop() {
	status=$?
	trap - EXIT INT TERM HUP
	set +e
	# Tasks outlive the daemon that started them.
	if timeout 5 scancel --me 2>/dev/null; then await 10 none; fi
	for pid in "${daemons[@]}"; do kill "$pid" 2>/dev/null; done
	wait
	if [ $status = 0 ]; then rm -rf "$dir"; else tail -n 20 "$dir"/*.err "$dir"/*.out >&2; fi
	exit $status
}
trap stop EXIT
trap 'exit 1' INT TERM HUP

head -c 1024 /dev/urandom >"$dir/munge.key"
chmod 400 "$dir/munge.key"
host=$(hostname -s) user=$(id -un)
# A port that another Slurm on this machine has not.
port=$((20000 + $$ % 10000))
cat >"$dir/slurm.conf" <<END
ClusterName=qinsconv
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
# Without control groups, as in a container.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1
MpiDefault=none
ReturnToService=2
# Room for all tasks at once, whatever the machine has.
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 CPUs=16 RealMemory=8192 State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
export SLURM_CONF=$dir/slurm.conf
munged --foreground --force --key-file "$dir/munge.key" --socket "$dir/munge.socket" --pid-file "$dir/munge.pid" \
	--log-file "$dir/munge.log" --seed-file "$dir/munge.seed" >"$dir/munged.err" 2>&1 &
daemons+=($!)
slurmctld -D -f "$SLURM_CONF" >"$dir/slurmctld.err" 2>&1 &
daemons+=($!)
slurmd -D -f "$SLURM_CONF" -N "$host" >"$dir/slurmd.err" 2>&1 &
daemons+=($!)
await 30 idle
sinfo -V

models=$dir/models
"$mkmodel" shards -shards 64 -tensors 8 -weights 131072 "$models"
PATH=$bin:$PATH
start=$(date +%s%N)
qinsconv batch --quiet "$models" "$dir/one"
echo "one process: $((($(date +%s%N) - start) / 1000000)) ms"

# submit OUT: the array, and the job that finishes it. Sets array and finish.
submit() {
	array=$(sbatch --parsable --array=1-4 --output="$dir/%A-%a.out" docs/cluster/slurm.sh "$models" "$1")
	finish=$(sbatch --parsable --dependency="afterany:$array" --output="$dir/%j.out" --wrap "qinsconv batch --finish '$models' '$1'")
}
compare() {
	diff -r "$dir/one" "$1"
	qinsconv verify "$1" >/dev/null
	echo "$2: the same bytes as one process"
}

submit "$dir/out"
await 300 ended "$finish"
scontrol show job "$array" | grep -o 'ArrayTaskId=[0-9]*\|JobState=[A-Z]*\|StartTime=[^ ]*\|ExitCode=[^ ]*' | paste - - - -
compare "$dir/out" "4 tasks"

# One task is requeued, as by a node that fails, and one killed for good. What
# is missing then is said, and the same array again completes it.
records() { [ "$(find "$dir/again/.qinsconv/files" -name '*.json' | wc -l)" -ge 4 ]; }
completed() { scontrol show job "$1" | grep -q JobState=COMPLETED; }
for try in 1 2 3; do
	submit "$dir/again"
	await 60 records
	scontrol requeue "${array}_2"
	scancel --signal=KILL --full "${array}_3"
	await 120 ended "$finish"
	completed "$finish" || break
	rm -r "$dir/again" # both came too late
	[ $try != 3 ]
done
echo "a task requeued, one killed: $(grep -h 'missing' "$dir/$finish.out")"
scontrol show job "$array" | grep -o 'ArrayTaskId=[0-9]*\|JobState=[A-Z]*\|Restarts=[^ ]*' | paste - - -
submit "$dir/again"
await 120 ended "$finish"
echo "the same array again: $(cat "$dir/$array"-*.out | grep -c ', unchanged') files unchanged, $(cat "$dir/$array"-*.out | grep -c ', converted') converted"
compare "$dir/again" "4 tasks, run again"
