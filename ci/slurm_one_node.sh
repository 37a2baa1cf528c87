#!/usr/bin/env bash
# A Slurm cluster of one node, this machine, for as long as a command runs:
#   ci/slurm_one_node.sh snakemake --profile profiles/slurm ...
# Needs root and Debian's packages: apt-get install slurmctld slurmd slurm-client munge
# Everything lies in a temporary folder with a key and ports of its own, and what was started here is
# ended at the end. The configuration is linked as /etc/slurm/slurm.conf (Snakemake's executor clears
# SLURM_CONF before it calls srun), so a machine that has one, a real cluster's node, is refused.
set -euo pipefail
[ $# -gt 0 ] || { echo "usage: $0 COMMAND [WORD...]" >&2; exit 2; }
for program in munged slurmctld slurmd sinfo; do
  command -v "$program" >/dev/null || {
    echo "$program is missing: apt-get install slurmctld slurmd slurm-client munge" >&2; exit 2; }
done
[ "$(id -u)" = 0 ] || { echo "slurmd needs root." >&2; exit 2; }
linked=/etc/slurm/slurm.conf
[ ! -e "$linked" ] || { echo "$linked exists: this machine has a cluster of its own." >&2; exit 2; }

home=$(mktemp -d)
started=()
stop() {
  status=$?
  [ "$status" = 0 ] || tail -n 15 "$home"/*.log >&2 || true
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${started[@]}"; do
    for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$pid" 2>/dev/null || true
  done
  rm -f "$linked" "$(dirname "$linked")/gres.conf"
  rm -rf "$home"
}
trap stop EXIT

node=$(hostname -s)
read -r first second < <(python3 - <<'PY'
import socket
taken = [socket.socket() for _ in range(2)]
for one in taken:
    one.bind(("", 0))
print(*(one.getsockname()[1] for one in taken))
PY
)
mkdir "$home/state" "$home/spool"
(umask 077 && head -c 1024 /dev/urandom > "$home/munge.key")

# The node claims more than it may have, so that the profile runs here exactly as it is: 8 cores and
# a GPU a job (the GPU is /dev/null; the jobs of this test need none).
cat > "$home/slurm.conf" <<CONF
ClusterName=one
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$first
SlurmdPort=$second
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$home/munge.socket
CredType=cred/munge
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool
SlurmctldPidFile=$home/slurmctld.pid
SlurmdPidFile=$home/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=$node NodeAddr=127.0.0.1 CPUs=16 RealMemory=96000 Gres=gpu:1 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
echo "NodeName=$node Name=gpu File=/dev/null" > "$home/gres.conf"
mkdir -p "$(dirname "$linked")"
ln -sf "$home/slurm.conf" "$linked"
ln -sf "$home/gres.conf" "$(dirname "$linked")/gres.conf"

munged --foreground --force --key-file="$home/munge.key" --socket="$home/munge.socket" \
  --pid-file="$home/munged.pid" --log-file="$home/munged.log" --seed-file="$home/munged.seed" \
  > "$home/munged.out.log" 2>&1 &
started+=($!)
for _ in $(seq 50); do [ -S "$home/munge.socket" ] && break; sleep 0.1; done
slurmctld -D -c > "$home/slurmctld.log" 2>&1 &
started=($! "${started[@]}")
slurmd -D > "$home/slurmd.log" 2>&1 &
started=($! "${started[@]}")
for _ in $(seq 100); do
  [ "$(sinfo --noheader --format=%T 2>/dev/null || true)" = idle ] && break
  sleep 0.2
done
[ "$(sinfo --noheader --format=%T)" = idle ] || { echo "the node does not come up:" >&2; exit 1; }
"$@"
