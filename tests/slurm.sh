#!/usr/bin/env bash
# Runs the batch script of docs/distributed.md under a Slurm of our own on this machine: munged, slurmctld and a slurmd per node, with all their files in a
# temporary folder; nothing is left. Needs root and Debian's slurmctld, slurmd, slurm-client and munge (some 5 minutes).
#
#   tests/slurm.sh [NODES]      default: 1 node with two ranks; 2: two nodes with one rank each, which both bind to the first processor, as both are this machine.
#                               ./hpcbn must have been built, with MPI
#   HPCBN=FILE  the command to run instead of the one built here
#
# Passes (exit code 0) when srun's ranks find each other through PMIx, and are refused where they do not; on one node each is bound to a processor of its own; the
# signal before the time limit saves the run and puts the job back into the queue, and the next start goes on from there, until the run ends in the state of one
# that nobody ended, bit for bit; and a run that fails makes a job that failed.
set -euo pipefail
nodes=${1:-1}
root=$(readlink -f "${BASH_SOURCE[0]}")
root=${root%/tests/*}
source "$root/tests/runs.sh"
((EUID == 0)) || { echo "Slurm's daemons need root" >&2; exit 2; }
for program in munged slurmctld slurmd sbatch srun; do
    command -v "$program" >/dev/null || { echo "$program is missing: apt-get install slurmctld slurmd slurm-client munge" >&2; exit 2; }
done
chmod 755 "$work"
export SLURM_CONF=$work/slurm.conf
daemons=()
put_away() {
    local process
    [[ -z ${job:-} ]] || scancel --quiet "$job" 2>/dev/null || true
    for process in "${daemons[@]}"; do
        kill "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    # A job outlives the daemons; all its processes have our configuration, which this shell was not started with.
    for process in /proc/[0-9]*; do
        if grep -qsz "^SLURM_CONF=$work/slurm.conf$" "$process/environ"; then
            kill -9 "${process#/proc/}" 2>/dev/null || true
        fi
    done
}
fail() { # WORDS LOG...: shows the ends of what may say why
    echo "$1" >&2
    tail --lines=15 "${@:2}" >&2
    exit 1
}

# munged insists on folders that only its user can write to, from the top down; root's own processes need no more.
mkdir -m 755 munge state
head -c 1024 /dev/urandom >munge/key
chmod 600 munge/key
port=$((20000 + $$ % 10000))
cat >slurm.conf <<END
ClusterName=hpcbn
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
AuthType=auth/munge
# A job that is put back may start again when its old credentials have run out: after half a minute, not two.
AuthInfo=socket=$work/munge/socket,cred_expire=30
StateSaveLocation=$work/state
SlurmctldPidFile=$work/slurmctld.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdSpoolDir=$work/spool-%n
# Each its own: the PMIx of two nodes would take the same folder.
TmpFS=$work/tmp-%n
SlurmdPidFile=$work/slurmd-%n.pid
SlurmdLogFile=$work/slurmd-%n.log
ProctrackType=proctrack/linuxproc
JobAcctGatherType=jobacct_gather/none
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none

SchedulerParameters=sched_interval=2,sched_min_interval=100000
END
for ((n = 1; n <= nodes; n++)); do
    echo "NodeName=n$n NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((port + n)) CPUs=$((2 / nodes))" >>slurm.conf
done
echo "PartitionName=all Nodes=ALL Default=YES MaxTime=10 State=UP" >>slurm.conf

munged --foreground --force --socket "$work/munge/socket" --key-file "$work/munge/key" --pid-file "$work/munge/pid" --log-file "$work/munge/log" \
    --seed-file "$work/munge/seed" >munged.log 2>&1 &
daemons+=($!)
slurmctld -D -c >slurmctld.out 2>&1 &
daemons+=($!)
for ((n = 1; n <= nodes; n++)); do
    mkdir "spool-n$n" "tmp-n$n"
    slurmd -D -c -N "n$n" >"slurmd-n$n.out" 2>&1 &
    daemons+=($!)
done
up() { [[ $(sinfo --noheader --format '%D %t' 2>/dev/null) == "$nodes idle" ]]; }
for ((i = 0; i < 60; i++)); do
    ! up || break
    sleep 0.5
done
up || fail "Slurm does not come up:" munge*/log munged.log slurmctld.* slurmd-*
echo "$(srun --version), $nodes node(s)"

# The batch script as it stands in the documentation; only what is trained and its folders are ours. Its last 90 seconds are a guess from a few steps.
"$command" sample data --classes 4 --train 80 --val 5 --image-size 40 >/dev/null
PATH=$(dirname "$command"):$PATH
ours=(quick --model inception-tiny --image-size 32 --dropout 0.2 --eval-every 0 --checkpoint-every 500 --log-every 10 --progress never)
whole() { # OUTPUT STEPS: the same two ranks by mpirun
    (source "$root/tests/ranks.sh"
    exec mpirun -np 2 "$command" train --data "$work/data" --recipe "${ours[@]}" --steps "$2" -b 16 --learning-rate-batch 32 --output "$1") >whole.log 2>&1 ||
        fail "the run by mpirun fails:" whole.log
}
whole trial 30
steps=$(sed -nE 's/.*"type":"train".*"images_per_second":([0-9.]+).*/\1/p' trial/metrics.jsonl | tail -1 | awk '{ printf "%d", 90 * $1 / 32 }')
sed -n '/^## Slurm/,/^## Kubernetes/p' "$root/docs/distributed.md" | sed -n '/^```/,/^```/{/^```/d;p}' |
    sed "s|/shared/imagenet|$work/data|; s|/shared/runs/one|$work/killed|; s|bn-x5|${ours[*]} --steps $steps|" >job.sh
grep -q '^srun .* --steps' job.sh && grep -q "$work/killed --resume auto" job.sh || fail "docs/distributed.md has not the batch script that this test fills in:" job.sh
job=$(sbatch --parsable --nodes="$nodes" --ntasks-per-node=$((2 / nodes)) --cpus-per-task=1 --time=2 --signal=USR1@60 --output="$work/job.log" job.sh)
echo "job $job: $steps steps, USR1 half a minute to a minute after the start ..."


# affinities: of each rank of the job, its number and the processors it may use.
affinities() {
    local process
    for process in $(pgrep -x hpcbn); do
        if grep -qzx "SLURM_JOB_ID=$job" "/proc/$process/environ" 2>/dev/null; then
            echo "rank $(tr '\0' '\n' <"/proc/$process/environ" | sed -n 's/^SLURM_PROCID=//p'): $(sed -n 's/^Cpus_allowed_list:\s*//p' "/proc/$process/status")"
        fi
    done | sort -u
}
# wait_for JOB SECONDS: until it is no more in the queue; says how its state changes.
wait_for() {
    local now before= since=$SECONDS
    while now=$(squeue --noheader --job "$1" --states all --format '%T %r' 2>/dev/null) && ! [[ $now =~ ^(COMPLETED|FAILED|TIMEOUT|CANCELLED) || -z $now ]]; do
        [[ $now == "$before" ]] || echo "  after $((SECONDS - since)) s: $now"
        before=$now
        if [[ ! -s affinities ]] && grep -qs '^steps ' job.log; then
            affinities | tee affinities
        fi
        ((SECONDS - since < $2)) || fail "the job does not end:" job.log slurmctld.log
        sleep 0.5
    done
    ended=$(scontrol show job "$1" | sed -nE 's/.*JobState=(\S+).*/\1/p; s/.*(Restarts=\S+).*(ExitCode=\S+)/\1 \2/p' | tr '\n' ' ')
    echo "  after $((SECONDS - since)) s: $ended"
}
wait_for "$job" 900
[[ $ended == COMPLETED*ExitCode=0:0* ]] || fail "the job has not ended well:" job.log slurmd-*.log
[[ $ended != *Restarts=0* ]] || fail "the job was never put back:" job.log
! ((nodes == 1)) || [[ $(sed 's/.*: //' affinities | sort -u | wc -l) == 2 ]] || fail "the ranks are not bound to a processor each:" affinities
grep -q '^SIGUSR1: saving' job.log || fail "nobody has saved after the signal:" job.log
whole whole "$steps"
last=$(printf 'checkpoints/step-%08d.safetensors' "$steps")
cmp "whole/$last" "killed/$last" && echo "same as by mpirun without an end in between: $last ($(stat -c %s "whole/$last") bytes)"

echo "a job that fails ..."
wait_for "$(sed "s|$work/data|$work/nowhere|" job.sh | sbatch --parsable --nodes="$nodes" --ntasks-per-node=$((2 / nodes)) --cpus-per-task=1 --time=2 --output="$work/failed.log")" 60
[[ $ended == FAILED*ExitCode=1:0* ]] || fail "it does not look failed:" failed.log

# Processes that do not find each other must not each take themselves for the only one.
for kind in none pmi2; do
    ! srun --nodes="$nodes" --ntasks=2 --mpi="$kind" --time=1 --kill-on-bad-exit=1 hpcbn train --data "$work/data" --recipe quick --steps 2 --output alone >alone.log 2>&1 ||
        fail "ranks that do not see each other train:" alone.log
    [[ ! -e alone ]] || fail "ranks that do not see each other write:" alone.log
    echo "srun --mpi=$kind: refused"
done
