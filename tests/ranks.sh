# Shared by the scripts that train in several processes (bash; sourced after runs.sh): Open MPI's settings, and how the processes of a job are found and ended.

command -v mpirun >/dev/null || { echo "mpirun is missing: apt-get install openmpi-bin libopenmpi-dev, then build again" >&2; exit 2; }
# As in the tests: root in a container, more processes than cores, a thread each.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none \
    OMPI_MCA_btl_vader_single_copy_mechanism=none OMP_NUM_THREADS=1

# processes LAUNCHER: a launcher's processes and theirs.
processes() {
    local child
    for child in $(pgrep -P "$1"); do
        echo "$child"
        processes "$child"
    done
}

# rank_process RANK LAUNCHER: the process of a rank; nothing where it does not run (any more, or yet).
rank_process() {
    local process
    for process in $(processes "$2"); do
        if grep -qzx "OMPI_COMM_WORLD_RANK=$1" "/proc/$process/environ" 2>/dev/null; then
            echo "$process"
            return
        fi
    done
}

# is_gone PROCESS: it has ended, though nobody may have asked for its exit code yet.
is_gone() { ! [[ -e /proc/$1 ]] || grep -qs '^State:.Z' "/proc/$1/status"; }

# all_gone SECONDS PROCESS...: waits for their end; false where it takes longer. took becomes the milliseconds.
all_gone() {
    local since process
    since=$(date +%s%3N)
    for process in "${@:2}"; do
        until is_gone "$process"; do
            took=$(($(date +%s%3N) - since))
            ((took < $1 * 1000)) || return 1
            sleep 0.02
        done
    done
    took=$(($(date +%s%3N) - since))
}
