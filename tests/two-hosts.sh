#!/usr/bin/env bash
# Trains on two hosts of our own on this machine: network namespaces with a link between them of limited bandwidth, and with --delay of some length (link.c, since
# not every kernel has netem), Open MPI over TCP. Needs root, ip and tc (iproute2); with --delay gcc and /dev/net/tun.
#
#   tests/two-hosts.sh [--delay MS] [RATE]    default: no delay, 200mbit (tc's units); ./hpcbn must have been built, with MPI
#   HPCBN=FILE  the command to run instead of the one built here;  STEPS=N  steps of each training (40)
#   NETWORK=NAME, SIZE=N, BATCH=N  what is trained: inception-tiny, 32 pixels, 8 images a rank
#
# Passes (exit code 0) when
#   - a run over the link is the run of two ranks without it, bit for bit;
#   - after the link was cut all ranks end within their time limit and 5 s more, rank 0 saying who has not answered; and where Open MPI's daemons look after
#     their connections more often than that (oob_tcp_keepalive_time and its like), everything ends, the launcher too;
#   - over the mended link --resume auto goes on from the last checkpoint, to the state of a run that nobody cut.
# Prints the time of a step and the share of the averaging that was hidden behind the computation, beside those without the link and those that hpcbn bench
# predicts.
set -euo pipefail
delay=0
if [[ ${1:-} == --delay ]]; then
    delay=${2:?milliseconds}
    shift 2
fi
rate=${1:-200mbit}
mbit=$(sed -E 's/kbit$/ 1e-3/; s/mbit$/ 1/; s/gbit$/ 1e3/' <<<"$rate" | awk '{ print $1 * $2 }')
root=$(readlink -f "${BASH_SOURCE[0]}")
root=${root%/tests/*}
source "$root/tests/runs.sh"
source "$root/tests/ranks.sh"
((EUID == 0)) || { echo "making network namespaces needs root" >&2; exit 2; }
command -v tc >/dev/null || { echo "ip or tc is missing: apt-get install iproute2" >&2; exit 2; }

a=hpcbn-$$-a b=hpcbn-$$-b limit=60 options=() link=
put_away() {
    local namespace process
    for namespace in "$a" "$b"; do
        for process in $(ip netns pids "$namespace" 2>/dev/null) $link; do
            kill -9 "$process" 2>/dev/null || true
        done
        ip netns del "$namespace" 2>/dev/null || true
    done
}
for namespace in "$a" "$b"; do
    ip netns add "$namespace"
    ip -n "$namespace" link set lo up
done
if [[ $delay == 0 ]]; then
    ip link add name wire netns "$a" type veth peer name wire netns "$b"
    for namespace in "$a" "$b"; do
        ip netns exec "$namespace" tc qdisc add dev wire root tbf rate "$rate" burst 64kb latency 100ms
    done
    echo "a link of $rate each way, without a delay"
else
    gcc -O2 -o link "$root/tests/link.c"
    ./link "$a" "$b" wire "$delay" "$mbit" &
    link=$!
    until ip -n "$b" link set wire mtu 9000 2>/dev/null; do
        kill -0 "$link"
        sleep 0.1
    done
    ip -n "$a" link set wire mtu 9000
    echo "a link of $rate and $delay ms each way"
fi
ip -n "$a" address add 10.213.0.1/24 dev wire
ip -n "$b" address add 10.213.0.2/24 dev wire
for namespace in "$a" "$b"; do
    ip -n "$namespace" link set wire up
done

# What mpirun starts its daemon on the other host with, instead of ssh: HOST COMMAND...
cat >agent <<END
#!/bin/sh
shift
exec ip netns exec $b unshare --uts sh -c 'hostname host-b && exec sh -c "\$*"' sh "\$@"
END
chmod +x agent

words() { # OUTPUT [MORE...]
    printf '%s\n' "$command" train --recipe quick --data data --model "${NETWORK:-inception-tiny}" --image-size "${SIZE:-32}" -b "${BATCH:-8}" --steps "$steps" \
        --eval-every 0 --checkpoint-every 5 --log-every 5 --keep 100 -j 1 --name two --rank-timeout "${limit}s" --progress never --output "$@"
}
steps=${STEPS:-40}
near() { # OUTPUT [MORE...]: both ranks on this host, whose memory they share
    local all
    mapfile -t all < <(words "$@")
    exec mpirun -np 2 "${all[@]}"
}
far() { # OUTPUT [MORE...]: a rank on each of the two
    local all
    mapfile -t all < <(words "$@")
    exec ip netns exec "$a" unshare --uts sh -c 'hostname host-a && exec "$@"' sh \
        mpirun -np 2 --host 10.213.0.1:1,10.213.0.2:1 --mca plm_rsh_agent "$work/agent" --mca btl tcp,self \
        --mca oob_tcp_if_include 10.213.0.0/24 --mca btl_tcp_if_include 10.213.0.0/24 "${options[@]}" "${all[@]}"
}
check() { # LOG: shows the end of what failed
    tail -12 "$1" >&2
    exit 1
}
figure() { # RUN FIELD: its mean over the lines of metrics
    sed -nE "s/.*\"type\":\"train\".*\"$2\":([-+.eE0-9]+).*/\1/p" "$1/metrics.jsonl" | awk 'NR > 1 { sum += $1; n++ } END { printf "%.4g", n ? sum / n : 0 }'
}
report() { # RUN WORDS
    echo "$2: $(figure "$1" images_per_second) img/s, averaging $(figure "$1" communication_seconds_per_step) s a step, $(awk -v h="$(figure "$1" communication_hidden_share)" 'BEGIN { printf "%.0f", 100 * h }') % of it hidden"
}

