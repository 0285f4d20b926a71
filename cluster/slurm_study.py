"""A whole study as one Slurm job: Ray on the allocation's nodes, the study on that, and nothing of Ray left behind."""

import shlex

from cluster.settings import ClusterSettings, Slurm
from cluster.slurm import PORT, script_of

WARNING_SECONDS = 300
"""How long before the job's limit the study is ended, so that Ray is gone and the job queued again in time."""
STORE_BYTES = 1 << 30
"""Of a node's object store: splits and receipts pass through it, tables do not."""

_BODY = """\
set -uo pipefail
umask 077
{setup}mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
nodes=${{#hosts[@]}}
{port}
private={storage}/.ray-$SLURM_JOB_ID  # of this job, seen by all of its nodes and by its user alone
scratch=/tmp/idia-ray-$SLURM_JOB_ID   # on each node
mkdir -p "$private" || exit 1
export RAY_USAGE_STATS_ENABLED=0
{auth}running='' ended=''
end() {{ ended=$1; if [ -n "$running" ]; then kill "$running" 2> /dev/null; fi; }}
trap 'end stopped' TERM INT
trap 'end limit' USR1

# Runs a command that a signal to this script ends.
run() {{
    if [ -n "$ended" ]; then return 143; fi
    "$@" &
    running=$!
    local code=0
    wait "$running" || code=$?
    while kill -0 "$running" 2> /dev/null; do
        wait "$running"
        code=$?
    done
    running=''
    return "$code"
}}

clean_up() {{
    trap - EXIT
    trap '' TERM INT USR1
    local pid
    for pid in $(jobs -p); do kill "$pid" 2> /dev/null; done
    for _ in {{1..60}}; do
        if [ -z "$(jobs -rp)" ]; then break; fi
        sleep 0.5
    done
    for pid in $(jobs -rp); do kill -KILL "$pid" 2> /dev/null; done
    wait
    srun --overlap --nodes="$nodes" --ntasks-per-node=1 rm -rf "$scratch"
    rm -rf "$private"
    if [ "$ended" = limit ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {requeues} ]; then
        scontrol requeue "$SLURM_JOB_ID"
    fi
}}
trap clean_up EXIT

ip=127.0.0.1
if [ "$nodes" -gt 1 ]; then ip=$(python -m cluster.ray_nodes --towards "${{hosts[-1]}}") || exit 1; fi
srun --nodes=1 --ntasks=1 --nodelist="${{hosts[0]}}" {step} \\
    ray start --head --block --node-ip-address="$ip" --port="$port" --temp-dir="$scratch" \\
    --dashboard-host={dashboard} --dashboard-port=$((port + 20000)) \\
    --ray-client-server-port=$((60000 + SLURM_JOB_ID % 5000)) {resources} &
run python -m cluster.ray_nodes "$ip:$port" --seconds {wait} || exit
if [ "$nodes" -gt 1 ]; then
    others=$(IFS=,; echo "${{hosts[*]:1}}")
    srun --nodes=$((nodes - 1)) --ntasks=$((nodes - 1)) --nodelist="$others" --no-kill --kill-on-bad-exit=0 {step} \\
        ray start --block --address="$ip:$port" {resources} &
    run python -m cluster.ray_nodes "$ip:$port" --nodes "$nodes" --seconds {wait} || exit
fi
run {study} --address "$ip:$port"
"""
_CLOSED = """\
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$private/auth_token
head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \\n' > "$RAY_AUTH_TOKEN_PATH" || exit 1
"""
_OPEN = "export RAY_AUTH_MODE=disabled\n"


def study_script(settings: ClusterSettings, slurm: Slurm, wait_seconds: int = 600) -> str:
    """The script that runs the settings' study, for sbatch.

    The first node is head and worker. Ray asks for a token that is made anew for the job and readable by its user
    alone. Nodes that are not there after `wait_seconds` are not waited for; they may still join.
    """
    group = next(group for group in settings.groups if group.name == slurm.group)
    options = [
        f"--job-name={settings.name}",
        f"--nodes={slurm.nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={group.cpus}",
        f"--mem={group.memory_gib}G",
        *([f"--gpus-per-node={group.gpus}"] if group.gpus else []),
        f"--time={slurm.hours}:00:00",
        f"--output={settings.name}-%j.log",
        "--open-mode=append",
        "--requeue",
        "--no-kill",  # a lost node is Ray's business
        f"--signal=B:USR1@{WARNING_SECONDS}",
        *slurm.options,
    ]
    words = ["idia", "run", settings.study, "--set", f"out={settings.out(slurm.storage)}"]
    counts = [f"--num-cpus={group.cpus}", f"--num-gpus={group.gpus}", f"--object-store-memory={STORE_BYTES}"]
    body = _BODY.format(
        setup="".join(f"{line}\n" for line in slurm.setup),
        port=PORT,
        storage=shlex.quote(slurm.storage),
        auth=_CLOSED if settings.auth else _OPEN,
        requeues=slurm.requeues,
        step=f"--cpus-per-task={group.cpus}",
        dashboard=settings.dashboard_host,
        resources=" ".join(counts),
        wait=wait_seconds,
        study=shlex.join(words),
    )
    return script_of(options, body)