"$command" sample data --classes 4 --train 80 --val 5 --image-size 40 >/dev/null
(near near) >near.log 2>&1 || check near.log
report near "two ranks on one host"
(far far) >far.log 2>&1 || check far.log
grep -q '2 machines' far.log || { echo "the ranks do not see two hosts:" >&2; check far.log; }
report far "two hosts"
last=$(printf 'checkpoints/step-%08d.safetensors' "$steps")
cmp "near/$last" "far/$last" && echo "same: $last ($(stat -c %s "far/$last") bytes)"

# What the model of hpcbn bench makes of one rank alone, beside what the two did.
gbits=$(awk -v mbit="$mbit" 'BEGIN { print 1e-3 * mbit }')
[[ $delay == 0 ]] || gbits+=@$delay
"$command" inspect --model "${NETWORK:-inception-tiny}" --classes 10 --json >network.json
"$command" bench --network network.json --image-size "${SIZE:-32}" -b "${BATCH:-8}" --threads 1 --steps 20 --no-verify --scaling --link "$gbits" >bench.log || check bench.log
awk -v link="$gbits" '$1 == link && $2 == 2 { print "predicted for two hosts: " $3 " ms a step, averaging " $4 " ms, " $5 " % of it hidden" }' bench.log
measured() { awk -v images="$((2 * ${BATCH:-8}))" -v speed="$(figure "$1" images_per_second)" 'BEGIN { printf "%.1f", 1000 * images / speed }'; }
echo "measured: $(measured far) ms a step over the link, $(measured near) without it"

# sever LIMIT [MPIRUN OPTIONS...]: a run that the link is cut in after its first checkpoint; ranks and everybody become its processes.
sever() {
    limit=$1 options=("${@:2}")
    before=$(newest || true)
    (far killed --resume auto) >cut.log 2>&1 &
    pid=$!
    await went_on
    everybody="$pid $(ip netns pids "$a" | tr '\n' ' ') $(ip netns pids "$b" | tr '\n' ' ')"
    ranks=$(for process in $everybody; do ! grep -qsz '^OMPI_COMM_WORLD_RANK=' "/proc/$process/environ" || echo "$process"; done)
    ip -n "$a" link set wire down
}

echo "the link is cut, and the ranks notice it first ..."
sever 5
all_gone $((limit + 5)) $ranks || { echo "ranks are left $((limit + 5)) s after the cut:" >&2; check cut.log; }
grep "has not answered rank 0" cut.log | cut -c1-250 || { echo "nobody is named:" >&2; check cut.log; }
echo "all ranks gone $took ms after the cut; last: $(basename "$(newest)")"
# mpirun cannot reach its daemon any more and waits for it until TCP gives up, a quarter of an hour; a queue would end it.
kill -9 "$pid" $everybody 2>/dev/null || true
wait "$pid" 2>/dev/null || true
ip -n "$a" link set wire up

echo "the link is cut, and Open MPI's daemons notice it first ..."
sever 60 --mca oob_tcp_keepalive_time 3 --mca oob_tcp_keepalive_intvl 1 --mca oob_tcp_keepalive_probes 2
all_gone 20 $everybody || { echo "processes are left 20 s after the cut:" >&2; check cut.log; }
code=0
wait "$pid" || code=$?
pid=
[[ $code != 0 ]] || { echo "the launcher ended with code 0:" >&2; check cut.log; }
echo "everything gone $took ms after the cut, code $code; last: $(basename "$(newest)")"
ip -n "$a" link set wire up

limit=60 options=()
(far killed --resume auto) >resumed.log 2>&1 || check resumed.log
cmp "near/$last" "killed/$last" && echo "resumed twice; same: $last"
